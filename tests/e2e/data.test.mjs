// data.test.mjs: a run on a mixture of everybody's token files: what it is made of follows
// from a cursor, so that a lost worker or other micro-batches change nothing of it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, packText, submit, losses } from './lib/lhd.mjs';

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
