// rewind.test.mjs: training that goes back to a checkpoint: switches that are taken
// back, and rollbacks from instability. What was undone stays in the store.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, packText, noisyText, submit, losses } from './lib/lhd.mjs';

async function fresh(t, pack = packText) {
  const dir = scratch(t);
  pack(dir);
  return Lhd.start(t, dir);
}

const done = (j) => j.state === 'DONE';
const upTo = (n) => Array.from({ length: n }, (_, i) => i + 1);
const texts = (lhd, job, kind) => lhd.sql(`select text from events where job=${job} and kind='${kind}' order by id`).map((e) => e.text);
const phases = (steps, over = {}) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps } },
  { name: 'recovery', attention: 'full', until: { steps: 40 }, ...over },
];
/** No loss is below it: each switch is one too high. */
const NEVER = { watch_steps: 20, loss_ceiling: 1e-6 };

test('a switch by command whose loss is above the ceiling is taken back, and its phase goes on', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), switch: NEVER, checkpoint: { every_steps: 7, keep: 1 } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'attempt 2 trains', (j) => j.attempt === 2 && j.step > 0 && j.state === 'RUNNING' && texts(lhd, job, 'switch.reverted').length);
  const [{ step, outcome, text }] = lhd.sql(`select step, outcome, text from commands where id=${command}`);
  assert.equal(outcome, 'reverted');
  assert.match(text, /^in phase 'recovery' from step .*; taken back: loss .* is above switch.loss_ceiling/);
  assert.match(texts(lhd, job, 'job.rewind')[0], new RegExp(`^the switch to 'recovery' at step ${step} is taken back \\(loss .* is above switch.loss_ceiling .*\\); 'lighthouse' goes on$`));
  await lhd.jobUntil(job, 'it passes that step', (j) => j.step > step + 30);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${job} and attempt=2`), [{ phase: 0 }]);
  assert.equal((await lhd.call('job.get', { job })).restarts, 0);
  const show = await lhd.call('job.show', { job });
  assert.deepEqual(show.phases.map((p) => p.first_step), [0, null]);
  assert.equal(show.attempts[0].outcome, 'rewound');
  assert.equal(show.trial, null);
  assert.deepEqual({ ...show.last_switch, why: '' }, { verdict: 'reverted', command, phase: 1, from_phase: 0, from_step: step, why: '' });

  // It is still so after a worker and an lhd were lost.
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.restart();
  await lhd.jobUntil(job, 'attempt 3 trains', () => lhd.sql(`select 1 from steps where job=${job} and attempt=3 and step > ${step} limit 1`).length);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${job} and attempt=3`), [{ phase: 0 }]);
  assert.deepEqual((await lhd.call('job.show', { job })).phases.map((p) => p.first_step), [0, null]);
});

test('a phase whose own end led to a failed switch is held until somebody switches', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(30), switch: NEVER });
  await lhd.jobUntil(job, 'it goes on in its phase', (j) => j.attempt === 2 && j.step > 80);
  assert.match(texts(lhd, job, 'job.rewind')[0], /'lighthouse' goes on until it is switched by hand$/);
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, upTo(keys.length));
  await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'that is tried, and taken back', (j) => texts(lhd, job, 'job.rewind').length === 2 && j.attempt === 3);
  assert.equal((await lhd.call('job.get', { job })).total_steps, null);
});

test('a switch that goes well is kept, and says so', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(30), switch: { watch_steps: 15, loss_ceiling: 1000 } });
  await lhd.jobUntil(job, 'DONE', done);
  assert.match(texts(lhd, job, 'switch.committed').at(-1), /^the switch to 'recovery' at step 30 is kept: 15 steps went well, loss \d/);
  assert.equal((await lhd.call('job.show', { job })).last_switch.verdict, 'committed');
  assert.deepEqual([...(await losses(lhd, job)).keys()], upTo(70));
});

test('a failed switch with the worker lost in its trial ends the same', async (t) => {
  const lhd = await fresh(t);
  // The ceiling is met by no loss of the first phase, nor by the second's.
  const job = await submit(lhd, { phases: phases(30, { lr_factor: 50 }), switch: { watch_steps: 40, loss_ceiling: 7 } });
  await lhd.jobUntil(job, 'the trial runs, or is over', (j) => j.step > 31);
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'the end', (j) => done(j) || texts(lhd, job, 'job.rewind').length, 60000);
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, upTo(keys.length));
});

test('rollback: training goes back to the newest checkpoint and passes over what it had read', async (t) => {
  const lhd = await fresh(t, noisyText);
  const job = (name, action) => submit(lhd, {
    name, on_instability: { loss_z: 8, max: 1000, loss_spike: action, gradient_spike: 'ignore' }, optimizer: { lr: 1e-2, warmup_steps: 5 },
    checkpoint: { every_steps: 20, keep: 2 }, phases: [{ name: 'all', attention: 'full', until: { steps: 200 } }] });
  const id = await job('back', 'rollback');
  await lhd.jobUntil(id, 'DONE', done);
  const back = texts(lhd, id, 'job.rewind');
  assert.ok(back.length > 0, 'nothing went wrong');
  for (const text of back) assert.match(text, /met a loss spike .* nothing was applied, its data are passed over from the newest checkpoint on$/);
  assert.deepEqual([...(await losses(lhd, id)).keys()], upTo(200));
  const attempts = lhd.sql(`select attempt, first_step, outcome from attempts where job=${id} order by attempt`);
  assert.equal(attempts.length, back.length + 1);
  for (const a of attempts.slice(1)) assert.equal(a.first_step % 20, 0);
  assert.ok(attempts.slice(0, -1).every((a) => a.outcome === 'rewound'));
  // The data of the steps that were undone are not read again.
  const dir = join(lhd.state, 'jobs', String(id), 'checkpoints');
  const last = JSON.parse(readFileSync(join(dir, readdirSync(dir).sort().at(-1), 'manifest.json'), 'utf8'));
  assert.equal(last.step, 200);
  assert.ok(last.cursor > 200 * 2, `cursor ${last.cursor}`);
  assert.equal(last.watch.counts.loss_spike.times, back.length);
});
