// job.ts: the page of one job: its state, its charts, its words, and what may be
// done to it.
import { NOT_FOUND, rpc, RpcError } from './api';
import { JobCharts } from './charts';
import { debounce, h, replace, setText, throttle } from './dom';
import { saveGroups, savePicture, saveSteps } from './export';
import * as fmt from './format';
import type { Page, Shell } from './main';
import { marksOf } from './marks';
import { mfu } from './mfu';
import { PhaseBar, Stat, StatePill } from './parts';
import { gaps, type XMode } from './series';
import { Steering } from './steer';
import { openStream } from './stream';
import { Tabs } from './tabs';
import { isLive, type Command, type DaemonInfo, type JobEvent, type JobShow, type Step } from './types';

const EVENTS_MAX = 2_000;
/** Events that are a row of job.show themselves. */
const TAIL = 20;
const TELLING = ['job.eval', 'job.checkpoint'];
const SUMMARY_EVERY_MS = 3_000;

export function jobPage(shell: Shell, job: number): Page {
  const name = h('h1', {});
  const state = new StatePill();
  const reason = h('p', { class: 'reason' });
  const bar = new PhaseBar();
  const where = h('div', { class: 'where' });
  const notices = h('div', { class: 'notices' });
  const stats = {
    step: new Stat('step'), loss: new Stat('loss', 'nats'), full: new Stat('validation', 'nats'), gap: new Stat('recovery gap', 'nats'),
    pace: new Stat('pace', 'tokens/s'), mfu: new Stat('MFU', '%'), left: new Stat('time left'), took: new Stat('elapsed'), attempt: new Stat('attempt'),
  };
  const charts = new JobCharts(shell, job);
  const steering = new Steering(shell, job);
  const tabs = new Tabs(shell, job);
  const root = h('div', { class: 'jobpage' },
    h('header', { class: 'head' },
      h('nav', { 'aria-label': 'path' }, h('a', { href: '#/' }, 'Jobs'), ' / ', h('span', { class: 'num' }, `#${job}`)),
      h('div', { class: 'titlebar' }, h('div', { class: 'title' }, name, state.el), steering.root), reason,
      h('div', { class: 'progress' }, bar.el, where),
      h('div', { class: 'stats' }, ...Object.values(stats).map((s) => s.el)), notices),
    toolbar(shell, charts, job, () => name.textContent ?? ''), charts.root, tabs.root);

  let show: JobShow | null = null;
  const events: JobEvent[] = [];
  let journal: Command[] = [];
  let newest: Step | null = null;
  let gpu = '';

  function head(): void {
    if (!show) return;
    const s = { ...show.summary };
    if (newest && newest.attempt >= s.attempt && newest.step > s.step) Object.assign(s, { step: newest.step, loss: newest.loss, tokens_per_s: newest.tokens_per_s });
    const full = show.evaluations.filter((e) => e.attention === 'full' && e.loss !== null);
    const both = gaps(full, show.evaluations.filter((e) => e.attention === 'lighthouse' && e.loss !== null));
    const phase = show.phases[s.phase];

    setText(name, s.name);
    document.title = `${s.name} · Lighthouse`;
    state.set(s.state);
    setText(reason, s.reason);
    bar.set(s, show.phases);
    setText(where, `phase ${s.phase + 1} of ${show.phases.length}, ${s.phase_name} (${phase?.attention ?? '?'} attention)`);
    stats.step.set(`${fmt.count(s.step)}${s.total_steps === null ? '' : ` / ${fmt.count(s.total_steps)}`}`);
    stats.loss.set(fmt.loss(s.loss));
    stats.full.set(fmt.loss(full[full.length - 1]?.loss), full.length ? `full attention, at step ${full[full.length - 1].step}` : '');
    stats.gap.set(fmt.loss(both[both.length - 1]?.gap), 'validation loss with full attention less that with Lighthouse attention');
    stats.gap.el.hidden = !both.length;
    stats.pace.set(fmt.short(s.tokens_per_s));
    const used = mfu(show.spec, gpu, s.tokens_per_s);
    stats.mfu.el.hidden = !used;
    if (used) stats.mfu.set((used.share * 100).toFixed(1), used.how);
    stats.left.set(fmt.duration(s.eta_s));
    stats.left.el.hidden = s.ended_ms !== null;
    stats.took.set(s.started_ms === null ? '–' : fmt.duration(((s.ended_ms ?? Date.now()) - s.started_ms) / 1000));
    stats.attempt.set(`${s.attempt}${s.restarts ? ` (${s.restarts} restarts)` : ''}`);
  }

  function tell(): void {
    const s = show!.summary;
    const last = show!.attempts[show!.attempts.length - 1];
    const lines: [string, string][] = [];
    if (s.state === 'FAILED' && last?.why) lines.push(['bad', `${last.why}${last.hint ? `; ${last.hint}` : ''}`]);
    if (show!.trial) lines.push(['info', `The switch to ‘${show!.phases[show!.trial.phase]?.name}’ is on trial: ${show!.trial.steps} of ${show!.trial.of} steps.`]);
    for (const i of show!.instability) lines.push(['warn', `${i.cause.replace('_', ' ')}: ${i.count} steps refused, the last at step ${i.step} (${i.action}).`]);
    replace(notices, ...lines.map(([tone, text]) => h('p', { class: 'notice', 'data-tone': tone }, text)));
  }

  /** Everything but steps; `told`: and the events, which else come by themselves. */
  async function load(told: boolean): Promise<void> {
    const [shown, commands, stored] = await Promise.all([
      rpc<JobShow>('job.show', { job }),
      rpc<{ commands: Command[] }>('job.journal', { job }),
      told ? rpc<{ events: JobEvent[] }>('job.events', { job, newest: true, limit: EVENTS_MAX }) : null,
    ]);
    const first = !show;
    const rewound = show && shown.summary.attempt !== show.summary.attempt;

    show = shown;
    journal = commands.commands;
    for (const e of stored?.events ?? []) remember(e);
    spread();
    if (first) await charts.load();
    else if (rewound) charts.reload();
  }

  /** Into its place by id. False when it is there already. */
  function remember(e: JobEvent): boolean {
    let at = events.length;
    while (at > 0 && events[at - 1].id > e.id) at--;
    if (at > 0 && events[at - 1].id === e.id) return false;
    events.splice(at, 0, e);
    if (events.length > EVENTS_MAX) events.shift();
    return true;
  }

  /** What an event tells itself needs no call; false when there is more to it. */
  function take(e: JobEvent): boolean {
    const isNew = remember(e);

    if (!show || e.step === null || e.attempt === null || !TELLING.includes(e.kind)) return false;
    if (!isNew) return true;
    const row = { step: e.step, attempt: e.attempt, time_ms: e.time_ms, ...e.data };
    const list = (e.kind === 'job.eval' ? show.evaluations : show.checkpoints) as Record<keyof typeof row, unknown>[];
    // A call that was under way may have brought it.
    if (!list.slice(-TAIL).some((r) => Object.entries(row).every(([k, v]) => !(k in r) || r[k as keyof typeof row] === v))) list.push(row);
    return true;
  }

  async function summary(): Promise<void> {
    const s = await rpc<JobShow['summary']>('job.get', { job });
    if (show) show.summary = s;
    head();
  }

  function spread(): void {
    if (!show) return;
    charts.setShow(show, marksOf(events, journal, show.attempts, show.checkpoints));
    steering.set(show);
    tabs.set(show, events, journal);
    head();
    tell();
  }

  const spreadSoon = throttle(300, spread);
  const reload = debounce(150, () => shell.guard(load(false)));
  const drawHead = throttle(250, head);
  const closeStream = openStream(`job=${job}&steps=1`, shell.listener({
    up: (again) => { shell.guard(load(true)); if (again) charts.reload(); },
    event: (e) => {
      if (e.job !== job) return;
      if (take(e)) spreadSoon();
      else reload();
    },
    step: (s) => {
      if (s.job !== job) return;
      newest = s;
      charts.step(s);
      drawHead();
    },
    lost: () => { shell.guard(load(true)); charts.reload(); },
  }));
  const timer = setInterval(() => { if (!document.hidden && show && isLive(show.summary.state)) shell.guard(summary()); }, SUMMARY_EVERY_MS);

  shell.guard(rpc<DaemonInfo>('daemon.info').then((d) => { gpu = d.gpu; }));
  // At once, and again when the stream is up: what came between is in one of them.
  shell.guard(load(true).catch((e) => {
    if (!(e instanceof RpcError) || e.code !== NOT_FOUND) throw e;
    replace(root, h('section', { class: 'empty' }, h('h1', {}, `There is no job ${job}`), h('p', {}, h('a', { href: '#/' }, 'All jobs'))));
  }));

  return { root, close: () => { closeStream(); clearInterval(timer); reload.cancel(); spreadSoon.cancel(); drawHead.cancel(); charts.destroy(); tabs.close(); } };
}

function toolbar(shell: Shell, charts: JobCharts, job: number, name: () => string): HTMLElement {
  const modes: [XMode, string][] = [['step', 'Step'], ['tokens', 'Tokens'], ['time', 'Time']];
  const axis = h('div', { class: 'segmented', role: 'radiogroup', 'aria-label': 'x axis' }, ...modes.map(([mode, text]) => h('label', {},
    h('input', { type: 'radio', name: 'axis', value: mode, checked: mode === 'step', onchange: () => { charts.mode = mode; charts.rebuild(); } }), h('span', {}, text))));
  const tau = h('span', { class: 'num tau' });
  const showTau = () => setText(tau, charts.smoothing ? `${fmt.count(Math.max(1, Math.round(charts.tau)))} steps` : 'off');
  const smoothing = h('input', { type: 'range', id: 'smoothing', min: 0, max: 100, value: charts.smoothing, oninput: () => { charts.smoothing = Number(smoothing.value); charts.resmooth(); } });

  charts.onRange = showTau;
  const log = h('input', { type: 'checkbox', onchange: () => { charts.log = log.checked; charts.rebuild(); } });
  const outliers = h('input', { type: 'checkbox', checked: charts.robust, onchange: () => { charts.robust = outliers.checked; charts.rebuild(); } });
  const middle = () => { const u = charts.panels[0].u; return (u.scales.x.min! + u.scales.x.max!) / 2; };
  const button = (label: string, sign: string, run: () => void) => h('button', { type: 'button', class: 'icon', 'aria-label': label, title: label, onclick: run }, sign);
  const file = (ending: string) => `${name().replace(/[^\w.-]+/g, '_')}-${job}.${ending}`;
  const seen = (): [number, number] => [charts.range.from, charts.range.to ?? charts.curve.lastStep];

  return h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': 'charts' }, axis,
    h('label', { class: 'inline', for: 'smoothing' }, 'Smoothing', smoothing, tau), h('label', { class: 'inline' }, log, 'Log scale'),
    h('label', { class: 'inline', title: 'The y axis fits what is below the highest fiftieth' }, outliers, 'Ignore outliers'),
    h('div', { class: 'buttons' }, button('Back', '←', () => charts.move({ pan: -0.4 })), button('Forward', '→', () => charts.move({ pan: 0.4 })),
      button('Zoom in', '+', () => charts.move({ zoom: 0.5, at: middle() })), button('Zoom out', '−', () => charts.move({ zoom: 2, at: middle() })),
      h('button', { type: 'button', title: 'Show all steps', onclick: () => charts.move({ all: true }) }, 'All')),
    h('div', { class: 'buttons' }, h('span', { class: 'label' }, 'Download'),
      h('button', { type: 'button', onclick: () => savePicture(file('png'), `${name()} #${job}`, charts.panels) }, 'PNG'),
      h('button', { type: 'button', title: 'The groups that are drawn', onclick: () => saveGroups(file('csv'), charts.curve.points) }, 'CSV'),
      h('button', { type: 'button', title: 'Every step of what is seen', onclick: () => shell.guard(saveSteps(file('steps.csv'), job, ...seen())) }, 'CSV, every step')));
}
