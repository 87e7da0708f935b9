// parts.ts: what several pages show the same way: a state, the phases as a bar.
import { h, replace, setText } from './dom';
import { count } from './format';
import type { JobSummary, Phase } from './types';

const TONE: Record<string, string> = {
  RUNNING: 'good',
  STARTING: 'good',
  SWITCHING: 'good',
  DONE: 'done',
  PAUSED: 'warn',
  RESTARTING: 'warn',
  STOPPING: 'warn',
  QUEUED: 'idle',
  FAILED: 'bad',
  CANCELLED: 'idle',
};

export class StatePill {
  readonly el = h('span', { class: 'pill' });

  set(state: string): void {
    setText(this.el, state.toLowerCase());
    this.el.dataset.tone = TONE[state] ?? 'idle';
  }
}

/** The planned phases side by side, filled up to the step that was reached. */
export class PhaseBar {
  readonly el = h('div', { class: 'phasebar', role: 'img' });
  private key = '';
  private fills: HTMLElement[] = [];

  set(s: JobSummary, phases: readonly Phase[]): void {
    const planned = phases.map((p) => p.steps);
    const known = phases.length > 0 && planned.every((n) => n !== null && n > 0);
    const key = JSON.stringify(phases.map((p) => [p.name, p.attention, p.steps]));

    if (key !== this.key) {
      this.key = key;
      this.fills = phases.map(() => h('i', {}));
      replace(
        this.el,
        ...phases.map((p, i) => {
          const part = h(
            'span',
            {
              class: 'part',
              'data-attention': p.attention,
              title: `${p.name}: ${p.attention} attention, ${p.steps === null ? 'open end' : `${count(p.steps)} steps`}`,
            },
            this.fills[i],
          );
          part.style.flexGrow = String(known ? p.steps : 1);
          return part;
        }),
      );
    }
    phases.forEach((p, i) => {
      const begun = p.first_step ?? 0;
      const end = begun + (p.steps ?? 0);
      const share =
        i < s.phase || s.state === 'DONE'
          ? 1
          : i > s.phase
            ? 0
            : p.steps
              ? (s.step - begun) / (end - begun)
              : 0.5;
      this.fills[i].style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    });
    this.el.setAttribute(
      'aria-label',
      `phase ${s.phase + 1} of ${phases.length || '?'}, ${s.phase_name}, step ${s.step}${s.total_steps === null ? '' : ` of ${s.total_steps}`}`,
    );
  }
}

/** A number with its name and unit; the number is set often. */
export class Stat {
  private readonly value = h('b', { class: 'num' });
  private readonly name: HTMLElement;
  readonly el: HTMLElement;

  constructor(name: string, unit = '') {
    this.name = h('span', { class: 'name' }, name);
    this.el = h(
      'div',
      { class: 'stat', 'data-stat': name },
      this.name,
      h('span', { class: 'val' }, this.value, unit ? h('span', { class: 'unit' }, unit) : null),
    );
  }

  set(text: string, title = '', name = ''): void {
    setText(this.value, text);
    if (name) setText(this.name, name);
    if (this.el.title !== title) this.el.title = title;
  }
}
