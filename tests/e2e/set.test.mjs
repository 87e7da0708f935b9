// set.test.mjs: settings changed while a job runs: applied at a boundary, kept through
// the loss of workers and daemons, and what the rest of the run is reckoned by.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const PHASES = [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: 400 } },
  { name: 'recovery', attention: 'full', until: { steps: 60 } },
];
const JOB = { phases: PHASES, optimizer: { lr: 2e-3, warmup_steps: 5, schedule: 'cosine' }, switch: { watch_steps: 0 }, on_instability: { loss_spike: 'ignore', gradient_spike: 'ignore' } };
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const outcome = (lhd, command) => lhd.sql(`select outcome, step, text from commands where id=${command}`)[0];

test('every setting, with workers and a daemon lost between: losses are those of a run that nobody disturbed', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...JOB, checkpoint: { every_steps: 50, keep: 2 } });
  const at = (step) => lhd.jobUntil(job, `step ${step}`, (j) => j.step >= step);
  const set = (...pairs) => {
    const r = ctl(lhd, 'set', 'tiny', ...pairs);
    assert.equal(r.status, 0, r.stderr);
    return r.stdout;
  };
  const lose = async () => process.kill(await lhd.workerPid(job), 'SIGKILL');
  await at(10);
  assert.match(set('lr=3e-3', 'clip=0.05'), /^applied: set applied at step \d+: lr 0.003, clip 0.05$/m);
  await at(lhd.sql('select step from commands where method = \'job.set\'')[0].step + 3);
  await lose(); // most likely before a checkpoint has them
  await at(60);
  set('weight_decay=0.5');
  set('lr_factor=0.25');
  set('phase_steps=300', 'eval_every=40', 'checkpoint_every=30');
  await lose();
  // The job's step may still be that of the worker that is lost.
  await lhd.jobUntil(job, 'all was set again', () => lhd.sql(`select 1 from steps where job=${job} and attempt=3
    and step > (select max(step) from commands where method='job.set') limit 1`).length);
  await lhd.restart();
  const show = await lhd.call('job.show', { job });
  assert.equal(show.summary.total_steps, 360);
  assert.deepEqual(show.phases.map((p) => p.steps), [300, 60]);
  assert.deepEqual(show.settings, [
    { setting: 'lr', phase: null, value: 3e-3, file: 2e-3 },
    { setting: 'lr_factor', phase: 'lighthouse', value: 0.25, file: 1 },
    { setting: 'clip', phase: null, value: 0.05, file: 1 },
    { setting: 'weight_decay', phase: null, value: 0.5, file: 0.1 },
    { setting: 'eval_every', phase: null, value: 40, file: 0 },
    { setting: 'checkpoint_every', phase: null, value: 30, file: 50 },
    { setting: 'phase_steps', phase: 'lighthouse', value: 300, file: 400 },
  ]);
  assert.match(ctl(lhd, 'show', 'tiny').stdout, /^set: lr_factor 0.25 in 'lighthouse', 1 in the job file$/m);
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');

  const live = await steps(lhd, job);
  assert.equal(live.length, 360);
  assert.ok(live.every((s) => s.phase === (s.step <= 300 ? 0 : 1)));
  assert.deepEqual(live, quietRun(lhd, job));
  const evals = lhd.sql(`select distinct step from evaluations where job=${job} and reason='interval' order by step`).map((e) => e.step);
  assert.equal(evals.at(-1), 360);
  assert.ok(evals.every((s) => s % 40 === 0));
  const dir = join(lhd.state, 'jobs', String(job), 'checkpoints');
  const { settings } = JSON.parse(readFileSync(join(dir, readdirSync(dir).sort().at(-1), 'manifest.json'), 'utf8'));
  assert.deepEqual(settings, { lr: 3e-3, lr_factor: [0.25, 1], clip: 0.05, weight_decay: 0.5, eval_every: 40, checkpoint_every: 30, phase_steps: [300, 60], mix: null });
});

test('a phase made shorter than it is ends at once; one made longer goes on', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, JOB);
  await lhd.jobUntil(job, 'step 30', (j) => j.step >= 30);
  const { command } = await lhd.call('job.set', { job, phase_steps: 10 });
  await lhd.jobUntil(job, 'the next phase', (j) => j.phase === 1);
  const { step } = outcome(lhd, command);
  const { phases, summary } = await lhd.call('job.show', { job });
  assert.equal(phases[1].first_step, step);
  assert.equal(summary.total_steps, step + 60);
  await lhd.call('job.set', { job, phase_steps: 90 });
  const end = await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');
  assert.equal(end.step, step + 90);
});

test('what a job file may not say cannot be set, and nothing changes', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...JOB, phases: [{ ...PHASES[0], until: { steps: 100000 } }, PHASES[1]] });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  for (const [pairs, code, want] of [
    [['lr=101'], 1, /optimizer\.lr: found '101.*', a number from 0 to 100 is allowed[^]*hint: optimizer\.lr: peak learning rate/],
    [['clip=-1'], 1, /optimizer\.clip: found '-1.*'/],
    [['eval_every=-1'], 1, /evaluation\.every_steps: found '-1', an integer from 0 is allowed/],
    [['phase_steps=0'], 1, /phases\.0\.until: /],
    [['lr=fast'], 2, /lr: found 'fast', a number is needed/],
    [['eval_every=1.5'], 2, /eval_every: found '1.5', an integer is needed/],
    [['seed=1'], 2, /'seed=1' sets nothing[^]*hint: .*lr lr_factor clip/],
    [['lr=1e-3', 'lr=2e-3'], 2, /lr is set twice/],
    [['lr'], 2, /'lr' sets nothing/],
  ]) {
    const r = ctl(lhd, 'set', 'tiny', ...pairs);
    assert.equal(r.status, code, `${pairs}: ${r.stdout}${r.stderr}`);
    assert.match(r.stderr, want);
  }
  await assert.rejects(lhd.call('job.set', { job }), /nothing is to be set/);
  assert.deepEqual((await lhd.call('job.show', { job })).settings, []);
  assert.deepEqual(lhd.sql("select id from commands where method = 'job.set'"), []);
  const other = await submit(lhd, { ...JOB, name: 'other' });
  const waits = ctl(lhd, 'set', 'other', 'lr=1e-3');
  if ((await lhd.call('job.get', { job: other })).state === 'QUEUED') assert.match(waits.stderr, /waits in the queue/);
});

test('a request that is repeated is answered as the first time, in another phase too', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...JOB, phases: [PHASES[0], { ...PHASES[1], until: { steps: 100000 } }] });
  const ask = (lr) => lhd.call('job.set', { job, lr, request_id: 'the-same' });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
  const first = await ask(1e-3);
  await lhd.jobUntil(job, 'applied', () => outcome(lhd, first.command).outcome === 'applied');
  await lhd.call('job.switch', { job });
  await lhd.jobUntil(job, 'the next phase', (j) => j.phase === 1);
  assert.deepEqual(await ask(1e-3), first);
  await assert.rejects(ask(2e-3), /was used for another request/);
});

test('a rule can set what a command can, and is refused what it cannot', async (t) => {
  const lhd = await fresh(t);
  await assert.rejects(submit(lhd, { ...JOB, rules: [{ name: 'r', when: 'step > 3', do: 'set lr=200' }] }), /rules\.0 \(r\): .*optimizer\.lr: found '200.*'/);
  const job = await submit(lhd, { ...JOB, rules: [{ name: 'calm', when: 'step >= 20', do: 'set lr=1e-4 clip=0.5' }] });
  for (const [action, want] of [['set', /'' sets nothing/], ['set lr=200', /optimizer\.lr: found '200/], ['set speed=9', /'speed=9' sets nothing/], ['switch nowhere', /no phase 'nowhere'/]])
    await assert.rejects(lhd.call('rule.add', { job, name: 'x', when: 'step > 3', do: action }), want);
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');
  const [{ outcome: was, step, text }] = lhd.sql("select outcome, step, text from commands where method = 'job.set'");
  assert.equal(was, 'applied');
  assert.equal(text, 'lr 0.0001, clip 0.5');
  assert.ok(step >= 20);
});
