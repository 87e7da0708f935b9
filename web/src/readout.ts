// readout.ts: the values under the cursor, or the newest when there is none.
import type { Curve } from './curve';
import * as fmt from './format';
import { Stat } from './parts';
import { h } from './dom';
import { lastAtOrBelow, tokensAfter, type Column } from './series';
import type { Evaluation } from './types';

export class Readout {
  private readonly step = new Stat('step');
  private readonly tokens = new Stat('tokens');
  private readonly time = new Stat('time');
  private readonly loss = new Stat('loss');
  private readonly smoothed = new Stat('smoothed');
  private readonly full = new Stat('val. full');
  private readonly lighthouse = new Stat('val. Lighthouse');
  private readonly lr = new Stat('lr');
  private readonly norm = new Stat('grad norm');
  private readonly pace = new Stat('tokens/s');
  readonly el = h(
    'div',
    { class: 'readout', 'aria-label': 'values at the cursor', role: 'group' },
    this.step.el,
    this.tokens.el,
    this.time.el,
    this.loss.el,
    this.smoothed.el,
    this.full.el,
    this.lighthouse.el,
    this.lr.el,
    this.norm.el,
    this.pace.el,
  );

  set(
    curve: Curve,
    xs: readonly number[],
    smoothed: Column,
    full: readonly Evaluation[],
    lighthouse: readonly Evaluation[],
    x: number | null,
  ): void {
    const i = x === null ? xs.length - 1 : Math.min(xs.length - 1, lastAtOrBelow(xs, x - 1e-9) + 1);
    const p = curve.points[i];

    if (!p) return;
    const before = (list: readonly Evaluation[]) =>
      list[
        lastAtOrBelow(
          list.map((e) => e.step),
          p.last_step,
        )
      ];
    const at = (e: Evaluation | undefined) => (e ? `measured at step ${e.step}` : '');
    this.step.set(
      p.steps > 1 ? `${fmt.count(p.first_step)}–${fmt.count(p.last_step)}` : fmt.count(p.last_step),
    );
    this.tokens.set(fmt.short(tokensAfter(curve.points.slice(0, i + 1), curve.tokensBefore)[i]));
    this.time.set(fmt.when(p.time_ms));
    this.loss.set(
      fmt.loss(p.loss_mean),
      p.steps > 1 ? `${fmt.loss(p.loss_min)} to ${fmt.loss(p.loss_max)} in ${p.steps} steps` : '',
    );
    this.smoothed.set(fmt.loss(smoothed[i]));
    this.full.set(fmt.loss(before(full)?.loss), at(before(full)));
    this.lighthouse.set(fmt.loss(before(lighthouse)?.loss), at(before(lighthouse)));
    this.lighthouse.el.hidden = !lighthouse.length;
    this.lr.set(fmt.real(p.lr_mean));
    this.norm.set(fmt.real(p.grad_norm_mean));
    this.pace.set(fmt.short(p.tokens_per_s_mean));
  }
}
