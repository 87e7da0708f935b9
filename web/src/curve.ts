// curve.ts: what is loaded of one job's steps: groups of a range of them, as wide as
// pixels need, the branches that were abandoned, and the live end.
import { rpc } from './api';
import { appendStep, lastAtOrBelow, tokensAfter, type Branch } from './series';
import type { Point, Step } from './types';

/** Pushed steps that are kept, for the store writes a moment after they are pushed. */
const RECENT_MAX = 8192;
const BRANCH_POINTS = 300;
const BRANCHES_MAX = 12;

export interface LoadedBranch extends Branch {
  points: Point[];
}

export class Curve {
  points: Point[] = [];
  branches: LoadedBranch[] = [];
  /** Trained on before the first group. */
  tokensBefore = 0;
  private width = 1;
  private wanted = 0;
  private loads = 0;
  private recent: Step[] = [];
  /** Tokens trained on by the ends of the groups of the whole line: what lies before a
   * range is then a few steps away. */
  private totals: { ends: number[]; sums: number[] } = { ends: [], sums: [] };
  private open = false; // the range has no end: pushed steps belong to it

  constructor(readonly job: number) {}

  get lastStep(): number {
    return this.points.length ? this.points[this.points.length - 1].last_step : 0;
  }

  /** Groups of the steps from..to in about `wanted` points; `open`: `to` is the newest
   * step, and more may come. False when a newer load took its place. */
  async load(
    from: number,
    to: number,
    open: boolean,
    wanted: number,
    branches: readonly Branch[],
  ): Promise<boolean> {
    const mine = ++this.loads;
    const seen = branches.filter((b) => b.to_step >= from && b.from_step <= to).slice(0, BRANCHES_MAX);
    const get = (params: Record<string, number>) =>
      rpc<{ points: Point[] }>('job.curve', { job: this.job, ...params }).then((r) => r.points);
    const first = Math.max(0, Math.floor(from));
    const last = Math.max(first, Math.ceil(to));

    const [points, before, ...sides] = await Promise.all([
      get({ from_step: first, to_step: last, points: wanted }),
      this.tokensUntil(first - 1, get),
      ...seen.map((b) =>
        get({
          attempt: b.attempt,
          from_step: Math.max(first, b.from_step),
          to_step: Math.min(last, b.to_step),
          points: BRANCH_POINTS,
        }),
      ),
    ]);
    if (mine !== this.loads) return false;
    this.points = points;
    this.tokensBefore = before;
    if (first <= 1)
      this.totals = { ends: points.map((p) => p.last_step), sums: tokensAfter(points, 0) };
    this.branches = seen.map((b, i) => ({ ...b, points: sides[i] })).filter((b) => b.points.length > 0);
    // The first and the last may be cut.
    this.width = Math.max(1, ...points.map((p) => p.steps));
    this.wanted = wanted;
    this.open = open;
    if (open) for (const s of this.recent) if (!appendStep(this.points, s, this.width)) break;
    return true;
  }

  private async tokensUntil(
    step: number,
    get: (params: Record<string, number>) => Promise<Point[]>,
  ): Promise<number> {
    if (step < 1) return 0;
    const i = lastAtOrBelow(this.totals.ends, step);
    const from = i < 0 ? 0 : this.totals.ends[i] + 1;
    const rest = from > step ? [] : await get({ from_step: from, to_step: step, points: 1 });
    return rest.reduce((n, p) => n + p.tokens, i < 0 ? 0 : this.totals.sums[i]);
  }

  /** A pushed step. False when the curve has to be loaded anew: steps are missing,
   * another attempt began, or there are more groups than anybody sees. */
  push(s: Step): boolean {
    const before = this.recent[this.recent.length - 1];

    if (before && before.attempt !== s.attempt) {
      this.recent = [s];
      this.totals = { ends: [], sums: [] };
      return false;
    }
    if (before && s.step <= before.step) return true;
    this.recent.push(s);
    if (this.recent.length > RECENT_MAX) this.recent.splice(0, RECENT_MAX / 2);
    if (!this.open) return true;
    return (
      appendStep(this.points, s, this.width) && this.points.length <= 2 * Math.max(this.wanted, 50)
    );
  }
}
