// looks.ts: what evaluations saw beside the loss, of the newest look: each validation
// set, the loss by place in the sequence, passkeys, multiple choice, what Lighthouse
// attention selects.
import { rpc } from './api';
import { h, replace } from './dom';
import * as fmt from './format';
import type { Choices, Evaluation, JobShow, Look, Passkey, Positions, Selection } from './types';

const W = 640;
const H = 220;
const LEFT = 48;
const FOOT = 34;
const COLOURS = 8; // --c1 .. --c8
const SETS_MAX = 16;

const percent = (x: number | null | undefined): string =>
  x === null || x === undefined ? '–' : `${(100 * x).toFixed(1)} %`;

/** As evaluations and looks name who was measured. */
const who = (set: string | undefined, attention: string): string =>
  `${set ?? 'validation'}, ${attention === 'full' ? 'full attention' : 'Lighthouse'}`;

export class Looks {
  readonly root = h('div', {
    class: 'looks',
    tabindex: '0',
    role: 'region',
    'aria-label': 'evaluations',
  });
  private places: Look<Positions>[] = [];
  private loadedStep = -1;

  constructor(private readonly job: number) {}

  /** Loads the curves only when there are newer ones. */
  async set(show: JobShow): Promise<void> {
    const looks = show.looks ?? [];
    const newest = looks.find((l) => l.kind === 'positions');

    this.draw(show, looks);
    if (!newest || newest.step === this.loadedStep) return;
    const r = await rpc<{ looks: Look<Positions>[] }>('job.looks', {
      job: this.job,
      kind: 'positions',
      newest: true,
      limit: 2 * SETS_MAX,
    });
    const last = r.looks[r.looks.length - 1];
    const byName = new Map<string, Look<Positions>>(); // at a step there may be two: the end
    for (const l of r.looks)
      if (l.step === last.step && l.attempt === last.attempt)
        byName.set(who(l.data.set_name, l.attention), l);
    this.places = [...byName.values()];
    this.loadedStep = newest.step;
    this.draw(show, looks);
  }

  private draw(show: JobShow, looks: Look<unknown>[]): void {
    const of = <T>(kind: string) => looks.find((l) => l.kind === kind) as Look<T> | undefined;
    const passkey = of<Passkey>('passkey');
    const choice = of<Choices>('choices');
    const selection = of<Selection>('selection');
    const parts = [
      show.evaluations.length ? sets(show.evaluations) : null,
      this.places.length ? places(this.places) : null,
      passkey ? grid(passkey) : null,
      choice ? choices(choice) : null,
      selection ? levels(selection) : null,
      costs(show.evaluations, looks),
    ].filter((p) => p !== null);

    replace(this.root, ...(parts.length ? parts : [h('p', { class: 'none' }, 'nothing is evaluated yet')]));
  }
}

function section(title: string, ...body: (HTMLElement | SVGElement)[]): HTMLElement {
  return h('section', {}, h('h3', {}, title), ...body);
}

function table(heads: string[], rows: (string | HTMLElement)[][]): HTMLElement {
  return h(
    'table',
    {},
    h('thead', {}, h('tr', {}, ...heads.map((t) => h('th', { scope: 'col' }, t)))),
    h(
      'tbody',
      {},
      ...rows.map((r) =>
        h('tr', {}, ...r.map((c) => (typeof c === 'string' ? h('td', { class: 'num' }, c) : c))),
      ),
    ),
  );
}

/** The newest loss of each set and attention. */
function sets(evaluations: Evaluation[]): HTMLElement {
  const newest = new Map<string, Evaluation>();
  for (const e of evaluations) newest.set(who(e.set_name, e.attention), e);
  return section(
    'Validation sets',
    table(
      ['set', 'loss', 'step'],
      [...newest].map(([name, e]) => [name, fmt.loss(e.loss), fmt.count(e.step)]),
    ),
  );
}

/** A cell of the grid is as full as digits were found. */
function grid(look: Look<Passkey>): HTMLElement {
  const { contexts, depths, samples, found, right } = look.data;
  const cell = (n: number) => {
    const td = h('td', { class: 'num cell' }, `${n}/${samples}`);
    const full = Math.round((35 * n) / samples);
    td.style.background = `color-mix(in srgb, var(--c3) ${full}%, transparent)`;
    return td;
  };
  return section(
    `Passkeys found: ${percent(right)} at step ${fmt.count(look.step)}, by context and depth (10 % by chance)`,
    table(
      ['context', ...depths.map((d) => `${d} %`)],
      contexts.map((c, i) => [fmt.count(c), ...found[i].map(cell)]),
    ),
  );
}

function choices(look: Look<Choices>): HTMLElement {
  return section(
    `Multiple choice at step ${fmt.count(look.step)}, ${look.attention === 'full' ? 'full attention' : 'Lighthouse'}`,
    table(
      ['file', 'items', 'right', 'by length', 'by chance'],
      look.data.sets.map((s) => [
        s.set_name,
        fmt.count(s.items),
        percent(s.acc),
        percent(s.acc_norm),
        percent(s.chance),
      ]),
    ),
  );
}

function levels(look: Look<Selection>): HTMLElement {
  const { data } = look;
  return section(
    `Selection at step ${fmt.count(look.step)}: ${percent(data.never)} of tokens chosen by no head in ${data.window} looks`,
    table(
      ['level', 'a head expands', 'any head', 'heads agree on', 'as the look before'],
      data.levels.map((l) => [
        String(l.level),
        percent(l.expanded),
        percent(l.any_head),
        percent(l.heads),
        percent(l.kept),
      ]),
    ),
  );
}

function costs(evaluations: Evaluation[], looks: Look<unknown>[]): HTMLElement | null {
  const names: Record<string, string> = {
    positions: 'by place',
    selection: 'selection',
    passkey: 'passkeys',
    choices: 'multiple choice',
  };
  const rows: [string, number | null | undefined][] = [
    ['validation loss', evaluations[evaluations.length - 1]?.cost],
    ...looks.map((l): [string, number | null] => [names[l.kind] ?? l.kind, l.cost]),
  ];
  const known = rows.filter((r): r is [string, number] => typeof r[1] === 'number');
  if (!known.length) return null;
  return h(
    'p',
    { class: 'none' },
    `By the time of steps, these took: ${known
      .map(([name, x]) => `${name} ${Number((100 * x).toPrecision(2))} %`)
      .join(', ')}.`,
  );
}

// ---- the loss by place ----

function svg(tag: string, props: Record<string, string | number>, text?: string): SVGElement {
  const el = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(props)) el.setAttribute(name, String(value));
  if (text !== undefined) el.append(text);
  return el;
}

/** Buckets with a loss: the middle of each, in the logarithm, and what it is. */
function curveOf(p: Positions): [number, number][] {
  return p.loss.flatMap((y, i): [number, number][] =>
    y === null ? [] : [[Math.sqrt((p.edges[i] + 1) * p.edges[i + 1]), y]],
  );
}

function places(looks: Look<Positions>[]): HTMLElement {
  const curves = looks.map((l) => curveOf(l.data));
  const all = curves.flat();
  const last = looks[0].data.edges[looks[0].data.edges.length - 1];
  const lo = Math.min(...all.map(([, y]) => y));
  const hi = Math.max(...all.map(([, y]) => y));
  const x = (v: number) => LEFT + ((W - LEFT - 8) * Math.log(v)) / Math.log(last);
  const y = (v: number) => 8 + (H - FOOT - 8) * (hi > lo ? (hi - v) / (hi - lo) : 0.5);
  const el = svg('svg', {
    viewBox: `0 0 ${W} ${H}`,
    role: 'img',
    'aria-label': 'loss by place in the sequence',
  });

  for (let i = 0; 4 ** i <= last; i++)
    el.append(
      svg('line', { x1: x(4 ** i), x2: x(4 ** i), y1: 8, y2: H - FOOT, stroke: 'var(--grid)' }),
      svg('text', { x: x(4 ** i), y: H - FOOT + 14, 'text-anchor': 'middle' }, fmt.short(4 ** i)),
    );
  for (const v of [lo, (lo + hi) / 2, hi])
    el.append(svg('text', { x: LEFT - 6, y: y(v) + 4, 'text-anchor': 'end' }, v.toFixed(2)));
  el.append(
    svg('text', { x: (W + LEFT) / 2, y: H - 4, 'text-anchor': 'middle' }, 'place in the sequence, tokens'),
  );
  curves.forEach((c, i) =>
    el.append(
      svg('polyline', {
        points: c.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' '),
        fill: 'none',
        stroke: `var(--c${(i % COLOURS) + 1})`,
        'stroke-width': 1.75,
      }),
    ),
  );
  return section(
    `Loss by place in the sequence, nats, at step ${fmt.count(looks[0].step)}`,
    el,
    h(
      'p',
      { class: 'legend' },
      ...looks.map((l, i) => {
        const swatch = h('i', { class: 'swatch' });
        swatch.style.background = `var(--c${(i % COLOURS) + 1})`;
        return h('span', {}, swatch, who(l.data.set_name, l.attention));
      }),
    ),
  );
}
