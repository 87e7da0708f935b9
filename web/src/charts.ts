// charts.ts: the panels of a job: loss, gap, learning rate, gradient norm, pace. One
// range of steps for all of them; the axis may count steps, tokens or time. Moving
// redraws at once what is loaded, then loads what the new range deserves.
import uPlot from 'uplot';
import { Panel, type Move, type PanelOptions } from './chart';
import { Curve } from './curve';
import { debounce, h, throttle } from './dom';
import * as fmt from './format';
import { Lane } from './lane';
import { gapLine, lossLines, soft, spread } from './lines';
import type { Shell } from './main';
import type { Mark } from './marks';
import { paintBands, paintBranches, paintMarks } from './paint';
import { Readout } from './readout';
import {
  abandoned,
  finalEvaluations,
  gaps,
  interpolate,
  smooth,
  xOf,
  type Branch,
  type Column,
  type XMode,
} from './series';
import { onScheme } from './theme';
import type { Evaluation, JobShow, Point, Step } from './types';

const DRAW_EVERY_MS = 200;
const LOAD_AFTER_MS = 120;
const RELOAD_EVERY_MS = 1_000;
/** Loaded on either side of what is seen, in spans. */
const MARGIN = 0.5;
const POINTS_MAX = 2_400;
/** Kinds of marks that have no line: there may be hundreds. */
const MANY: readonly string[] = ['checkpoint', 'trouble'];

type Range = { from: number; to: number | null }; // to null: the newest step, followed

export class JobCharts {
  readonly root = h('div', { class: 'charts' });
  readonly curve: Curve;
  mode: XMode = 'step';
  log = false;
  robust = true; // the y axis leaves out what is far from the rest
  /** Time constant of smoothing: share of the span seen, in thousandths; 0: none. */
  smoothing = 20;
  range: Range = { from: 0, to: null };
  /** The range, or what depends on it, was set. */
  onRange = (): void => {};
  panels: Panel[] = [];
  private show: JobShow | null = null;
  private marks: Mark[] = [];
  private branches: Branch[] = [];
  private full: Evaluation[] = [];
  private lighthouse: Evaluation[] = [];
  private xs: number[] = [];
  private ends: number[] = []; // last steps, beside xs
  private smoothed: Column = [];
  private end = 0; // newest step known
  private readonly lane = new Lane();
  private readonly readout = new Readout();
  private readonly endScheme = onScheme(() => this.build());
  private readonly draw = throttle(DRAW_EVERY_MS, () => this.fill());
  private readonly loadSoon = debounce(LOAD_AFTER_MS, () => this.shell.guard(this.load()));
  private readonly loadNext = throttle(RELOAD_EVERY_MS, () => this.shell.guard(this.load()));

  constructor(
    private readonly shell: Shell,
    readonly job: number,
  ) {
    this.curve = new Curve(job);
  }

  /** What is known of the job besides its steps. */
  setShow(show: JobShow, marks: Mark[]): void {
    const shape = this.shape();
    const sameAttempt = show.summary.attempt === this.show?.summary.attempt;

    this.show = show;
    this.marks = marks;
    this.branches = abandoned(
      show.attempts.map((a, i) =>
        i === show.attempts.length - 1 && a.last_step === null
          ? { ...a, last_step: show.summary.step }
          : a,
      ),
    );
    // Steps are pushed before a call tells of them; another attempt begins further back.
    this.end = sameAttempt ? Math.max(this.end, show.summary.step) : show.summary.step;
    this.full = finalEvaluations(show.evaluations, this.branches, 'full');
    this.lighthouse = finalEvaluations(show.evaluations, this.branches, 'lighthouse');
    if (!this.panels.length || shape !== this.shape()) this.build();
    else this.draw();
  }

  async load(): Promise<void> {
    const { from, to } = this.seen();
    const margin = (to - from) * MARGIN;
    const width = this.panels[0]?.plot.clientWidth || 800;
    const open = this.range.to === null || to + margin >= this.end;
    const wanted = Math.min(
      POINTS_MAX,
      Math.max(
        200,
        Math.round(width * (this.range.to === null && !this.range.from ? 1 : 1 + 2 * MARGIN)),
      ),
    );

    if (
      await this.curve.load(from - margin, open ? this.end : to + margin, open, wanted, this.branches)
    ) {
      this.end = Math.max(this.end, this.curve.lastStep);
      this.fill();
    }
  }

  step(s: Step): void {
    const again = !this.curve.push(s);

    this.end = s.step;
    if (again) this.loadNext();
    this.draw();
  }

  /** Steps were missed, or a branch began: loads again, soon. */
  reload(): void {
    this.loadNext();
  }

  /** After a setting was changed: all panels anew. */
  rebuild(): void {
    this.build();
    this.shell.guard(this.load());
  }

  /** In steps, as seen now. */
  get tau(): number {
    const { from, to } = this.seen();
    return ((to - from) * this.smoothing) / 1000;
  }

  resmooth(): void {
    this.fill();
  }

  move(m: Move): void {
    const { from, to } = this.seen();
    const toStep = (x: number) => interpolate(this.xs, this.ends, x);
    let next: [number, number] = [from, to];

    if ('all' in m) return this.go(0, null);
    if ('to' in m) next = [toStep(m.to[0]), toStep(m.to[1])];
    if ('pan' in m) {
      const by = Math.max(-from, Math.min(this.end - to, m.pan * (to - from)));
      next = [from + by, to + by];
    }
    if ('zoom' in m) {
      const at = toStep(m.at);
      next = [at - (at - from) * m.zoom, at + (to - at) * m.zoom];
    }
    if (next[1] - next[0] < 4) next = [(next[0] + next[1]) / 2 - 2, (next[0] + next[1]) / 2 + 2];
    this.go(Math.max(0, next[0]), next[1] >= this.end ? null : next[1]);
  }

  destroy(): void {
    for (const p of this.panels) p.destroy();
    this.endScheme();
    this.draw.cancel();
    this.loadSoon.cancel();
    this.loadNext.cancel();
  }

  private go(from: number, to: number | null): void {
    this.range = { from, to };
    const x = this.rangeX();
    for (const p of this.panels) p.setRange(x);
    this.loadSoon();
  }

  private seen(): { from: number; to: number } {
    const to = this.range.to ?? Math.max(this.end, 1);
    return { from: Math.min(this.range.from, to - 1), to };
  }

  private rangeX(): [number, number] {
    const { from, to } = this.seen();
    const x: [number, number] = [this.x(from), this.x(to)];
    if (this.mode === 'tokens' && !from) x[0] = 0;
    if (this.mode === 'time' && !from && this.curve.points.length) x[0] = this.xs[0];
    return x[1] > x[0] ? x : [x[0], x[0] + 1];
  }

  /** Where a step lies on the axis. */
  private x(step: number): number {
    return this.mode === 'step' ? step : interpolate(this.ends, this.xs, step);
  }

  private get hasGap(): boolean {
    return gaps(this.full, this.lighthouse).length > 0;
  }

  /** What the panels and the legend depend on. */
  private shape(): string {
    return [this.hasGap, this.lighthouse.length > 0, this.branches.length > 0].join();
  }

  private build(): void {
    const common = {
      mode: this.mode,
      sync: `job-${this.job}`,
      onMove: (m: Move) => this.move(m),
      behind: (u: uPlot) => this.drawBands(u),
    };
    const small = (title: string, unit: string, over: Partial<PanelOptions>) =>
      new Panel({ ...common, title, unit, height: 150, format: fmt.real, ...spread(title), ...over });

    for (const p of this.panels) p.destroy();
    const main = new Panel({
      ...common,
      title: 'Loss',
      unit: 'nats a token',
      height: 340,
      log: this.log,
      robust: this.robust,
      format: fmt.real,
      lines: lossLines(),
      fill: soft(),
      above: (u) => this.drawAbove(u),
      onDrawn: (u) => this.placeMarks(u),
      onCursor: (x) => this.told(x),
    });
    main.root.querySelector('h3')!.after(this.legend(), this.readout.el, this.lane.el);
    main.root.classList.add('wide');
    this.panels = [main];
    if (this.hasGap)
      this.panels.push(small('Recovery gap', 'full − Lighthouse, nats a token', gapLine()));
    this.panels.push(
      small('Learning rate', '', {}),
      small('Gradient norm', 'before clipping', { log: this.log }),
      small('Pace', 'tokens/s', { format: fmt.short }),
    );
    this.root.dataset.small = String(this.panels.length - 1);
    this.root.replaceChildren(...this.panels.map((p) => p.root));
    this.fill();
  }

  private legend(): HTMLElement {
    const item = (key: string, text: string) => h('li', {}, h('i', { class: `key ${key}` }), text);
    return h(
      'ul',
      { class: 'legend' },
      item('train', 'train, smoothed'),
      item('raw', 'train, smallest to largest'),
      item('full', 'validation, full attention'),
      this.lighthouse.length ? item('lighthouse', 'validation, Lighthouse') : null,
      this.branches.length ? item('abandoned', 'abandoned branch') : null,
    );
  }

  /** Values into the panels. */
  private fill(): void {
    if (!this.panels.length) return;
    const { points, tokensBefore } = this.curve;
    const col = (name: keyof Point): Column => points.map((p) => p[name] as number | null);

    this.xs = xOf(points, this.mode, tokensBefore);
    this.ends = points.map((p) => p.last_step);
    this.smoothed = smooth(points, this.tau);
    const spreads = (['lr', 'grad_norm', 'tokens_per_s'] as const).map((n): Column[] => [
      this.xs,
      ...[`${n}_min`, `${n}_max`, `${n}_mean`].map((name) => col(name as keyof Point)),
    ]);
    const loss = [this.xs, col('loss_min'), col('loss_max'), col('loss_mean'), this.smoothed];
    const all = [
      uPlot.join([
        loss,
        this.dots(this.full),
        this.dots(this.lighthouse),
      ] as uPlot.AlignedData[]) as Column[],
      ...(this.hasGap ? [this.dots(gaps(this.full, this.lighthouse))] : []),
      ...spreads,
    ];
    const range = this.rangeX();
    all.forEach((data, i) => this.panels[i].setData(data, range));
    this.told(null);
    this.onRange();
  }

  /** Values measured at steps, those among what is loaded. */
  private dots(list: readonly { step: number; time_ms: number; loss: number | null }[]): Column[] {
    const first = this.curve.points[0]?.first_step ?? Infinity;
    const kept = list.filter((e) => e.step >= first - 1 && e.step <= this.end);
    return [
      kept.map((e) => (this.mode === 'time' ? e.time_ms : this.x(e.step))),
      kept.map((e) => e.loss),
    ];
  }

  private told(x: number | null): void {
    if (x === null && this.panels[0].u.cursor.left! >= 0)
      x = this.panels[0].u.posToVal(this.panels[0].u.cursor.left!, 'x');
    this.readout.set(this.curve, this.xs, this.smoothed, this.full, this.lighthouse, x);
  }

  private drawBands(u: uPlot): void {
    if (!this.show) return;
    paintBands(u, this.curve.points, this.show.phases, (step) => this.x(step), u === this.panels[0]?.u);
  }

  private drawAbove(u: uPlot): void {
    const telling = this.marks.filter((m) => !MANY.includes(m.kind));
    paintBranches(u, this.curve.branches, this.mode, (step) => this.x(step));
    paintMarks(
      u,
      telling.map((m) => this.markX(m)),
    );
  }

  private markX(m: Mark): number {
    return this.mode === 'time' ? m.time_ms : this.x(m.step);
  }

  private placeMarks(u: uPlot): void {
    if (!this.curve.points.length) return;
    this.lane.place(
      this.marks,
      (m) => u.valToPos(this.markX(m), 'x'),
      u.over.offsetLeft,
      u.over.clientWidth,
    );
  }
}
