// paint.ts: what is drawn below and above the lines of a chart. `x` gives where a step
// lies on its axis.
import type uPlot from 'uplot';
import type { LoadedBranch } from './curve';
import { bands, xOf, type XMode } from './series';
import { colour } from './theme';
import type { Phase, Point } from './types';

type X = (step: number) => number;

/** Runs `draw` with what it draws cut to the plot. */
function inPlot(u: uPlot, draw: (ctx: CanvasRenderingContext2D, px: number) => void): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, devicePixelRatio);
  ctx.restore();
}

/** Phases as coloured bands; with their names where those fit, if `named`. */
export function paintBands(
  u: uPlot,
  points: readonly Point[],
  phases: readonly Phase[],
  x: X,
  named: boolean,
): void {
  inPlot(u, (ctx, px) => {
    ctx.textAlign = 'left';
    ctx.font = `${11 * px}px ui-sans-serif, system-ui, sans-serif`;
    for (const b of bands(points)) {
      const phase = phases[b.phase];
      const from = u.valToPos(x(b.from_step), 'x', true);
      const to = u.valToPos(x(b.to_step), 'x', true);
      ctx.fillStyle = colour(phase?.attention === 'lighthouse' ? 'band-lighthouse' : 'band-full');
      ctx.fillRect(from, u.bbox.top, to - from, u.bbox.height);
      if (!named || !phase || to - from < ctx.measureText(phase.name).width + 16 * px) continue;
      ctx.fillStyle = colour('muted');
      ctx.fillText(phase.name, Math.max(from, u.bbox.left) + 6 * px, u.bbox.top + 14 * px);
    }
  });
}

/** What attempts did that later ones did again: faded. */
export function paintBranches(u: uPlot, branches: readonly LoadedBranch[], mode: XMode, x: X): void {
  inPlot(u, (ctx, px) => {
    ctx.strokeStyle = colour('muted');
    ctx.globalAlpha = 0.55;
    ctx.lineWidth = 1.25 * px;
    ctx.setLineDash([3 * px, 3 * px]);
    for (const b of branches) {
      const xs = xOf(b.points, mode, mode === 'tokens' ? x(b.points[0].first_step - 1) : 0);
      ctx.beginPath();
      b.points.forEach((p, i) => {
        if (p.loss_mean === null) return;
        ctx.lineTo(u.valToPos(xs[i], 'x', true), u.valToPos(p.loss_mean, 'y', true));
      });
      ctx.stroke();
    }
  });
}

/** A dotted line at each of `xs`. */
export function paintMarks(u: uPlot, xs: readonly number[]): void {
  inPlot(u, (ctx, px) => {
    ctx.strokeStyle = colour('muted');
    ctx.globalAlpha = 0.5;
    ctx.lineWidth = px;
    ctx.setLineDash([2 * px, 3 * px]);
    for (const v of xs) {
      const at = Math.round(u.valToPos(v, 'x', true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(at, u.bbox.top);
      ctx.lineTo(at, u.bbox.top + u.bbox.height);
      ctx.stroke();
    }
  });
}
