// plot.mjs: the table and the figure of quality.md, from what run.sh left.
//
//   node plot.mjs DIR      prints the table; writes quality.svg beside this file
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dir = process.argv[2];
const SMOOTH = 50; // steps a point of the training curves is the mean of

function read(name) {
  const [head, ...rows] = readFileSync(join(dir, `${name}.csv`), 'utf8').trim().split('\n').map((l) => l.split(','));
  const steps = rows.map((r) => Object.fromEntries(head.map((k, i) => [k, Number(r[i])])));
  let s = 0;
  for (const x of steps) x.at_s = s += x.step_ms / 1000; // time in steps: no evaluation, no save
  const show = JSON.parse(readFileSync(join(dir, `${name}.json`), 'utf8'));
  const at = (step) => (step ? steps[step - 1].at_s : 0);
  const evals = show.evaluations.map((e) => ({ step: e.step, loss: e.loss, reason: e.reason, at_s: at(e.step) }));
  return { name, steps, evals, phases: show.phases };
}

const runs = ['light', 'full'].map(read);
const [light, full] = runs;
const last = (r) => r.evals.at(-1);
const median = (xs) => xs.sort((a, b) => a - b)[xs.length >> 1];

console.log('| run | final validation loss | seconds in steps | tokens/s by phase |\n|---|---|---|---|');
for (const r of runs) {
  const rates = r.phases.map((p, i) => `${p.name} ${Math.round(median(r.steps.filter((s) => s.phase === i).map((s) => s.tokens_per_s))).toLocaleString('en')}`);
  console.log(`| ${r.name} | ${last(r).loss.toFixed(4)} | ${last(r).at_s.toFixed(0)} | ${rates.join(', ')} |`);
}
const before = light.evals.find((e) => e.reason === 'before_switch');
const switched = light.steps.findIndex((s) => s.phase === 1);
const mean = (r, from, to) => r.steps.slice(from, to).reduce((a, s) => a + s.loss, 0) / (to - from);
const trained = mean(light, switched - 100, switched);
const back = light.steps.findIndex((s, i) => i >= switched + 20 && mean(light, i - 20, i) <= trained);
console.log(`\nTraining loss, mean of the 100 steps before the switch: ${trained.toFixed(3)}; first step after it: ${light.steps[switched].loss.toFixed(3)} (spike ${(light.steps[switched].loss - trained).toFixed(2)}); back after ${back < 0 ? 'never' : back - switched} steps.`);
console.log(`Validation with full attention before the switch: ${before.loss.toFixed(3)}.`);
const then = last(light).at_s;
const same = full.evals.filter((e) => e.at_s <= then).at(-1);
console.log(`Full attention after ${then.toFixed(0)} s of steps: ${same.loss.toFixed(3)} (step ${same.step}, lr not decayed).`);

// The figure: validation loss over seconds and over steps.
const W = 460, H = 300, PAD = 44, top = 3.4, colors = { light: '#c2410c', full: '#1d4ed8' };
function panel(x0, key, label, max) {
  const x = (v) => x0 + PAD + v / max * (W - PAD - 12), y = (v) => 16 + (1 - Math.min(v, top) / top) * (H - PAD - 16);
  let out = `<text x="${x0 + W / 2}" y="${H - 6}" text-anchor="middle">${label}</text>`;
  for (let v = 0; v <= top; v += 0.5)
    out += `<path d="M${x(0)} ${y(v)}H${x(max)}" stroke="#ddd"/><text x="${x(0) - 6}" y="${y(v) + 4}" text-anchor="end">${v.toFixed(1)}</text>`;
  for (let i = 0; i <= 4; i++) out += `<text x="${x(max * i / 4)}" y="${H - PAD + 16}" text-anchor="middle">${Math.round(max * i / 4)}</text>`;
  for (const r of runs) {
    const train = [];
    for (let i = SMOOTH; i <= r.steps.length; i += SMOOTH) train.push([key === 'step' ? i : r.steps[i - 1].at_s, mean(r, i - SMOOTH, i)]);
    const line = (points) => points.map(([a, b], i) => `${i ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('');
    out += `<path d="${line(train)}" fill="none" stroke="${colors[r.name]}" stroke-opacity=".35"/>`;
    out += `<path d="${line(r.evals.map((e) => [e[key], e.loss]))}" fill="none" stroke="${colors[r.name]}" stroke-width="2"/>`;
  }
  return out;
}
const seconds = Math.ceil(last(full).at_s / 100) * 100;
writeFileSync(join(dirname(fileURLToPath(import.meta.url)), 'quality.svg'),
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${2 * W} ${H + 22}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>`
  + `<g transform="translate(0 22)">${panel(0, 'step', 'steps of 32,768 tokens', full.steps.length)}${panel(W, 'at_s', 'seconds in steps', seconds)}</g>`
  + `<text x="${PAD}" y="16">validation loss, nats a byte (full attention; pale: training loss):</text>`
  + `<text x="400" y="16" fill="${colors.light}">Lighthouse, then full attention</text><text x="600" y="16" fill="${colors.full}">full attention</text></svg>\n`);
