// report.mjs: what the benchmarks share: a directory that goes in the end, quantiles, and
// a line a measurement, beside its target.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd, until } from '../e2e/lib/lhd.mjs';

/** Runs `measure(t, dir)`, then whatever it left to be done, as a test would. */
export async function bench(measure) {
  const after = [], t = { after: (f) => after.push(f) };
  const dir = mkdtempSync(join(tmpdir(), 'lh-'));
  atEnd(t, () => rmSync(dir, { recursive: true, force: true }));
  try { await measure(t, dir); } finally { for (const f of after) await f(); }
}

export const quantile = (v, q) => [...v].sort((a, b) => a - b)[Math.min(v.length - 1, Math.floor(v.length * q))];
export const median = (v) => quantile(v, 0.5);

export function line(what, value, unit, target = '', digits = 1) {
  console.log(`${what.padEnd(58)} ${value.toFixed(digits).padStart(10)} ${unit.padEnd(8)} ${target && `target ${target}`}`);
}

/** Milliseconds that `f` takes. */
export async function timed(f) {
  const start = process.hrtime.bigint();
  await f();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

/** Milliseconds until each of `n` commands of a job was accepted. Now and then all are let
 * be carried out: only so many may be pending. */
export async function accepted(lhd, job, n, method, paramsOf = () => ({})) {
  const ms = [];
  for (let i = 0; i < n; i++) {
    ms.push(await timed(() => lhd.call(method, { job, ...paramsOf(i) })));
    if (i % 25 === 0)
      await until('all are applied', async () => !(await lhd.call('job.journal', { job, outcome: 'pending' })).commands.length);
  }
  return ms;
}
