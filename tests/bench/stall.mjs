// stall.mjs: how long training stands still for a checkpoint of the demo's model.
//
//   LH_BUILD=build node tests/bench/stall.mjs
//
// Prints the stall at the step boundary, which the worker measures at each save,
// beside its target, and how long the save took in the background.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lhd, atEnd, packText, submit } from '../e2e/lib/lhd.mjs';

const after = [];
const t = { after: (f) => after.push(f) };
const dir = mkdtempSync(join(tmpdir(), 'lh-'));
atEnd(t, () => rmSync(dir, { recursive: true, force: true }));

const quantile = (v, q) => v.sort((a, b) => a - b)[Math.min(v.length - 1, Math.floor(v.length * q))];
const line = (what, ms, target) => console.log(`${what.padEnd(52)} ${ms.toFixed(1).padStart(10)} ms       ${target}`);

try {
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
  line(`stall of a save, the most of ${saves.length}, ${(saves[0].bytes / 1e6).toFixed(0)} MB`, Math.max(...stalls), 'target < 50');
  line('  its median', quantile(stalls, 0.5), '');
  line('  written in the background, median', quantile(saves.map((s) => s.duration_ms), 0.5), '');
} finally {
  for (const f of after) await f();
}
