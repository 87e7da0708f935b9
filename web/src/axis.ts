// axis.ts: the scales of a panel and what stands beside them.
import uPlot from 'uplot';
import { short } from './format';
import type { XMode } from './series';
import { colour } from './theme';

const FONT = '11px ui-sans-serif, system-ui, sans-serif';
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const WHOLE_STEPS = Array.from({ length: 14 }, (_, i) => 10 ** i).flatMap((p) => [p, 2 * p, 5 * p]);
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
  .map((s) => s * SECOND)
  .concat([1, 2, 5, 10, 30].map((m) => m * MINUTE))
  .concat([1, 2, 6, 12].map((h) => h * HOUR))
  .concat([1, 2, 7, 28].map((d) => d * DAY));

export function axisX(mode: XMode, relative: boolean): uPlot.Axis {
  const base = {
    stroke: colour('muted'),
    font: FONT,
    size: 26,
    gap: 4,
    grid: { show: false },
    ticks: { stroke: colour('line'), width: 1, size: 4 },
  };
  if (mode === 'time' && !relative) return { ...base, values: clockTicks };
  const text = mode === 'time' ? elapsed : short;
  return {
    ...base,
    values: (_u, splits) => splits.map((v) => text(v)),
    incrs: mode === 'time' ? TIME_STEPS : WHOLE_STEPS,
  };
}

export function axisY(format: (v: number) => string, log: boolean): uPlot.Axis {
  return {
    stroke: colour('muted'),
    font: FONT,
    size: 52,
    gap: 6,
    grid: { stroke: colour('grid'), width: 1 },
    ticks: { show: false },
    values: (_u, splits) => splits.map((v) => (v === null ? '' : format(v))),
    // Less than two decades have no powers to stand at.
    ...(log && {
      splits: (_u: uPlot, _axis: number, min: number, max: number) => logSplits(min, max),
      filter: (_u: uPlot, splits: number[]) => splits,
    }),
  };
}

/** Room around what is seen; `highest`: what the top leaves out is above it. */
export function rangeY(lo: number | null, highest: number | null, log: boolean): [number, number] {
  if (lo === null || highest === null || !Number.isFinite(lo) || !Number.isFinite(highest))
    return log ? [0.1, 1] : [0, 1];
  const hi = Math.max(lo, highest);
  if (log) return [Math.max(lo, 1e-12) / 1.06, Math.max(hi, 1e-12) * 1.06];
  const room = hi > lo ? (hi - lo) * 0.06 : Math.abs(hi) * 0.1 || 1;
  return [lo >= 0 ? Math.max(0, lo - room) : lo - room, hi + room];
}

function logSplits(min: number, max: number): number[] {
  if (max / min < 20) {
    const raw = (max - min) / 5;
    const ten = 10 ** Math.floor(Math.log10(raw));
    const by = ten * (raw / ten < 2 ? 2 : raw / ten < 5 ? 5 : 10);
    const from = Math.ceil(min / by);
    return Array.from(
      { length: Math.max(0, Math.floor(max / by) - from + 1) },
      (_, i) => (from + i) * by,
    );
  }
  const out: number[] = [];
  for (let p = 10 ** Math.floor(Math.log10(min)); p <= max; p *= 10)
    for (const k of max / min > 1e4 ? [1] : [1, 2, 5])
      if (k * p >= min && k * p <= max) out.push(k * p);
  return out;
}

/** Clock time; a day where a new one begins. */
function clockTicks(
  _u: uPlot,
  splits: number[],
  _axis: number,
  _space: number,
  incr: number,
): string[] {
  const two = (n: number) => String(n).padStart(2, '0');
  let day = '';

  return splits.map((ms) => {
    const d = new Date(ms);
    const date = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
    const time = `${two(d.getHours())}:${two(d.getMinutes())}${incr < MINUTE ? `:${two(d.getSeconds())}` : ''}`;
    const begins = day !== '' && date !== day;
    day = date;
    return incr >= DAY || (begins && time.startsWith('00:00')) ? date.slice(5) : time;
  });
}

function elapsed(ms: number): string {
  const of = (unit: number, name: string) => `${Number((ms / unit).toFixed(1))} ${name}`;
  if (ms < MINUTE) return of(SECOND, 's');
  if (ms < HOUR) return of(MINUTE, 'min');
  return ms < 2 * DAY ? of(HOUR, 'h') : of(DAY, 'd');
}
