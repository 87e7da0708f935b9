// resume.test.mjs: going on with other micro-batches: the same run in exact arithmetic.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, packText, submit, losses } from './lib/lhd.mjs';

const done = (j) => j.state === 'DONE';
// Full attention, since what Lighthouse selects may turn on the last bit of a score; and
// not for long, since every step makes more of the difference.
const JOB = {
  batch: { sequences: 4, micro_sequences: 4 },
  phases: [{ name: 'a', attention: 'full', until: { steps: 100 } }],
};

async function release(lhd, job, step) {
  await lhd.jobUntil(job, `step ${step}`, (j) => j.step >= step);
  await lhd.call('job.pause', { job, release: true });
  return lhd.jobUntil(job, 'released', (j) => j.state === 'QUEUED');
}

test('a released job goes on with other micro-batches, and says so', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const quiet = await submit(lhd, JOB);
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { ...JOB, name: 'other' });
  const { step } = await release(lhd, job, 20);
  await lhd.call('job.resume', { job, micro_sequences: 1 });
  await lhd.restart(); // what was accepted is in the store
  await lhd.jobUntil(job, 'it goes on', (j) => j.step > step);
  await release(lhd, job, step + 10);
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);

  assert.equal((await lhd.call('job.show', { job })).spec.batch.micro_sequences, 1);
  const manifest = JSON.parse(readFileSync(join(lhd.state, 'jobs', String(job), 'checkpoints', 'step-0000000100', 'manifest.json')));
  assert.equal(manifest.job.batch.micro_sequences, 1);
  assert.equal(manifest.cursor, 100 * 4);
  const told = lhd.sql(`select text from events where job=${job} and kind='worker.info' and text like 'micro-batches%'`);
  assert.deepEqual(told, [{ text: 'micro-batches of 1 sequences, of 4 before: losses are equal in exact arithmetic, not bit for bit' }]);

  const want = await losses(lhd, quiet), have = await losses(lhd, job);
  assert.equal(have.size, 100);
  let other = 0;
  for (const [s, loss] of want) {
    if (s <= step) assert.equal(have.get(s), loss);
    else assert.ok(Math.abs(have.get(s) - loss) <= 1e-5 * loss, `step ${s}: ${have.get(s)}, undisturbed ${loss}`);
    other += have.get(s) !== loss;
  }
  assert.ok(other > 0, 'the micro-batches were the same');
});

test('micro-batches are refused where they cannot be', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd, { ...JOB, phases: [{ name: 'a', attention: 'full', until: { steps: 100000 } }] });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  await lhd.call('job.pause', { job });
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  await assert.rejects(lhd.call('job.resume', { job, micro_sequences: 2 }), /has a worker, whose micro-batches are fixed/);
  await lhd.call('job.resume', { job });
  await release(lhd, job, 10);
  await assert.rejects(lhd.call('job.resume', { job, micro_sequences: 3 }), /3 does not divide the 4 sequences/);
  assert.equal((await lhd.call('job.show', { job })).spec.batch.micro_sequences, 4);
});
