// faults.test.mjs: what breaks around a job: disks that take nothing, workers that
// stand still. Training goes on wherever it can, and nothing is lost.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { renameSync, writeFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, packText, submit, losses } from './lib/lhd.mjs';

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
  assert.match(events(lhd, job, 'worker.warn')[0].text, /^no checkpoint of step \d+: .*checkpoints.* Not a directory/);

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
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 150 } }], checkpoint: { every_steps: 0, keep: 2 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  const repair = breakCheckpoints(lhd, job);
  const j = await lhd.jobUntil(job, 'PAUSED', (x) => x.state === 'PAUSED');
  assert.equal(j.step, 150);
  assert.match(j.reason, /the last checkpoint cannot be written/);
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'it tried again', () => events(lhd, job, 'worker.warn').length > 1);
  repair();
  await lhd.jobUntil(job, 'PAUSED', (x) => x.state === 'PAUSED');
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(lhd.sql(`select step, reason from checkpoints where job=${job}`), [{ step: 150, reason: 'end' }]);
});

test('a worker that stands still is killed and its job goes on with the same losses', async (t) => {
  const lhd = await fresh(t, ['--hang-ms', '3000']);
  const quiet = await submit(lhd, {});
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { name: 'stopped' });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 25);
  const pid = await lhd.workerPid(job);
  process.kill(pid, 'SIGSTOP');
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));
  assert.match(events(lhd, job, 'worker.hung')[0].text, /^no progress for \d.* s while .* the worker is killed$/);
  assert.match(events(lhd, job, 'attempt.lost')[0].text, /made no progress for .*signal 9/);
});
