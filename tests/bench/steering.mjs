// steering.mjs: what it costs to steer a job, and the job to be steered, while it trains
// and one of two cores is left free.
//
//   LH_BUILD=build node tests/bench/steering.mjs [--minutes N] [--pairs N]
//
// --minutes is how long the clients load lhd (0.25; the number of record is of 10), and
// --pairs how many times training is timed without and with them (10, of 2 s each). On
// more than two cores: taskset -c 0,1.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { Lhd, bin, packText, submit } from '../e2e/lib/lhd.mjs';
import { accepted, bench, line, median, quantile, timed } from './report.mjs';

const run = promisify(execFile);
const option = (name, otherwise) => process.argv.includes(name) ? Number(process.argv[process.argv.indexOf(name) + 1]) : otherwise;
const MINUTES = option('--minutes', 0.25), PAIRS = option('--pairs', 10), WINDOW_MS = 2000;

/** About 200 steps a second of one thread. */
const SMALL = {
  model: { vocab: 257, dim: 64, layers: 2, heads: 2, ffn_dim: 128 },
  data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 256 },
};
/** Of the demo: steps of a tenth of a second. */
const LARGE = {
  model: { preset: 'demo' },
  data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 256 },
};
const phase = (name, over) => ({ name, attention: 'full', until: { steps: 100_000_000 }, ...over });
const QUIET = { threads: 1, evaluation: { sequences: 1 }, checkpoint: { every_steps: 0, keep: 2 }, switch: { watch_steps: 0 } };

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const ctl = (lhd, ...args) => run(bin('lhctl'), ['--state', lhd.state, ...args]);

/** What lhd has in memory, and the seconds of a core that it has taken so far. */
const rssBytes = (lhd) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${lhd.process.pid}/status`, 'utf8'))[1]) * 1024;

function cpuSeconds(lhd) {
  const stat = readFileSync(`/proc/${lhd.process.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(stat[11]) + Number(stat[12])) / 100; // clock ticks
}

/** Milliseconds from now until the first step begins that `wanted` holds for. */
function untilStep(lhd, wanted) {
  const { client } = lhd, take = client.take, start = process.hrtime.bigint();
  return new Promise((done) => {
    client.take = function (m) {
      if (m.method !== 'step' || !wanted(m.params)) return take.call(client, m);
      client.take = take;
      done(Number(process.hrtime.bigint() - start) / 1e6 - m.params.step_ms);
    };
  });
}

// ---- one caller ----------------------------------------------------------------

async function measureCalls(lhd, job) {
  const reads = [], runs = [];
  for (let i = 0; i < 2000; i++) reads.push(await timed(() => lhd.call('job.get', { job })));
  const acks = await accepted(lhd, job, 500, 'job.set', (i) => ({ lr: 1e-3 + (i % 2) * 1e-4 }));
  line('job.get, 99th percentile of 2000', quantile(reads, 0.99), 'ms', '< 5');
  line('job.set accepted, 99th percentile of 500', quantile(acks, 0.99), 'ms', '< 20');
  line('  its median', median(acks), 'ms');
  for (let i = 0; i < 200; i++) runs.push(await timed(() => execFileSync(bin('lhctl'), ['--state', lhd.state, 'ls'])));
  line('lhctl ls, start to end, median of 200', median(runs), 'ms', '< 15');
}

// ---- many clients --------------------------------------------------------------

/** The clients, in a process of their own; `end()` gives what they saw. */
function load(lhd) {
  const p = spawn(process.execPath, ['tests/bench/clients.mjs', lhd.socket], { stdio: ['pipe', 'pipe', 'inherit'] });
  let said = '';
  p.stdout.setEncoding('utf8').on('data', (d) => { said += d; });
  const ended = new Promise((done) => p.once('close', done));
  const ready = new Promise((done) => { p.stdout.once('data', done); });
  return { ready, end: async () => { p.stdin.end(); await ended; return JSON.parse(said.split('\n')[1]); } };
}

async function measureLoad(lhd, job) {
  const clients = load(lhd), rss = [];
  await clients.ready;
  const { step } = await lhd.call('job.get', { job }), start = Date.now(), cpu = cpuSeconds(lhd);
  const end = start + MINUTES * 60_000;
  await wait(Math.min(5000, MINUTES * 20_000)); // until buffers have the size they keep
  do {
    rss.push(rssBytes(lhd));
    await wait(500);
  } while (Date.now() < end);
  const seconds = (Date.now() - start) / 1000, rate = ((await lhd.call('job.get', { job })).step - step) / seconds;
  const share = (cpuSeconds(lhd) - cpu) / seconds;
  const seen = await clients.end();
  line(`200 clients, 50 with every step, ${MINUTES} min: steps a second`, rate, '/s', 'about 200', 0);
  line('  lhd\'s memory, the most less the least', (Math.max(...rss) - Math.min(...rss)) / 1e6, 'MB', '< 10 (flat +- 5)', 2);
  line('  its last less its first', (rss.at(-1) - rss[0]) / 1e6, 'MB', '', 2);
  line('  of a core that lhd takes', share * 100, '%');
  line(`  steps that a subscriber missed, of ${seen.steps}`, seen.missed, '', '0', 0);
}

async function stepsPerSecond(lhd, job) {
  const read = async () => { const j = await lhd.call('job.get', { job }); return { step: j.step, at: process.hrtime.bigint() }; };
  const a = await read();
  await wait(WINDOW_MS);
  const b = await read();
  return (b.step - a.step) / Number(b.at - a.at) * 1e9;
}

async function measureThroughput(lhd, job) {
  const ratios = [];
  for (let i = 0; i < PAIRS; i++) {
    const without = await stepsPerSecond(lhd, job), clients = load(lhd);
    await clients.ready;
    ratios.push(await stepsPerSecond(lhd, job) / without);
    await clients.end();
  }
  line(`  training beside them, of that without, median of ${PAIRS} pairs`, median(ratios) * 100, '%', '> 99', 2);
}

// ---- a switch ------------------------------------------------------------------

async function measureSwitches(lhd, job) {
  const plain = [], now = [], launched = [];
  let at = 0;
  for (const [to, args] of [[plain, []], [now, ['--now']]])
    for (let i = 0; i < 10; i++) {
      const phase = at = 1 - at, begun = untilStep(lhd, (s) => s.phase === phase);
      await ctl(lhd, 'switch', String(job), String(phase), ...args);
      to.push(await begun);
    }
  const { steps } = await lhd.call('job.steps', { job, from_step: 2 }), step = median(steps.map((s) => s.step_ms));
  for (let i = 0; i < 5; i++) {
    const { attempt } = await lhd.call('job.get', { job }), begun = untilStep(lhd, (s) => s.attempt > attempt);
    await ctl(lhd, 'pause', String(job), '--release');
    await ctl(lhd, 'resume', String(job));
    launched.push(await begun);
  }
  line('a step of the demo\'s model, one thread, median', step, 'ms');
  line('lhctl switch until a step of the phase begins, median of 10', median(plain), 'ms', `< ${(step + 100).toFixed(0)} (a step + 100)`);
  line('  the most', Math.max(...plain), 'ms');
  line('  with --now, median', median(now), 'ms');
  line('  paused with --release and resumed instead, median of 5', median(launched), 'ms');
}

await bench(async (t, dir) => {
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const small = await submit(lhd, { ...QUIET, ...SMALL, phases: [phase('only')] });
  await lhd.jobUntil(small, 'training', (j) => j.step >= 100);
  await measureCalls(lhd, small);
  await measureLoad(lhd, small);
  await measureThroughput(lhd, small);
  await lhd.call('job.cancel', { job: small });

  const large = await submit(lhd, { ...QUIET, ...LARGE, phases: [phase('lighthouse', { attention: 'lighthouse', levels: 2, pool: 4, topk: 16, tile: 8 }), phase('recovery')] });
  await lhd.jobUntil(large, 'training', (j) => j.step >= 5);
  await lhd.call('job.subscribe', { job: large, steps: true });
  await measureSwitches(lhd, large);
});
