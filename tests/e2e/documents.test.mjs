// documents.test.mjs: a job whose documents are kept apart, through both kinds of phase:
// what a lost worker leaves is gone on with bit for bit, and looks beside training work.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, scratch, packText, noisyText, submit, losses } from './lib/lhd.mjs';

const done = (j) => j.state === 'DONE';
const JOB = {
  data: { train: 'text.train.bin', validation: 'text.val.bin', seq_len: 128, documents: 'separate' },
  batch: { sequences: 4, micro_sequences: 2 },
  phases: [
    { name: 'lighthouse', attention: 'lighthouse', levels: 3, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: 60 } },
    { name: 'recovery', attention: 'full', until: { steps: 40 } },
  ],
  evaluation: { sequences: 3, every_steps: 20, passkey: { every_steps: 50, from_tokens: 64, samples: 1 } },
};

test('documents that are kept apart are trained on through a switch, and bit for bit again', async (t) => {
  const dir = scratch(t);
  noisyText(dir);
  const lhd = await Lhd.start(t, dir);
  const quiet = await submit(lhd, JOB), lost = await submit(lhd, { ...JOB, name: 'lost' });
  await lhd.jobUntil(quiet, 'DONE', done);
  await lhd.jobUntil(lost, 'it trains', (j) => j.step >= 30);
  process.kill(await lhd.workerPid(lost), 'SIGKILL');
  await lhd.jobUntil(lost, 'the next phase', (j) => j.phase === 1 && j.step >= 70);
  process.kill(await lhd.workerPid(lost), 'SIGKILL');
  await lhd.jobUntil(lost, 'DONE', done);
  assert.deepEqual(await losses(lhd, lost), await losses(lhd, quiet));

  const show = await lhd.call('job.show', { job: quiet });
  assert.ok(show.evaluations.at(-1).loss < show.evaluations[0].loss - 0.5, 'it learned nothing');
  const looks = lhd.sql(`select kind, count(*) n from looks where job=${quiet} group by kind order by kind`);
  assert.deepEqual(looks.map((l) => l.kind), ['passkey', 'positions', 'selection']);
  const sample = spawnSync(bin('lhctl'), ['--state', lhd.state, 'sample', 'lost', '--prompt', 'line 3', '-n', '10'], { encoding: 'utf8' });
  assert.equal(sample.status, 0, sample.stderr);
});

test('the loss is a mean over what is predicted, whatever is filled up', async (t) => {
  const dir = scratch(t);
  const lines = Array.from({ length: 400 }, (_, i) => JSON.stringify({ text: `line ${i % 9}` }));
  writeFileSync(join(dir, 'short.jsonl'), lines.join('\n'));
  execFileSync(bin('lhctl'), ['pack', '--validation', '0.1', '-o', join(dir, 'text'), join(dir, 'short.jsonl')], { stdio: 'ignore' });
  const lhd = await Lhd.start(t, dir);
  const phase = { ...JOB.phases[0], pool: 4, topk: 4, tile: 4, until: { steps: 2 } };
  const job = await submit(lhd, { ...JOB, optimizer: { lr: 1e-4 }, evaluation: { sequences: 3 }, phases: [phase, { ...JOB.phases[1], until: { steps: 2 } }] });
  await lhd.jobUntil(job, 'DONE', done);
  const nats = Math.log(257); // of a model that knows nothing
  for (const [step, loss] of await losses(lhd, job)) assert.ok(Math.abs(loss - nats) < 0.3, `step ${step}: ${loss}`);
  const { evaluations } = await lhd.call('job.show', { job });
  for (const e of evaluations) {
    assert.ok(Math.abs(e.loss - nats) < 0.3, `${e.reason}: ${e.loss}`);
    assert.ok(e.tokens < 3 * 128 / 2, `${e.tokens} tokens are predicted`); // 6 of 16 rows
  }
});

test('a sequence of documents that are kept apart is shown as its tokens', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd, JOB);
  const shown = spawnSync(bin('lhctl'), ['--state', lhd.state, 'data', 'inspect', String(job), '--at', '5', '--json'], { encoding: 'utf8' });
  assert.equal(shown.status, 0, shown.stderr);
  const { positions: [from, to], ids } = JSON.parse(shown.stdout);
  assert.equal(ids.length, to - from);
  assert.ok(ids.length > 0 && ids.length <= 128);
});

test('a scorer that attends across documents is refused at submit', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  await assert.rejects(submit(lhd, { ...JOB, phases: [{ ...JOB.phases[0], scorer: 'dilated' }] }),
    /phases\.0\.scorer: this scorer attends across documents/);
});
