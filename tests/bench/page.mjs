// page.mjs: the page on a run of 1,000,000 steps, and what open pages cost lhd.
//
//   LH_BUILD=build node tests/bench/page.mjs
//
// The run is made by SQL, with an attempt that went back, evaluations, checkpoints and
// their events; its rollups are those of the migration. Prints, each beside its target:
// the calls the page makes, opening it in Chromium, zooming there, and lhd's use of a
// core with 50 pages open on a job that trains. Without Chromium its parts are left out.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lhd, atEnd, packText, submit } from '../e2e/lib/lhd.mjs';
import { Page, Stream } from '../e2e/lib/page.mjs';

const STEPS = 1_000_000, BACK_FROM = 620_000, BACK_TO = 600_000;
const PAGES = 50, WATCHED_S = 20;
const CHROMIUM = existsSync('/usr/bin/chromium');

const after = [];
const t = { after: (f) => after.push(f) };
const dir = mkdtempSync(join(tmpdir(), 'lh-'));
atEnd(t, () => rmSync(dir, { recursive: true, force: true }));

const quantile = (v, q) => [...v].sort((a, b) => a - b)[Math.min(v.length - 1, Math.floor(v.length * q))];
const line = (what, value, unit, target = '') =>
  console.log(`${what.padEnd(56)} ${value.toFixed(1).padStart(9)} ${unit.padEnd(9)} ${target && `target ${target}`}`.trimEnd());
const pause = (ms) => new Promise((r) => setTimeout(r, ms));
const now = () => Number(process.hrtime.bigint()) / 1e6;

async function timed(work) {
  const start = now();
  await work();
  return now() - start;
}

/** What a job of so many steps leaves: attempt 1 to BACK_FROM, 2 from BACK_TO on. */
const longRun = (job) => `
  PRAGMA synchronous = OFF;
  BEGIN;
  DROP INDEX events_by_kind; DROP TABLE rollups;
  DROP TABLE looks; DROP INDEX evaluations_of_set; ALTER TABLE evaluations DROP COLUMN set_no;
  ALTER TABLE evaluations DROP COLUMN set_name; ALTER TABLE evaluations DROP COLUMN cost;
  PRAGMA user_version = 6;
  DELETE FROM steps; DELETE FROM attempts; DELETE FROM evaluations; DELETE FROM checkpoints;
  INSERT INTO attempts (job, attempt, token, first_step, last_step, started_ms, ended_ms, outcome) VALUES
    (${job}, 1, 'a', 0, ${BACK_FROM}, 1e12, 1e12 + 100 * ${BACK_FROM}, 'rewound'),
    (${job}, 2, 'b', ${BACK_TO}, ${STEPS}, 1e12 + 100 * ${BACK_FROM}, 1e12 + 100 * ${STEPS}, 'done');
  WITH RECURSIVE n(attempt, step) AS (VALUES (1, 1) UNION ALL SELECT iif(attempt = 1 AND step = ${BACK_FROM}, 2, attempt),
    iif(attempt = 1 AND step = ${BACK_FROM}, ${BACK_TO}, step) + 1 FROM n WHERE attempt = 1 OR step < ${STEPS})
  INSERT INTO steps SELECT ${job}, attempt, step, step > 800000, 1000000000000 + 100 * step,
    iif(step % 9973 = 0, NULL, 2 + 9 / sqrt(step) + (random() % 1000) / 5e3), 1 + (random() % 1000) / 5e3,
    1e-3, 4096, 90 + abs(random() % 20), 40000 + random() % 3000, 0 FROM n;
  INSERT INTO evaluations SELECT job, attempt, step, step, phase, time_ms, 'full', 'interval', loss + 0.1, 9999, 100
    FROM steps WHERE step % 500 = 0;
  INSERT INTO evaluations SELECT job, attempt, step + 1, step, phase, time_ms, 'lighthouse', 'interval', loss + 0.2, 9999, 100
    FROM steps WHERE step % 500 = 0 AND phase = 0;
  INSERT INTO checkpoints SELECT job, attempt, step, step, time_ms, '/nowhere/' || step, 1000000, 50, 'interval'
    FROM steps WHERE step % 1000 = 0;
  INSERT INTO events (job, attempt, step, time_ms, kind, text, data_json)
    SELECT job, attempt, step, time_ms, 'job.eval', 'validation loss', json_object('phase', phase, 'attention', attention,
      'reason', reason, 'loss', loss, 'tokens', tokens) FROM evaluations;
  INSERT INTO events (job, attempt, step, time_ms, kind, text, data_json)
    SELECT job, attempt, step, time_ms, 'job.checkpoint', 'checkpoint', '{}' FROM checkpoints;
  UPDATE jobs SET step = ${STEPS}, attempt = 2, phase = 1, ended_ms = 1e12 + 100 * ${STEPS} WHERE id = ${job};
  COMMIT;`;

async function calls(page, job) {
  const ms = async (method, params) => {
    const all = [];
    for (let i = 0; i < 15; i++) all.push(await timed(() => page.rpc(method, { job, ...(typeof params === 'function' ? params() : params) })));
    return all;
  };
  const range = () => {
    const span = STEPS * 10 ** (-4 * Math.random()), from = Math.floor(Math.random() * (STEPS - span));
    return { points: 2400, from_step: from, to_step: from + Math.floor(span) };
  };
  const tell = (what, all, target) => line(`${what}, median of ${all.length}`, quantile(all, 0.5), 'ms', target);

  tell('job.curve, all steps, 80 points', await ms('job.curve', { points: 80 }), '< 10');
  tell('job.curve, all steps, 800 points', await ms('job.curve', { points: 800 }), '< 20');
  tell('job.curve, some steps, 2400 points', await ms('job.curve', range), '< 50');
  tell('job.show', await ms('job.show', {}), '');
  tell('job.events, the newest 2000', await ms('job.events', { newest: true, limit: 2000 }), '');
  tell('job.journal', await ms('job.journal', {}), '');
}

/** When the newest step is on the screen, since the page began to load. */
function noteOpening(last) {
  const look = () => {
    if (document.querySelector('.readout [data-stat="step"] b')?.textContent.endsWith(last)) globalThis.openedMs = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** Zooms in and out by a wheel, once a frame, which is marked. The frames' distances. */
async function zoom(rounds, frames) {
  const over = document.querySelector('.plot .u-over');
  const box = over.getBoundingClientRect();
  const gaps = [];
  const frame = () => new Promise((r) => { requestAnimationFrame(r); });
  for (let i = 0; i < rounds; i++) {
    let before = await frame();
    for (let k = 0; k < frames; k++) {
      const at = await frame();
      performance.mark('zoom');
      over.dispatchEvent(new WheelEvent('wheel', { ctrlKey: true, deltaY: k < frames / 2 ? -60 : 60, bubbles: true, cancelable: true,
        clientX: box.left + box.width * (0.2 + 0.6 * ((i * 37) % 100) / 100), clientY: box.top + 50 }));
      gaps.push(at - before);
      before = at;
    }
    await new Promise((r) => { setTimeout(r, 400); }); // what the range deserves is loaded
  }
  return gaps;
}

/** Processor time that the page's main thread took for each marked frame, of a trace:
 * all of it, and that of rasterizing canvases, which is a GPU's where there is one. */
function framesWork(trace) {
  const marks = trace.filter((e) => e.name === 'zoom' && e.ts);
  const of = (name) => {
    const tasks = trace.filter((e) => e.name === name && e.pid === marks[0].pid && e.tid === marks[0].tid && e.tdur);
    return marks.slice(0, -1).map((m, i) => tasks.filter((e) => e.ts + e.dur > m.ts && e.ts + e.dur <= marks[i + 1].ts)
      .reduce((ms, e) => ms + e.tdur / 1000, 0));
  };
  return { all: of('RunTask'), raster: of('Commit') };
}

async function inBrowser(lhd, job) {
  const { browser, openPage, pageUntil } = await import('../web/lib/browser.mjs');
  const b = await browser(t);
  const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });
  const last = STEPS.toLocaleString('en-US'), opened = [];

  await page.addInitScript(noteOpening, last);
  for (let i = 0; i < 7; i++) {
    await page.reload();
    opened.push(await pageUntil('it is open', () => page.evaluate(() => globalThis.openedMs)));
  }
  line('the page of the run, from nothing to its newest step', quantile(opened, 0.5), 'ms', '< 1000');
  line('  the slowest of 7', Math.max(...opened), 'ms');
  await b.startTracing(page, { categories: ['toplevel', 'blink.user_timing', 'disabled-by-default-devtools.timeline'] });
  const gaps = await page.evaluate(`(${zoom})(8, 60)`);
  const { all, raster } = framesWork(JSON.parse(await b.stopTracing()).traceEvents);
  const works = all.map((ms, i) => ms - raster[i]);
  line('zooming: work for a frame, 95 in 100 under', quantile(works, 0.95), 'ms', '< 16');
  line('  its median', quantile(works, 0.5), 'ms');
  line('  and rasterizing canvases without a GPU, median', quantile(raster, 0.5), 'ms');
  line('  frames', 1000 * gaps.length / gaps.reduce((a, g) => a + g, 0), 'a second', '60');
  await b.close();
}

/** User and system time of a process, ms. */
function cpuMs(pid) {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  return (Number(f[11]) + Number(f[12])) * 10;
}

/** lhd's share of a core, while `open` pages are; each closes with the answer. */
async function share(lhd, open) {
  const close = await open();
  await pause(2_000);
  const start = cpuMs(lhd.process.pid), from = now();
  await pause(WATCHED_S * 1000);
  const part = 100 * (cpuMs(lhd.process.pid) - start) / (now() - from);
  for (const f of close) f();
  return part;
}

/** What an open page asks for by itself. */
function openPages(page, query, count, everyMs, method, params) {
  return async () => {
    const close = [];
    for (let i = 0; i < count; i++) {
      const stream = Stream.open(t, page, query);
      await stream.opened;
      const timer = setInterval(() => void page.rpc(method, params).catch(() => {}), everyMs);
      close.push(() => { clearInterval(timer); stream.close(); });
    }
    return close;
  };
}

/** Tabs of a real browser, which takes what it can get of the cores. */
function openTabs(lhd, job, count) {
  return async () => {
    const { browser, openPage } = await import('../web/lib/browser.mjs');
    const b = await browser(t);
    // Those that draw leave no time for others to open. Each is alone in its profile: one has
    // six connections to a host.
    await lhd.call('job.pause', { job });
    for (let i = 0; i < count; i++) await openPage(t, b, lhd, { hash: `#/job/${job}` });
    await lhd.call('job.resume', { job });
    return []; // closed at the end
  };
}

async function openPagesCost(lhd, page) {
  const job = await submit(lhd, { model: { vocab: 257, dim: 64, layers: 2, heads: 4, ffn_dim: 256 },
    phases: [{ name: 'only', attention: 'full', until: { steps: 1_000_000 } }], checkpoint: { every_steps: 10_000, keep: 1 } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step >= 50);
  const first = (await lhd.call('job.get', { job })).step, from = now();
  const none = await share(lhd, async () => []);
  line('the job that trains', 1000 * ((await lhd.call('job.get', { job })).step - first) / (now() - from), 'steps/s');
  line('lhd of a core, no page open', none, '%');
  line(`lhd of a core, ${PAGES} pages of that job`, await share(lhd, openPages(page, `?job=${job}&steps=1`, PAGES, 3000, 'job.get', { job })), '%', '< 5');
  line(`lhd of a core, ${PAGES} overviews`, await share(lhd, openPages(page, '', PAGES, 1000, 'job.list', {})), '%', '< 5');
  if (CHROMIUM) line(`lhd of a core, ${PAGES} tabs of that job in Chromium`, await share(lhd, openTabs(lhd, job, PAGES)), '%', '< 5');
}

try {
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const job = await submit(lhd, { phases: [{ name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: 5 } },
    { name: 'recovery', attention: 'full', until: { steps: 5 } }] });
  await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
  await lhd.end('SIGTERM');
  execFileSync('sqlite3', [lhd.db], { input: longRun(job) });
  line('lhd starts on a database without rollups', await timed(() => lhd.boot()), 'ms');
  const page = await Page.open(lhd);
  await calls(page, job);
  if (CHROMIUM) await inBrowser(lhd, job);
  await openPagesCost(lhd, page);
} finally {
  for (const f of after) await f();
}
