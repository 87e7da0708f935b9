// check.mjs: what must be true of a case that has ended, whatever happened to it.
// Gives the list of violations.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { bin, processesOf, until } from '../e2e/lib/lhd.mjs';

/** The arrows of daemon/jobs/job.c, written down a second time. */
const LIVE = ['STARTING', 'RUNNING', 'PAUSED', 'SWITCHING'];
const LEGAL = {
  QUEUED: ['STARTING', 'CANCELLED'],
  STARTING: ['RUNNING', 'PAUSED', 'STOPPING', 'RESTARTING'],
  RUNNING: ['PAUSED', 'SWITCHING', 'STOPPING', 'RESTARTING'],
  PAUSED: ['RUNNING', 'SWITCHING', 'STOPPING', 'RESTARTING'],
  SWITCHING: ['RUNNING', 'PAUSED', 'STOPPING', 'RESTARTING'],
  STOPPING: ['DONE', 'FAILED', 'CANCELLED', 'QUEUED', 'RESTARTING'],
  RESTARTING: ['STARTING', 'FAILED', 'CANCELLED', 'QUEUED'],
};

export const sql = (db, query) => {
  const text = execFileSync('sqlite3', ['-readonly', '-json', db, query], { encoding: 'utf8', maxBuffer: 64 << 20 });
  return text.trim() ? JSON.parse(text) : [];
};

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

function checkStates(db, bad) {
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

function checkSteps(db, bad) {
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

function checkCommands(db, accepted, bad) {
  const rows = sql(db, "select id, method, outcome from commands where method <> 'job.submit' and method like 'job.%'");
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

function checkFiles(c, db, bad) {
  const job = join(c.state, 'jobs', String(c.job)), dir = join(job, 'checkpoints');
  const [{ step }] = sql(db, 'select step from jobs');
  const names = existsSync(dir) ? readdirSync(dir) : [];
  for (const name of names) {
    if (name.endsWith('.tmp') && c.last.state !== 'DONE') continue; // torn, and nobody came to save again
    if (!/^step-\d+$/.test(name)) bad.push(`'${name}' is left among the checkpoints`);
    else if (spawnSync(bin('lhctl'), ['verify', join(dir, name)], { env: { ...process.env, LH_FAILPOINT_DIR: '' } }).status) bad.push(`checkpoint '${name}' is damaged`);
  }
  // A cancel that came between two workers leaves what there was.
  if (c.last.state === 'DONE' && !names.includes(`step-${String(step).padStart(10, '0')}`)) bad.push(`there is no checkpoint of the last step, ${step}: ${names}`);
  if (existsSync(join(c.state, 'control.sock'))) bad.push('the control socket is left');
  for (const name of readdirSync(c.state)) if (name.endsWith('.tmp')) bad.push(`'${name}' is left in the state directory`);
}

/** `reference(switchStep or null)`: losses of the run that nothing happened to. */
export async function check(c, reference) {
  const bad = [], db = join(c.state, 'lighthouse.db');
  const left = await until('processes end', () => !processesOf(c.dir).length, 5000).then(() => [], () => processesOf(c.dir));
  if (left.length) bad.push(`processes are left: ${left}`);
  const want = c.kind === 'rewind' ? 'CANCELLED' : 'DONE';
  if (c.last.state !== want) bad.push(`the job is ${c.last.state}: ${c.last.reason}`);
  checkStates(db, bad);
  checkSteps(db, bad);
  checkCommands(db, c.accepted, bad);
  checkPhases(db, bad);
  checkFiles(c, db, bad);

  const line = lineOf(db), losses = lossesOf(db);
  const entered = [...line.values()].find((s) => s.phase === 1);
  const expected = await reference(c.kind === 'rewind' || !entered ? null : entered.step - 1);
  const count = losses.size, end = c.last.step;
  if (count !== end) bad.push(`${count} steps of ${end} are in the store`);
  for (let s = 1; s <= end; s++)
    if (losses.get(s) !== expected.get(s)) {
      bad.push(`the loss of step ${s} is ${losses.get(s)}, undisturbed ${expected.get(s)}`);
      break;
    }
  return bad;
}
