// watch.test.mjs: lhctl watch on terminals of all sizes: what the page shows, and
// that the terminal is given back however the watching ends.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { scratch, until } from './lib/lhd.mjs';
import { fakeDaemon, job } from './lib/fake.mjs';
import { lhctlOnTerminal, onTerminal, pageUntil, pages, restored } from './lib/pty.mjs';
import { bin } from './lib/lhd.mjs';

const EVIL = 'a\x1b[2Jb\u009b31mc\x07';
const point = (step, loss) => ({ first_step: step, last_step: step, steps: 1, phase: 0, time_ms: 1, tokens: 1,
  loss_min: loss, loss_mean: loss, loss_max: loss });
const step = (n, loss = 2) => ({ subscription: 1, job: 1, attempt: 1, step: n, phase: 0, time_ms: 1, loss, grad_norm: 1.5,
  lr: 1e-3, tokens: 64, step_ms: 12.5, tokens_per_s: 5120, data_epoch: 0 });
const event = (id, kind, text, data = {}) => ({ id, job: 1, attempt: 1, step: 50, time_ms: 1, kind, text, data });
const running = (over = {}) => job({ name: 'long', reason: 'started', step: 50, total_steps: 200, phase_name: 'light', ...over });

/** A daemon with one job, half way through the first of two phases. */
const daemon = (t, more = {}) => fakeDaemon(t, scratch(t), {
  'job.list': () => ({ jobs: [running()] }),
  'job.get': () => running(),
  'job.subscribe': () => ({ subscription: 1, last_event: 2 }),
  'job.show': () => ({ summary: running(), phases: [{ name: 'light', attention: 'lighthouse', steps: 100, first_step: 0 },
    { name: 'recovery', attention: 'full', steps: 100, first_step: null }], attempts: [], checkpoints: [], spec: {}, directory: '/x',
    evaluations: [{ step: 40, attempt: 1, phase: 0, attention: 'full', reason: 'interval', loss: 3.25, tokens: 9, time_ms: 1 }] }),
  'job.curve': () => ({ points: Array.from({ length: 50 }, (_, i) => point(i + 1, 5 - i / 20)) }),
  'job.events': () => ({ events: [event(1, 'job.state', 'QUEUED -> STARTING'), event(2, 'job.phase', "phase 'light' from step 1")], more: false }),
  ...more });

test('the page shows the job, its phases, numbers, the curve and events', async (t) => {
  const d = await daemon(t, { 'job.subscribe': (p, peer) => {
    const timer = setInterval(() => { peer.note('step', step(51)); peer.note('event', { subscription: 1, ...event(3, 'job.eval',
      'validation loss 3.0000 (interval)', { phase: 0, attention: 'full', reason: 'interval', loss: 3, tokens: 9 }) }); }, 50);
    peer.socket.once('close', () => clearInterval(timer));
    return { subscription: 1, last_event: 2 };
  } });
  const w = lhctlOnTerminal(d.state, 'watch long', { rows: 30, columns: 100 });
  const page = await pageUntil(w, 'a page with a step and an evaluation', (text) => /5120 tokens/.test(text) && /3\.0000 at/.test(text));
  assert.match(page[0], /^job 1 'long': RUNNING \(started\)$/);
  assert.match(page[1], /^step 50 of 200, 3 s left, attempt 1, 0 restarts$/);
  assert.match(page[2], /^\[█{24}░{24}\|░+\]$/);
  assert.match(page[3], /^ \*light 50\/100 +recovery 0\/100$/);
  assert.match(page[4], /^loss 2\.0000  norm 1\.500  lr 1\.000e-03  12\.5 ms  5120 tokens\/s$/);
  assert.match(page[5], /^validation 3\.0000 at step 50$/);
  assert.match(page[6], /^ {6}5 \|█/);
  const curve = page.filter((l) => l[8] === '|');
  assert.ok(curve.length > 8 && curve.some((l) => l.includes('o')) && curve.at(-1).startsWith('      2 |'), page.join('\n'));
  assert.equal(page.filter((l) => /job\.eval/.test(l)).length, 1, 'an event was shown twice');
  assert.match(page.find((l) => /job\.phase/.test(l)), /phase 'light' from step 1/);
  assert.equal(page.length, 30);
  assert.match(page[29], /q quits/);
  w.type('q');
  assert.equal(await w.ended, 0);
  assert.ok(restored(w));
  assert.match(w.said.split('\x1b[?1049l')[1], /job 1 'long': RUNNING at step 50/);
});

test('the page fits terminals of every size', async (t) => {
  const d = await daemon(t);
  for (const [rows, columns] of [[1, 1], [2, 5], [5, 20], [8, 40], [10, 200], [60, 30], [100, 600]]) {
    const w = lhctlOnTerminal(d.state, 'watch 1', { rows, columns });
    const page = await pageUntil(w, `a page of ${rows}x${columns}`, () => true);
    assert.ok(page.length <= rows, `${page.length} lines on ${rows}`);
    for (const line of page) assert.ok([...line].length <= columns, `'${line}' on ${columns}`);
    w.type('q');
    assert.equal(await w.ended, 0, `${rows}x${columns}`);
  }
});

test('a resized terminal gets a page of its new size', async (t) => {
  const d = await daemon(t);
  const w = onTerminal(`sh -c 'tty; exec ${bin('lhctl')} --state ${d.state} watch 1'`, { rows: 30, columns: 100 });
  await pageUntil(w, 'the first page', (text) => text.split('\n').length === 30);
  const tty = /^(\/dev\/\S+)/.exec(w.said)[1];
  const resize = onTerminal(`stty -F ${tty} rows 12 cols 50`);
  await resize.ended;
  const page = await pageUntil(w, 'the second', (text) => text.split('\n').length === 12);
  for (const line of page) assert.ok([...line].length <= 50);
  w.type('q');
  assert.equal(await w.ended, 0);
});

test('text of users cannot steer the terminal', async (t) => {
  const evil = running({ name: EVIL, reason: EVIL, phase_name: EVIL });
  const d = await daemon(t, { 'job.get': () => evil,
    'job.show': () => ({ summary: evil, phases: [{ name: EVIL, attention: 'full', steps: null, first_step: 0 }], attempts: [], evaluations: [], checkpoints: [] }),
    'job.events': () => ({ events: [event(1, EVIL, EVIL)], more: false }) });
  const w = lhctlOnTerminal(d.state, 'watch 1', { columns: 200 });
  const page = await pageUntil(w, 'a page', () => true);
  w.type('q');
  await w.ended;
  assert.ok(!w.said.includes('\x1b[2J') && !w.said.includes('\u009b') && !w.said.includes('\x07'));
  assert.ok(page.join('\n').includes('a\\x1b[2Jb'), page.join('\n'));
});

test('without UTF-8 the page is ASCII', async (t) => {
  const d = await daemon(t);
  const w = lhctlOnTerminal(d.state, 'watch 1', { env: { LC_ALL: 'C' } });
  const page = await pageUntil(w, 'a page', () => true);
  assert.match(page.join(''), /^[\x20-\x7e]+$/);
  assert.match(page[2], /^\[#+\.+\|\.+\]$/);
  w.type('q');
  await w.ended;
});

/** The lhctl that runs under `script`. */
const pidOf = (state) => Number(readdirSync('/proc').filter((p) => /^\d+$/.test(p)).find((p) => {
  try {
    const args = readFileSync(`/proc/${p}/cmdline`, 'utf8').split('\0');
    return args[0].endsWith('/lhctl') && args.includes(state);
  } catch { return false; }
}));

test('the terminal is given back on every end', async (t) => {
  const d = await daemon(t);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGABRT', 'SIGSEGV']) {
    const w = lhctlOnTerminal(d.state, 'watch 1');
    await pageUntil(w, 'a page', () => true);
    process.kill(pidOf(d.state), signal);
    const code = await w.ended;
    assert.ok(restored(w), signal);
    assert.equal(code === 0, !['SIGABRT', 'SIGSEGV'].includes(signal), `${signal}: ${code}`);
  }
  // The daemon goes away: told on the terminal's own page.
  const w = lhctlOnTerminal(d.state, 'watch 1');
  await pageUntil(w, 'a page', () => true);
  d.close();
  assert.equal(await w.ended, 3);
  assert.ok(restored(w));
  assert.match(w.said.split('\x1b[?1049l')[1], /error: the daemon went away/);
});

test('Ctrl-Z gives the terminal back until the watching goes on', async (t) => {
  const d = await daemon(t);
  const w = lhctlOnTerminal(d.state, 'watch 1');
  await pageUntil(w, 'a page', () => true);
  const pid = pidOf(d.state);
  process.kill(pid, 'SIGTSTP');
  await until('it has stopped', () => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')));
  await until('the terminal is its own', () => restored(w));
  const drawn = pages(w).length;
  process.kill(pid, 'SIGCONT');
  await until('it is drawn again', () => pages(w).length > drawn + 1);
  w.type('q');
  assert.equal(await w.ended, 0);
});

test('the page ends with the job, and says how', async (t) => {
  for (const [state, code] of [['DONE', 0], ['FAILED', 5]]) {
    let asked = 0;
    const d = await daemon(t, { 'job.get': () => running(asked++ > 3 ? { state, reason: 'it is over' } : {}) });
    const w = lhctlOnTerminal(d.state, 'watch 1');
    assert.equal(await w.ended, code);
    assert.match(w.said.split('\x1b[?1049l')[1], new RegExp(`${state} at step 50 \\(it is over\\)`));
  }
});

test('lines instead where no page can be: --plain, --json, a dumb terminal', async (t) => {
  const over = (p, peer) => {
    setTimeout(() => peer.note('event', { subscription: 1, ...event(3, 'job.state', 'STOPPING -> DONE', { from: 'STOPPING', to: 'DONE' }) }), 50);
    return { subscription: 1, last_event: 2 };
  };
  const d = await daemon(t, { 'job.subscribe': over });
  for (const [args, env] of [['watch 1 --plain', {}], ['watch 1 --json', {}], ['watch 1', { TERM: 'dumb' }]]) {
    const w = lhctlOnTerminal(d.state, args, { env });
    assert.equal(await w.ended, 0, args);
    assert.doesNotMatch(w.said, /\x1b/);
    assert.match(w.said, /STOPPING -> DONE/);
  }
});
