// control.mjs: how fast the control socket and lhctl are while training uses every
// core.
//
//   LH_BUILD=build node tests/bench/control.mjs
//
// Prints, each beside its target: pipelined calls a second from one client, the time
// from a control command to its answer and a read to its answer, and that of lhctl
// from start to end.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lhd, atEnd, bin, packText, submit } from '../e2e/lib/lhd.mjs';

const after = [];
const t = { after: (f) => after.push(f) };
const dir = mkdtempSync(join(tmpdir(), 'lh-'));
atEnd(t, () => rmSync(dir, { recursive: true, force: true }));

function line(what, value, unit, target) {
  console.log(`${what.padEnd(52)} ${value.toFixed(1).padStart(10)} ${unit.padEnd(8)} target ${target}`);
}

const quantile = (v, q) => v.sort((a, b) => a - b)[Math.min(v.length - 1, Math.floor(v.length * q))];

try {
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  // A model of the demo's width: long GEMMs on all cores, steps of 100 ms and more.
  const job = await submit(lhd, {
    threads: 0, model: { vocab: 257, dim: 256, layers: 4, heads: 4, ffn_dim: 768 },
    data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 512 },
    phases: [{ name: 'only', attention: 'full', until: { steps: 1000000 } }],
  });
  await lhd.jobUntil(job, 'training', (j) => j.step >= 3);

  const n = 100_000, window = 1_000;
  let start = process.hrtime.bigint(), sent = 0;
  const one = async () => { while (sent++ < n) await lhd.client.request('job.get', { job }); };
  await Promise.all(Array.from({ length: window }, one));
  let seconds = Number(process.hrtime.bigint() - start) / 1e9;
  line(`job.get, one client, ${window} in flight`, n / seconds, 'calls/s', '>= 10000');

  const timed = async (method, params) => {
    start = process.hrtime.bigint();
    await lhd.call(method, params);
    return Number(process.hrtime.bigint() - start) / 1e6;
  };
  const reads = [], commands = [];
  for (let i = 0; i < 1000; i++) reads.push(await timed('job.get', { job }));
  for (let i = 0; i < 300; i++) commands.push(await timed('job.checkpoint', { job }));
  line('job.get, 99th percentile of 1000', quantile(reads, 0.99), 'ms', '< 50');
  line('a control command accepted, 99th percentile of 300', quantile(commands, 0.99), 'ms', '< 50');
  line('  its median', quantile(commands, 0.5), 'ms', '');

  const runs = [];
  for (let i = 0; i < 200; i++) {
    start = process.hrtime.bigint();
    execFileSync(bin('lhctl'), ['--state', lhd.state, 'ls']);
    runs.push(Number(process.hrtime.bigint() - start) / 1e6);
  }
  line('lhctl ls, start to end, median of 200', quantile(runs, 0.5), 'ms', '< 15');
  line('  its 99th percentile', quantile(runs, 0.99), 'ms', '');
} finally {
  for (const f of after) await f();
}
