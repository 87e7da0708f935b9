// control.mjs: how fast the control socket and lhctl are while training uses every
// core.
//
//   LH_BUILD=build node tests/bench/control.mjs
//
// Prints, each beside its target: pipelined calls a second from one client, the time
// from a control command to its answer and a read to its answer, and that of lhctl
// from start to end.
import { execFileSync } from 'node:child_process';
import { Lhd, bin, packText, submit } from '../e2e/lib/lhd.mjs';
import { accepted, bench, line, median, quantile, timed } from './report.mjs';

await bench(async (t, dir) => {
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
  let sent = 0;
  const one = async () => { while (sent++ < n) await lhd.client.request('job.get', { job }); };
  const ms = await timed(() => Promise.all(Array.from({ length: window }, one)));
  line(`job.get, one client, ${window} in flight`, n / ms * 1000, 'calls/s', '>= 10000');

  const reads = [], runs = [];
  for (let i = 0; i < 1000; i++) reads.push(await timed(() => lhd.call('job.get', { job })));
  const commands = await accepted(lhd, job, 300, 'job.checkpoint');
  line('job.get, 99th percentile of 1000', quantile(reads, 0.99), 'ms', '< 50');
  line('a control command accepted, 99th percentile of 300', quantile(commands, 0.99), 'ms', '< 50');
  line('  its median', median(commands), 'ms');
  for (let i = 0; i < 200; i++) runs.push(await timed(() => execFileSync(bin('lhctl'), ['--state', lhd.state, 'ls'])));
  line('lhctl ls, start to end, median of 200', median(runs), 'ms', '< 15');
  line('  its 99th percentile', quantile(runs, 0.99), 'ms');
});
