// stall.mjs: how long training stands still for a checkpoint of the demo's model.
//
//   LH_BUILD=build node tests/bench/stall.mjs
//
// Prints the stall at the step boundary, which the worker measures at each save,
// beside its target, and how long the save took in the background.
import { Lhd, packText, submit } from '../e2e/lib/lhd.mjs';
import { bench, line, median } from './report.mjs';

await bench(async (t, dir) => {
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd, {
    threads: 1, model: { preset: 'demo' },
    data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 256 },
    phases: [{ name: 'only', attention: 'full', until: { steps: 50 } }],
    checkpoint: { every_steps: 5, keep: 2 },
  });
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE', 600_000);
  const saves = lhd.sql(`select data_json from events where job=${job} and kind='job.checkpoint'`).map((e) => JSON.parse(e.data_json));
  const stalls = saves.map((s) => s.stall_ms);
  line(`stall of a save, the most of ${saves.length}, ${(saves[0].bytes / 1e6).toFixed(0)} MB`, Math.max(...stalls), 'ms', '< 50');
  line('  its median', median(stalls), 'ms');
  line('  written in the background, median', median(saves.map((s) => s.duration_ms)), 'ms');
});
