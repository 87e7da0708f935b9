// overview.ts: all jobs at a glance: what trains, what waits, what has ended, on what
// device.
import { rpc } from './api';
import { DevicePanel } from './devices';
import { debounce, h, replace, setText } from './dom';
import * as fmt from './format';
import type { Page, Shell } from './main';
import { Row } from './row';
import { openStream } from './stream';
import { onScheme } from './theme';
import { isLive, type DaemonInfo, type JobSummary } from './types';

const SHOWN_ENDED = 50;
const COMPARE_MAX = 8;
const LIST_EVERY_MS = 1_000;

const GROUPS = { live: 'Running', queue: 'Queue', ended: 'Ended' };
type Group = keyof typeof GROUPS;

export class Overview implements Page {
  readonly root: HTMLElement;
  private readonly rows = new Map<number, Row>();
  private readonly lists = {
    live: h('ul', { class: 'jobs' }),
    queue: h('ol', { class: 'jobs' }),
    ended: h('ul', { class: 'jobs' }),
  };
  private readonly more = h('button', {
    class: 'quiet',
    type: 'button',
    hidden: true,
    onclick: () => this.showAll(),
  });
  private readonly empty = h('section', { class: 'empty', hidden: true });
  private readonly devices = new DevicePanel();
  private readonly daemon = h('dl', { class: 'facts' });
  private readonly compare = h('a', { class: 'button', href: '#/', hidden: true });
  private shownEnded = SHOWN_ENDED;
  private readonly seen = new IntersectionObserver((entries) => this.came(entries), {
    rootMargin: '200px',
  });
  private readonly relist = debounce(150, () => this.shell.guard(this.list()));
  private readonly endScheme = onScheme(() => {
    for (const r of this.rows.values()) r.redraw();
  });
  private readonly timer: number;
  private readonly closeStream: () => void;

  constructor(private readonly shell: Shell) {
    const section = (k: Group) =>
      h(
        'section',
        { class: 'group', 'data-group': k, hidden: true },
        h('h2', {}, GROUPS[k]),
        this.lists[k],
      );
    const sections = [section('live'), section('queue'), section('ended')];

    sections[2].append(this.more);
    this.root = h(
      'div',
      { class: 'overview' },
      h('div', { class: 'titlebar' }, h('h1', {}, 'Jobs'), this.compare),
      this.empty,
      ...sections,
      h('section', { class: 'group' }, h('h2', {}, 'Devices'), this.devices.el),
      h('section', { class: 'group' }, h('h2', {}, 'Daemon'), this.daemon),
    );
    this.closeStream = openStream(
      '',
      shell.listener({
        up: () => {
          this.relist();
          shell.guard(this.info());
        },
        event: (e) => {
          if (/^(job|attempt|switch)\./.test(e.kind)) this.relist();
        },
        step: () => {},
        lost: this.relist,
      }),
    );
    // Steps are pushed for one job at a time; the numbers of all are asked for.
    this.timer = window.setInterval(() => {
      if (document.hidden) return;
      shell.guard(this.list());
      shell.guard(this.devices.refresh());
    }, LIST_EVERY_MS);
    shell.guard(this.list());
    shell.guard(this.devices.refresh());
  }

  close(): void {
    this.closeStream();
    clearInterval(this.timer);
    this.seen.disconnect();
    this.relist.cancel();
    this.endScheme();
  }

  private async list(): Promise<void> {
    const { jobs } = await rpc<{ jobs: JobSummary[] }>('job.list');

    for (const s of jobs) {
      let row = this.rows.get(s.job);
      if (row) row.fill(s);
      else {
        row = new Row(s, () => this.picked());
        this.rows.set(s.job, row);
        this.seen.observe(row.el);
      }
      if (row.outdated()) this.shell.guard(row.load());
    }
    this.place();
  }

  private came(entries: IntersectionObserverEntry[]): void {
    for (const e of entries) {
      if (!e.isIntersecting) continue;
      this.seen.unobserve(e.target);
      const row = this.rows.get(Number((e.target as HTMLElement).dataset.job));
      if (row) this.shell.guard(row.load());
    }
  }

  private picked(): void {
    const rows = [...this.rows.values()];
    const ids = rows.filter((r) => r.pick.checked).map((r) => r.summary.job);

    this.compare.hidden = ids.length < 2;
    this.compare.href = `#/compare/${ids.join(',')}`;
    setText(this.compare, `Compare ${ids.length} jobs`);
    for (const r of rows) r.pick.disabled = !r.pick.checked && ids.length >= COMPARE_MAX;
  }

  /** Puts every row where its state wants it. */
  private place(): void {
    const all = [...this.rows.values()];
    const live = all.filter((r) => isLive(r.summary.state));
    const queue = all
      .filter((r) => r.summary.state === 'QUEUED')
      .sort((a, b) => b.summary.priority - a.summary.priority || a.summary.job - b.summary.job);
    const ended = all
      .filter((r) => !live.includes(r) && !queue.includes(r))
      .sort((a, b) => b.summary.job - a.summary.job);

    this.put('live', live, live.length);
    this.put('queue', queue, queue.length);
    this.put('ended', ended.slice(0, this.shownEnded), ended.length);
    this.more.hidden = ended.length <= this.shownEnded;
    setText(this.more, `Show all ${ended.length}`);
    this.empty.hidden = all.length > 0;
    if (!all.length && !this.empty.childElementCount) replace(this.empty, ...noJobs());
    document.title = `${live.length ? `${live.length} running · ` : ''}Lighthouse`;
  }

  private put(k: Group, rows: Row[], total: number): void {
    const list = this.lists[k];
    const els = rows.map((r) => r.el);

    // Moving an element takes the focus off it: only where something changed.
    if (els.length !== list.children.length || els.some((el, i) => list.children[i] !== el))
      list.replaceChildren(...els);
    list.parentElement!.hidden = !total;
    replace(
      list.parentElement!.querySelector('h2')!,
      GROUPS[k],
      ' ',
      h('span', { class: 'tally num' }, total),
    );
  }

  private showAll(): void {
    this.shownEnded = Infinity;
    this.place();
  }

  private async info(): Promise<void> {
    const d = await rpc<DaemonInfo>('daemon.info');
    const facts: [string, string][] = [
      ['GPU for jobs', d.gpu],
      ['Workers', fmt.count(d.workers)],
      ['lhd', `${d.version}, process ${d.pid}, since ${fmt.when(d.started_ms)}`],
      ['State', d.state_dir],
      ...d.foreign_workers.map((w): [string, string] => [
        'Left alone',
        `process ${w.pid} of job ${w.job}: ${w.why}`,
      ]),
    ];
    replace(this.daemon, ...facts.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v))));
  }
}

const FIRST_JOB = `lhctl pack -o text --validation 0.05 DIR     # text as token files
lhctl check job.yaml                         # without a daemon
lhctl submit job.yaml`;

function noJobs(): Node[] {
  return [
    h('h2', {}, 'No job yet'),
    h('p', {}, 'Submit a job file; it appears here as soon as lhd has taken it.'),
    h('pre', { tabindex: '0' }, FIRST_JOB),
    h(
      'p',
      {},
      h('code', {}, 'lhctl help job'),
      ' lists every key of a job file; ',
      h('code', {}, 'ctl/examples/demo.yaml'),
      ' is one to begin with.',
    ),
  ];
}
