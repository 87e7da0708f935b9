// annotate.test.mjs: notes about a job, in any state, and where they are shown.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] };
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const notes = (lhd) => lhd.sql("select text, step, json_extract(data_json, '$.uid') uid from events where kind='job.note' order by id");

test('a note about a job that runs is an event of its step, in the journal, and watched', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 3);
  const watch = spawn(bin('lhctl'), ['--state', lhd.state, 'watch', 'tiny']);
  let seen = '';
  watch.stdout.setEncoding('utf8').on('data', (text) => { seen += text; });
  await until('it watches', () => seen);
  const r = ctl(lhd, 'annotate', 'tiny', 'the disk was slow \u001b[31m here');
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /^applied: annotate applied at step \d+: the disk was slow \\x1b\[31m here\n$/);
  const [note] = notes(lhd);
  assert.equal(note.text, 'the disk was slow \\x1b[31m here'); // as in every event
  assert.ok(note.step > 3);
  assert.equal(note.uid, process.getuid());
  await until('it is watched', () => /job\.note\s+the disk was slow/.test(seen));
  watch.kill();
  assert.match(ctl(lhd, 'events', 'tiny', '--kind', 'job.note').stdout, /job\.note\s+the disk was slow \\x1b/);
  assert.match(ctl(lhd, 'journal', 'tiny').stdout, /job\.annotate\s.*\sapplied\s.*the disk was slow \\x1b/);
  assert.equal((await lhd.call('job.get', { job })).state, 'RUNNING');
});

test('a note about a job that waits, and about one that has ended, stays', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  const job = await submit(lhd, { name: 'second' });
  assert.equal(ctl(lhd, 'annotate', 'second', 'waits').status, 0);
  assert.equal(ctl(lhd, 'cancel', 'second').status, 0);
  await until('it has ended', async () => (await lhd.call('job.get', { job })).state === 'CANCELLED');
  await lhd.restart();
  assert.equal(ctl(lhd, 'annotate', 'second', 'was not needed').status, 0);
  assert.deepEqual(notes(lhd).map((n) => n.text), ['waits', 'was not needed']);
});

test('a note that is none is refused; one that is repeated is one', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, LONG);
  const empty = ctl(lhd, 'annotate', 'tiny', '');
  assert.equal(empty.status, 1);
  assert.match(empty.stderr, /the note is empty\n.*hint: say what is to be remembered/);
  assert.equal(ctl(lhd, 'annotate', 'tiny').status, 2);
  assert.equal(ctl(lhd, 'annotate', 'nobody', 'x').status, 1);
  assert.equal(ctl(lhd, 'annotate', 'tiny', 'x'.repeat(1001)).status, 1);
  for (let i = 0; i < 2; i++) assert.equal(ctl(lhd, 'annotate', 'tiny', 'once', '--request-id', 'the-same').status, 0);
  assert.deepEqual(notes(lhd).map((n) => n.text), ['once']);
});
