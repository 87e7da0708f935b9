// compare.ts: up to eight jobs over each other, aligned at their start.
import { rpc } from './api';
import { Panel, type Move } from './chart';
import { Curve } from './curve';
import { h, replace, throttle } from './dom';
import { saveGroups, savePicture } from './export';
import * as fmt from './format';
import type { Page, Shell } from './main';
import { StatePill } from './parts';
import { interpolate, lastAtOrBelow, smooth, xOf, type Column, type XMode } from './series';
import { openStream } from './stream';
import { colour, onScheme, type Colour } from './theme';
import { isLive, type Evaluation, type JobShow } from './types';
import uPlot from 'uplot';

const POINTS = 1_000;
const LIVE_EVERY_MS = 1_000;
const HEAD = ['', 'job', 'state', 'step', 'loss at the cursor', 'newest loss', 'validation', 'tokens/s'];

interface Compared { show: JobShow; curve: Curve; xs: number[]; smoothed: Column; shade: Colour }

export function compare(shell: Shell, ids: number[]): Page {
  const jobs: Compared[] = [];
  const body = h('tbody', {});
  const plots = h('div', { class: 'charts', 'data-small': 2 });
  const table = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'jobs compared' }, h('table', { class: 'compared' },
    h('thead', {}, h('tr', {}, ...HEAD.map((t) => h('th', { scope: 'col' }, t || h('span', { class: 'sr' }, 'colour'))))), body));
  let panels: Panel[] = [];
  let mode: XMode = 'step';
  let log = false;
  let smoothing = 20;
  let range: [number, number] | null = null;

  const axis = h('div', { class: 'segmented', role: 'radiogroup', 'aria-label': 'x axis' }, ...([['step', 'Step'], ['tokens', 'Tokens'], ['time', 'Elapsed']] as [XMode, string][]).map(([m, text]) =>
    h('label', {}, h('input', { type: 'radio', name: 'axis', value: m, checked: m === mode, onchange: () => { mode = m; range = null; build(); } }), h('span', {}, text))));
  const slider = h('input', { type: 'range', id: 'smoothing', min: 0, max: 100, value: smoothing, oninput: () => { smoothing = Number(slider.value); fill(); } });
  const logBox = h('input', { type: 'checkbox', onchange: () => { log = logBox.checked; build(); } });
  const root = h('div', { class: 'jobpage' },
    h('header', { class: 'head' }, h('nav', { 'aria-label': 'path' }, h('a', { href: '#/' }, 'Jobs'), ' / compare'), h('h1', {}, `${ids.length} jobs`)),
    h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': 'charts' }, axis, h('label', { class: 'inline', for: 'smoothing' }, 'Smoothing', slider), h('label', { class: 'inline' }, logBox, 'Log scale'),
      h('div', { class: 'buttons' }, h('button', { type: 'button', onclick: () => move({ all: true }) }, 'All')),
      h('div', { class: 'buttons' }, h('span', { class: 'label' }, 'Download'),
        h('button', { type: 'button', onclick: () => savePicture('compare.png', jobs.map((j) => j.show.summary.name).join(', '), panels) }, 'PNG'),
        h('button', { type: 'button', onclick: () => { for (const j of jobs) saveGroups(`job-${j.show.summary.job}.csv`, j.curve.points); } }, 'CSV'))),
    plots, table);

  function whole(): [number, number] {
    return [0, Math.max(1, ...jobs.map((j) => j.xs[j.xs.length - 1] ?? 0))];
  }

  function move(m: Move): void {
    const [lo, hi] = range ?? whole();
    if ('all' in m) range = null;
    else if ('to' in m) range = m.to;
    else if ('pan' in m) range = [lo + m.pan * (hi - lo), hi + m.pan * (hi - lo)];
    else range = [m.at - (m.at - lo) * m.zoom, m.at + (hi - m.at) * m.zoom];
    for (const p of panels) p.setRange(range ?? whole());
    loadSoon();
  }

  function build(): void {
    for (const p of panels) p.destroy();
    const common = { mode, relative: true, sync: 'compare', onMove: move, log, robust: true };
    const lines = (points: boolean) => jobs.map((j) => ({ label: j.show.summary.name, stroke: colour(j.shade), width: 1.5, points }));
    const none = () => [[], ...jobs.map(() => [])] as Column[];
    panels = [
      new Panel({ ...common, title: 'Training loss', unit: 'nats a token, smoothed', height: 340, format: fmt.real, lines: lines(false), onCursor: rows }, none()),
      new Panel({ ...common, title: 'Validation loss', unit: 'full attention, nats a token', height: 220, format: fmt.real, lines: lines(true) }, none()),
      new Panel({ ...common, log: false, title: 'Pace', unit: 'tokens/s', height: 220, format: fmt.short, lines: lines(false) }, none()),
    ];
    panels[0].root.classList.add('wide');
    replace(plots, ...panels.map((p) => p.root));
    fill();
  }

  function fill(): void {
    if (!panels.length) return;
    for (const j of jobs) {
      const start = j.curve.points[0]?.time_ms ?? 0;
      j.xs = xOf(j.curve.points, mode, j.curve.tokensBefore, mode === 'time' ? j.show.summary.started_ms ?? start : 0);
      j.smoothed = smooth(j.curve.points, (j.curve.lastStep * smoothing) / 1000);
    }
    const at = range ?? whole();
    const evaluations = (j: Compared): uPlot.AlignedData => {
      const kept: Evaluation[] = j.show.evaluations.filter((e) => e.attention === 'full' && e.loss !== null && e.step <= j.curve.lastStep).sort((a, b) => a.step - b.step);
      const ends = j.curve.points.map((p) => p.last_step);
      return [kept.map((e) => (mode === 'step' ? e.step : interpolate(ends, j.xs, e.step))), kept.map((e) => e.loss)];
    };
    const join = (tables: uPlot.AlignedData[]) => uPlot.join(tables) as Column[];
    panels[0].setData(join(jobs.map((j) => [j.xs, j.smoothed])), at);
    panels[1].setData(join(jobs.map(evaluations)), at);
    panels[2].setData(join(jobs.map((j) => [j.xs, j.curve.points.map((p) => p.tokens_per_s_mean)])), at);
    rows(null);
  }

  function rows(x: number | null): void {
    replace(body, ...jobs.map((j) => {
      const s = j.show.summary;
      const pill = new StatePill();
      const swatch = h('i', { class: 'swatch' });
      const full = j.show.evaluations.filter((e) => e.attention === 'full');
      const i = x === null ? -1 : lastAtOrBelow(j.xs, x);
      swatch.style.background = colour(j.shade);
      pill.set(s.state);
      return h('tr', {}, h('td', {}, swatch), h('td', { class: 'long' }, h('a', { href: `#/job/${s.job}` }, `${s.name} #${s.job}`)), h('td', {}, pill.el),
        ...[fmt.count(Math.max(s.step, j.curve.lastStep)), fmt.loss(j.smoothed[i]), fmt.loss(j.curve.points[j.curve.points.length - 1]?.loss_mean),
          fmt.loss(full[full.length - 1]?.loss), fmt.short(s.tokens_per_s)].map((t) => h('td', { class: 'num' }, t)));
    }));
  }

  /** The range that is seen, of each job in as many points as there are pixels. */
  async function load(j: Compared): Promise<void> {
    const s = (j.show = await rpc<JobShow>('job.show', { job: j.show.summary.job })).summary;
    const ends = j.curve.points.map((p) => p.last_step);
    const step = (x: number) => (mode === 'step' ? x : interpolate(j.xs, ends, x));
    // Without its beginning a job's tokens and smoothing would start elsewhere.
    const from = range && j.xs.length ? Math.max(0, Math.min(step(range[0]), s.step) - 10) : 0;
    const to = range && j.xs.length ? Math.min(s.step, step(range[1]) + 10) : s.step;
    await j.curve.load(from, to, to >= s.step, POINTS, []);
  }

  const reload = (which: Compared[]) => shell.guard(Promise.all(which.map(load)).then(fill));
  const loadSoon = throttle(400, () => reload(jobs));
  // Polled: a stream for each of eight jobs would be more connections than a browser has.
  const timer = setInterval(() => { if (!document.hidden) reload(jobs.filter((j) => isLive(j.show.summary.state))); }, LIVE_EVERY_MS);
  const closeStream = openStream('', shell.listener({ up: (again) => { if (again) loadSoon(); }, event: () => {}, step: () => {}, lost: () => {} }));
  const endScheme = onScheme(build);

  document.title = 'Compare · Lighthouse';
  shell.guard((async () => {
    const shows = await Promise.all(ids.map((job) => rpc<JobShow>('job.show', { job })));
    shows.forEach((show, i) => jobs.push({ show, curve: new Curve(show.summary.job), xs: [], smoothed: [], shade: `c${i + 1}` as Colour }));
    await Promise.all(jobs.map(load));
    build();
  })());

  return { root, close: () => { closeStream(); clearInterval(timer); loadSoon.cancel(); endScheme(); for (const p of panels) p.destroy(); } };
}
