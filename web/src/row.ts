// row.ts: a job in the overview. Kept and filled anew; its picture and its phases are
// loaded when it comes into view.
import { rpc } from './api';
import { h, setText } from './dom';
import * as fmt from './format';
import { PhaseBar, Stat, StatePill } from './parts';
import { Spark } from './spark';
import { isLive, type JobShow, type JobSummary, type Phase, type Point } from './types';

const SPARK_POINTS = 80;
const PICTURE_EVERY_MS = 3_000;

export class Row {
  readonly el: HTMLLIElement;
  readonly pick: HTMLInputElement;
  private readonly name = h('a', { class: 'name' });
  private readonly reason = h('span', { class: 'reason' });
  private readonly state = new StatePill();
  private readonly bar = new PhaseBar();
  private readonly where = h('span', { class: 'where num' });
  private readonly spark = new Spark();
  private readonly loss = new Stat('loss');
  private readonly pace = new Stat('tokens/s');
  private readonly left = new Stat('time left');
  private phases: Phase[] = [];
  private points: Point[] = [];
  private wanted = false; // a picture
  private loadedMs = 0;
  private loadedStep = 0;
  summary: JobSummary;

  constructor(s: JobSummary, onPick: () => void) {
    this.summary = s;
    this.pick = h('input', {
      type: 'checkbox',
      'aria-label': `compare job ${s.job}`,
      onchange: onPick,
    });
    this.name.href = `#/job/${s.job}`;
    this.el = h(
      'li',
      { class: 'job', 'data-job': s.job },
      h('label', { class: 'pick' }, this.pick),
      h(
        'div',
        { class: 'who' },
        h(
          'span',
          { class: 'line' },
          this.name,
          h('span', { class: 'id num' }, `#${s.job}`),
          this.state.el,
        ),
        this.reason,
      ),
      h('div', { class: 'progress' }, this.bar.el, this.where),
      this.spark.el,
      this.loss.el,
      this.pace.el,
      this.left.el,
    );
    this.fill(s);
  }

  fill(s: JobSummary): void {
    const total = s.total_steps === null ? '' : ` / ${fmt.count(s.total_steps)}`;

    this.summary = s;
    setText(this.name, s.name);
    setText(this.reason, s.reason);
    this.state.set(s.state);
    this.bar.set(s, this.phases);
    setText(this.where, `${s.phase_name} · step ${fmt.count(s.step)}${total}`);
    this.loss.set(fmt.loss(s.loss));
    this.pace.set(isLive(s.state) ? fmt.short(s.tokens_per_s) : '–');
    if (s.ended_ms === null) this.left.set(fmt.duration(s.eta_s), '', 'time left');
    else
      this.left.set(
        fmt.duration((s.ended_ms - (s.started_ms ?? s.ended_ms)) / 1000),
        `ended ${fmt.when(s.ended_ms)}`,
        'took',
      );
  }

  /** Whether the picture is behind by what one could see. */
  outdated(): boolean {
    const moved = Math.abs(this.summary.step - this.loadedStep);
    return (
      this.wanted &&
      Date.now() - this.loadedMs > PICTURE_EVERY_MS &&
      moved > this.loadedStep / SPARK_POINTS
    );
  }

  async load(): Promise<void> {
    const { job, step } = this.summary;

    this.wanted = true;
    this.loadedMs = Date.now();
    this.loadedStep = step;
    const [show, curve] = await Promise.all([
      rpc<JobShow>('job.show', { job }),
      rpc<{ points: Point[] }>('job.curve', { job, points: SPARK_POINTS, to_step: step }),
    ]);
    this.phases = show.phases;
    this.points = curve.points;
    this.bar.set(this.summary, this.phases);
    this.spark.el.classList.toggle('none', this.points.length < 2);
    this.spark.draw(this.points);
  }

  redraw(): void {
    if (this.wanted) this.spark.draw(this.points);
  }
}
