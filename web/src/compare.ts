// compare.ts: up to eight jobs over each other, aligned at their start.
import uPlot from 'uplot';
import { rpc } from './api';
import { Panel, type Move } from './chart';
import { Curve } from './curve';
import { h, replace, throttle } from './dom';
import { saveGroups, savePicture } from './export';
import * as fmt from './format';
import type { Page, Shell } from './main';
import { StatePill } from './parts';
import {
  interpolate,
  isFirst,
  lastAtOrBelow,
  smooth,
  xOf,
  type Column,
  type XMode,
} from './series';
import { openStream } from './stream';
import { colour, onScheme, type Colour } from './theme';
import { axisChoice, button, buttons, check, Smoothing, toolbar } from './toolbar';
import { isLive, type JobShow } from './types';

const POINTS = 1_000;
const LIVE_EVERY_MS = 1_000;
const HEADS = ['job', 'state', 'step', 'loss at the cursor', 'newest loss', 'validation', 'tokens/s'];

interface Compared {
  show: JobShow;
  curve: Curve;
  xs: number[];
  smoothed: Column;
  shade: Colour;
}

export class Compare implements Page {
  readonly root: HTMLElement;
  private readonly body = h('tbody', {});
  private readonly plots = h('div', { class: 'charts', 'data-small': 2 });
  private jobs: Compared[] = [];
  private panels: Panel[] = [];
  private mode: XMode = 'step';
  private log = false;
  private smoothing = 20; // thousandths of a job's length
  private range: [number, number] | null = null; // in x; null: all
  private readonly loadSoon = throttle(400, () => this.load(this.jobs));
  private readonly endScheme = onScheme(() => this.build());
  private readonly timer: number;
  private readonly closeStream: () => void;

  constructor(
    private readonly shell: Shell,
    ids: readonly number[],
  ) {
    this.root = h(
      'div',
      { class: 'jobpage' },
      h(
        'header',
        { class: 'head' },
        h('nav', { 'aria-label': 'path' }, h('a', { href: '#/' }, 'Jobs'), ' / compare'),
        h('h1', {}, `${ids.length} jobs`),
      ),
      this.toolbar(),
      this.plots,
      this.table(),
    );
    document.title = 'Compare · Lighthouse';
    // Polled: a stream for each of eight jobs would be more connections than a browser has.
    this.timer = window.setInterval(() => {
      if (!document.hidden) this.load(this.jobs.filter((j) => isLive(j.show.summary.state)));
    }, LIVE_EVERY_MS);
    this.closeStream = openStream(
      '',
      shell.listener({
        up: (again) => {
          if (again) this.loadSoon();
        },
        event: () => {},
        step: () => {},
        lost: () => {},
      }),
    );
    shell.guard(this.begin(ids));
  }

  close(): void {
    this.closeStream();
    clearInterval(this.timer);
    this.loadSoon.cancel();
    this.endScheme();
    for (const p of this.panels) p.destroy();
  }

  private async begin(ids: readonly number[]): Promise<void> {
    const shows = await Promise.all(ids.map((job) => rpc<JobShow>('job.show', { job })));
    this.jobs = shows.map((show, i) => ({
      show,
      curve: new Curve(show.summary.job),
      xs: [],
      smoothed: [],
      shade: `c${i + 1}` as Colour,
    }));
    await Promise.all(this.jobs.map((j) => this.loadOne(j)));
    this.build();
  }

  private load(which: readonly Compared[]): void {
    this.shell.guard(Promise.all(which.map((j) => this.loadOne(j))).then(() => this.fill()));
  }

  /** The range that is seen, in as many points as there are pixels. */
  private async loadOne(j: Compared): Promise<void> {
    j.show = await rpc<JobShow>('job.show', { job: j.show.summary.job });
    const end = j.show.summary.step;
    const ends = j.curve.points.map((p) => p.last_step);
    const step = (x: number) => (this.mode === 'step' ? x : interpolate(j.xs, ends, x));
    const zoomed = this.range && j.xs.length ? this.range : null;
    const from = zoomed ? Math.max(0, Math.min(step(zoomed[0]), end) - 10) : 0;
    const to = zoomed ? Math.min(end, step(zoomed[1]) + 10) : end;

    await j.curve.load(from, to, to >= end, POINTS, []);
  }

  private whole(): [number, number] {
    return [0, Math.max(1, ...this.jobs.map((j) => j.xs[j.xs.length - 1] ?? 0))];
  }

  private move(m: Move): void {
    const [lo, hi] = this.range ?? this.whole();

    if ('all' in m) this.range = null;
    else if ('to' in m) this.range = m.to;
    else if ('pan' in m) this.range = [lo + m.pan * (hi - lo), hi + m.pan * (hi - lo)];
    else this.range = [m.at - (m.at - lo) * m.zoom, m.at + (hi - m.at) * m.zoom];
    for (const p of this.panels) p.setRange(this.range ?? this.whole());
    this.loadSoon();
  }

  private build(): void {
    const common = {
      mode: this.mode,
      relative: true,
      sync: 'compare',
      onMove: (m: Move) => this.move(m),
      robust: true,
    };
    const lines = (points: boolean) =>
      this.jobs.map((j) => ({
        label: j.show.summary.name,
        stroke: colour(j.shade),
        width: 1.5,
        points,
      }));

    for (const p of this.panels) p.destroy();
    this.panels = [
      new Panel({
        ...common,
        title: 'Training loss',
        unit: 'nats a token, smoothed',
        height: 340,
        log: this.log,
        format: fmt.real,
        lines: lines(false),
        onCursor: (x) => this.fillTable(x),
      }),
      new Panel({
        ...common,
        title: 'Validation loss',
        unit: 'full attention, nats a token',
        height: 220,
        log: this.log,
        format: fmt.real,
        lines: lines(true),
      }),
      new Panel({
        ...common,
        title: 'Pace',
        unit: 'tokens/s',
        height: 220,
        format: fmt.short,
        lines: lines(false),
      }),
    ];
    this.panels[0].root.classList.add('wide');
    replace(this.plots, ...this.panels.map((p) => p.root));
    this.fill();
  }

  private fill(): void {
    if (!this.panels.length) return;
    for (const j of this.jobs) {
      const start = j.show.summary.started_ms ?? j.curve.points[0]?.time_ms ?? 0;
      j.xs = xOf(j.curve.points, this.mode, j.curve.tokensBefore, this.mode === 'time' ? start : 0);
      j.smoothed = smooth(j.curve.points, (j.curve.lastStep * this.smoothing) / 1000);
    }
    const at = this.range ?? this.whole();
    const tables = [
      this.jobs.map((j) => [j.xs, j.smoothed]),
      this.jobs.map((j) => this.evaluations(j)),
      this.jobs.map((j) => [j.xs, j.curve.points.map((p) => p.tokens_per_s_mean)]),
    ];
    this.panels.forEach((p, i) =>
      p.setData(uPlot.join(tables[i] as uPlot.AlignedData[]) as Column[], at),
    );
    this.fillTable(null);
  }

  private evaluations(j: Compared): [number[], Column] {
    const ends = j.curve.points.map((p) => p.last_step);
    const kept = j.show.evaluations
      .filter((e) => e.attention === 'full' && isFirst(e) && e.loss !== null && e.step <= j.curve.lastStep)
      .sort((a, b) => a.step - b.step);
    return [
      kept.map((e) => (this.mode === 'step' ? e.step : interpolate(ends, j.xs, e.step))),
      kept.map((e) => e.loss),
    ];
  }

  private fillTable(x: number | null): void {
    replace(
      this.body,
      ...this.jobs.map((j) => {
        const s = j.show.summary;
        const pill = new StatePill();
        const swatch = h('i', { class: 'swatch' });
        const full = j.show.evaluations.filter((e) => e.attention === 'full' && isFirst(e));
        const points = j.curve.points;
        const numbers = [
          fmt.count(Math.max(s.step, j.curve.lastStep)),
          fmt.loss(j.smoothed[x === null ? -1 : lastAtOrBelow(j.xs, x)]),
          fmt.loss(points[points.length - 1]?.loss_mean),
          fmt.loss(full[full.length - 1]?.loss),
          fmt.short(s.tokens_per_s),
        ];

        swatch.style.background = colour(j.shade);
        pill.set(s.state);
        return h(
          'tr',
          {},
          h('td', { class: 'long' }, swatch, h('a', { href: `#/job/${s.job}` }, `${s.name} #${s.job}`)),
          h('td', {}, pill.el),
          ...numbers.map((t) => h('td', { class: 'num' }, t)),
        );
      }),
    );
  }

  private table(): HTMLElement {
    return h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'jobs compared' },
      h(
        'table',
        { class: 'compared' },
        h('thead', {}, h('tr', {}, ...HEADS.map((t) => h('th', { scope: 'col' }, t)))),
        this.body,
      ),
    );
  }

  private toolbar(): HTMLElement {
    const smoothing = new Smoothing(this.smoothing, (v) => {
      this.smoothing = v;
      this.fill();
    });
    const names = () => this.jobs.map((j) => j.show.summary.name).join(', ');
    const groups = () => {
      for (const j of this.jobs) saveGroups(`job-${j.show.summary.job}.csv`, j.curve.points);
    };

    return toolbar(
      axisChoice(
        [
          ['step', 'Step'],
          ['tokens', 'Tokens'],
          ['time', 'Elapsed'],
        ],
        (m) => {
          this.mode = m;
          this.range = null;
          this.build();
        },
      ),
      smoothing.el,
      check('Log scale', this.log, (on) => {
        this.log = on;
        this.build();
      }),
      buttons(
        '',
        button('All', () => this.move({ all: true }), 'Show all steps'),
      ),
      buttons(
        'Download',
        button('PNG', () => savePicture('compare.png', names(), this.panels)),
        button('CSV', groups, 'The groups that are drawn, a file a job'),
      ),
    );
  }
}
