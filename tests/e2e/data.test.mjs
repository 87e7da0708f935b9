// data.test.mjs: a run on a mixture of everybody's token files: what it is made of follows
// from a cursor, so that a lost worker or other micro-batches change nothing of it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, scratch, packText, submit, losses, until } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

const done = (j) => j.state === 'DONE';

const text = (n, word) => Buffer.from(Array.from({ length: n }, (_, i) => `${word} ${i % 89} goes by\n`).join(''));

/** As nanoGPT writes ids: uint16 and nothing else. */
function bare(file, bytes) {
  writeFileSync(file, Buffer.from(Uint16Array.from(bytes).buffer));
}

/** As Megatron writes them: int32, and an index of one sequence a line. */
function megatron(prefix, bytes) {
  const lengths = bytes.toString('latin1').split('\n').slice(0, -1).map((l) => l.length + 1);
  const idx = Buffer.alloc(34 + 20 * lengths.length + 8);
  idx.write('MMIDIDX\0\0', 0, 'latin1');
  idx.writeBigUInt64LE(1n, 9);
  idx.writeUInt8(4, 17);
  idx.writeBigUInt64LE(BigInt(lengths.length), 18);
  idx.writeBigUInt64LE(BigInt(lengths.length + 1), 26);
  let at = 0;
  lengths.forEach((n, i) => {
    idx.writeInt32LE(n, 34 + 4 * i);
    idx.writeBigInt64LE(BigInt(at * 4), 34 + 4 * lengths.length + 8 * i);
    idx.writeBigInt64LE(BigInt(i + 1), 34 + 12 * lengths.length + 8 * (i + 1));
    at += n;
  });
  writeFileSync(`${prefix}.idx`, idx);
  writeFileSync(`${prefix}.bin`, Buffer.from(Int32Array.from(bytes).buffer));
}

function mixture(dir) {
  packText(dir);
  bare(join(dir, 'bare.bin'), text(400, 'a train'));
  megatron(join(dir, 'm'), text(90, 'the boat'));
  return {
    data: {
      train: [{ path: 'text.train.bin', weight: 3 }, { path: ['bare.bin'], weight: 1 }, { path: '*.idx', weight: 0.5 }],
      validation: 'text.val.bin', format: 'uint16', seq_len: 128,
    },
    batch: { sequences: 3 },
    phases: [{ name: 'a', attention: 'full', until: { steps: 150 } }],
    checkpoint: { every_steps: 20 },
  };
}

test('a mixture goes on bit for bit after its worker was lost', async (t) => {
  const dir = scratch(t), job = mixture(dir);
  const lhd = await Lhd.start(t, dir);
  const quiet = await submit(lhd, job), lost = await submit(lhd, { ...job, name: 'lost' });
  await lhd.jobUntil(quiet, 'DONE', done);
  await lhd.jobUntil(lost, 'it trains', (j) => j.step >= 30);
  process.kill(await lhd.workerPid(lost), 'SIGKILL');
  await lhd.jobUntil(lost, 'DONE', done);
  assert.equal(lhd.sql(`select count(*) n from attempts where job=${lost}`)[0].n, 2);
  assert.deepEqual(await losses(lhd, lost), await losses(lhd, quiet));
  // 450 draws; 50 of them from the least of the sources, which has few windows.
  const { spec } = await lhd.call('job.show', { job: lost });
  assert.deepEqual(spec.data.train.map((s) => [s.path.length, s.weight]), [[1, 3], [1, 1], [1, 0.5]]);
  assert.ok(lhd.sql(`select max(data_epoch) e from steps where job=${lost}`)[0].e >= 2);
});

const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });

/** Which share of 60 draws from one on is of a file, as `data inspect` tells. */
function share(dir, job, from, file) {
  const files = Array.from({ length: 60 }, (_, i) => inspect(dir, job, '--at', String(from + i), '-n', '1', '--json').json.file);
  return files.filter((f) => f.endsWith(`/${file}`)).length / 60;
}

test('weights that are set live: a worker lost or not, replayed or not, the same run', async (t) => {
  const dir = scratch(t), job = mixture(dir);
  Object.assign(job.data.train[0], { name: 'text' });
  Object.assign(job.data.train[2], { name: 'boat', weight: 0 });
  const lhd = await Lhd.start(t, dir);
  const id = await submit(lhd, { ...job, phases: [{ name: 'a', attention: 'full', until: { steps: 1000 } }] });
  const at = (step) => lhd.jobUntil(id, `step ${step}`, (j) => j.step >= step);
  const set = (...pairs) => {
    const r = ctl(lhd, 'set', 'tiny', ...pairs, '-m', 'less of it');
    assert.equal(r.status, 0, r.stderr);
    return Number(r.stdout.match(/applied at step (\d+)/)[1]);
  };
  await at(10);
  const first = set('weight.text=1', 'weight.2=0');
  await at(first + 3);
  process.kill(await lhd.workerPid(id), 'SIGKILL'); // most likely before a checkpoint has it
  const { step: again } = await lhd.jobUntil(id, 'it goes on', (j) => j.attempt === 2 && j.step > first);
  assert.equal(ctl(lhd, 'rule', 'add', 'tiny', 'more', '--when', `step >= ${again + 50}`, '--do', 'set weight.boat=2').status, 0);
  await lhd.jobUntil(id, 'its rule fired', () => lhd.sql("select 1 from commands where method='job.set' and outcome='applied'").length === 2);
  await lhd.restart();
  const show = await lhd.call('job.show', { job: id });
  assert.deepEqual(show.settings, [
    { setting: 'weight.text', phase: null, value: 1, file: 3 },
    { setting: 'weight.2', phase: null, value: 0, file: 1 },
    { setting: 'weight.boat', phase: null, value: 2, file: 0 },
  ]);
  assert.match(ctl(lhd, 'show', 'tiny').stdout, /^set: weight\.text 1, 3 in the job file$/m);
  assert.match(ctl(lhd, 'journal', 'tiny').stdout, /weight\.text 1, weight\.2 0/);
  for (const [pair, want] of [
    ['weight.web=1', /weight\.web: the job has no such source[^]*hint: it has: text 2 boat/],
    ['weight.text=-1', /data\.train: found '-1.*a number from 0 to 1e\+06/],
  ]) {
    const r = ctl(lhd, 'set', 'tiny', pair);
    assert.equal(r.status, 1);
    assert.match(r.stderr, want);
  }
  assert.match(ctl(lhd, 'set', 'tiny', 'weight.text=0', 'weight.boat=0').stderr, /a mixture with a weight above 0/);
  await lhd.jobUntil(id, 'DONE', done);

  const was = await steps(lhd, id);
  assert.equal(was.length, 1000);
  assert.deepEqual(was, quietRun(lhd, id));
  assert.equal(ctl(lhd, 'replay', 'tiny').status, 0);
  await lhd.jobUntil(2, 'DONE', done);
  assert.deepEqual(await steps(lhd, 2), was);

  // What it drew: 3 sequences a step.
  const [{ step: second }] = lhd.sql(`select step from commands where job=${id} and method='job.set' order by id desc limit 1`);
  assert.ok(Math.abs(share(dir, 'tiny', 3 * first - 30, 'text.train.bin') - (0.75 + 1) / 2) < 0.1);
  assert.equal(share(dir, 'tiny', 3 * second - 60, 'text.train.bin'), 1);
  assert.ok(Math.abs(share(dir, 'tiny', 3 * second, 'm.idx') - 2 / 3) < 0.1);
});

test('what is looked at of training stays, whatever weights are set', async (t) => {
  const dir = scratch(t), job = mixture(dir);
  delete job.data.validation;
  const lhd = await Lhd.start(t, dir);
  const id = await submit(lhd, { ...job, evaluation: { every_steps: 10 },
    phases: [{ name: 'a', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: 100000 } }] });
  const looks = async () => (await lhd.call('job.looks', { job: id, kind: 'selection', limit: 1000 })).looks;
  await until('a look', async () => (await looks()).length);
  assert.equal(ctl(lhd, 'set', 'tiny', 'weight.1=0').status, 0);
  const [{ step }] = lhd.sql("select step from commands where method='job.set'");
  await until('another', async () => (await looks()).some((l) => l.step > step));
  assert.equal(lhd.sql(`select count(*) n from attempts where job=${id}`)[0].n, 1);
});

test('what is drawn does not depend on micro-batches', async (t) => {
  const dir = scratch(t), job = mixture(dir);
  const lhd = await Lhd.start(t, dir);
  const whole = await submit(lhd, job);
  const parts = await submit(lhd, { ...job, name: 'parts', batch: { sequences: 3, micro_sequences: 1 } });
  await lhd.jobUntil(whole, 'DONE', done);
  await lhd.jobUntil(parts, 'DONE', done);
  const have = await losses(lhd, parts);
  for (const [step, loss] of await losses(lhd, whole))
    assert.ok(Math.abs(have.get(step) - loss) <= 1e-4 * loss, `step ${step}: ${have.get(step)}, ${loss}`);
});

function inspect(dir, ...args) {
  const r = spawnSync(bin('lhctl'), ['--state', join(dir, 'state'), 'data', 'inspect', ...args], { cwd: dir, encoding: 'utf8' });
  return { ...r, json: r.status === 0 && args.includes('--json') ? JSON.parse(r.stdout) : null };
}

test('data inspect shows what lies at a position of a file', (t) => {
  const dir = scratch(t);
  writeFileSync(join(dir, 'a.txt'), 'first \u00e9\x1b[2J');
  writeFileSync(join(dir, 'b.txt'), 'second');
  assert.equal(spawnSync(bin('lhctl'), ['pack', '-o', 't', '--validation', '0', 'a.txt', 'b.txt'], { cwd: dir }).status, 0);
  const { json } = inspect(dir, 't.train.bin', '--at', '6', '--json');
  assert.deepEqual({ ...json, ids: json.ids.length }, {
    file: 't.train.bin', tokens: 20, bytes_a_token: 2, largest_id: 256, documents: 2, position: 6, document: [0, 13], ids: 14,
    text: '\u00e9\x1b[2J<|256|>second<|256|>',
  });
  assert.match(inspect(dir, 't.train.bin', '-n', '3').stdout, /^document: 0 to 13$[\s\S]*\n\nfir\n$/m);
  assert.match(inspect(dir, 't.train.bin', '--ids', '-n', '3').stdout, /\n\n102 105 114\n$/);
  const far = inspect(dir, 't.train.bin', '--at', '20');
  assert.equal(far.status, 1);
  assert.match(far.stderr, /there is no position 20\nhint: --at is from 0 to 19/);

  megatron(join(dir, 'm'), text(3, 'the boat'));
  assert.deepEqual(inspect(dir, 'm.idx', '--at', '30', '--json').json.document, [19, 38]);
  bare(join(dir, 'bare.bin'), Buffer.from('abc'));
  assert.match(inspect(dir, 'bare.bin').stderr, /not a token shard\nhint: /);
  assert.deepEqual(inspect(dir, 'bare.bin', '--format', 'uint16', '--json').json.ids, [97, 98, 99]);
  assert.equal(inspect(dir, 'bare.bin', '--format', 'float').status, 2);
});

test('data inspect shows the sequences that a job draws', async (t) => {
  const dir = scratch(t), job = mixture(dir);
  const lhd = await Lhd.start(t, dir);
  await submit(lhd, { ...job, name: 'mixed' });
  const all = Array.from({ length: 45 }, (_, i) => inspect(dir, 'mixed', '--at', String(i), '-n', '200', '--json').json);
  const of = (name) => all.filter((s) => s.file.endsWith(name));
  assert.ok(Math.abs(of('/text.train.bin').length - 30) <= 1 && Math.abs(of('/bare.bin').length - 10) <= 1 && Math.abs(of('/m.idx').length - 5) <= 1);
  for (const s of all) {
    assert.equal(s.ids.length, 129);
    assert.equal(s.positions[1] - s.positions[0], 129);
    assert.equal(s.positions[0] % 128, 0);
  }
  const [one] = of('/bare.bin'), data = readFileSync(join(dir, 'bare.bin'));
  assert.deepEqual(one.ids, Array.from({ length: 129 }, (_, i) => data.readUInt16LE(2 * (one.positions[0] + i))));
  assert.match(one.text, /a train \d+ goes by\n/);
  assert.equal(inspect(dir, 'nobody').status, 1);
});
