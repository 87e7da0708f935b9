// series.ts: the arithmetic of curves. Pure: groups of steps in, arrays out.
import type { Evaluation, Point, Step } from './types';

export type XMode = 'step' | 'tokens' | 'time';
export type Column = (number | null)[];

/** Adds a step to the end of a curve whose groups are `width` steps wide. False when
 * it does not follow the last one: the curve must then be loaded anew. A step that is
 * there already changes nothing. */
export function appendStep(points: Point[], s: Step, width: number): boolean {
  const last = points[points.length - 1];

  if (last && s.step <= last.last_step) return true;
  if (s.step !== (last ? last.last_step : 0) + 1) return false;
  if (!last || last.steps >= width || last.phase !== s.phase) {
    points.push({
      first_step: s.step,
      last_step: s.step,
      steps: 1,
      phase: s.phase,
      time_ms: s.time_ms,
      tokens: s.tokens,
      loss_min: s.loss,
      loss_mean: s.loss,
      loss_max: s.loss,
      grad_norm_min: s.grad_norm,
      grad_norm_mean: s.grad_norm,
      grad_norm_max: s.grad_norm,
      lr_min: s.lr,
      lr_mean: s.lr,
      lr_max: s.lr,
      tokens_per_s_min: s.tokens_per_s,
      tokens_per_s_mean: s.tokens_per_s,
      tokens_per_s_max: s.tokens_per_s,
    });
    return true;
  }
  const n = last.steps;
  const mix = (name: 'loss' | 'grad_norm' | 'lr' | 'tokens_per_s', v: number | null) => {
    if (v === null) return;
    const p = last as unknown as Record<string, number | null>;
    const mean = p[`${name}_mean`];
    p[`${name}_min`] = Math.min(p[`${name}_min`] ?? v, v);
    p[`${name}_max`] = Math.max(p[`${name}_max`] ?? v, v);
    p[`${name}_mean`] = mean === null ? v : (mean * n + v) / (n + 1);
  };
  mix('loss', s.loss);
  mix('grad_norm', s.grad_norm);
  mix('lr', s.lr);
  mix('tokens_per_s', s.tokens_per_s);
  last.steps = n + 1;
  last.last_step = s.step;
  last.time_ms = s.time_ms;
  last.tokens += s.tokens;
  return true;
}

/** Exponential mean of group means with a time constant in steps, so that it looks the
 * same however coarse the groups are. Corrected for its start; 0 steps: none. */
export function smooth(points: readonly Point[], tauSteps: number): Column {
  let sum = 0;
  let weight = 0;
  return points.map((p) => {
    if (p.loss_mean === null) return null;
    if (tauSteps <= 0) return p.loss_mean;
    const keep = Math.exp(-p.steps / tauSteps);
    sum = keep * sum + (1 - keep) * p.loss_mean;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

/** Tokens trained on up to the end of each group; `before`: up to the first one. */
export function tokensAfter(points: readonly Point[], before: number): number[] {
  let total = before;
  return points.map((p) => (total += p.tokens));
}

/** Where each group lies on the x axis; `origin` is taken off (a job's start). */
export function xOf(
  points: readonly Point[],
  mode: XMode,
  tokensBefore: number,
  originMs = 0,
): number[] {
  if (mode === 'tokens') return tokensAfter(points, tokensBefore);
  return points.map((p) => (mode === 'time' ? p.time_ms - originMs : p.last_step));
}

/** Between known pairs by a straight line, at the ends by the nearest slope. Both ascend. */
export function interpolate(from: readonly number[], to: readonly number[], v: number): number {
  const n = from.length;
  if (!n) return v;
  if (n === 1) return to[0] + (v - from[0]);
  let lo = 0;
  let hi = n - 1;
  while (hi - lo > 1) {
    const mid = (lo + hi) >> 1;
    if (from[mid] <= v) lo = mid;
    else hi = mid;
  }
  const span = from[hi] - from[lo];
  return span ? to[lo] + ((v - from[lo]) * (to[hi] - to[lo])) / span : to[lo];
}

/** Index of the last value that is not above v, -1 if none is. Ascending. */
export function lastAtOrBelow(values: readonly number[], v: number): number {
  let lo = -1;
  let hi = values.length;
  while (hi - lo > 1) {
    const mid = (lo + hi) >> 1;
    if (values[mid] <= v) lo = mid;
    else hi = mid;
  }
  return lo;
}

export interface Branch {
  attempt: number;
  from_step: number;
  to_step: number;
}

/** What attempts did that a later one did again: attempt n went on to its last step,
 * but a later one began before that. Newest first. */
export function abandoned(
  attempts: readonly { attempt: number; first_step: number | null; last_step: number | null }[],
): Branch[] {
  const out: Branch[] = [];
  let begun = Infinity; // the earliest step that a later attempt resumed from
  for (let i = attempts.length - 1; i >= 0; i--) {
    const a = attempts[i];
    if (a.last_step !== null && a.last_step > begun) {
      const from = Math.max(begun, a.first_step ?? 0);
      if (a.last_step > from) out.push({ attempt: a.attempt, from_step: from, to_step: a.last_step });
    }
    if (a.first_step !== null) begun = Math.min(begun, a.first_step);
  }
  return out;
}

/** Of the first validation set: the one that charts and rules mean. */
export const isFirst = (e: Evaluation): boolean => !e.set_no;

/** Evaluations on the line that counts, one a step and attention: the newest. */
export function finalEvaluations(
  evaluations: readonly Evaluation[],
  branches: readonly Branch[],
  attention: string,
): Evaluation[] {
  const byStep = new Map<number, Evaluation>();
  for (const e of evaluations) {
    if (e.attention !== attention || e.loss === null || !isFirst(e)) continue;
    if (branches.some((b) => b.attempt === e.attempt && e.step > b.from_step)) continue;
    byStep.set(e.step, e);
  }
  return [...byStep.values()].sort((a, b) => a.step - b.step);
}

/** Full less Lighthouse validation loss as `loss`, where both were measured at a step. */
export function gaps(
  full: readonly Evaluation[],
  lighthouse: readonly Evaluation[],
): { step: number; loss: number; time_ms: number }[] {
  const other = new Map(lighthouse.map((e) => [e.step, e.loss!]));
  return full
    .filter((e) => other.has(e.step))
    .map((e) => ({ step: e.step, loss: e.loss! - other.get(e.step)!, time_ms: e.time_ms }));
}

export interface Band {
  phase: number;
  from_step: number;
  to_step: number;
}

/** Runs of groups of one phase. */
export function bands(points: readonly Point[]): Band[] {
  const out: Band[] = [];
  for (const p of points) {
    const last = out[out.length - 1];
    if (last && last.phase === p.phase) last.to_step = p.last_step;
    else out.push({ phase: p.phase, from_step: p.first_step - 1, to_step: p.last_step });
  }
  return out;
}
