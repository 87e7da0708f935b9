// head.ts: the head of a job's page: its state in numbers, and what needs attention.
import { h, replace, setText } from './dom';
import * as fmt from './format';
import { mfu } from './mfu';
import { PhaseBar, Stat, StatePill } from './parts';
import { gaps, isFirst } from './series';
import type { Devices, JobShow, JobSummary } from './types';

type Worker = Devices['workers'][number];

export class Head {
  private readonly name = h('h1', {});
  private readonly state = new StatePill();
  private readonly reason = h('p', { class: 'reason' });
  private readonly bar = new PhaseBar();
  private readonly where = h('div', { class: 'where' });
  private readonly notices = h('div', { class: 'notices' });
  private readonly stats = {
    step: new Stat('step'),
    loss: new Stat('loss', 'nats'),
    full: new Stat('validation', 'nats'),
    gap: new Stat('recovery gap', 'nats'),
    pace: new Stat('pace', 'tokens/s'),
    mfu: new Stat('MFU', '%'),
    memory: new Stat('memory'),
    left: new Stat('time left'),
    took: new Stat('elapsed'),
    attempt: new Stat('attempt'),
  };
  readonly el: HTMLElement;
  gpu = ''; // as daemon.info names it
  worker: Worker | null = null; // as daemon.devices knows it

  constructor(job: number, steering: Node) {
    this.el = h(
      'header',
      { class: 'head' },
      h(
        'nav',
        { 'aria-label': 'path' },
        h('a', { href: '#/' }, 'Jobs'),
        ' / ',
        h('span', { class: 'num' }, `#${job}`),
      ),
      h('div', { class: 'titlebar' }, h('div', { class: 'title' }, this.name, this.state.el), steering),
      this.reason,
      h('div', { class: 'progress' }, this.bar.el, this.where),
      h('div', { class: 'stats' }, ...Object.values(this.stats).map((s) => s.el)),
      this.notices,
    );
  }

  get jobName(): string {
    return this.name.textContent ?? '';
  }

  /** `s`: the newest that is known, perhaps of a step that came after `show`. */
  set(show: JobShow, s: JobSummary): void {
    const attention = show.phases[s.phase]?.attention ?? '?';

    setText(this.name, s.name);
    document.title = `${s.name} · Lighthouse`;
    this.state.set(s.state);
    setText(this.reason, s.reason);
    this.bar.set(s, show.phases);
    setText(
      this.where,
      `phase ${s.phase + 1} of ${show.phases.length}, ${s.phase_name} (${attention} attention)`,
    );
    this.setStats(show, s);
  }

  private setStats(show: JobShow, s: JobSummary): void {
    const { stats } = this;
    const of = (attention: string) =>
      show.evaluations.filter((e) => e.attention === attention && e.loss !== null && isFirst(e));
    const full = of('full');
    const val = full[full.length - 1];
    const both = gaps(full, of('lighthouse'));
    const used = mfu(show.spec, this.gpu, s.tokens_per_s);
    const ended = s.ended_ms !== null;

    stats.step.set(
      `${fmt.count(s.step)}${s.total_steps === null ? '' : ` / ${fmt.count(s.total_steps)}`}`,
    );
    stats.loss.set(fmt.loss(s.loss));
    stats.full.set(fmt.loss(val?.loss), val ? `full attention, at step ${val.step}` : '');
    stats.gap.set(
      fmt.loss(both[both.length - 1]?.loss),
      'validation loss with full attention less that with Lighthouse attention',
    );
    stats.gap.el.hidden = !both.length;
    stats.pace.set(fmt.short(s.tokens_per_s));
    stats.mfu.el.hidden = !used;
    if (used) stats.mfu.set((used.share * 100).toFixed(1), used.how);
    this.setMemory(ended ? null : this.worker);
    stats.left.set(fmt.duration(s.eta_s));
    stats.left.el.hidden = ended;
    stats.took.set(
      s.started_ms === null ? '–' : fmt.duration(((s.ended_ms ?? Date.now()) - s.started_ms) / 1000),
    );
    stats.attempt.set(`${s.attempt}${s.restarts ? ` (${s.restarts} restarts)` : ''}`);
  }

  private setMemory(w: Worker | null): void {
    const { memory } = this.stats;

    memory.el.hidden = !w || (w.gpu_bytes ?? w.host_bytes) === null;
    if (w?.gpu_bytes)
      memory.set(fmt.bytes(w.gpu_bytes), `GPU memory of its worker; ${fmt.bytes(w.host_bytes)} of RAM`);
    else if (w) memory.set(fmt.bytes(w.host_bytes), 'RAM of its worker');
  }

  /** What needs attention, a sentence each. */
  tell(show: JobShow): void {
    const { summary, trial } = show;
    const last = show.attempts[show.attempts.length - 1];
    const lines: [string, string][] = [];

    if (summary.state === 'FAILED' && last?.why)
      lines.push(['bad', [last.why, last.hint].filter(Boolean).join('; ')]);
    if (trial)
      lines.push([
        'info',
        `The switch to ‘${show.phases[trial.phase]?.name}’ is on trial: ${trial.steps} of ${trial.of} steps.`,
      ]);
    for (const i of show.instability)
      lines.push([
        'warn',
        `${i.cause.replace('_', ' ')}: ${i.count} step${i.count === 1 ? '' : 's'} refused, the last at step ${i.step} (${i.action}).`,
      ]);
    replace(
      this.notices,
      ...lines.map(([tone, text]) => h('p', { class: 'notice', 'data-tone': tone }, text)),
    );
  }
}
