// overview.ts: all jobs at a glance: what trains, what waits, what has ended, on what
// device. Rows are kept and filled anew; pictures are loaded when they come into view.
import { rpc } from './api';
import { debounce, h, replace, setText } from './dom';
import * as fmt from './format';
import type { Page, Shell } from './main';
import { PhaseBar, Stat, StatePill } from './parts';
import { Spark } from './spark';
import { openStream } from './stream';
import { onScheme } from './theme';
import { isLive, type DaemonInfo, type JobEvent, type JobShow, type JobSummary, type Phase, type Point } from './types';

const SPARK_POINTS = 80;
const SHOWN_ENDED = 50;
const COMPARE_MAX = 8;
const LIST_EVERY_MS = 1_000;
const PICTURE_EVERY_MS = 3_000;

class Row {
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
    this.pick = h('input', { type: 'checkbox', 'aria-label': `compare job ${s.job}`, onchange: onPick });
    this.name.href = `#/job/${s.job}`;
    this.el = h('li', { class: 'job', 'data-job': s.job },
      h('label', { class: 'pick' }, this.pick),
      h('div', { class: 'who' }, h('span', { class: 'line' }, this.name, h('span', { class: 'id num' }, `#${s.job}`), this.state.el), this.reason),
      h('div', { class: 'progress' }, this.bar.el, this.where),
      this.spark.el, this.loss.el, this.pace.el, this.left.el);
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
    else this.left.set(fmt.duration((s.ended_ms - (s.started_ms ?? s.ended_ms)) / 1000), `ended ${fmt.when(s.ended_ms)}`, 'took');
  }

  /** Whether the picture is behind by what one could see. */
  outdated(): boolean {
    const s = this.summary;
    return this.wanted && Date.now() - this.loadedMs > PICTURE_EVERY_MS && Math.abs(s.step - this.loadedStep) > this.loadedStep / SPARK_POINTS;
  }

  /** The picture and the phases; called when the row comes into view. */
  async load(): Promise<void> {
    const job = this.summary.job;
    this.wanted = true;
    this.loadedMs = Date.now();
    this.loadedStep = this.summary.step;
    const [show, curve] = await Promise.all([
      rpc<JobShow>('job.show', { job }),
      rpc<{ points: Point[] }>('job.curve', { job, points: SPARK_POINTS, to_step: this.summary.step }),
    ]);
    this.phases = show.phases;
    this.points = curve.points;
    this.bar.set(this.summary, this.phases);
    this.spark.el.hidden = this.points.length < 2;
    this.spark.draw(this.points);
  }

  redraw(): void { if (this.wanted) this.spark.draw(this.points); }
}

export function overview(shell: Shell): Page {
  const rows = new Map<number, Row>();
  const lists = { live: h('ul', { class: 'jobs' }), queue: h('ol', { class: 'jobs' }), ended: h('ul', { class: 'jobs' }) };
  const heads = { live: h('h2', {}, 'Running'), queue: h('h2', {}, 'Queue'), ended: h('h2', {}, 'Ended') };
  const sections = (['live', 'queue', 'ended'] as const).map((k) => h('section', { class: 'group', 'data-group': k, hidden: true }, heads[k], lists[k]));
  const more = h('button', { class: 'quiet', type: 'button', hidden: true, onclick: () => { shownEnded = Infinity; place(); } });
  const empty = h('section', { class: 'empty', hidden: true });
  const device = h('dl', { class: 'facts' });
  const compare = h('a', { class: 'button', href: '#/', hidden: true });
  let shownEnded = SHOWN_ENDED;

  sections[2].append(more);
  const root = h('div', { class: 'overview' },
    h('div', { class: 'titlebar' }, h('h1', {}, 'Jobs'), compare),
    empty, ...sections,
    h('section', { class: 'group' }, h('h2', {}, 'Device and daemon'), device));

  const seen = new IntersectionObserver((entries) => {
    for (const e of entries) {
      if (!e.isIntersecting) continue;
      seen.unobserve(e.target);
      const row = rows.get(Number((e.target as HTMLElement).dataset.job));
      if (row) shell.guard(row.load());
    }
  }, { rootMargin: '200px' });

  function picked(): void {
    const ids = [...rows.values()].filter((r) => r.pick.checked).map((r) => r.summary.job);
    compare.hidden = ids.length < 2;
    compare.href = `#/compare/${ids.join(',')}`;
    setText(compare, `Compare ${ids.length} jobs`);
    for (const r of rows.values()) r.pick.disabled = !r.pick.checked && ids.length >= COMPARE_MAX;
  }

  /** Puts every row where its state wants it. */
  function place(): void {
    const all = [...rows.values()];
    const live = all.filter((r) => isLive(r.summary.state));
    const queue = all.filter((r) => r.summary.state === 'QUEUED')
      .sort((a, b) => b.summary.priority - a.summary.priority || a.summary.job - b.summary.job);
    const ended = all.filter((r) => !live.includes(r) && !queue.includes(r)).sort((a, b) => b.summary.job - a.summary.job);
    const put = (k: keyof typeof lists, list: Row[], total: number) => {
      const els = list.map((r) => r.el);
      if (els.length !== lists[k].children.length || els.some((el, i) => lists[k].children[i] !== el)) lists[k].replaceChildren(...els);
      lists[k].parentElement!.hidden = !total;
      replace(heads[k], { live: 'Running', queue: 'Queue', ended: 'Ended' }[k], ' ', h('span', { class: 'tally num' }, total));
    };
    put('live', live, live.length);
    put('queue', queue, queue.length);
    put('ended', ended.slice(0, shownEnded), ended.length);
    more.hidden = ended.length <= shownEnded;
    setText(more, `Show all ${ended.length}`);
    empty.hidden = all.length > 0;
    if (!all.length) replace(empty, ...noJobs());
    document.title = `${live.length ? `${live.length} running · ` : ''}Lighthouse`;
  }

  async function list(): Promise<void> {
    const { jobs } = await rpc<{ jobs: JobSummary[] }>('job.list');
    for (const s of jobs) {
      const row = rows.get(s.job);
      if (row) {
        row.fill(s);
        if (row.outdated()) shell.guard(row.load());
      } else {
        const made = new Row(s, picked);
        rows.set(s.job, made);
        seen.observe(made.el);
      }
    }
    place();
  }

  async function info(): Promise<void> {
    const d = await rpc<DaemonInfo>('daemon.info');
    const facts: [string, string][] = [
      ['Device', d.gpu], ['Workers', fmt.count(d.workers)], ['lhd', `${d.version}, process ${d.pid}, since ${fmt.when(d.started_ms)}`], ['State', d.state_dir],
      ...d.foreign_workers.map((w): [string, string] => ['Left alone', `process ${w.pid} of job ${w.job}: ${w.why}`]),
    ];
    replace(device, ...facts.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v))));
  }

  const relist = debounce(150, () => shell.guard(list()));
  const closeStream = openStream('', shell.listener({
    up: () => { relist(); shell.guard(info()); },
    event: (e: JobEvent) => { if (/^(job|attempt|switch)\./.test(e.kind)) relist(); },
    step: () => {},
    lost: relist,
  }));
  const timer = setInterval(() => { if (!document.hidden) shell.guard(list()); }, LIST_EVERY_MS);
  const endScheme = onScheme(() => { for (const r of rows.values()) r.redraw(); });

  return { root, close: () => { closeStream(); clearInterval(timer); seen.disconnect(); relist.cancel(); endScheme(); } };
}

function noJobs(): Node[] {
  return [
    h('h2', {}, 'No job yet'),
    h('p', {}, 'Submit a job file; it appears here as soon as lhd has taken it.'),
    h('pre', {}, 'lhctl pack -o text --validation 0.05 DIR     # text as token files\nlhctl check job.yaml                         # without a daemon\nlhctl submit job.yaml'),
    h('p', {}, h('code', {}, 'lhctl help job'), ' lists every key of a job file; ', h('code', {}, 'ctl/examples/demo.yaml'), ' is one to begin with.'),
  ];
}
