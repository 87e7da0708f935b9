// life.test.mjs: a job's life against real processes: run, switch, pause, lose
// a worker, lose the daemon, stop and go on.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync, existsSync, readdirSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Lhd, until, scratch, packText, submit, losses, processesOf, bin } from './lib/lhd.mjs';


async function fresh(t, args) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir, args);
}

const done = (j) => j.state === 'DONE';
const stepsUpTo = (n) => Array.from({ length: n }, (_, i) => i + 1);
/** A job long enough to be still running while a test acts on it. */
const LONG = { phases: [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: 100000 } },
  { name: 'recovery', attention: 'full', until: { steps: 30 } },
] };

test('a two-phase job runs to the end and every step is stored once', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd);
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual([...(await losses(lhd, job)).keys()], stepsUpTo(100));
  const show = await lhd.call('job.show', { job });
  assert.deepEqual(show.phases.map((p) => [p.name, p.first_step]), [['lighthouse', 0], ['recovery', 60]]);
  assert.deepEqual(show.evaluations.map((e) => e.reason), ['start', 'before_switch', 'after_switch', 'end']);
  assert.ok(show.evaluations.every((e) => e.attention === 'full'));
  assert.ok(show.evaluations.at(-1).loss < show.evaluations[0].loss - 0.5, 'it learned nothing');
  assert.equal(show.attempts.length, 1);
  assert.equal(show.attempts[0].outcome, 'done');
  const phases = lhd.sql(`select phase, count(*) n from steps where job=${job} group by phase`);
  assert.deepEqual(phases, [{ phase: 0, n: 60 }, { phase: 1, n: 40 }]);
  await until('no worker is left', () => processesOf(lhd.dir).length === 1);
});

test('lhctl switch changes the phase of a running job at a step boundary', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command, state } = await lhd.call('job.switch', { job, message: 'test', program: 'life' });
  assert.equal(state, 'accepted');
  await lhd.jobUntil(job, 'DONE', done);
  const [row] = lhd.sql(`select outcome, step, message, program from commands where id=${command}`);
  assert.equal(row.outcome, 'applied');
  assert.equal(row.program, 'life');
  const [first] = lhd.sql(`select min(step) s, max(step) e from steps where job=${job} and phase=1`);
  assert.equal(first.s, row.step + 1);
  assert.equal(first.e, row.step + 30);
  const states = lhd.sql(`select text from events where job=${job} and kind='job.state' order by id`).map((e) => e.text).join('\n');
  assert.match(states, /RUNNING -> SWITCHING[\s\S]*SWITCHING -> RUNNING/);
});

test('a killed lhd finds its worker again and no step is missing', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const pid = await lhd.workerPid(job);
  const [before] = lhd.sql(`select max(step) s from steps where job=${job}`);
  await lhd.end('SIGKILL');
  assert.ok(processesOf(lhd.dir).includes(pid), 'the worker died with lhd');
  await lhd.boot();
  await lhd.jobUntil(job, 'training went on', (j) => j.state === 'RUNNING' && j.step >= (before.s ?? 0) + 20);
  assert.equal(await lhd.workerPid(job), pid, 'another worker');
  await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'DONE', done);
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, stepsUpTo(keys.length));
  assert.equal((await lhd.call('job.show', { job })).attempts.length, 1);
});

test('a job that ended while no lhd was there is found DONE with all its steps', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 5);
  await lhd.end('SIGKILL');
  await until('the worker ends by itself', () => processesOf(lhd.dir).length === 0, 90_000);
  await lhd.boot();
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual([...(await losses(lhd, job)).keys()], stepsUpTo(100));
});

test('a killed worker goes on from its checkpoint with the same losses, switch included', async (t) => {
  const lhd = await fresh(t);
  // Long enough that neither kill comes when all is over.
  const [lighthouse, recovery] = LONG.phases;
  const phases = [{ ...lighthouse, until: { steps: 600 } }, { ...recovery, until: { steps: 1000 } }];
  const quiet = await submit(lhd, { name: 'quiet', phases });
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { name: 'hurt', phases });
  for (const at of [150, 650]) {
    await lhd.jobUntil(job, `step ${at}`, (j) => j.step >= at && j.state === 'RUNNING');
    process.kill(await lhd.workerPid(job), 'SIGKILL');
    const { attempt } = await lhd.call('job.get', { job });
    await lhd.jobUntil(job, 'another attempt', (j) => j.attempt > attempt);
  }
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
  const { attempts, summary } = await lhd.call('job.show', { job });
  assert.equal(attempts.length, 3);
  assert.equal(summary.restarts, 0); // it got past both places
  assert.deepEqual(attempts.map((a) => a.outcome), ['lost', 'lost', 'done']);
  assert.equal(attempts[0].exit_signal, 9);
});

test('a switch by command is re-applied at its step after the worker is lost', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...LONG, checkpoint: { every_steps: 0, keep: 2 } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'recovery', (j) => j.phase === 1 && j.state === 'RUNNING');
  const pid = await lhd.workerPid(job);
  process.kill(pid, 'SIGKILL');
  await lhd.jobUntil(job, 'DONE', done);
  const [row] = lhd.sql(`select step from commands where id=${command}`);
  const [first] = lhd.sql(`select min(step) s from steps where job=${job} and phase=1`);
  assert.equal(first.s, row.step + 1);
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, stepsUpTo(row.step + 30));
});

test('restarts run out: the job fails and says what the worker died of', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...LONG, restarts: 1, checkpoint: { every_steps: 0, keep: 2 } });
  for (const n of [1, 2]) {
    await lhd.jobUntil(job, `attempt ${n} runs`, (j) => j.attempt === n && j.state === 'RUNNING' && j.step > 0);
    process.kill(await lhd.workerPid(job), 'SIGKILL');
  }
  const j = await until('FAILED', async () => {
    const got = await lhd.call('job.get', { job });
    return got.state === 'FAILED' && got;
  });
  assert.match(j.reason, /signal 9/);
  // What is shown of attempts is what is stored, a moment later.
  const ended = () => lhd.sql(`select 1 from attempts where job=${job} and ended_ms is not null`).length === 2;
  await until('both attempts are stored as lost', ended);
  const show = spawnSync(bin('lhctl'), ['--state', lhd.state, 'show', String(job)], { encoding: 'utf8' }).stdout;
  assert.match(show, /^submitted .*, attempt 2, 2 of 1 restarts used$/m);
  assert.match(show, /^attempt 2 was lost at step \d+: the worker was killed by signal 9 \(Killed\) while .*\nhint: .*kernel may have.*\n( {2}\| .*\n)+/m);
});

test('pause stops the steps, resume goes on, and cancel keeps a checkpoint', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 5);
  await lhd.call('job.pause', { job });
  const paused = await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const sample = await lhd.call('job.sample', { job, max_tokens: 5 });
  assert.ok(sample.tokens <= 5);
  assert.equal((await lhd.call('job.get', { job })).step, paused.step);
  await assert.rejects(lhd.call('job.pause', { job }), /paused/i);
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'more steps', (j) => j.step > paused.step);
  await lhd.call('job.cancel', { job });
  const end = await until('CANCELLED', async () => {
    const j = await lhd.call('job.get', { job });
    return j.state === 'CANCELLED' && j;
  });
  assert.ok(existsSync(join(lhd.state, 'jobs', String(job), 'checkpoints', `step-${String(end.step).padStart(10, '0')}`, 'manifest.json')));
  await assert.rejects(lhd.call('job.switch', { job }), (e) => e.reply.data.name === 'LH_ESTATE' && e.reply.data.hint.length > 0);
});

test('pause --release frees the slot, and resume goes on with the same losses', async (t) => {
  const lhd = await fresh(t);
  const quiet = await submit(lhd, {});
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { name: 'parked' });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  await lhd.call('job.pause', { job });
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const next = await submit(lhd, { name: 'next' });
  assert.equal((await lhd.call('job.get', { job: next })).state, 'QUEUED');
  await lhd.call('job.pause', { job, release: true }); // it kept the slot until now
  const parked = await lhd.jobUntil(job, 'QUEUED', (j) => j.state === 'QUEUED');
  assert.match(parked.reason, /^paused at step \d+ and released; resume starts it/);
  await lhd.jobUntil(next, 'DONE', done);
  await lhd.restart();
  assert.equal((await lhd.call('job.get', { job })).state, 'QUEUED');
  await lhd.call('job.resume', { job });
  const end = await lhd.jobUntil(job, 'DONE', done);
  assert.equal(end.restarts, 0);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
});

test('a job resumed while its worker is released goes on with the same losses', async (t) => {
  const lhd = await fresh(t);
  const quiet = await submit(lhd, {});
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { name: 'hasty' });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const pause = await lhd.call('job.pause', { job, release: true }), resume = await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
  const outcomes = lhd.sql(`select id, outcome from commands where id in (${pause.command}, ${resume.command}) order by id`);
  assert.deepEqual(outcomes, [{ id: pause.command, outcome: 'applied' }, { id: resume.command, outcome: 'applied' }]);
  assert.equal((await lhd.call('job.get', { job })).attempt, 2);
});

test('a pinned checkpoint is there when the job has long gone on', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...LONG, checkpoint: { every_steps: 10, keep: 1 } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 5);
  const pin = spawnSync(bin('lhctl'), ['--state', lhd.state, 'checkpoint', String(job), '--pin'], { encoding: 'utf8' });
  assert.equal(pin.status, 0, pin.stderr);
  assert.match(pin.stdout, /^applied: .*saved at step \d+ and pinned$/m);
  const step = Number(/at step (\d+) and pinned/.exec(pin.stdout)[1]);
  await lhd.jobUntil(job, 'it goes on', (j) => j.step > step + 50);
  const list = spawnSync(bin('lhctl'), ['--state', lhd.state, 'checkpoints', String(job)], { encoding: 'utf8' }).stdout;
  assert.match(list, new RegExp(`^${step}\t.*\tpinned\t`, 'm'));
  assert.match(list, /\tremoved\t/);
});

test('SIGTERM makes lhd checkpoint and stop; the next lhd goes on with the same losses', async (t) => {
  const lhd = await fresh(t);
  const quiet = await submit(lhd, { name: 'quiet' });
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { name: 'stopped' });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  assert.deepEqual(await lhd.end('SIGTERM'), { code: 0, signal: null });
  assert.deepEqual(processesOf(lhd.dir), []);
  await lhd.boot();
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
});

test('the queue starts by priority, then age; a queued job can be cancelled', async (t) => {
  const lhd = await fresh(t);
  const first = await submit(lhd, { ...LONG, name: 'first' });
  await lhd.jobUntil(first, 'RUNNING', (j) => j.state === 'RUNNING');
  const low = await submit(lhd, { name: 'low' });
  const high = await submit(lhd, { name: 'high' }, { priority: 5 });
  const gone = await submit(lhd, { name: 'gone' }, { priority: 9 });
  await lhd.call('job.cancel', { job: gone });
  assert.equal((await lhd.call('job.get', { job: gone })).state, 'CANCELLED');
  await lhd.call('job.cancel', { job: first });
  await lhd.jobUntil(high, 'high starts', (j) => j.started_ms !== null);
  assert.equal((await lhd.call('job.get', { job: low })).state, 'QUEUED');
  await lhd.jobUntil(low, 'DONE', done);
  const { jobs } = await lhd.call('job.list', {});
  assert.equal(jobs.find((j) => j.job === high).state, 'DONE');
  assert.deepEqual(jobs.map((j) => j.state), ['CANCELLED', 'DONE', 'DONE', 'CANCELLED']);
});

test('a request id makes a retry harmless', async (t) => {
  const lhd = await fresh(t);
  const request_id = '0e9d8c7b-0000-4000-8000-000000000001';
  const job = await submit(lhd, LONG, { request_id });
  assert.equal(await submit(lhd, LONG, { request_id }), job);
  assert.equal((await lhd.call('job.list', {})).jobs.length, 1);
  await assert.rejects(submit(lhd, { name: 'other' }, { request_id }), (e) => e.reply.data.name === 'LH_ECONFLICT');
});

test('a second lhd on the same state directory is refused and names the first', async (t) => {
  const lhd = await fresh(t);
  const second = spawnSync(bin('lhd'), ['--state', lhd.state], { encoding: 'utf8', timeout: 20_000 });
  assert.equal(second.status, 1);
  assert.match(second.stderr, new RegExp(`pid ${lhd.process.pid}`));
  assert.equal((await lhd.call('daemon.info', {})).pid, lhd.process.pid);
});

test('lhctl checkpoints tells which remain: the newest, and multiples of keep_every', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { checkpoint: { every_steps: 20, keep: 1, keep_every: 40 } });
  await lhd.jobUntil(job, 'DONE', done);
  const list = (...args) => {
    const r = spawnSync(bin('lhctl'), ['--state', lhd.state, 'checkpoints', 'tiny', ...args], { encoding: 'utf8', timeout: 20_000 });
    assert.equal(r.status, 0, r.stderr);
    return r.stdout;
  };
  await until('the last one is stored', () => JSON.parse(list('--json')).checkpoints.some((c) => c.step === 100), 10_000);
  const all = JSON.parse(list('--json')).checkpoints;
  const there = new Set(all.filter((c) => !c.removed).map((c) => c.step));
  assert.deepEqual([...there].filter((s) => s > 0), [40, 80, 100]);
  for (const c of all) assert.equal(existsSync(c.path), !c.removed, c.path);
  const rows = list().trimEnd().split('\n').map((l) => l.split('\t'));
  assert.deepEqual(rows.map((r) => [Number(r[0]), r[2], r[5], r[6]]),
    all.map((c) => [c.step, c.reason, c.removed ? 'removed' : 'there', c.path]));
  assert.match(rows[0][1], /^\d+\.\d MB$/);
});

test('a damaged newest checkpoint is reported and the one before is used', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...LONG, checkpoint: { every_steps: 10, keep: 3 } });
  await lhd.jobUntil(job, 'three checkpoints', (j) => j.step >= 35);
  await lhd.call('job.pause', { job });
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const dir = join(lhd.state, 'jobs', String(job), 'checkpoints');
  const newest = readdirSync(dir).filter((d) => /^step-\d+$/.test(d)).sort().at(-1);
  const params = join(dir, newest, 'params.safetensors');
  const bytes = readFileSync(params);
  bytes[bytes.length - 3] ^= 0x40;
  const verify = () => spawnSync(bin('lhctl'), ['verify', join(dir, newest)], { encoding: 'utf8', timeout: 20_000 });
  const whole = verify();
  assert.equal(whole.status, 0, whole.stderr);
  assert.match(whole.stdout, /^manifest\.json: .*\nparams\.safetensors: \d+ bytes.*\nmoments\.safetensors: .*\nok\n$/);
  writeFileSync(params, bytes);
  const hurt = verify();
  assert.equal(hurt.status, 1);
  assert.match(hurt.stdout, /^params\.safetensors: damaged/m);
  assert.match(hurt.stderr, new RegExp(`^error: .*${newest}.*'params\\.safetensors' does not match its checksum\nhint: `));
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'a second attempt that is paused', (j) => j.attempt === 2 && j.state === 'PAUSED');
  await lhd.workerPid(job);
  const { attempts } = await lhd.call('job.show', { job });
  assert.ok(attempts[1].first_step < Number(newest.slice(5)));
  await until('an event names the damaged checkpoint', () =>
    lhd.sql(`select text from events where job=${job}`).some((e) => e.text.includes(newest)), 5_000);
  await lhd.call('job.resume', { job });
  await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'DONE', done);
});
