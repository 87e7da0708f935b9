// tensorboard.test.mjs: event files hold what the database holds, each line of the run in
// its own, and are not written over.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';
import { readEvents } from './lib/tfevents.mjs';

const lhctl = (lhd, args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', timeout: 60_000 });

/** The one event file of a directory. */
function eventFile(dir) {
  const files = readdirSync(dir).filter((f) => statSync(join(dir, f)).isFile());
  assert.equal(files.length, 1, String(files));
  assert.match(files[0], /^events\.out\.tfevents\.\d{10}\.lighthouse$/);
  return join(dir, files[0]);
}

/** {tag: [[step, value, ms]]} */
function curves(dir) {
  const [version, ...events] = readEvents(eventFile(dir)), out = {};
  assert.equal(version.file_version, 'brain.Event:2');
  for (const e of events) for (const v of e.values) (out[v.tag] ??= []).push([e.step, v.value, Math.round(e.wall_time * 1000)]);
  return out;
}

const rows = (lhd, sql, key) => lhd.sql(sql).map((r) => [r.step, r[key] === null ? NaN : Math.fround(r[key]), r.time_ms]);

test('every step and evaluation of the line that counts is in its file, at its time', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const data = { train: 'text.train.bin', validation: { web: 'text.val.bin', seen: 'text.train.bin' }, tokenizer: 'bytes', seq_len: 128 };
  const job = await submit(lhd, { data, evaluation: { every_steps: 20, sequences: 2 } });
  await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
  const runs = join(dir, 'runs'), run = join(runs, `tiny-${job}`);

  const r = lhctl(lhd, ['metrics', 'tiny', '--tensorboard', runs]);
  assert.equal(r.status, 0, r.stderr);
  assert.equal(r.stdout, '');
  assert.deepEqual(readdirSync(runs), [`tiny-${job}`]);
  const got = curves(run);
  for (const [tag, key] of [['loss/train', 'loss'], ['train/lr', 'lr'], ['train/grad_norm', 'grad_norm'], ['train/tokens_per_s', 'tokens_per_s']])
    assert.deepEqual(got[tag], rows(lhd, `select step, ${key}, time_ms from steps where job=${job} order by step`, key), tag);
  assert.equal(got['loss/train'].length, 100);
  for (const attention of ['full', 'lighthouse'])
    for (const [set, tag] of [['web', attention], ['seen', `${attention}/seen`]])
      assert.deepEqual(got[`loss/validation_${tag}`], rows(lhd, `select step, loss, time_ms from evaluations where job=${job} and attention='${attention}' and set_name='${set}' order by attempt, seq`, 'loss'), tag);
  assert.deepEqual(Object.keys(got).sort(), ['loss/train', 'loss/validation_full', 'loss/validation_full/seen', 'loss/validation_lighthouse',
    'loss/validation_lighthouse/seen', 'train/grad_norm', 'train/lr', 'train/tokens_per_s']);

  const python = spawnSync('python3', ['-c', `
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import sys
a = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}); a.Reload()
print(len(a.Scalars('loss/train')))`, run], { encoding: 'utf8' });
  if (!/No module named|ENOENT/.test(`${python.stderr}${python.error}`)) assert.equal(python.stdout, '100\n', python.stderr);

  const again = lhctl(lhd, ['metrics', 'tiny', '--tensorboard', runs]);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /is there already\nhint: --force/);
  writeFileSync(eventFile(run), 'not this');
  assert.equal(lhctl(lhd, ['metrics', 'tiny', '--tensorboard', runs, '--force']).status, 0);
  assert.equal(curves(run)['loss/train'].length, 100);
});

test('steps that were done again are runs of their own', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }], checkpoint: { every_steps: 1_000_000, keep: 2 } });
  await lhd.jobUntil(job, 'it steps', (j) => j.step > 10);
  await lhd.call('job.checkpoint', { job }); // the only one: what is behind it is lost
  const saved = await until('a checkpoint', () => lhd.sql(`select step from checkpoints where job=${job}`)[0]?.step);
  const { step } = await lhd.jobUntil(job, 'it is past that', (j) => j.step > saved + 10);
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await until('another attempt is as far', () => lhd.sql(`select max(step) s from steps where job=${job} and attempt=2`)[0].s > step);
  await lhd.call('job.cancel', { job });
  await lhd.jobUntil(job, 'it is over', (j) => j.state === 'CANCELLED');
  const [{ from }] = lhd.sql(`select first_step "from" from attempts where job=${job} and attempt=2`);
  const runs = join(dir, 'runs'), run = join(runs, `tiny-${job}`);

  assert.equal(from, saved);
  assert.equal(lhctl(lhd, ['metrics', String(job), '--tensorboard', runs]).status, 0);
  const final = curves(run)['loss/train'], left = readEvents(eventFile(join(run, 'abandoned-attempt-1')));
  assert.deepEqual(final.map(([step]) => step), final.map((_, i) => i + 1), 'each step once');
  assert.deepEqual(left.flatMap((e) => e.values.filter((v) => v.tag === 'loss/train').map(() => e.step)),
    lhd.sql(`select step from steps where job=${job} and attempt=1 and step > ${from} order by step`).map((r) => r.step));
  assert.ok(!existsSync(join(run, 'abandoned-attempt-2')));
});

test('what does not go with it, and where it cannot write, is told of; nothing is left', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd);
  await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
  const wrong = lhctl(lhd, ['metrics', 'tiny', '--tensorboard', dir, '--csv']);
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /--csv does not go with it/);
  assert.equal(lhctl(lhd, ['metrics', 'tiny', '--force']).status, 2);
  writeFileSync(join(dir, 'file'), '');
  const r = lhctl(lhd, ['metrics', 'tiny', '--tensorboard', join(dir, 'file')]);
  assert.equal(r.status, 1);
  assert.match(r.stderr, /^error: .*file/);
  assert.equal(lhctl(lhd, ['metrics', 'nobody', '--tensorboard', dir]).status, 1);
  assert.ok(!readdirSync(dir).includes('tiny-1'));
});
