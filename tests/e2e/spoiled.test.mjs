// spoiled.test.mjs: what a step or a switch meets is made wrong on purpose, in a build
// with FAILPOINTS=1: once over all processes of a test, or once in each.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

process.env.LH_BUILD = join(resolve(process.env.LH_BUILD ?? 'build'), 'fail');
const { Lhd, scratch, packText, submit, losses } = await import('./lib/lhd.mjs');

async function fresh(t, points, inEach = false) {
  const dir = scratch(t), notes = join(dir, 'points');
  packText(dir);
  mkdirSync(notes);
  return Lhd.start(t, dir, [], { env: { LH_FAILPOINTS: points, ...(inEach ? {} : { LH_FAILPOINT_DIR: notes }) } });
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
  const lhd = await fresh(t, 'loss.nan=spoil@600');
  const phases = [
    { name: 'a', attention: 'full', until: { steps: 100000 } },
    { name: 'b', attention: 'full', until: { steps: 100000 } },
  ];
  const job = await submit(lhd, { phases, switch: { watch_steps: 0 }, checkpoint: { every_steps: 0, keep: 2 }, on_instability: { nan: 'rollback' } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'it went back and passes that step', () => lhd.sql(`select 1 from steps where job=${job} and attempt=2 and step > 610 limit 1`).length);
  assert.equal(events(lhd, job, 'command.applied')[0].attempt, 1, 'the switch came too late for this test');
  assert.equal(lhd.sql(`select outcome from commands where id=${command}`)[0].outcome, 'reverted');
  const [back] = events(lhd, job, 'job.rewind');
  assert.match(back.text, /not finite .*from the newest checkpoint on$/);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${job} and attempt=2`), [{ phase: 0 }]);
});

test('after a rollback weights are those of its checkpoint, and sources go on from where they stood', async (t) => {
  const lhd = await fresh(t, 'loss.nan=spoil@600');
  const data = { train: [{ name: 'a', path: 'text.train.bin' }, { name: 'b', path: 'text.val.bin' }], validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 128 };
  const phases = [{ name: 'a', attention: 'full', until: { steps: 100000 } }];
  const job = await submit(lhd, { data, phases, checkpoint: { every_steps: 0, keep: 2 }, on_instability: { nan: 'rollback' } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.set', { job, weight: { b: 0 } });
  await lhd.jobUntil(job, 'it went back and passes that step', () => lhd.sql(`select 1 from steps where job=${job} and attempt=2 and step > 610 limit 1`).length);
  const [{ outcome, step }] = lhd.sql(`select outcome, step from commands where id=${command}`);
  assert.equal(outcome, 'reverted');
  assert.ok(step < 590, 'it was set too late for this test');
  const { mix } = events(lhd, job, 'job.settings').at(-1).data.settings;
  // 2 sequences a step: half of them from b until it was set, none since; step 600 is passed over.
  assert.deepEqual([mix.weight, mix.since], [[1, 1], 1200]);
  assert.ok(Math.abs(mix.drawn[1] - step) <= 1, `${mix.drawn} of 1200, set at step ${step}`);
  assert.deepEqual((await lhd.call('job.show', { job })).settings, []);
});

test('a rollback does not set again what was set since its checkpoint, and keeps what was set before', async (t) => {
  const lhd = await fresh(t, 'loss.nan=spoil@600');
  const phases = [{ name: 'a', attention: 'full', until: { steps: 100000 } }];
  const job = await submit(lhd, { phases, checkpoint: { every_steps: 0, keep: 2 }, on_instability: { nan: 'rollback' } });
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  const before = await lhd.call('job.set', { job, clip: 0.5 });
  await lhd.call('job.checkpoint', { job });
  await lhd.jobUntil(job, 'it is saved', () => events(lhd, job, 'command.applied').length === 2);
  const since = await lhd.call('job.set', { job, lr: 1e-3, phase_steps: 5000 });
  await lhd.jobUntil(job, 'it went back and passes that step', () => lhd.sql(`select 1 from steps where job=${job} and attempt=2 and step > 610 limit 1`).length);
  assert.equal(events(lhd, job, 'command.applied')[2].attempt, 1, 'the set came too late for this test');
  assert.deepEqual([before, since].map(({ command }) => lhd.sql(`select outcome from commands where id=${command}`)[0].outcome), ['applied', 'reverted']);
  assert.match(events(lhd, job, 'command.reverted')[0].text, /^command \d+ is taken back: .*not finite/);
  assert.deepEqual(lhd.sql(`select distinct lr from steps where job=${job} and attempt=2`), [{ lr: 2e-3 }]);
  const { settings, summary } = await lhd.call('job.show', { job });
  assert.deepEqual(settings.map((s) => [s.setting, s.value]), [['clip', 0.5]]);
  assert.equal(summary.total_steps, 100000);
});

const two = (steps) => [
  { name: 'light', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps } },
  { name: 'recovery', attention: 'full', until: { steps: 40 } },
];
/** Its checkpoints are those of switches alone. */
const job = (steps, more = {}) => ({ phases: two(steps), checkpoint: { every_steps: 0, keep: 2 }, ...more });
const outcome = (lhd, command) => lhd.sql(`select outcome, text from commands where id=${command}`)[0];
/** That attempt trains on, in the first phase alone. */
async function goesOn(lhd, id, attempt) {
  await lhd.jobUntil(id, 'its phase goes on', () => lhd.sql(`select 1 from steps where job=${id} and attempt=${attempt} and step > 60 limit 1`).length);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${id} and attempt=${attempt}`), [{ phase: 0 }]);
}

for (const [what, point, why] of [
  ['a loss that is not finite', 'loss.nan=spoil@35', /^step 35 met a loss or gradient that is not finite/],
  ['a step without memory', 'step.memory=spoil@35', /no memory is left/],
  ['an evaluation that fails after it', 'evaluation=spoil@3', /validation data cannot be read/],
])
  test(`a switch is taken back: ${what}`, async (t) => {
    const lhd = await fresh(t, point);
    const id = await submit(lhd, job(30));
    await goesOn(lhd, id, 2);
    const [{ data }] = events(lhd, id, 'switch.reverted');
    assert.match(data.why, why);
    assert.deepEqual([data.command, data.phase, data.from_phase, data.from_step], [null, 1, 0, 30]);
    assert.equal((await lhd.call('job.get', { job: id })).restarts, 0);
    const { command } = await lhd.call('job.switch', { job: id });
    await lhd.jobUntil(id, 'by hand it succeeds', done);
    assert.equal(outcome(lhd, command).outcome, 'applied');
    const keys = [...(await losses(lhd, id)).keys()];
    assert.deepEqual(keys, upTo(keys.length));
  });

test('a switch does not wait for the disk, but going back does', async (t) => {
  const lhd = await fresh(t, 'checkpoint.begin=hold@1,loss.nan=spoil@35');
  const id = await submit(lhd, job(30));
  await lhd.jobUntil(id, 'in the trial', (j) => j.phase === 1 && j.step === 34);
  assert.deepEqual(lhd.sql(`select * from checkpoints where job=${id}`), []);
  writeFileSync(join(lhd.dir, 'points', 'free-checkpoint.begin'), '');
  await goesOn(lhd, id, 2);
  assert.equal(events(lhd, id, 'switch.reverted')[0].data.from_step, 30);
  assert.equal(lhd.sql(`select min(step) step from steps where job=${id} and attempt=2`)[0].step, 31);
});

test('a switch whose checkpoint cannot be written is kept, and says so', async (t) => {
  const lhd = await fresh(t, 'tensors.write=error@1');
  const id = await submit(lhd, job(30));
  await lhd.jobUntil(id, 'DONE', done);
  assert.match(events(lhd, id, 'worker.warn').map((e) => e.text).join('\n'), /the switch to 'recovery' is not on trial/);
  assert.deepEqual(events(lhd, id, 'switch.reverted'), []);
  assert.deepEqual([...(await losses(lhd, id)).keys()], upTo(70));
});

test('a worker lost before the checkpoint of its switch was written comes to it again', async (t) => {
  const lhd = await fresh(t, 'checkpoint.begin=hold@1,trial.step=kill@3');
  const id = await submit(lhd, job(30));
  await lhd.jobUntil(id, 'DONE', done);
  assert.deepEqual(events(lhd, id, 'job.phase').filter((e) => e.data.phase === 1).map((e) => [e.attempt, e.step]), [[1, 30], [2, 30]]);
  assert.deepEqual([...(await losses(lhd, id)).keys()], upTo(70));
});

for (const [what, point, why] of [
  ['that does not fit', 'switch.memory=spoil@1', /^phase 'recovery' needs \d+\.\d\d GiB; 0\.00 are free or this job's, and a step would take \d/],
  ['whose evaluation fails', 'evaluation=spoil@2', /validation data cannot be read/],
]) {
  test(`a command to switch to a phase ${what} is refused, and training goes on`, async (t) => {
    const lhd = await fresh(t, point);
    const id = await submit(lhd, job(100000));
    await lhd.jobUntil(id, 'some steps', (j) => j.step >= 10);
    const { command } = await lhd.call('job.switch', { job: id });
    await lhd.jobUntil(id, 'the outcome', () => outcome(lhd, command).outcome);
    assert.equal(outcome(lhd, command).outcome, 'refused');
    assert.match(outcome(lhd, command).text, why);
    const { step } = await lhd.call('job.get', { job: id });
    await lhd.jobUntil(id, 'it goes on', (j) => j.step > step + 10 && j.phase === 0 && j.state === 'RUNNING');
    assert.equal((await lhd.call('job.get', { job: id })).attempt, 1);
  });

  test(`a phase whose time has come and ${what} pauses the job until it is resumed`, async (t) => {
    const lhd = await fresh(t, point);
    const id = await submit(lhd, job(30));
    const j = await lhd.jobUntil(id, 'PAUSED', (x) => x.state === 'PAUSED');
    assert.equal(j.step, 30);
    assert.match(j.reason, why);
    await lhd.call('job.resume', { job: id });
    await lhd.jobUntil(id, 'DONE', done);
    assert.deepEqual([...(await losses(lhd, id)).keys()], upTo(70));
  });
}

test('a trial in which two workers die is over: the switch is taken back, and the third trains', async (t) => {
  const lhd = await fresh(t, 'trial.step=kill@1', true);
  const id = await submit(lhd, job(100000));
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job: id });
  await goesOn(lhd, id, 3);
  assert.equal(outcome(lhd, command).outcome, 'reverted');
  const show = await lhd.call('job.show', { job: id });
  assert.deepEqual(show.attempts.map((a) => a.outcome), ['lost', 'lost', null]);
  assert.match(show.last_switch.why, /^2 workers were lost in its first steps$/);
  assert.equal(show.phases[1].first_step, null);
  assert.equal(show.trial, null);
  await lhd.restart();
  assert.equal((await lhd.call('job.show', { job: id })).phases[1].first_step, null);
});

test('a switch that was taken back is not done when it comes again, its outcome lost with two workers', async (t) => {
  const lhd = await fresh(t, 'command.done=kill@1', true); // it is entered, and not told
  const id = await submit(lhd, job(100000));
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 10);
  const { command } = await lhd.call('job.switch', { job: id });
  await goesOn(lhd, id, 3);
  await lhd.jobUntil(id, 'it is told', () => outcome(lhd, command).outcome === 'reverted');
  assert.match(outcome(lhd, command).text, /done by a worker that was lost; taken back/);
  assert.deepEqual(events(lhd, id, 'switch.reverted').map((e) => e.data.command), [command]);
});

test('workers that are stopped in a trial, and not lost, do not end it', async (t) => {
  const lhd = await fresh(t, '');
  const id = await submit(lhd, job(30, { switch: { watch_steps: 2000, loss_ceiling: 900 }, phases: [two(30)[0], { name: 'recovery', attention: 'full', until: { steps: 100000 } }] }));
  for (let n = 1; n <= 4; n++) {
    const j = await lhd.jobUntil(id, 'in the trial', (x) => x.step > 30 && x.phase === 1 && x.state === 'RUNNING' && x.attempt === n);
    const { trial } = await lhd.call('job.show', { job: id });
    assert.deepEqual([trial.phase, trial.from_step, trial.of, trial.loss_ceiling], [1, 30, 2000, 900]);
    assert.ok(trial.steps <= j.step + 2000 - 30);
    await lhd.restart('SIGTERM');
  }
  assert.deepEqual(events(lhd, id, 'switch.reverted'), []);
});
