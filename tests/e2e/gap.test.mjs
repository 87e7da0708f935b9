// gap.test.mjs: what is measured beside training and leaves it as it was to the last bit:
// evaluations by command, the loss with both attentions, the pace of phases to come.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { Lhd, bin, packText, scratch, submit } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const phases = (n) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: n } },
  { name: 'recovery', attention: 'full', until: { steps: 40 } },
  { name: 'more', attention: 'full', lr_factor: 0.5, until: { steps: 10 } },
];
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const done = (j) => j.state === 'DONE';

test('an evaluation by command leaves training as it was', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(300), batch: { sequences: 4, micro_sequences: 2 } });
  const evals = () => lhd.sql(`select phase, step, attention, loss > 0 and loss < 10 sane, duration_ms > 0 took from evaluations where job=${job} and reason='command' order by seq`);
  await lhd.jobUntil(job, 'some steps', (j) => j.step > 10);
  let r = ctl(lhd, 'eval', 'tiny', '-m', 'a look');
  assert.equal(r.status, 0, r.stderr);
  const [, step] = /^applied: eval applied at step (\d+): evaluated after step \1$/m.exec(r.stdout);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--attention', 'lighthouse').status, 0);
  assert.equal(ctl(lhd, 'eval', 'tiny', '-a', 'half').status, 2);
  await lhd.jobUntil(job, 'both are stored', () => evals().length === 2);
  assert.deepEqual(evals()[0], { phase: 0, step: Number(step), attention: 'full', sane: 1, took: 1 });
  assert.equal(evals()[1].attention, 'lighthouse');
  await lhd.call('job.switch', { job, phase: 'recovery' });
  await lhd.jobUntil(job, 'the next phase', (j) => j.phase === 1);
  r = ctl(lhd, 'eval', 'tiny', '--attention', 'lighthouse');
  if ((await lhd.call('job.get', { job })).phase === 1) assert.match(r.stderr, /phase 'recovery' has full attention\nhint: leave the attention out/);
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await steps(lhd, job), quietRun(lhd, job));
});

test('a job without validation data has nothing to be evaluated with', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), data: { train: 'text.train.bin', seq_len: 128 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  const r = ctl(lhd, 'eval', 'tiny');
  assert.equal(r.status, 1);
  assert.match(r.stderr, /nothing to be evaluated with\nhint: data\.validation/);
});

test('while Lighthouse runs both losses are measured, and the pace of what comes; losses are those without', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100), evaluation: { every_steps: 25, sequences: 2 }, rules: [
    { name: 'known', when: "gap IS NOT NULL AND seconds_for('recovery') > 0 AND seconds_for('more') > 0", do: 'checkpoint' }] });
  await lhd.jobUntil(job, 'DONE', done);
  const pairs = lhd.sql(`select step, phase, group_concat(attention) a from (select * from evaluations where job=${job} and reason='interval' order by seq) group by step`);
  assert.deepEqual(pairs, [25, 50, 75, 100, 125, 150].map((step) => ({ step, phase: step <= 100 ? 0 : step <= 140 ? 1 : 2, a: step <= 100 ? 'full,lighthouse' : 'full' })));
  const paces = lhd.sql(`select step, phase, step_ms > 0 known from paces where job=${job} order by seq`);
  assert.deepEqual(paces.filter((p) => p.step <= 100), [3, 25, 50, 75, 100].flatMap((step) => [1, 2].map((phase) => ({ step, phase, known: 1 }))));
  assert.deepEqual(paces.filter((p) => p.step > 100).map((p) => [p.step, p.phase]), [[103, 2], [125, 2]]);
  const [f] = lhd.sql('select values_json from rule_firings');
  const { gap, val_loss, val_loss_lighthouse } = JSON.parse(f.values_json);
  assert.equal(gap, val_loss - val_loss_lighthouse);
  const without = quietRun(lhd, job, { evaluation: { every_steps: 0, sequences: 2, gap: false } });
  assert.deepEqual(await steps(lhd, job), without);
});

test('evaluation.gap: false measures neither', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(30), evaluation: { every_steps: 10, sequences: 2, gap: false } });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(lhd.sql("select * from evaluations where attention <> 'full'"), []);
  assert.deepEqual(lhd.sql('select * from paces'), []);
});

test('a forecast reckons with steps left and what they take, of phases to come too', async (t) => {
  const lhd = await fresh(t);
  const near = (a, b) => assert.ok(Math.abs(a - b) < 1e-9 * b, `${a}, not ${b}`);
  const job = await submit(lhd, { phases: phases(100000), evaluation: { every_steps: 20, sequences: 2 } });
  await lhd.jobUntil(job, 'paces are known', (j) => j.step > 50);
  await lhd.call('job.pause', { job });
  const { step } = await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const f = await lhd.call('job.forecast', { job });
  assert.deepEqual(f.phases.map((p) => [p.name, p.steps_left]), [['lighthouse', 100000 - step], ['recovery', 40], ['more', 10]]);
  const pace = (phase) => lhd.sql(`select step_ms from paces where phase=${phase} order by seq desc limit 1`)[0].step_ms;
  const last = lhd.sql(`select avg(step_ms) ms from (select step_ms from steps order by step desc limit 20)`)[0].ms;
  f.phases.forEach((p, i) => near(p.step_s, [last, pace(1), pace(2)][i] / 1000));
  const rest = 40 * f.phases[1].step_s + 10 * f.phases[2].step_s;
  near(f.switched_now.seconds, rest);
  near(f.as_planned.seconds, rest + (100000 - step) * f.phases[0].step_s);
  assert.ok(f.switched_now.end_ms < f.as_planned.end_ms);
  assert.equal(f.gap.gap, f.gap.val_loss - f.gap.val_loss_lighthouse);
  const { stdout } = ctl(lhd, 'show', 'tiny');
  for (const line of [/^left in 'recovery': 40 steps at \S+ s, \S+/m, /^as planned it would end in \S+/m, /^switched now it would end in \S+/m, /^gap at step \d+: -?\d/m]) assert.match(stdout, line);
  await lhd.call('job.resume', { job });
  await lhd.call('job.switch', { job, phase: 'more' });
  await lhd.jobUntil(job, 'DONE', done);
  const end = await lhd.call('job.forecast', { job });
  assert.deepEqual([end.phases.length, end.as_planned.seconds, end.switched_now], [1, 0, null]);
});

test('a forecast says nothing of what it does not know', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: [phases(10)[0], { ...phases(10)[1], until: 'manual' }] });
  await lhd.jobUntil(job, 'the open phase', (j) => j.phase === 1 && j.step > 15);
  const f = await lhd.call('job.forecast', { job });
  assert.deepEqual([f.phases[0].steps_left, f.phases[0].seconds, f.as_planned, f.switched_now, f.gap], [null, null, { seconds: null, end_ms: null }, null, null]);
  assert.doesNotMatch(ctl(lhd, 'show', 'tiny').stdout, /would end/);
});
