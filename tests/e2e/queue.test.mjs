// queue.test.mjs: what decides when a job starts: a time, another job's end, priority.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, jobYaml, packText, scratch, submit, until } from './lib/lhd.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  writeFileSync(join(dir, 'job.yaml'), jobYaml({ name: 'next' }));
  return Lhd.start(t, dir);
}

const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] };
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', env: { ...process.env, TZ: 'UTC' } });
const get = (lhd, job) => lhd.call('job.get', { job });
const file = (lhd) => join(lhd.dir, 'job.yaml');

test('--after: starts once that job is done, across a restart of lhd', async (t) => {
  const lhd = await fresh(t);
  const first = await submit(lhd, LONG);
  const r = ctl(lhd, 'submit', file(lhd), '--after', 'tiny');
  assert.equal(r.status, 0, r.stderr);
  assert.match(ctl(lhd, 'show', 'next').stdout, /^job 2 'next': QUEUED \(waits for job 1 'tiny' to be done\)$/m);
  assert.equal(ctl(lhd, 'ls', '-c', 'name,after', '--no-headers').stdout.replace(/ +/g, '\t'), 'tiny\t-\nnext\t1\n');
  await lhd.restart();
  assert.equal((await get(lhd, 2)).after, 1);
  await lhd.jobUntil(first, 'it trains', (j) => j.step > 0);
  await lhd.call('job.set', { job: first, phase_steps: 10 });
  await lhd.jobUntil(2, 'DONE', (j) => j.state === 'DONE');
  assert.equal((await get(lhd, 2)).after, null);
  const ended = (await get(lhd, first)).ended_ms;
  assert.ok(lhd.sql('select started_ms from jobs where id=2')[0].started_ms >= ended);
  assert.deepEqual(lhd.sql("select text from events where kind='job.due'"), [{ text: "job 1 'tiny' is done" }]);
});

test('--after a job that is cancelled: held, with a reason and what to do; a resume starts it', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  assert.equal(ctl(lhd, 'submit', file(lhd), '--after', '1').status, 0);
  assert.equal(ctl(lhd, 'cancel', 'tiny').status, 0);
  const held = (j) => /job 1 'tiny', which it was to come after, ended as CANCELLED \(hint: 'lhctl resume 2' starts it all the same, 'lhctl cancel 2' gives it up\)$/.test(j.reason);
  await lhd.jobUntil(2, 'held', held);
  await until('it is told', () => lhd.sql("select text from events where kind='job.held' and job=2").length === 1);
  await lhd.restart();
  assert.ok(held(await get(lhd, 2)));
  assert.match(ctl(lhd, 'show', '2').stdout, /QUEUED \(held: job 1 'tiny'/);
  assert.equal(ctl(lhd, 'resume', '2').status, 0);
  await lhd.jobUntil(2, 'DONE', (j) => j.state === 'DONE');
});

test('--at: not before that time; what was given is kept and shown', async (t) => {
  const lhd = await fresh(t);
  assert.equal(ctl(lhd, 'submit', file(lhd), '--at', '2h').status, 0);
  const { not_before_ms: at } = await get(lhd, 1);
  assert.ok(Math.abs(at - Date.now() - 7_200_000) < 60_000);
  const shown = new Date(at).toISOString().slice(0, 19).replace('T', ' ');
  assert.match(ctl(lhd, 'show', '1').stdout, new RegExp(`QUEUED \\(waits for its time\\)\n[^]*^not before ${shown}$`, 'm'));
  assert.equal(ctl(lhd, 'ls', '-c', 'at', '--no-headers').stdout, `${shown}\n`);
  const other = await submit(lhd, { name: 'other' }); // it is in nobody's way
  await lhd.jobUntil(other, 'DONE', (j) => j.state === 'DONE');
  assert.equal((await get(lhd, 1)).state, 'QUEUED');
  const soon = Date.now() + 500;
  const due = await submit(lhd, { name: 'soon' }, { not_before_ms: soon });
  await lhd.jobUntil(due, 'DONE', (j) => j.state === 'DONE');
  assert.ok(lhd.sql(`select started_ms from jobs where id=${due}`)[0].started_ms >= soon);
  assert.equal(ctl(lhd, 'resume', '1').stdout, 'applied: resume applied at step 0: free to start, waits no longer\n');
  await lhd.jobUntil(1, 'DONE', (j) => j.state === 'DONE');
  assert.equal(ctl(lhd, 'submit', file(lhd), '--at', '08:00').status, 0);
  const next = new Date((await get(lhd, 4)).not_before_ms);
  assert.equal(next.toISOString().slice(11), '08:00:00.000Z');
  assert.ok(next > Date.now() && next < Date.now() + 86_400_000);
});

test('a start that cannot come is refused, with a hint', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  ctl(lhd, 'cancel', 'tiny');
  await until('it has ended', async () => (await get(lhd, 1)).state === 'CANCELLED');
  for (const [args, code, want] of [
    [['--after', 'nobody'], 1, /there is no job 'nobody'[^]*hint: 'lhctl ls'/],
    [['--after', '77'], 1, /there is no job 77 to come after[^]*hint: /],
    [['--after', 'tiny'], 1, /job 1 'tiny' ended as CANCELLED: what comes after it would never start[^]*hint: name another job/],
    [['--at', 'noon'], 2, /--at is 'noon'; a time like 08:00/],
    [['--at', '24:00'], 2, /--at is '24:00'; a time/],
    [['--at', '2001-01-01'], 2, /--at is '2001-01-01', which is past/],
  ]) {
    const r = ctl(lhd, 'submit', file(lhd), ...args);
    assert.equal(r.status, code, `${args}: ${r.stdout}${r.stderr}`);
    assert.match(r.stderr, want);
  }
  assert.equal((await lhd.call('job.list', {})).jobs.length, 1);
});

test('a submit that is repeated is the same only with the same time and forerunner', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  const again = { name: 'again' }, more = { after: 1, request_id: 'the-same' };
  assert.equal(await submit(lhd, again, more), 2);
  await lhd.call('job.cancel', { job: 1 });
  await until('it has ended', async () => (await get(lhd, 1)).state === 'CANCELLED');
  assert.equal(await submit(lhd, again, more), 2); // as it was answered then
  await assert.rejects(submit(lhd, again, { request_id: 'the-same' }), /was used for another request/);
});

test('priority: one that waits is moved up and takes the place; it is kept and journalled', async (t) => {
  const lhd = await fresh(t);
  const first = await submit(lhd, LONG), second = await submit(lhd, { ...LONG, name: 'second' }), third = await submit(lhd, { name: 'third' });
  await lhd.jobUntil(first, 'it trains', (j) => j.step > 3);
  const r = ctl(lhd, 'priority', 'third', '5', '-m', 'needed today');
  assert.equal(r.status, 0, r.stderr);
  assert.equal(r.stdout, 'applied: priority applied at step 0: priority 5, was 0\n');
  await lhd.jobUntil(third, 'DONE', (j) => j.state === 'DONE');
  assert.deepEqual(lhd.sql("select job, text from events where kind='job.preempted'"), [{ job: first, text: "job 3 'third' of priority 5 takes its place" }]);
  assert.deepEqual(lhd.sql("select method, args_json, outcome, message, text from commands where method='job.priority'"),
    [{ method: 'job.priority', args_json: '{"priority":5}', outcome: 'applied', message: 'needed today', text: 'priority 5, was 0' }]);
  await lhd.jobUntil(first, 'it trains again', (j) => j.state === 'RUNNING');
  assert.equal(ctl(lhd, 'priority', 'tiny', '--', '-5').status, 0); // gives its place to one that waits
  await lhd.jobUntil(second, 'it trains', (j) => j.step > 0);
  await lhd.restart();
  assert.deepEqual(ctl(lhd, 'ls', '-c', 'name,priority', '--no-headers').stdout.replace(/ +/g, '\t'), 'tiny\t-5\nsecond\t0\nthird\t5\n');
});

test('a priority that cannot be given is refused, with a hint', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  const given = { job: 1, priority: 3, request_id: 'the-same' };
  const { command } = await lhd.call('job.priority', given);
  assert.deepEqual(await lhd.call('job.priority', given), { command, job: 1, state: 'accepted' });
  for (const [args, code, want] of [
    [['tiny', '3'], 1, /job 1 has priority 3 already\n.*hint: give it another/],
    [['tiny', 'high'], 2, /priority 'high'; an integer from -1000 to 1000/],
    [['tiny', '1001'], 2, /priority '1001'; an integer/],
    [['tiny'], 2, /JOB N/],
    [['nobody', '1'], 1, /there is no job 'nobody'/],
  ]) {
    const r = ctl(lhd, 'priority', ...args);
    assert.equal(r.status, code, `${args}: ${r.stdout}${r.stderr}`);
    assert.match(r.stderr, want);
  }
  assert.equal(ctl(lhd, 'cancel', 'tiny').status, 0);
  await until('it has ended', async () => (await get(lhd, 1)).state === 'CANCELLED');
  assert.match(ctl(lhd, 'priority', 'tiny', '4').stderr, /job 1 has ended: CANCELLED/);
});
