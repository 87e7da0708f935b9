// spark.ts: a loss curve in the size of a word. A canvas; what it shows is in the
// row's numbers too, so it is hidden from screen readers.
import { h } from './dom';
import { colour } from './theme';
import type { Point } from './types';

const WIDTH = 168;
const HEIGHT = 34;

export class Spark {
  readonly el = h('canvas', {
    class: 'spark',
    'aria-hidden': 'true',
    width: WIDTH * 2,
    height: HEIGHT * 2,
  });

  draw(points: readonly Point[]): void {
    const c = this.el.getContext('2d')!;
    const kept = points.filter((p) => p.loss_mean !== null);

    c.clearRect(0, 0, this.el.width, this.el.height);
    if (kept.length < 2) return;
    const from = kept[0].last_step;
    const span = kept[kept.length - 1].last_step - from || 1;
    // The first steps are far above the rest; they may leave the picture.
    const sorted = kept.map((p) => p.loss_mean!).sort((a, b) => a - b);
    const low = sorted[0];
    const high = Math.max(sorted[Math.floor(sorted.length * 0.95)], low + 1e-9);
    const x = (p: Point) => 4 + ((p.last_step - from) / span) * (this.el.width - 10);
    const y = (p: Point) =>
      6 + (1 - Math.min(1, (p.loss_mean! - low) / (high - low))) * (this.el.height - 12);
    c.strokeStyle = colour('train');
    c.lineWidth = 3;
    c.lineJoin = 'round';
    c.beginPath();
    kept.forEach((p, i) => (i ? c.lineTo(x(p), y(p)) : c.moveTo(x(p), y(p))));
    c.stroke();
    const last = kept[kept.length - 1];
    c.fillStyle = colour('train');
    c.beginPath();
    c.arc(x(last), y(last), 4.5, 0, 2 * Math.PI);
    c.fill();
  }
}
