// spoiled.test.mjs: values of a step that are made wrong on purpose, in a build with
// FAILPOINTS=1, once each over all processes of a test.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

process.env.LH_BUILD = join(resolve(process.env.LH_BUILD ?? 'build'), 'fail');
const { Lhd, scratch, packText, submit, losses } = await import('./lib/lhd.mjs');

async function fresh(t, points) {
  const dir = scratch(t), notes = join(dir, 'points');
  packText(dir);
  mkdirSync(notes);
  return Lhd.start(t, dir, [], { LH_FAILPOINTS: points, LH_FAILPOINT_DIR: notes });
}

const done = (j) => j.state === 'DONE';
const upTo = (n) => Array.from({ length: n }, (_, i) => i + 1);
const events = (lhd, job, kind) => lhd.sql(`select attempt, step, text, data_json from events where job=${job} and kind='${kind}' order by id`).map((e) => ({ ...e, data: JSON.parse(e.data_json) }));
const ALL = [{ name: 'all', attention: 'full', until: { steps: 100 } }];

test('a loss and a norm that are not finite are never applied, and counted by their cause', async (t) => {
  const lhd = await fresh(t, 'loss.nan=spoil@20,norm.infinite=spoil@40,norm.spike=spoil@60');
  const job = await submit(lhd, { phases: ALL, on_instability: { gradient_spike: 'lower_lr' } });
  await lhd.jobUntil(job, 'DONE', done);
  const seen = events(lhd, job, 'job.instability').map((e) => e.data);
  assert.deepEqual(seen.map((d) => [d.cause, d.action, d.count]), [['nan', 'skip', 1], ['nan', 'skip', 2], ['gradient_spike', 'lower_lr', 1]]);
  assert.deepEqual(seen.map((d) => [d.loss === null, d.grad_norm === null]), [[true, false], [false, true], [false, false]]);
  const got = await losses(lhd, job);
  assert.deepEqual([...got.keys()], upTo(100));
  assert.ok([...got.values()].every(Number.isFinite));
  const { instability } = await lhd.call('job.show', { job });
  assert.deepEqual(instability.map((i) => [i.cause, i.count]), [['gradient_spike', 1], ['nan', 2]]);
});

test('what is stopped for is said in the end', async (t) => {
  const lhd = await fresh(t, 'loss.nan=spoil@20');
  const job = await submit(lhd, { phases: ALL, on_instability: { nan: 'stop' } });
  const end = await lhd.jobUntil(job, 'FAILED', (j) => j.state === 'FAILED');
  assert.match(end.reason, /step 20 met a loss or gradient that is not finite .*nothing was applied.*on_instability\.nan/);
});

test('a rollback does not repeat the switch that came before what went wrong', async (t) => {
  const lhd = await fresh(t, 'loss.nan=spoil@60');
  const phases = [
    { name: 'a', attention: 'full', until: { steps: 100000 } },
    { name: 'b', attention: 'full', until: { steps: 100000 } },
  ];
  const job = await submit(lhd, { phases, switch: { watch_steps: 0 }, checkpoint: { every_steps: 0, keep: 2 }, on_instability: { nan: 'rollback' } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'it went back and passes that step', (j) => j.attempt === 2 && j.step > 70);
  const [{ step, outcome }] = lhd.sql(`select step, outcome from commands where id=${command}`);
  assert.ok(step < 60, 'the switch came too late for this test');
  assert.equal(outcome, 'applied');
  const [back] = events(lhd, job, 'job.rewind');
  assert.match(back.text, /not finite .*from the newest checkpoint on$/);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${job} and attempt=2`), [{ phase: 0 }]);
});
