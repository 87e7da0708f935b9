// chart.ts: one panel: a uPlot with the page's looks and its ways of moving. All
// panels of a page share a cursor and a range of x; who owns the range hears of every
// wish (`Move`) and sets it on each panel.
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { axisX, axisY, rangeY } from './axis';
import { h } from './dom';
import type { Column, XMode } from './series';

export interface Line {
  label: string;
  stroke: string;
  width?: number;
  dash?: number[];
  points?: boolean;
  hidden?: boolean; // the edge of a band, not drawn
}

export type Move =
  | { to: [number, number] } // in x of the axis
  | { all: true }
  | { zoom: number; at: number } // factor of the span; the x that stays
  | { pan: number }; // share of the span

export interface PanelOptions {
  title: string;
  unit: string;
  mode: XMode;
  relative?: boolean; // time since a start, not of the clock
  log?: boolean;
  robust?: boolean; // y shows the bulk of the values, not each
  height: number;
  lines: Line[];
  fill?: { upper: number; lower: number; colour: string }; // between two lines, numbers from 1
  format: (v: number) => string;
  sync: string;
  behind?: (u: uPlot) => void; // drawn below the lines
  above?: (u: uPlot) => void;
  onMove: (m: Move) => void;
  onCursor?: (x: number | null) => void;
  onDrawn?: (u: uPlot) => void;
}

export class Panel {
  readonly root: HTMLElement;
  readonly plot: HTMLElement;
  u: uPlot;
  private readonly watch: ResizeObserver;
  private readonly sight: IntersectionObserver;
  private inSight = true;
  private data: Column[] | null = null; // to be drawn; what is out of sight waits
  private range: [number, number] | null = null;

  constructor(private readonly o: PanelOptions) {
    this.plot = h('div', {
      class: 'plot',
      tabindex: '0',
      role: 'application',
      'aria-roledescription': 'chart',
      'aria-label': `${o.title}${o.unit ? `, ${o.unit}` : ''}. Arrows move the cursor, with Shift they pan; plus and minus zoom, 0 shows all.`,
      onkeydown: (e: KeyboardEvent) => this.key(e),
    });
    this.root = h(
      'section',
      { class: 'panel' },
      h('h3', {}, o.title, ' ', h('span', { class: 'unit' }, o.unit)),
      this.plot,
    );
    const none = [[], ...o.lines.map(() => [])];
    this.u = new uPlot(this.options(600), none as unknown as uPlot.AlignedData, this.plot);
    this.gestures();
    this.watch = new ResizeObserver(() => {
      const width = Math.floor(this.plot.clientWidth);
      if (width > 0 && width !== this.u.width) this.u.setSize({ width, height: o.height });
    });
    this.watch.observe(this.plot);
    this.sight = new IntersectionObserver((entries) => {
      this.inSight = entries[entries.length - 1].isIntersecting;
      if (this.inSight) this.draw();
    });
    this.sight.observe(this.plot);
  }

  /** New values, the range of x being what it was. */
  setData(data: Column[], range: [number, number]): void {
    this.data = data;
    this.setRange(range);
  }

  setRange(range: [number, number]): void {
    this.range = range;
    if (this.inSight) this.draw();
  }

  /** What was set while it was out of sight. */
  draw(): void {
    const { data, range, u } = this;
    if (!range) return;
    this.data = this.range = null;
    u.batch(() => {
      if (data) u.setData(data as uPlot.AlignedData, false);
      u.setScale('x', { min: range[0], max: range[1] });
    });
  }

  destroy(): void {
    this.watch.disconnect();
    this.sight.disconnect();
    this.u.destroy();
    this.root.remove();
  }

  private options(width: number): uPlot.Options {
    const o = this.o;
    return {
      width,
      height: o.height,
      ms: 1,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: o.mode === 'time' && !o.relative, auto: false },
        y: {
          distr: o.log ? 3 : 1,
          range: (u, lo, hi) => rangeY(lo, o.robust ? bulk(u, hi) : hi, o.log ?? false),
        },
      },
      axes: [axisX(o.mode, o.relative ?? false), axisY(o.format, o.log ?? false)],
      series: [
        {},
        ...o.lines.map((l): uPlot.Series => ({
          label: l.label,
          stroke: l.hidden ? 'transparent' : l.stroke,
          width: l.hidden ? 0 : (l.width ?? 1.5),
          dash: l.dash,
          spanGaps: true,
          points: { show: l.points ? sparse : false, size: 5, fill: l.stroke, stroke: l.stroke },
        })),
      ],
      bands: o.fill ? [{ series: [o.fill.upper, o.fill.lower], fill: o.fill.colour }] : [],
      cursor: {
        sync: { key: o.sync, setSeries: false, scales: ['x', null] },
        drag: { x: true, y: false, setScale: false },
        points: { size: (_u, series) => (o.lines[series - 1]?.hidden ? 0 : 6) },
        y: false,
      },
      hooks: {
        drawClear: o.behind ? [o.behind] : [],
        draw: [...(o.above ? [o.above] : []), ...(o.onDrawn ? [o.onDrawn] : [])],
        setSelect: [(u) => this.selected(u)],
        setCursor: o.onCursor
          ? [(u) => o.onCursor!(u.cursor.left! >= 0 ? u.posToVal(u.cursor.left!, 'x') : null)]
          : [],
      },
    };
  }

  private selected(u: uPlot): void {
    if (u.select.width < 4) return;
    const to: [number, number] = [
      u.posToVal(u.select.left, 'x'),
      u.posToVal(u.select.left + u.select.width, 'x'),
    ];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.o.onMove({ to });
  }

  private gestures(): void {
    const over = this.u.over;
    over.addEventListener('dblclick', () => this.o.onMove({ all: true }));
    over.addEventListener(
      'wheel',
      (e) => {
        // A plain wheel scrolls the page; a pinch comes as a wheel with Ctrl.
        if (e.ctrlKey || e.metaKey) {
          e.preventDefault();
          this.o.onMove({ zoom: Math.exp(e.deltaY * 0.002), at: this.u.posToVal(e.offsetX, 'x') });
        } else if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
          e.preventDefault();
          this.o.onMove({ pan: (e.deltaX || e.deltaY) / over.clientWidth });
        }
      },
      { passive: false },
    );
    over.addEventListener('pointermove', (e) => {
      if (e.pointerType !== 'touch') return;
      this.u.setCursor({ left: e.clientX - over.getBoundingClientRect().left, top: 0 });
    });
    over.addEventListener(
      'mousedown',
      (e) => {
        if (!e.shiftKey || e.button) return;
        // Before uPlot's own: Shift drags the plot, not a selection.
        e.stopImmediatePropagation();
        let from = e.clientX;
        const move = (m: MouseEvent) => {
          this.o.onMove({ pan: (from - m.clientX) / over.clientWidth });
          from = m.clientX;
        };
        const up = () => {
          removeEventListener('mousemove', move);
          removeEventListener('mouseup', up);
        };
        addEventListener('mousemove', move);
        addEventListener('mouseup', up);
      },
      { capture: true },
    );
  }

  private key(e: KeyboardEvent): void {
    const u = this.u;
    const width = u.over.clientWidth;
    const at = u.cursor.left! >= 0 ? u.cursor.left! : width / 2;
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === '+' || e.key === '=') this.o.onMove({ zoom: 0.5, at: u.posToVal(at, 'x') });
    else if (e.key === '-') this.o.onMove({ zoom: 2, at: u.posToVal(at, 'x') });
    else if (e.key === '0') this.o.onMove({ all: true });
    else if (e.key === 'ArrowLeft' || e.key === 'ArrowRight') {
      const sign = e.key === 'ArrowLeft' ? -1 : 1;
      if (e.shiftKey) this.o.onMove({ pan: sign * 0.2 });
      else
        u.setCursor({
          left: Math.min(width - 1, Math.max(0, at + sign * Math.max(2, width / 100))),
          top: 0,
        });
    } else if (e.key === 'Escape') u.setCursor({ left: -10, top: -10 });
    else return;
    e.preventDefault();
  }
}

/** Dots are drawn as long as they are apart. */
function sparse(u: uPlot, series: number, from: number, to: number): boolean {
  const most = u.over.clientWidth / 10;
  let n = 0;
  for (let i = from; i <= to && n <= most; i++)
    if (u.data[series][i] !== null && u.data[series][i] !== undefined) n++;
  return n <= most;
}

/** What all but one in fifty of the values seen stay below; edges of bands do not count. */
function bulk(u: uPlot, highest: number | null): number | null {
  const { min, max } = u.scales.x;
  const seen: number[] = [];

  if (min === undefined || max === undefined) return highest;
  for (let s = 1; s < u.series.length; s++) {
    if (!u.series[s].width) continue;
    for (let i = 0; i < u.data[0].length; i++) {
      const v = u.data[s][i];
      if (v !== null && v !== undefined && u.data[0][i] >= min && u.data[0][i] <= max) seen.push(v);
    }
  }
  if (seen.length < 50) return highest;
  seen.sort((a, b) => a - b);
  const low = seen[0];
  return low + (seen[Math.floor(seen.length * 0.98)] - low) * 1.15;
}
