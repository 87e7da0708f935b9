// stall.mjs: how long training stands still for a checkpoint: of the demo's model, and of a
// larger one of two ranks, each of which saves its part.
//
//   LH_BUILD=build node tests/bench/stall.mjs
//
// Prints the stall at the step boundary, which the worker measures at each save,
// beside its target, and how long the save took in the background.
import { Lhd, packText, submit } from '../e2e/lib/lhd.mjs';
import { bench, line, median } from './report.mjs';

const DATA = { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes' };
const DEMO = { threads: 1, model: { preset: 'demo' }, data: { ...DATA, seq_len: 256 }, steps: 50, every: 5 };
const RANKS = { devices: 2, model: { vocab: 8192, dim: 768, layers: 8, heads: 12, ffn_dim: 2048 }, data: { ...DATA, seq_len: 64 },
  batch: { sequences: 2, micro_sequences: 1 }, evaluation: { sequences: 0 }, steps: 10, every: 2 };

async function measure(lhd, what, { steps, every, ...spec }, target = '') {
  const job = await submit(lhd, { ...spec, phases: [{ name: 'only', attention: 'full', until: { steps } }], checkpoint: { every_steps: every, keep: 2 } });
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE', 600_000);
  const saves = lhd.sql(`select data_json from events where job=${job} and kind='job.checkpoint'`).map((e) => JSON.parse(e.data_json));
  const stalls = saves.map((s) => s.stall_ms);
  line(`${what}: stall of a save, the most of ${saves.length}, ${(saves[0].bytes / 1e6).toFixed(0)} MB`, Math.max(...stalls), 'ms', target);
  line('  its median', median(stalls), 'ms');
  line('  written in the background, median', median(saves.map((s) => s.duration_ms)), 'ms');
}

await bench(async (t, dir) => {
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  await measure(lhd, 'demo', DEMO, '< 50');
  await measure(lhd, 'two ranks', RANKS);
});
