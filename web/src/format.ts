// format.ts: numbers as people read them, always with their unit. Pure.

const NONE = '–';
const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export const count = (n: number | null | undefined): string =>
  n === null || n === undefined ? NONE : whole.format(n);

/** Nats a token, or anything of that size. */
export const loss = (x: number | null | undefined): string =>
  x === null || x === undefined || !Number.isFinite(x)
    ? NONE
    : Math.abs(x) < 1e-3 && x !== 0
      ? x.toExponential(2)
      : x.toFixed(4);

/** Four significant digits, an exponent where the plain form is long. */
export function real(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return NONE;
  if (x === 0) return '0';
  const a = Math.abs(x);
  return a < 1e-3 || a >= 1e6 ? x.toExponential(2) : String(Number(x.toPrecision(4)));
}

/** 262 k, 1.35 M: three significant digits with a decimal prefix. */
export function short(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return NONE;
  const a = Math.abs(x);
  const [div, unit] =
    a >= 999.5e9
      ? [1e12, ' T']
      : a >= 999.5e6
        ? [1e9, ' G']
        : a >= 999.5e3
          ? [1e6, ' M']
          : a >= 999.5
            ? [1e3, ' k']
            : [1, ''];
  const v = x / div;
  return `${Math.abs(v) >= 100 ? Math.round(v) : Number(v.toPrecision(3))}${unit}`;
}

export function bytes(n: number | null | undefined): string {
  if (n === null || n === undefined) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${i && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

/** 8 s, 4 min 05 s, 3 h 20 min, 2 d 04 h. */
export function duration(s: number | null | undefined): string {
  if (s === null || s === undefined || !Number.isFinite(s)) return NONE;
  const two = (n: number) => String(n).padStart(2, '0');
  s = Math.max(0, Math.round(s));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
  return `${Math.floor(s / 86_400)} d ${two(Math.floor(s / 3600) % 24)} h`;
}

export function clock(ms: number): string {
  const d = new Date(ms);
  return [d.getHours(), d.getMinutes(), d.getSeconds()]
    .map((n) => String(n).padStart(2, '0'))
    .join(':');
}

/** Clock time, with the date when it is not today's. */
export function when(ms: number | null | undefined, now = Date.now()): string {
  if (ms === null || ms === undefined) return NONE;
  const d = new Date(ms);
  if (new Date(now).toDateString() === d.toDateString()) return clock(ms);
  const day = `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, '0')}-${String(d.getDate()).padStart(2, '0')}`;
  return `${day} ${clock(ms)}`;
}

/** A resolved configuration as indented text, the way a job file looks. */
export function yaml(value: unknown, indent = ''): string {
  if (Array.isArray(value)) {
    if (!value.length) return ' []\n';
    if (value.every((v) => typeof v !== 'object' || v === null))
      return ` [${value.map(scalar).join(', ')}]\n`;
    return (
      '\n' + value.map((v) => `${indent}-${yaml(v, indent + '  ').replace(/^\n\s*/, ' ')}`).join('')
    );
  }
  if (typeof value === 'object' && value !== null) {
    const rows = Object.entries(value);
    if (!rows.length) return ' {}\n';
    return (
      '\n' +
      rows
        .map(([k, v]) => `${indent}${k}:${yaml(v, typeof v === 'object' ? indent + '  ' : indent)}`)
        .join('')
    );
  }
  return ` ${scalar(value)}\n`;
}

function scalar(v: unknown): string {
  if (typeof v !== 'string') return String(v);
  return /^[\w./-]+$/.test(v) ? v : JSON.stringify(v);
}
