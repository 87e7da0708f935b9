// replay.test.mjs: a job once more, with what was done to it: the same losses, bit for
// bit, whatever is lost on the way.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { Lhd, bin, packText, scratch, submit } from './lib/lhd.mjs';
import { steps } from './lib/quiet.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const done = (j) => j.state === 'DONE';
const PHASES = [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: 100000 } },
  { name: 'recovery', attention: 'full', until: { steps: 100000 } },
];
const JOB = { phases: PHASES, optimizer: { lr: 2e-3, warmup_steps: 5, schedule: 'cosine' }, switch: { watch_steps: 0 },
  on_instability: { loss_spike: 'ignore', gradient_spike: 'ignore' },
  rules: [{ name: 'late', when: 'step >= 20', do: 'set weight_decay=0.2' }] };

/** A job that was set, by hand and by its rule, paused and switched. */
async function steered(lhd) {
  const job = await submit(lhd, JOB);
  const at = (what, test) => lhd.jobUntil(job, what, test);
  const give = (...args) => {
    const r = ctl(lhd, ...args);
    assert.equal(r.status, 0, r.stderr);
  };
  await at('it trains', (j) => j.step >= 5);
  give('set', 'tiny', 'lr=1e-3', 'clip=0.5', '-m', 'spikes');
  await at('its rule fired', () => lhd.sql("select 1 from commands where method='job.set' and outcome='applied'").length === 2);
  give('pause', 'tiny');
  give('set', 'tiny', 'lr_factor=0.5');
  give('resume', 'tiny');
  await at('some steps', (j) => j.step >= 60);
  give('switch', 'tiny', 'recovery', '--now');
  const { step } = await at('the next phase', (j) => j.phase === 1);
  give('set', 'tiny', `phase_steps=${step + 300}`);
  await at('DONE', done);
  return job;
}

const shaped = (lhd, job) => lhd.sql(`select method, json_remove(args_json, '$.at_step', '$.now', '$.asked') args, outcome, step from commands where job=${job} and method in ('job.set', 'job.switch') order by id`);

test('what was set, switched and paused live is done again at the same steps: the same losses', async (t) => {
  const lhd = await fresh(t);
  const job = await steered(lhd);
  const r = ctl(lhd, 'replay', 'tiny', '-m', 'once more');
  assert.equal(r.status, 0, r.stderr);
  assert.equal(r.stdout, "job 2 'tiny-replay': queued\n");
  await lhd.jobUntil(2, 'some steps', (j) => j.step >= 30);
  process.kill(await lhd.workerPid(2), 'SIGKILL');
  await lhd.restart();
  await lhd.jobUntil(2, 'DONE', done);
  const was = await steps(lhd, job), is = await steps(lhd, 2);
  assert.ok(was.some((s) => s.phase === 1) && was.length > 60);
  assert.deepEqual(is, was);
  assert.equal(shaped(lhd, job).length, 5);
  assert.deepEqual(shaped(lhd, 2), shaped(lhd, job));
  const [first] = lhd.sql("select message, program, uid from commands where job=2 and method='job.set' order by id limit 1");
  const [origin] = lhd.sql(`select id from commands where job=${job} and method='job.set' order by id limit 1`);
  assert.deepEqual(first, { message: `as command ${origin.id} of job 1`, program: 'lhctl', uid: process.getuid() });
  assert.deepEqual(lhd.sql("select message, json_extract(args_json, '$.of') of from commands where method='job.replay'"), [{ message: 'once more', of: 1 }]);
  assert.deepEqual(lhd.sql('select name from rules where job=2'), []);
  assert.deepEqual(lhd.sql("select text from events where job=2 and kind='job.submitted'"), [{ text: "job 'tiny-replay' was queued: it does what job 1 did, with 5 of its commands" }]);
});

test('what is not at its step yet waits, and is in nobody\'s way', async (t) => {
  const lhd = await fresh(t);
  await steered(lhd);
  assert.equal(ctl(lhd, 'replay', 'tiny').status, 0);
  await lhd.jobUntil(2, 'it trains', (j) => j.step > 0);
  assert.match(ctl(lhd, 'journal', '2', '--outcome', 'pending').stdout, /job\.switch/);
  assert.equal(ctl(lhd, 'checkpoint', 'tiny-replay').status, 0);
  assert.equal(ctl(lhd, 'cancel', 'tiny-replay').status, 0);
});

test('a request that is repeated is one job; what cannot be repeated is refused with a hint', async (t) => {
  const lhd = await fresh(t);
  const short = await submit(lhd, { name: 'short' });
  await lhd.jobUntil(short, 'DONE', done);
  const ask = { job: short, request_id: 'the-same' };
  const first = await lhd.call('job.replay', ask);
  assert.deepEqual(await lhd.call('job.replay', ask), first);
  await assert.rejects(lhd.call('job.replay', { ...ask, priority: 1 }), /was used for another request/);
  await lhd.jobUntil(first.job, 'DONE', done);
  assert.deepEqual(await steps(lhd, first.job), await steps(lhd, short));
  await submit(lhd, { name: 'timed', phases: [{ name: 'all', attention: 'full', until: { minutes: 60 } }] });
  for (const [args, code, want] of [
    [['timed'], 1, /phase 'all' of job 3 ends after 60 minutes, which no other run does at the same step\n.*hint: submit its job file/],
    [['nobody'], 1, /there is no job 'nobody'[^]*hint: 'lhctl ls'/],
    [['99'], 1, /there is no job 99[^]*hint: /],
    [[], 2, /JOB/],
  ]) {
    const r = ctl(lhd, 'replay', ...args);
    assert.equal(r.status, code, `${args}: ${r.stdout}${r.stderr}`);
    assert.match(r.stderr, want);
  }
});
