// faults.test.mjs: what breaks around a job: disks that take nothing, workers that
// stand still. Training goes on wherever it can, and nothing is lost.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, renameSync, writeFileSync, rmSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, Client, atEnd, until, bin, scratch, packText, submit, losses, processesOf } from './lib/lhd.mjs';

async function fresh(t, args) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir, args);
}

const done = (j) => j.state === 'DONE';
const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }], checkpoint: { every_steps: 20, keep: 2 } };
const events = (lhd, job, kind) => lhd.sql(`select step, text from events where job=${job} and kind='${kind}' order by id`);

/** Makes every save of a job fail, as a full or read-only disk does, until undone. */
function breakCheckpoints(lhd, job) {
  const dir = join(lhd.state, 'jobs', String(job), 'checkpoints');
  renameSync(dir, `${dir}.away`);
  writeFileSync(dir, 'in the way');
  return () => { rmSync(dir); renameSync(`${dir}.away`, dir); };
}

test('a disk that takes no checkpoint stops neither training nor commands, and is told of', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${job}`).length > 0);
  const repair = breakCheckpoints(lhd, job);
  const { step } = await lhd.call('job.get', { job });
  await lhd.jobUntil(job, 'training goes on', (j) => j.step > step + 60 && events(lhd, job, 'worker.warn').length > 1);
  // The first may have been under way when its directory went.
  const told = events(lhd, job, 'worker.warn').map((e) => e.text);
  for (const text of told) assert.match(text, /^no checkpoint of step \d+: .*checkpoints/);
  assert.match(told[1], /Not a directory/);

  const { command } = await lhd.call('job.checkpoint', { job });
  await lhd.jobUntil(job, 'the command is refused', () => lhd.sql(`select 1 from commands where id=${command} and outcome='refused'`).length);
  await lhd.call('job.pause', { job });
  await lhd.jobUntil(job, 'it pauses all the same', (j) => j.state === 'PAUSED');
  await lhd.call('job.resume', { job });

  repair();
  const at = (await lhd.call('job.get', { job })).step;
  await lhd.jobUntil(job, 'checkpoints again', () => lhd.sql(`select 1 from checkpoints where job=${job} and step > ${at}`).length);
  await lhd.call('job.cancel', { job });
  await lhd.jobUntil(job, 'CANCELLED', (j) => j.state === 'CANCELLED');
});

test('a job that is done waits, paused, until its last checkpoint can be written', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: LONG.phases, checkpoint: { every_steps: 0, keep: 2 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  const repair = breakCheckpoints(lhd, job);
  const end = (await lhd.call('job.get', { job })).step + 1000;
  await lhd.call('job.set', { job, phase_steps: end });
  const j = await lhd.jobUntil(job, 'PAUSED', (x) => x.state === 'PAUSED');
  assert.equal(j.step, end);
  assert.match(j.reason, /the last checkpoint cannot be written/);
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'it tried again', () => events(lhd, job, 'worker.warn').length > 1);
  repair();
  await lhd.jobUntil(job, 'PAUSED', (x) => x.state === 'PAUSED');
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(lhd.sql(`select step, reason from checkpoints where job=${job}`), [{ step: end, reason: 'end' }]);
});

test('checkpoints that are gone hold the job until they are back; nothing starts over', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${job}`).length > 0);
  await lhd.call('job.pause', { job, release: true });
  await lhd.jobUntil(job, 'released', (j) => j.state === 'QUEUED');
  const { step } = await lhd.call('job.get', { job });
  const dir = join(lhd.state, 'jobs', String(job), 'checkpoints');
  renameSync(dir, `${dir}.away`);
  await lhd.call('job.resume', { job });
  const held = await lhd.jobUntil(job, 'held', (j) => j.state === 'QUEUED' && j.attempt === 2);
  assert.match(held.reason, /^held, resume tries again: the checkpoints of this job are gone from '.*' \(hint: bring them back/);
  await lhd.restart();
  rmSync(dir, { recursive: true });
  renameSync(`${dir}.away`, dir);
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'it goes on', (j) => j.step > step);
  assert.deepEqual(lhd.sql(`select attempt, outcome, first_step from attempts where job=${job}`).map((a) => [a.outcome, a.first_step]), [['stopped', 0], ['held', null], [null, step]]);
});

test('a worker that stands still is killed and its job goes on with the same losses', async (t) => {
  const lhd = await fresh(t, ['--hang-ms', '3000']);
  // It trains and does nothing else when it is stopped: what is not a step may take longer.
  const over = { ...LONG, evaluation: { every_steps: 0, sequences: 2 }, checkpoint: { every_steps: 0, keep: 2 } };
  const quiet = await submit(lhd, { ...over, phases: [{ ...LONG.phases[0], until: { steps: 600 } }] });
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { ...over, name: 'stopped' });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 25);
  await lhd.call('job.checkpoint', { job });
  await lhd.jobUntil(job, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${job}`).length > 0);
  const [{ step: saved }] = lhd.sql(`select step from checkpoints where job=${job}`);
  await lhd.jobUntil(job, 'steps after it', (j) => j.step > saved);
  process.kill(await lhd.workerPid(job), 'SIGSTOP');
  await lhd.jobUntil(job, 'another attempt that trains', (j) => j.attempt === 2 && j.step > saved);
  await lhd.call('job.pause', { job });
  const { step } = await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  await lhd.call('job.cancel', { job });
  await lhd.jobUntil(job, 'CANCELLED', (j) => j.state === 'CANCELLED');
  const [want, got] = [await losses(lhd, quiet), await losses(lhd, job)];
  assert.ok(saved < want.size);
  assert.equal(got.size, step);
  for (const [s, loss] of want) if (s <= step) assert.equal(got.get(s), loss, `step ${s}`);
  assert.match(events(lhd, job, 'worker.hung')[0].text, /^no progress for \d.* s while training .* the worker is killed$/);
  assert.match(events(lhd, job, 'attempt.lost')[0].text, /made no progress for .*signal 9/);
});

test('a foreign program that locks the database delays the store, not the training', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...LONG, phases: [{ name: 'all', attention: 'full', until: { steps: 1000 } }] });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const lock = spawn('sqlite3', [lhd.db], { stdio: ['pipe', 'pipe', 'inherit'] });
  atEnd(t, () => lock.kill('SIGKILL'));
  const locked = new Promise((r) => lock.stdout.once('data', r));
  lock.stdin.write('.timeout 5000\nBEGIN IMMEDIATE;\nSELECT 1;\n');
  await locked;
  const [{ s: stored }] = lhd.sql(`select max(step) s from steps where job=${job}`);
  await until('training goes on', async () => (await lhd.call('job.get', { job })).step > stored + 200);
  const [{ s: still }] = lhd.sql(`select max(step) s from steps where job=${job}`);
  assert.equal(still, stored);
  await until('it is told of', () => /locked by another program; writes wait/.test(lhd.log()));
  const pause = lhd.call('job.pause', { job }); // its answer waits for the journal
  lock.stdin.end('ROLLBACK;\n');
  assert.equal((await pause).state, 'accepted');
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual([...(await losses(lhd, job)).keys()], Array.from({ length: 1000 }, (_, i) => i + 1));
});

test('a run directory that was cleaned: the worker finishes by itself, the next lhd finds it', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 600 } }] });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  rmSync(join(lhd.state, 'worker.sock'));
  rmSync(join(lhd.state, 'control.sock'));
  await lhd.restart();
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual([...(await losses(lhd, job)).keys()], Array.from({ length: 600 }, (_, i) => i + 1));
  assert.equal((await lhd.call('job.show', { job })).attempts.length, 1);
});

test('a run directory that was cleaned: a living lhd makes its sockets again', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${job}`).length > 0);
  for (const name of ['worker.sock', 'control.sock']) rmSync(join(lhd.state, name));
  const late = await until('somebody new gets through', () => lhd.connect().catch(() => null));
  assert.equal((await late.call('daemon.info', {})).pid, lhd.process.pid);
  await until('worker.sock is there', () => existsSync(join(lhd.state, 'worker.sock')));
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'the next worker gets through', (j) => j.attempt === 2 && j.state === 'RUNNING');
  assert.match(lhd.log(), /control\.sock' was removed; it is made again/);
});

test('a database restored from a backup: the worker it does not know is listed and left alone', async (t) => {
  const lhd = await fresh(t);
  await lhd.end('SIGTERM');
  const names = ['lighthouse.db', 'generation'];
  for (const name of names) copyFileSync(join(lhd.state, name), join(lhd.dir, name));
  await lhd.boot();
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 2000 } }] });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const pid = await lhd.workerPid(job);
  await lhd.end('SIGKILL');
  for (const name of ['lighthouse.db-wal', 'lighthouse.db-shm']) rmSync(join(lhd.state, name), { force: true });
  for (const name of names) copyFileSync(join(lhd.dir, name), join(lhd.state, name));
  await lhd.boot();

  const [w] = await until('it is listed', async () => { const l = (await lhd.call('daemon.info', {})).foreign_workers; return l.length && l; });
  assert.deepEqual([w.pid, w.job, w.attempt, w.why], [pid, job, 1, `there is no job ${job} here`]);
  const info = spawnSync(bin('lhctl'), ['--state', lhd.state, 'info'], { encoding: 'utf8' }).stdout;
  assert.match(info, new RegExp(`^foreign worker: pid ${pid} trains job ${job}, attempt 1, at step \\d+ or beyond; left alone: there is no job`, 'm'));
  await until('it has finished its job', () => !processesOf(lhd.dir).includes(pid));
  assert.ok(existsSync(join(lhd.state, 'jobs', String(job), 'checkpoints', 'step-0000002000', 'manifest.json')));
  await until('it is listed no more', async () => !(await lhd.call('daemon.info', {})).foreign_workers.length);
  const next = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 20 } }] });
  assert.ok(next > job, 'another job got its directory');
  await lhd.jobUntil(next, 'DONE', done);
});

/** lhd as the first process of a container: PIDs of its own, and nobody above it. */
async function bootContained(t, dir) {
  const state = join(dir, 'state'), socket = join(state, 'control.sock');
  const unshare = spawn('unshare', ['--user', '--map-root-user', '--pid', '--fork', '--kill-child', '--mount-proc', bin('lhd'), '--state', state], { stdio: 'ignore' });
  atEnd(t, async () => { unshare.kill('SIGKILL'); await until('the container is gone', () => !processesOf(dir).length); });
  return until('lhd answers', async () => { try { return await Client.connect(socket); } catch { return null; } });
}

test('lhd as PID 1 waits for orphans, and its death takes the workers: the next one resumes', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = { dir, call: null };
  let client = await bootContained(t, dir);
  lhd.call = (method, params) => client.call(method, params);
  const job = await submit(lhd, LONG);
  const get = () => client.call('job.get', { job });
  const comm = (pid) => { try { return readFileSync(`/proc/${pid}/comm`, 'utf8').trim(); } catch { return ''; } };
  const pids = (name) => processesOf(dir).filter((pid) => comm(pid) === name);
  await until('a checkpoint', async () => (await client.call('job.show', { job })).checkpoints.length);
  const [lhdPid] = pids('lhd'), [worker] = pids('lhworker-cpu');
  process.kill(pids('lhkeeper')[0], 'SIGKILL');
  await until('its keeper is gone', () => !pids('lhkeeper').length);
  process.kill(worker, 'SIGKILL'); // lhd's child now
  await until('another worker', async () => (await get()).attempt === 2 && (await get()).step > 0);
  const children = () => readFileSync(`/proc/${lhdPid}/task/${lhdPid}/children`, 'utf8').trim().split(' ').filter(Boolean);
  await until('no zombie is left', () => children().every((pid) => !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))));

  process.kill(lhdPid, 'SIGKILL');
  await until('all of the container is gone', () => !processesOf(dir).length);
  client = await bootContained(t, dir);
  await until('it goes on from its checkpoint', async () => (await get()).attempt === 3 && (await get()).state === 'RUNNING');
  const { attempts } = await client.call('job.show', { job });
  assert.deepEqual(attempts.slice(0, 2).map((a) => a.outcome), ['lost', 'lost']);
});
