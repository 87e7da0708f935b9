// screenshots.mjs: the pictures of the README, of a real run: `make screenshots`. A job
// that is done, one that lost its worker on the way and trains on, one that waits.
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, scratch, submit } from '../e2e/lib/lhd.mjs';
import { browser, go, openPage } from './lib/browser.mjs';

const OUT = 'web/screenshots';
const MAX_BYTES = 150_000;

const TEXT = ['daemon', 'kernels', 'include', 'ctl']; // this project's own sources
const RUN = {
  model: { vocab: 257, dim: 64, layers: 2, heads: 2, ffn_dim: 192 },
  data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 512 },
  batch: { sequences: 2 },
  optimizer: { lr: 3e-3, warmup_steps: 40 },
  evaluation: { every_steps: 25, sequences: 4 },
  checkpoint: { every_steps: 50, keep: 3 },
};
const phases = (first, second) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 3, pool: 4, topk: 32, tile: 8, dense_layers: [0], until: { steps: first } },
  { name: 'recovery', attention: 'full', until: { steps: second } },
];

/** As a test has it: what began last ends first. */
function scope() {
  const t = { after: (f) => { t.end = f; }, end: async () => {} };
  return t;
}

async function picture(page, name) {
  const path = join(OUT, `${name}.png`);
  await page.screenshot({ path });
  const { size } = statSync(path);
  console.log(`${path}: ${size} bytes`);
  if (size > MAX_BYTES) throw new Error(`${path} has more than ${MAX_BYTES} bytes`);
}

async function train(lhd) {
  const first = await submit(lhd, { ...RUN, name: 'small', model: { ...RUN.model, dim: 32 }, phases: phases(250, 100) });
  await lhd.jobUntil(first, 'it is done', (j) => j.state === 'DONE', 300_000);
  const job = await submit(lhd, { ...RUN, name: 'wider', phases: phases(350, 450) });
  await submit(lhd, { ...RUN, name: 'wider-seed-2', seed: 2, phases: phases(350, 450) });
  await lhd.jobUntil(job, 'steps past a checkpoint', (j) => j.step > 185, 300_000);
  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'it goes on', (j) => j.attempt === 2 && j.step > 260, 300_000);
  await lhd.call('job.annotate', { job, text: 'its worker was killed, to see it come back' });
  await lhd.jobUntil(job, 'it recovers', (j) => j.step > 430, 300_000);
  return job;
}

const t = scope();
try {
  const dir = scratch(t);
  execFileSync(bin('lhctl'), ['pack', '-o', join(dir, 'text'), '--validation', '0.05', ...TEXT], { stdio: ['ignore', 'ignore', 'inherit'] });
  const lhd = await Lhd.start(t, dir);
  const job = await train(lhd), b = await browser(t);
  mkdirSync(OUT, { recursive: true });
  const page = await openPage(t, b, lhd, { height: 566, steer: true });
  await page.locator(`[data-job="${job}"] .part`).first().waitFor();
  await page.locator('.meter', { hasText: 'busy' }).getByText(/\d %/).waitFor(); // since the reading before
  await picture(page, 'overview');
  await page.setViewportSize({ width: 1280, height: 838 });
  await go(page, `#/job/${job}`);
  await page.locator('.mark[data-kind="note"]').first().waitFor();
  await page.locator('.head [data-stat="memory"]').getByText('MiB').waitFor();
  await picture(page, 'job');
} finally {
  await t.end();
}
