// job.ts: the page of one job: what is known of it, kept up to date. It hands that to
// its parts: head, charts, words, steering.
import { NOT_FOUND, rpc, RpcError, rpcIfKnown } from './api';
import { JobCharts } from './charts';
import { debounce, h, replace, throttle } from './dom';
import { saveGroups, savePicture, saveSteps } from './export';
import * as fmt from './format';
import { Head } from './head';
import type { Page, Shell } from './main';
import { marksOf } from './marks';
import { Steering } from './steer';
import { openStream } from './stream';
import { Tabs } from './tabs';
import { axisChoice, button, buttons, check, signButton, Smoothing, toolbar } from './toolbar';
import {
  isLive,
  type Command,
  type DaemonInfo,
  type Devices,
  type JobEvent,
  type JobShow,
  type Step,
} from './types';

const EVENTS_MAX = 2_000;
/** Events that are a row of job.show themselves; rows that one may be among. */
const TELLING = ['job.eval', 'job.checkpoint'];
const TAIL = 20;
const SUMMARY_EVERY_MS = 3_000;

export class JobPage implements Page {
  readonly root: HTMLElement;
  private readonly charts: JobCharts;
  private readonly steering: Steering;
  private readonly tabs: Tabs;
  private readonly head: Head;
  private show: JobShow | null = null;
  private readonly events: JobEvent[] = []; // ascending by id
  private journal: Command[] = [];
  private newest: Step | null = null;
  private readonly spreadSoon = throttle(300, () => this.spread());
  private readonly reload = debounce(150, () => this.shell.guard(this.load(false)));
  private readonly drawHead = throttle(250, () => this.setHead());
  private readonly timer: number;
  private readonly closeStream: () => void;

  constructor(
    private readonly shell: Shell,
    private readonly job: number,
  ) {
    this.charts = new JobCharts(shell, job);
    this.steering = new Steering(shell, job);
    this.tabs = new Tabs(shell, job);
    this.head = new Head(job, this.steering.root);
    this.root = h(
      'div',
      { class: 'jobpage' },
      this.head.el,
      this.toolbar(),
      this.charts.root,
      this.tabs.root,
    );
    this.closeStream = openStream(
      `job=${job}&steps=1`,
      shell.listener({
        up: (again) => {
          shell.guard(this.load(true));
          if (again) this.charts.reload();
        },
        event: (e) => {
          if (this.take(e)) this.spreadSoon();
          else this.reload();
        },
        step: (s) => {
          this.newest = s;
          this.charts.step(s);
          this.drawHead();
        },
        lost: () => {
          shell.guard(this.load(true));
          this.charts.reload();
        },
      }),
    );
    this.timer = window.setInterval(() => this.refresh(), SUMMARY_EVERY_MS);
    shell.guard(
      rpc<DaemonInfo>('daemon.info').then((d) => {
        this.head.gpu = d.gpu;
      }),
    );
    // At once, and again when the stream is up: what came between is in one of them.
    shell.guard(this.load(true).catch((e) => this.missing(e)));
  }

  close(): void {
    this.closeStream();
    clearInterval(this.timer);
    for (const later of [this.reload, this.spreadSoon, this.drawHead]) later.cancel();
    this.charts.destroy();
    this.tabs.close();
  }

  /** Everything but steps; `told`: and the events, which else come by themselves. */
  private async load(told: boolean): Promise<void> {
    const { job } = this;
    const [show, commands, stored] = await Promise.all([
      rpc<JobShow>('job.show', { job }),
      rpc<{ commands: Command[] }>('job.journal', { job }),
      told ? rpc<{ events: JobEvent[] }>('job.events', { job, newest: true, limit: EVENTS_MAX }) : null,
    ]);
    const before = this.show;

    this.show = show;
    this.journal = commands.commands;
    for (const e of stored?.events ?? []) this.remember(e);
    this.spread();
    if (!before) await this.charts.load();
    else if (before.summary.attempt !== show.summary.attempt) this.charts.reload();
  }

  private missing(e: unknown): void {
    if (!(e instanceof RpcError) || e.code !== NOT_FOUND) throw e;
    replace(
      this.root,
      h(
        'section',
        { class: 'empty' },
        h('h1', {}, `There is no job ${this.job}`),
        h('p', {}, h('a', { href: '#/' }, 'All jobs')),
      ),
    );
  }

  /** Into its place by id. False when it is there already. */
  private remember(e: JobEvent): boolean {
    const { events } = this;
    let at = events.length;
    while (at > 0 && events[at - 1].id > e.id) at--;
    if (at > 0 && events[at - 1].id === e.id) return false;
    events.splice(at, 0, e);
    if (events.length > EVENTS_MAX) events.shift();
    return true;
  }

  /** What an event tells itself needs no call; false when there is more to it. */
  private take(e: JobEvent): boolean {
    const isNew = this.remember(e);

    if (!this.show || e.step === null || e.attempt === null || !TELLING.includes(e.kind)) return false;
    if (!isNew) return true;
    const row = { step: e.step, attempt: e.attempt, time_ms: e.time_ms, ...e.data };
    const { evaluations, checkpoints } = this.show;
    const list = (e.kind === 'job.eval' ? evaluations : checkpoints) as unknown as Record<
      string,
      unknown
    >[];
    const same = (r: Record<string, unknown>) =>
      Object.entries(row).every(([k, v]) => !(k in r) || r[k] === v);
    // A call that was under way may have brought it.
    if (!list.slice(-TAIL).some(same)) list.push(row);
    return true;
  }

  /** What no event tells: the pace, the time left. */
  private refresh(): void {
    if (document.hidden || !this.show || !isLive(this.show.summary.state)) return;
    this.shell.guard(
      rpc<JobShow['summary']>('job.get', { job: this.job }).then((s) => {
        this.show!.summary = s;
        this.setHead();
      }),
    );
    this.shell.guard(this.weigh());
  }

  /** What its worker takes of the machine. */
  private async weigh(): Promise<void> {
    const d = await rpcIfKnown<Devices>('daemon.devices', {});
    this.head.worker = d?.workers.find((w) => w.job === this.job) ?? null;
  }

  private setHead(): void {
    if (!this.show) return;
    const { newest } = this;
    const s = { ...this.show.summary };
    if (newest && newest.attempt >= s.attempt && newest.step > s.step)
      Object.assign(s, { step: newest.step, loss: newest.loss, tokens_per_s: newest.tokens_per_s });
    this.head.set(this.show, s);
  }

  private spread(): void {
    if (!this.show) return;
    this.charts.setShow(
      this.show,
      marksOf(this.events, this.journal, this.show.attempts, this.show.checkpoints),
    );
    this.steering.set(this.show);
    this.tabs.set(this.show, this.events, this.journal);
    this.setHead();
    this.head.tell(this.show);
  }

  private toolbar(): HTMLElement {
    const c = this.charts;
    const smoothing = new Smoothing(c.smoothing, (v) => {
      c.smoothing = v;
      c.resmooth();
    });
    const middle = () => {
      const { x } = c.panels[0].u.scales;
      return (x.min! + x.max!) / 2;
    };
    const file = (ending: string) =>
      `${this.head.jobName.replace(/[^\w.-]+/g, '_')}-${this.job}.${ending}`;
    const steps = () =>
      saveSteps(file('steps.csv'), this.job, c.range.from, c.range.to ?? c.curve.lastStep);

    c.onRange = () => {
      const over = Math.max(1, Math.round(c.tau));
      smoothing.tell(c.smoothing ? `${fmt.count(over)} step${over === 1 ? '' : 's'}` : 'off');
    };
    return toolbar(
      axisChoice(
        [
          ['step', 'Step'],
          ['tokens', 'Tokens'],
          ['time', 'Time'],
        ],
        (m) => {
          c.mode = m;
          c.rebuild();
        },
      ),
      smoothing.el,
      check('Log scale', c.log, (on) => {
        c.log = on;
        c.rebuild();
      }),
      check(
        'Ignore outliers',
        c.robust,
        (on) => {
          c.robust = on;
          c.rebuild();
        },
        'The y axis fits all but the highest fiftieth',
      ),
      buttons(
        '',
        signButton('←', 'Back', () => c.move({ pan: -0.4 })),
        signButton('→', 'Forward', () => c.move({ pan: 0.4 })),
        signButton('+', 'Zoom in', () => c.move({ zoom: 0.5, at: middle() })),
        signButton('−', 'Zoom out', () => c.move({ zoom: 2, at: middle() })),
        button('All', () => c.move({ all: true }), 'Show all steps'),
      ),
      buttons(
        'Download',
        button('PNG', () => savePicture(file('png'), `${this.head.jobName} #${this.job}`, c.panels)),
        button('CSV', () => saveGroups(file('csv'), c.curve.points), 'The groups that are drawn'),
        button('CSV, every step', () => this.shell.guard(steps()), 'Every step of what is seen'),
      ),
    );
  }
}
