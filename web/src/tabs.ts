// tabs.ts: what is told of a job in words: events, journal, log, evaluations,
// checkpoints, attempts, configuration. Only the open tab costs anything.
import { rpc } from './api';
import { h, replace, setText } from './dom';
import * as fmt from './format';
import { Looks } from './looks';
import type { Shell } from './main';
import { journalLine } from './marks';
import type { Command, JobEvent, JobShow, Logs } from './types';

const ROWS_MAX = 500;
const LOG_LINES = 400;
const LOG_KEPT_BYTES = 1 << 20;
const LOG_EVERY_MS = 1_000;

const NAMES = [
  'Events',
  'Journal',
  'Log',
  'Evaluations',
  'Checkpoints',
  'Attempts',
  'Configuration',
] as const;
type Name = (typeof NAMES)[number];
/** Tabs that keep what they show themselves. */
type Own = 'Log' | 'Evaluations';

export class Tabs {
  readonly root: HTMLElement;
  private readonly buttons = new Map<Name, HTMLButtonElement>();
  private readonly body = h('div', {
    class: 'tabbody',
    role: 'tabpanel',
    id: 'tabpanel',
    tabindex: '0',
  });
  private open: Name = 'Events';
  private show: JobShow | null = null;
  private events: JobEvent[] = [];
  private journal: Command[] = [];
  private logTimer = 0;
  private logNext = -1; // offset, < 0: not begun
  private logAttempt = 0;
  private readonly looks: Looks;
  private readonly log = h('pre', { class: 'log', tabindex: '0', 'aria-label': 'log of the worker' });

  constructor(
    private readonly shell: Shell,
    private readonly job: number,
  ) {
    this.looks = new Looks(job);
    const list = h('div', {
      class: 'tablist',
      role: 'tablist',
      'aria-label': 'details',
      onkeydown: (e: KeyboardEvent) => this.key(e),
    });
    for (const name of NAMES) {
      const b = h(
        'button',
        {
          type: 'button',
          role: 'tab',
          id: `tab-${name}`,
          'aria-controls': 'tabpanel',
          onclick: () => this.choose(name),
        },
        name,
      );
      this.buttons.set(name, b);
      list.append(b);
    }
    this.root = h('section', { class: 'tabs' }, list, this.body);
    this.choose('Events');
  }

  set(show: JobShow, events: JobEvent[], journal: Command[]): void {
    this.show = show;
    this.events = events;
    this.journal = journal;
    if (this.open === 'Evaluations') this.shell.guard(this.looks.set(show));
    else if (this.open !== 'Log' && !(this.open === 'Configuration' && this.body.childElementCount))
      this.fill();
  }

  close(): void {
    clearTimeout(this.logTimer);
  }

  private key(e: KeyboardEvent): void {
    const step = e.key === 'ArrowRight' ? 1 : e.key === 'ArrowLeft' ? -1 : 0;
    if (!step) return;
    const next = NAMES[(NAMES.indexOf(this.open) + step + NAMES.length) % NAMES.length];
    this.choose(next);
    this.buttons.get(next)!.focus();
  }

  private choose(name: Name): void {
    this.open = name;
    for (const [n, b] of this.buttons) {
      b.setAttribute('aria-selected', String(n === name));
      b.tabIndex = n === name ? 0 : -1;
    }
    this.body.setAttribute('aria-labelledby', `tab-${name}`);
    clearTimeout(this.logTimer);
    if (name === 'Log') {
      replace(this.body, this.log);
      this.logNext = -1;
      this.pollLog();
    } else if (name === 'Evaluations') {
      replace(this.body, this.looks.root);
      if (this.show) this.shell.guard(this.looks.set(this.show));
    } else {
      replace(this.body);
      this.fill();
    }
  }

  private fill(): void {
    if (!this.show) return;
    const make: Record<Exclude<Name, Own>, () => HTMLElement> = {
      Events: () =>
        table(
          ['time', 'step', 'event', 'what'],
          this.events
            .slice(-ROWS_MAX)
            .reverse()
            .map((e) => [fmt.when(e.time_ms), fmt.count(e.step), e.kind, e.text]),
          'nothing has happened yet',
        ),
      Journal: () =>
        table(
          ['time', 'step', 'command'],
          this.journal
            .slice(-ROWS_MAX)
            .reverse()
            .map((c) => [fmt.when(c.accepted_ms), fmt.count(c.step), journalLine(c)]),
          'no command was given',
        ),
      Checkpoints: () =>
        table(
          ['time', 'step', 'size', 'took', 'why', 'where'],
          this.show!.checkpoints.slice(-ROWS_MAX)
            .reverse()
            .map((c) => [
              fmt.when(c.time_ms),
              fmt.count(c.step),
              fmt.bytes(c.bytes),
              `${fmt.real(c.duration_ms)} ms`,
              c.reason + (c.pinned ? ', pinned' : ''),
              c.removed ? 'made room for newer ones' : c.path,
            ]),
          'none is written yet',
        ),
      Attempts: () =>
        table(
          ['attempt', 'from', 'to', 'began', 'took', 'outcome', 'why'],
          [...this.show!.attempts]
            .reverse()
            .map((a) => [
              String(a.attempt),
              fmt.count(a.first_step),
              fmt.count(a.last_step),
              fmt.when(a.started_ms),
              a.ended_ms === null ? '–' : fmt.duration((a.ended_ms - a.started_ms) / 1000),
              a.outcome ?? 'runs',
              [a.why, a.hint].filter(Boolean).join('; '),
            ]),
          'none has begun',
        ),
      Configuration: () =>
        h(
          'pre',
          { class: 'config', tabindex: '0', 'aria-label': 'the job as resolved' },
          fmt.yaml(this.show!.spec).trimStart(),
        ),
    };
    this.put(make[this.open as Exclude<Name, Own>]());
  }

  /** Who reads further down, or has the focus there, stays; who marks a text keeps it. */
  private put(next: HTMLElement): void {
    const before = this.body.firstElementChild;
    const marked = getSelection();
    const at = before?.scrollTop ?? 0;
    const focused = before !== null && before === document.activeElement;

    if (before && marked && !marked.isCollapsed && before.contains(marked.anchorNode)) return;
    replace(this.body, next);
    next.scrollTop = at;
    if (focused) next.focus();
  }

  /** The log's end, then what is added to it. */
  private pollLog(): void {
    const begin = this.logNext < 0;
    const params = begin
      ? { lines: LOG_LINES, limit_bytes: 262_144 }
      : { offset: this.logNext, attempt: this.logAttempt };

    this.shell.guard(
      rpc<Logs & { newest_attempt: number }>('job.logs', { job: this.job, ...params })
        .then((r) => {
          if (this.open !== 'Log') return;
          const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
          if (begin) setText(this.log, r.text);
          else if (r.text) this.log.append(r.text);
          if (this.log.textContent!.length > LOG_KEPT_BYTES)
            setText(this.log, this.log.textContent!.slice(-LOG_KEPT_BYTES / 2));
          if (begin && !r.text) setText(this.log, 'The worker has printed nothing.');
          if (begin || atEnd) this.log.scrollTop = this.log.scrollHeight;
          this.logNext = begin && !r.text ? -1 : r.next_offset;
          this.logAttempt = r.attempt;
          if (r.newest_attempt > r.attempt && !r.more) this.logNext = -1;
        })
        .finally(() => {
          if (this.open === 'Log')
            this.logTimer = window.setTimeout(() => this.pollLog(), LOG_EVERY_MS);
        }),
    );
  }
}

function table(heads: string[], rows: string[][], none: string): HTMLElement {
  if (!rows.length) return h('p', { class: 'none' }, none);
  return h(
    'div',
    { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': heads.join(', ') },
    h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ...heads.map((t) => h('th', { scope: 'col' }, t)))),
      h(
        'tbody',
        {},
        ...rows.map((r) =>
          h(
            'tr',
            {},
            ...r.map((t, i) =>
              h(
                'td',
                {
                  class:
                    heads[i] === 'what' ||
                    heads[i] === 'command' ||
                    heads[i] === 'where' ||
                    heads[i] === 'why'
                      ? 'long'
                      : 'num',
                },
                t,
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
