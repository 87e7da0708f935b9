// instability.test.mjs: steps that are not sane, from data that is partly noise:
// each is seen before it is applied, and what the job file says is done.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Lhd, scratch, noisyText, submit, losses } from './lib/lhd.mjs';

const STEPS = 500;

async function fresh(t) {
  const dir = scratch(t);
  noisyText(dir);
  return Lhd.start(t, dir);
}

const job = (policy, more = {}) => ({
  on_instability: { loss_z: 8, max: 1000, gradient_spike: 'ignore', ...policy },
  optimizer: { lr: 1e-2, warmup_steps: 5 },
  checkpoint: { every_steps: 50 },
  phases: [{ name: 'all', attention: 'full', until: { steps: STEPS } }], ...more,
});
const done = (j) => j.state === 'DONE';
const refusals = (lhd, id) => lhd.sql(`select step, text, data_json from events where job=${id} and kind='job.instability' order by id`).map((e) => ({ ...e, data: JSON.parse(e.data_json) }));

test('skip: spikes are not applied, their data are passed over, and no step is lost', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job({ loss_spike: 'skip' }));
  await lhd.jobUntil(id, 'DONE', done);
  const seen = refusals(lhd, id);
  assert.ok(seen.length > 1, `${seen.length} spikes`);
  for (const [i, { step, text, data }] of seen.entries()) {
    assert.match(text, /^step \d+ met a loss spike .*nothing was applied, its data are passed over$/);
    assert.deepEqual([data.cause, data.action, data.count, data.step], ['loss_spike', 'skip', i + 1, step + 1]);
    assert.ok(data.loss > 0 && data.grad_norm > 0 && data.z > 8 && data.recent >= 1);
  }
  const { instability } = await lhd.call('job.show', { job: id });
  assert.deepEqual(instability, [{ cause: 'loss_spike', count: seen.length, recent: seen.at(-1).data.recent, step: seen.at(-1).data.step, action: 'skip' }]);
  assert.deepEqual([...(await losses(lhd, id)).keys()], Array.from({ length: STEPS }, (_, i) => i + 1));
});

test('a worker that is killed judges alike after its checkpoint', async (t) => {
  const lhd = await fresh(t);
  const calm = await submit(lhd, job({ loss_spike: 'skip' }));
  await lhd.jobUntil(calm, 'DONE', done);
  const hit = await submit(lhd, job({ loss_spike: 'skip' }, { name: 'again' }));
  await lhd.jobUntil(hit, 'half-way', (j) => j.step >= STEPS / 2);
  process.kill(await lhd.workerPid(hit), 'SIGKILL');
  await lhd.jobUntil(hit, 'DONE', done);
  assert.deepEqual([...await losses(lhd, hit)], [...await losses(lhd, calm)]);
});

test('lower_lr: the learning rate is halved each time', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job({ loss_spike: 'lower_lr', max: 3 }));
  await lhd.jobUntil(id, 'it ends', (j) => done(j) || j.state === 'FAILED');
  const [first] = refusals(lhd, id);
  assert.match(first.text, /the learning rate is halved$/);
  const lr = (step) => lhd.sql(`select lr from steps where job=${id} and step=${step}`)[0].lr;
  assert.equal(lr(first.step + 1), lr(first.step) / 2);
});

test('pause: somebody looks, and goes on', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job({ loss_spike: 'pause' }));
  await lhd.jobUntil(id, 'PAUSED', (j) => j.state === 'PAUSED');
  const [{ step }] = refusals(lhd, id);
  const { checkpoints } = await lhd.call('job.show', { job: id });
  assert.ok(checkpoints.some((c) => c.step === step && c.reason === 'pause'));
  await lhd.call('job.resume', { job: id });
  await lhd.jobUntil(id, 'it goes on', (j) => j.step > step);
});

test('stop, and one time too many, fail the job with the reason', async (t) => {
  const lhd = await fresh(t);
  // A guard of 1 deviation: two in a row, which no step forgives.
  for (const policy of [{ loss_spike: 'stop' }, { loss_spike: 'skip', max: 1, loss_z: 1 }]) {
    const id = await submit(lhd, job(policy, { name: `f-${policy.loss_spike}` }));
    const end = await lhd.jobUntil(id, 'FAILED', (j) => j.state === 'FAILED');
    assert.match(end.reason, /a loss spike .*nothing was applied.*hint: /);
    const actions = refusals(lhd, id).map((e) => e.data.action);
    assert.equal(actions.pop(), 'stop');
    assert.ok(actions.every((a) => a === 'skip'));
    assert.equal(!!actions.length, policy.max === 1);
  }
});
