// switch.test.mjs: the ways to ask for a switch: at a step, now, when a condition holds,
// and only to see what would come of it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const phases = (n) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: n } },
  { name: 'recovery', attention: 'full', until: { steps: 40 } },
];
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const row = (lhd, command) => lhd.sql(`select outcome, step, text from commands where id=${command}`)[0];
const done = (j) => j.state === 'DONE';

test('--at-step: at that very step, whatever was lost before it, and the same again after it', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), checkpoint: { every_steps: 20, keep: 3 }, switch: { watch_steps: 0 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 3);
  const waits = spawn(bin('lhctl'), ['--state', lhd.state, 'switch', 'tiny', 'recovery', '--at-step', '200']);
  const ended = new Promise((r) => waits.once('exit', (code) => r(code)));
  await lhd.jobUntil(job, 'accepted', () => lhd.sql('select id from commands where method = \'job.switch\'').length === 1);
  const set = await lhd.call('job.set', { job, lr: 1e-3 }); // what comes after does not wait
  await lhd.jobUntil(job, 'set', () => row(lhd, set.command).outcome === 'applied');
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 50);
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'more steps', (j) => j.step >= 100);
  assert.equal((await lhd.call('job.get', { job })).phase, 0);
  await lhd.jobUntil(job, 'the next phase', (j) => j.phase === 1 && j.step > 205);
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'DONE', done);
  assert.equal(await ended, 0);
  assert.deepEqual(lhd.sql("select outcome, step from commands where method = 'job.switch'"), [{ outcome: 'applied', step: 200 }]);
  const live = await steps(lhd, job);
  assert.equal(live.length, 240);
  assert.ok(live.every((s) => s.phase === (s.step <= 200 ? 0 : 1)));
  assert.deepEqual(live, quietRun(lhd, job));
});

test('--at-step outlives lhd, and waits in the very first steps of another worker', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), switch: { watch_steps: 0 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 3);
  await lhd.call('job.pause', { job });
  const { step } = await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const { command } = await lhd.call('job.switch', { job, at_step: step + 1 });
  await lhd.restart();
  process.kill(await lhd.workerPid(job), 'SIGKILL'); // its checkpoint is of that step
  await lhd.call('job.resume', { job });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual({ ...row(lhd, command), text: '' }, { outcome: 'applied', step: step + 1, text: '' });
});

test('--at-step: what is past, or both ways at once, is refused', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000) });
  const { step } = await lhd.jobUntil(job, 'some steps', (j) => j.step > 10);
  await assert.rejects(lhd.call('job.switch', { job, at_step: step - 1 }), /is past/);
  await assert.rejects(lhd.call('job.switch', { job, at_step: 1e6, now: true }), /now or at a step, not both/);
  assert.match(ctl(lhd, 'switch', 'tiny', '--at-step', '3').stderr, /error: job 1 has done \d+ steps: step 3 is past\nhint: name a step to come/);
  assert.equal(ctl(lhd, 'switch', 'tiny', '--at-step', '999', '--now').status, 2);
  assert.equal(ctl(lhd, 'switch', 'tiny', '--at-step', 'x').status, 2);
  // One that is never reached is refused when the job ends, and does not stand in the way.
  const never = await lhd.call('job.switch', { job, at_step: 1e6 });
  assert.equal(ctl(lhd, 'switch', 'tiny', 'recovery').status, 0);
  await lhd.jobUntil(job, 'DONE', done);
  assert.match(row(lhd, never.command).text, /the job ended before it was applied/);
});

test('--now: the step under way is done again in the next phase, with the same data', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), batch: { sequences: 64, micro_sequences: 1 }, switch: { watch_steps: 0 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 2);
  const r = ctl(lhd, 'switch', 'tiny', '--now');
  assert.equal(r.status, 0, r.stderr);
  await lhd.jobUntil(job, 'some steps in the next phase', (j) => j.phase === 1 && j.step > 8);
  const [{ step }] = lhd.sql("select step from commands where method = 'job.switch'");
  assert.deepEqual(lhd.sql(`select reason from evaluations where job=${job} and step >= ${step} and reason like '%switch'`), [{ reason: 'after_switch' }]);
  await lhd.jobUntil(job, 'DONE', done);
  const live = await steps(lhd, job);
  assert.equal(live.length, step + 40);
  assert.deepEqual(live, quietRun(lhd, job));
});

test('--dry-run tells what a switch would meet, and changes nothing', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000) });
  await lhd.jobUntil(job, 'some steps', (j) => j.step > 10);
  const r = ctl(lhd, 'switch', 'tiny', '--dry-run');
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /^phase 'recovery' needs \d+\.\d\d GiB, \d+\.\d\d are free or this job's: it fits$/m);
  const data = JSON.parse(ctl(lhd, 'switch', 'tiny', 'recovery', '--dry-run', '--json').stdout);
  assert.deepEqual([data.command, data.job, data.state, data.preflight.phase, data.preflight.fits], [null, job, 'checked', 'recovery', true]);
  assert.ok(data.preflight.need_bytes > 0 && data.preflight.have_bytes >= data.preflight.need_bytes);
  assert.match(ctl(lhd, 'switch', 'tiny', 'nowhere', '--dry-run').stderr, /there is no phase 'nowhere'/);
  assert.match(ctl(lhd, 'switch', 'tiny', 'lighthouse', '--dry-run').stderr, /in phase 'lighthouse' already/);
  let later = null; // a worker would hold it until then
  lhd.call('job.switch', { job, dry_run: true, at_step: 1_000_000 }).then((answer) => { later = answer; });
  assert.equal((await until('it is answered', () => later, 20_000)).state, 'checked');
  await lhd.call('job.pause', { job, release: true });
  await lhd.jobUntil(job, 'released', (j) => j.state === 'QUEUED');
  assert.match(ctl(lhd, 'switch', 'tiny', '--dry-run').stderr, /is QUEUED: no worker can say/);
  assert.deepEqual(lhd.sql("select * from commands where method = 'job.switch'"), []);
});

test('--when: a rule with a name of its own that fires once', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000) });
  const r = ctl(lhd, 'switch', 'tiny', 'recovery', '--when', 'step >= 30', '-m', 'a test');
  assert.equal(r.status, 0, r.stderr);
  const [, name] = /^added: rule '(switch-[0-9a-f]{8})'$/m.exec(r.stdout);
  await lhd.jobUntil(job, 'DONE', done);
  const { rules } = await lhd.call('rule.list', { job });
  assert.deepEqual(rules.map((x) => [x.name, x.state, x.fired, x.do]), [[name, 'fired', 1, 'switch recovery']]);
  assert.equal(ctl(lhd, 'switch', 'tiny', '--when', 'stp > 3').status, 1);
});
