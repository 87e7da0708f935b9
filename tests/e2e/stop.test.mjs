// stop.test.mjs: lhd told to end, whatever its workers and it are at: it ends in its
// time, and in the end every loss and every evaluation is as if nobody had told it.
// And lhd that starts anew while they go on. Needs a build with FAILPOINTS=1: a
// process that is held at one is in that state for sure.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

process.env.LH_BUILD = join(resolve(process.env.LH_BUILD ?? 'build'), 'fail');
const { Lhd, atEnd, until, scratch, packText, submit, losses, processesOf, bin } = await import('./lib/lhd.mjs');

const done = (j) => j.state === 'DONE';
const upTo = (n) => Array.from({ length: n }, (_, i) => i + 1);
const JOB = { batch: { sequences: 2, micro_sequences: 1 }, evaluation: { sequences: 1, every_steps: 30, passkey: { every_steps: 30, from_tokens: 64, samples: 1 },
  choices: { every_steps: 30, files: 'quiz.jsonl' } } };
const QUIZ = Array.from({ length: 8 }, (_, i) => JSON.stringify({ ctx: `line ${i}: the`, endings: ['lamp turns', 'zebra quacks'], label: 0 }) + '\n').join('');
const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }], checkpoint: { every_steps: 20, keep: 2 } };

/** Failpoints held once: `there(name)` waits until one is, `free(name)` lets it go. */
class Points {
  constructor(dir, holds) {
    this.dir = join(dir, 'points');
    mkdirSync(this.dir);
    this.env = { LH_FAILPOINT_DIR: this.dir, LH_FAILPOINTS: Object.entries(holds).map(([name, at]) => `${name}=hold@${at}`).join(',') };
  }

  there(name) { return until(`${name} is held`, () => existsSync(join(this.dir, `done-${name}-hold`))); }
  hit(name) { return until(`${name} is come to`, () => existsSync(join(this.dir, `hit-${name}`))); }
  free(name) { writeFileSync(join(this.dir, `free-${name}`), ''); }
}

async function fresh(t, holds = {}, args = []) {
  const dir = scratch(t);
  packText(dir);
  writeFileSync(join(dir, 'quiz.jsonl'), QUIZ);
  const points = new Points(dir, holds);
  const lhd = await Lhd.start(t, dir, args, { env: points.env });
  return { lhd, points };
}

const evaluations = (lhd, job) => lhd.sql(`select step, reason, loss from evaluations where job=${job} order by attempt, seq`);
/** Told of once each, whatever was abandoned; the passkeys found and the endings chosen are the weights'. */
const looks = (lhd, job) => lhd.sql(`select step, kind, json_extract(data_json, '$.found') found, json_extract(data_json, '$.sets') sets from looks where job=${job} order by attempt, seq`);
const outcomes = (lhd, job) => lhd.sql(`select outcome from attempts where job=${job} order by attempt`).map((a) => a.outcome);

/** The job is as another one that nothing happened to. */
async function isAsUndisturbed(lhd, job) {
  await lhd.jobUntil(job, 'DONE', done);
  const quiet = await submit(lhd, { ...JOB, name: 'quiet' });
  await lhd.jobUntil(quiet, 'DONE', done);
  await until('both are stored', () => evaluations(lhd, quiet).at(-1)?.reason === 'end' && evaluations(lhd, job).at(-1)?.reason === 'end');
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
  assert.deepEqual(evaluations(lhd, job), evaluations(lhd, quiet));
  assert.deepEqual(looks(lhd, job), looks(lhd, quiet));
  assert.equal((await lhd.call('job.get', { job })).restarts, 0);
}

// In order: start, 30 and 60 with both attentions, before and after the switch, 90, end.
const STATES = [
  ['before its worker has dialled', 'worker.dial', 1, 'STARTING'],
  ['while it opens its data', 'data.open', 1, 'STARTING'],
  ['while it is prepared', 'prepare.phase', 1, 'STARTING'],
  ['while it evaluates at the start', 'eval.batch', 1, 'RUNNING'],
  ['while it evaluates between steps', 'eval.batch', 2, 'RUNNING'],
  ['while it evaluates with the attention of the phase', 'eval.batch', 3, 'RUNNING'],
  ['while it evaluates before a switch', 'eval.batch', 6, 'SWITCHING'],
  ['while it evaluates after a switch', 'eval.batch', 7, 'RUNNING'],
  ['while it evaluates at the end', 'eval.batch', 9, 'STOPPING'],
  ['while it looks at what is selected', 'look.batch', 1, 'RUNNING'],
  ['while it asks for passkeys', 'look.batch', 5, 'RUNNING'],
  ['while it asks multiple choice', 'look.batch', 20, 'RUNNING'],
  ['in the middle of a step', 'step.micro', 12, 'RUNNING'],
  ['while a checkpoint is written', 'checkpoint.written', 1, 'RUNNING'],
];

for (const [what, point, at, state] of STATES)
  test(`SIGTERM to lhd, ${what}`, async (t) => {
    const { lhd, points } = await fresh(t, { [point]: at });
    const job = await submit(lhd, JOB);
    await points.there(point);
    await until(state, async () => (await lhd.call('job.get', { job })).state === state);
    const end = lhd.end('SIGTERM');
    await until('it is told', () => /stopping: /.test(lhd.log()));
    if (point !== 'worker.dial') await points.hit('link.told');
    points.free(point);
    assert.deepEqual(await end, { code: 0, signal: null });
    assert.deepEqual(processesOf(lhd.dir), []);
    assert.deepEqual(outcomes(lhd, job), ['stopped']);
    assert.deepEqual(lhd.sql("select kind from events where kind='worker.kill'"), []);
    await lhd.boot();
    await isAsUndisturbed(lhd, job);
    assert.deepEqual(outcomes(lhd, job), ['stopped', 'done']);
  });

test('SIGINT to lhd while a job is paused: it stays so', async (t) => {
  const { lhd } = await fresh(t);
  const job = await submit(lhd, JOB);
  await lhd.call('job.pause', { job });
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  assert.deepEqual(await lhd.end('SIGINT'), { code: 0, signal: null });
  await lhd.boot();
  assert.match((await lhd.call('job.get', { job })).reason, /^paused at step/);
  await lhd.call('job.resume', { job });
  await isAsUndisturbed(lhd, job);
});

test('a second signal ends lhd at once and leaves its worker to the next', async (t) => {
  const { lhd, points } = await fresh(t, { 'eval.batch': 2 });
  const job = await submit(lhd, JOB);
  await points.there('eval.batch');
  lhd.process.kill('SIGTERM');
  await points.hit('link.told');
  const worker = await lhd.workerPid(job);
  assert.deepEqual(await lhd.end('SIGTERM'), { code: 1, signal: null });
  assert.ok(processesOf(lhd.dir).includes(worker));
  await lhd.boot();
  points.free('eval.batch');
  await isAsUndisturbed(lhd, job);
});

test('a signal that comes while lhd starts: it finds its workers and stops them', async (t) => {
  const { lhd, points } = await fresh(t);
  const job = await submit(lhd, LONG), waiting = await submit(lhd, JOB);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  await lhd.end('SIGKILL');
  lhd.env.LH_FAILPOINTS = 'lhd.open=hold@1';
  lhd.spawn();
  await points.there('lhd.open');
  lhd.process.kill('SIGTERM');
  points.free('lhd.open');
  assert.deepEqual(await lhd.exited, { code: 0, signal: null });
  assert.deepEqual(processesOf(lhd.dir), []);
  assert.deepEqual(outcomes(lhd, job), ['stopped']);
  assert.deepEqual(outcomes(lhd, waiting), []);
});

test('a second one while it starts ends it at once', async (t) => {
  const dir = scratch(t), points = new Points(dir, { 'lhd.open': 1 });
  const lhd = new Lhd(t, dir, [], { env: points.env });
  atEnd(t, () => lhd.destroy());
  lhd.spawn();
  await points.there('lhd.open');
  lhd.process.kill('SIGTERM');
  lhd.process.kill('SIGINT'); // two of a kind may come as one
  assert.deepEqual(await lhd.exited, { code: 1, signal: null });
});

test('a locked database does not keep lhd from ending, nor loses what it did not take', async (t) => {
  const { lhd } = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const lock = spawn('sqlite3', [lhd.db], { stdio: ['pipe', 'pipe', 'inherit'] });
  atEnd(t, () => lock.kill('SIGKILL'));
  const locked = new Promise((r) => { lock.stdout.once('data', r); });
  lock.stdin.write('.timeout 5000\nBEGIN IMMEDIATE;\nSELECT 1;\n');
  await locked;
  lhd.call('job.pause', { job }).catch(() => {}); // waits for the journal, in vain
  assert.deepEqual(await lhd.end('SIGTERM'), { code: 0, signal: null });
  assert.deepEqual(processesOf(lhd.dir), [lock.pid]);
  assert.equal(lock.exitCode, null, 'it was not locked all the time');
  lock.stdin.end('ROLLBACK;\n');
  await lhd.boot();
  await lhd.jobUntil(job, 'it goes on', (j) => j.attempt === 2 && j.state === 'RUNNING' && j.step > 0);
  const [{ first_step: first }] = lhd.sql(`select first_step from attempts where job=${job} and attempt=2`);
  assert.deepEqual(lhd.sql(`select step from steps where job=${job} and attempt=1 order by step`).map((s) => s.step), upTo(first));
  assert.deepEqual(outcomes(lhd, job), ['stopped', null]);
  assert.equal((await lhd.call('job.get', { job })).restarts, 0);
});

test('a job of higher priority takes the place, and the other goes on with the same losses', async (t) => {
  const { lhd } = await fresh(t);
  const job = await submit(lhd, JOB);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 5);
  const high = await submit(lhd, { ...JOB, name: 'high' }, { priority: 5 });
  await lhd.jobUntil(high, 'DONE', done);
  await isAsUndisturbed(lhd, job);
  assert.deepEqual(outcomes(lhd, job), ['stopped', 'done']);
  const [{ text }] = lhd.sql(`select text from events where job=${job} and kind='job.preempted'`);
  assert.equal(text, `job ${high} 'high' of priority 5 takes its place`);
});

// ---- lhd that starts anew -------------------------------------------------------

const lhctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', timeout: 60_000 });
const zombies = (pid) => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
  .filter((child) => { try { return /^State:\s+Z/m.test(readFileSync(`/proc/${child}/status`, 'utf8')); } catch { return false; } });

test('lhctl restart: another lhd in the same process, the worker goes on, no step is missing', async (t) => {
  const { lhd } = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const worker = await lhd.workerPid(job);
  for (const generation of [2, 3]) {
    const { step } = await lhd.call('job.get', { job });
    const r = lhctl(lhd, 'restart', '-m', 'new version');
    assert.equal(r.status, 0, r.stderr);
    assert.match(r.stdout, new RegExp(`^lhd .* runs, pid ${lhd.process.pid}, generation ${generation}\n$`));
    lhd.client = await lhd.connect();
    await lhd.jobUntil(job, 'it goes on', (j) => j.state === 'RUNNING' && j.step > step + 20);
  }
  assert.equal(await lhd.workerPid(job), worker);
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, upTo(keys.length));
  assert.equal((await lhd.call('job.show', { job })).attempts.length, 1);
  const rows = lhd.sql("select outcome, program, message, uid from commands where method='daemon.restart'");
  assert.deepEqual(rows, [1, 2].map(() => ({ outcome: 'applied', program: 'lhctl', message: 'new version', uid: process.getuid() })));

  // The worker's keeper is a child that this lhd did not start.
  await lhd.call('job.cancel', { job });
  await lhd.jobUntil(job, 'CANCELLED', (j) => j.state === 'CANCELLED');
  await until('nothing is left of it', () => processesOf(lhd.dir).length === 1 && !zombies(lhd.process.pid).length);
  assert.deepEqual(await lhd.end('SIGTERM'), { code: 0, signal: null });
});

test('a signal that comes in the middle of a restart stops the workers all the same', async (t) => {
  const { lhd, points } = await fresh(t, { 'lhd.restart': 1 });
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  assert.equal((await lhd.call('daemon.restart', {})).state, 'restarting');
  await points.there('lhd.restart');
  lhd.process.kill('SIGTERM');
  points.free('lhd.restart');
  assert.deepEqual(await lhd.exited, { code: 0, signal: null });
  assert.deepEqual(processesOf(lhd.dir), []);
  assert.deepEqual(outcomes(lhd, job), ['stopped']);
});
