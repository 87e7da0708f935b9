// check.mjs: what must be true of a case that has ended, whatever happened to it.
// Gives the list of violations.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { bin, processesOf, until } from '../e2e/lib/lhd.mjs';

/** The arrows of daemon/jobs/job.c, written down a second time. */
const LIVE = ['STARTING', 'RUNNING', 'PAUSED', 'SWITCHING'];
export const LEGAL = {
  QUEUED: ['STARTING', 'CANCELLED'],
  STARTING: ['RUNNING', 'PAUSED', 'STOPPING', 'RESTARTING'],
  RUNNING: ['PAUSED', 'SWITCHING', 'STOPPING', 'RESTARTING'],
  PAUSED: ['RUNNING', 'SWITCHING', 'STOPPING', 'RESTARTING'],
  SWITCHING: ['RUNNING', 'PAUSED', 'STOPPING', 'RESTARTING'],
  STOPPING: ['DONE', 'FAILED', 'CANCELLED', 'QUEUED', 'RESTARTING'],
  RESTARTING: ['STARTING', 'FAILED', 'CANCELLED', 'QUEUED'],
};

/** `db`: {file, job}. A query sees the rows of that job alone. */
const sql = ({ file, job }, query) => {
  const rows = ['attempts', 'steps', 'rollups', 'events', 'checkpoints', 'commands'].map((t) => `${t} as (select * from main.${t} where job=${job})`);
  const text = execFileSync('sqlite3', ['-readonly', '-json', file, `with jobs as (select * from main.jobs where id=${job}), ${rows.join(', ')} ${query}`], { encoding: 'utf8', maxBuffer: 64 << 20 });
  return text.trim() ? JSON.parse(text) : [];
};

const nameOf = (step) => `step-${String(step).padStart(10, '0')}`;

/** {step: row} of the line of attempts that counts, from the store. */
function lineOf(db) {
  const attempts = sql(db, 'select attempt, first_step from attempts order by attempt');
  const out = new Map();
  for (const s of sql(db, 'select attempt, step, phase, loss from steps order by attempt, step')) {
    const undone = attempts.some((a) => a.attempt > s.attempt && a.first_step !== null && a.first_step < s.step);
    if (!undone) out.set(s.step, s);
  }
  return out;
}

export const lossesOf = (db) => new Map([...lineOf(db)].map(([step, s]) => [step, s.loss]));

export function checkStates(db, bad) {
  let now = null;
  for (const { id, data_json: data } of sql(db, "select id, data_json from events where kind='job.state' order by id")) {
    const { from, to } = JSON.parse(data);
    if (now && from !== now) bad.push(`event ${id}: from ${from}, but the job was ${now}`);
    if (!LEGAL[from]?.includes(to)) bad.push(`event ${id}: ${from} -> ${to} is not legal`);
    now = to;
  }
  const [row] = sql(db, 'select state from jobs');
  if (row.state !== now) bad.push(`the job is ${row.state}, its last event says ${now}`);
  if (LIVE.includes(now)) bad.push(`the job ended as ${now}`);
}

export function checkSteps(db, bad) {
  let saved = 0, back = false;
  for (const a of sql(db, 'select attempt, first_step, outcome, ended_ms from attempts order by attempt')) {
    const [s] = sql(db, `select count(*) n, min(step) lo, max(step) hi from steps where attempt=${a.attempt}`);
    if (a.ended_ms === null || a.outcome === null) bad.push(`attempt ${a.attempt} has no end`);
    const [{ n: undid }] = sql(db, `select count(*) n from events where kind='switch.reverted' and attempt=${a.attempt}`);
    back ||= undid > 0; // by the end of the one before, or as its own first act
    if (s.n && (s.lo !== a.first_step + 1 || s.hi - s.lo + 1 !== s.n)) bad.push(`attempt ${a.attempt} from step ${a.first_step}: ${s.n} steps, ${s.lo} to ${s.hi}`);
    if (s.n && !back && a.first_step < saved) bad.push(`attempt ${a.attempt} began at step ${a.first_step}, there was a checkpoint of ${saved}`);
    if (s.n || a.outcome === 'rewound') back = a.outcome === 'rewound';
    const [c] = sql(db, `select max(step) step from checkpoints where attempt=${a.attempt}`);
    saved = back || undid ? c.step ?? 0 : Math.max(saved, c.step ?? 0);
  }
}

/** Steps and their rollups were committed together, whatever was cut off. */
function checkRollups(db, bad) {
  const kept = 'select attempt, block, steps, first_step, last_step, tokens, loss_count, loss_min, loss_max from rollups where level=';
  for (let level = 1; level <= 5; level++) {
    const made = `select attempt, step >> ${4 * level}, count(*), min(step), max(step), sum(tokens), count(loss), min(loss), max(loss) from steps group by 1, 2`;
    const [{ n }] = sql(db, `select (select count(*) from (${made} except ${kept}${level})) + (select count(*) from (${kept}${level} except ${made})) n`);
    if (n) bad.push(`${n} rollups of level ${level} are not what the steps make`);
  }
}

export function checkCommands(db, accepted, bad) {
  const rows = sql(db, "select id, method, outcome from commands where method not in ('job.submit', 'job.replay') and method like 'job.%'");
  const told = sql(db, "select json_extract(data_json, '$.command') id, count(*) n from events where kind in ('command.applied', 'command.refused') group by 1");
  for (const r of rows) {
    if (!r.outcome) bad.push(`command ${r.id} (${r.method}) has no outcome`);
    const n = told.find((t) => t.id === r.id)?.n ?? 0;
    if (n !== 1) bad.push(`command ${r.id} (${r.method}) was told of ${n} times`);
  }
  for (const id of accepted) if (!rows.some((r) => r.id === id)) bad.push(`command ${id} was accepted and is not in the journal`);
  if (new Set(accepted).size !== accepted.length) bad.push('two requests got one command');
}

/** What the worker itself did, by its records: an applied command posts its outcome once. */
function checkPhases(db, bad) {
  const [{ n: switches }] = sql(db, "select count(*) n from commands where method='job.switch' and outcome in ('applied', 'reverted')");
  const entered = sql(db, "select attempt, count(*) n from events where kind='job.phase' and json_extract(data_json, '$.reason')='by command' group by attempt");
  for (const e of entered) if (e.n > switches) bad.push(`attempt ${e.attempt} switched ${e.n} times by ${switches} commands`);
}

/** A command that is applied twice saves twice. */
function checkSaves(db, bad) {
  const [{ n: asked }] = sql(db, "select count(*) n from commands where method='job.checkpoint'");
  for (const s of sql(db, "select attempt, count(*) n from checkpoints where reason='by command' group by attempt"))
    if (s.n > asked) bad.push(`attempt ${s.attempt} saved ${s.n} times by ${asked} commands`);
}

/** Left by a write that was torn, and that somebody should have cleared. */
const torn = (dir) => readdirSync(dir).filter((name) => name.endsWith('.tmp')).map((name) => join(dir, name));

function checkFiles(c, db, state, bad) {
  const job = join(c.state, 'jobs', String(db.job)), dir = join(job, 'checkpoints');
  const [{ step }] = sql(db, 'select step from jobs');
  const names = existsSync(dir) ? readdirSync(dir) : [];
  for (const name of names) {
    if (name.endsWith('.tmp') && state !== 'DONE') continue; // torn, and nobody came to save again
    if (!/^step-\d+$/.test(name)) bad.push(`'${name}' is left among the checkpoints`);
    else if (spawnSync(bin('lhctl'), ['verify', join(dir, name)], { env: { ...process.env, LH_FAILPOINT_DIR: '' } }).status) bad.push(`checkpoint '${name}' is damaged`);
  }
  // A cancel that came between two workers leaves what there was.
  if (state === 'DONE' && !names.includes(nameOf(step))) bad.push(`there is no checkpoint of the last step, ${step}: ${names}`);
  for (const { step: at } of sql(db, "select step from commands where method='job.checkpoint' and outcome='applied' and json_extract(args_json, '$.pin')"))
    if (!existsSync(join(dir, nameOf(at), 'pinned')) && !existsSync(join(dir, `${nameOf(at)}.left`))) bad.push(`the pinned checkpoint of step ${at} is gone: ${names}`);
  for (const name of readdirSync(job).filter((n) => n.startsWith('attempt-'))) bad.push(...torn(join(job, name)).map((file) => `'${file}' is left`));
}

function checkState(c, bad) {
  for (const name of ['control.sock', 'worker.sock']) if (existsSync(join(c.state, name))) bad.push(`${name} is left`);
  bad.push(...torn(c.state).map((file) => `'${file}' is left`));
  // Out of memory is said, by whoever it was.
  const logs = [join(c.dir, 'lhd.log'), ...readdirSync(c.state, { recursive: true }).filter((n) => n.endsWith('worker.log')).map((n) => join(c.state, n))];
  if (c.points().done.includes('alloc-error') && !logs.some((log) => readFileSync(log, 'utf8').includes('out of memory: '))) bad.push('an allocation failed and nobody said so');
}

/** What must be true of one of the case's jobs, which ended as `last`. */
async function checkJob(c, last, reference, bad) {
  const db = { file: join(c.state, 'lighthouse.db'), job: last.job };
  const want = c.kind === 'rewind' ? 'CANCELLED' : 'DONE';
  if (last.state !== want) bad.push(`job ${last.job} is ${last.state}: ${last.reason}`);
  checkStates(db, bad);
  checkSteps(db, bad);
  checkRollups(db, bad);
  checkCommands(db, c.accepted.filter((a) => a.job === last.job).map((a) => a.command), bad);
  checkPhases(db, bad);
  checkSaves(db, bad);
  checkFiles(c, db, last.state, bad);

  const line = lineOf(db), losses = lossesOf(db);
  const entered = [...line.values()].find((s) => s.phase === 1);
  const expected = await reference(c.kind === 'rewind' || !entered ? null : entered.step - 1);
  const count = losses.size, end = last.step;
  if (count !== end) bad.push(`${count} steps of ${end} are in the store`);
  for (let s = 1; s <= end; s++)
    if (losses.get(s) !== expected.get(s)) {
      bad.push(`the loss of step ${s} is ${losses.get(s)}, undisturbed ${expected.get(s)}`);
      break;
    }
}

/** `reference(switchStep or null)`: losses of the run that nothing happened to. */
export async function check(c, reference) {
  const bad = [];
  const left = await until('processes end', () => !processesOf(c.dir).length, 5000).then(() => [], () => processesOf(c.dir));
  if (left.length) bad.push(`processes are left: ${left}`);
  checkState(c, bad);
  for (const last of c.last) await checkJob(c, last, reference, bad);
  return bad;
}
