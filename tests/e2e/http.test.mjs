// http.test.mjs: the page's server: its files, keys, calls, the stream that neither
// loses nor repeats, and what Prometheus reads. Attacks: http_attack.test.mjs.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Lhd, atEnd, bin, build, packText, scratch, submit, until } from './lib/lhd.mjs';
import { Page, Stream, request } from './lib/page.mjs';

const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] };
const short = (steps) => ({ phases: [{ name: 'all', attention: 'full', until: { steps } }] });
const done = (j) => j.state === 'DONE';

async function fresh(t, args = [], over = {}) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir, args, over);
}

// ---- files ----

test('the page and all it names are served, with strict headers, and cached as they may be', async (t) => {
  const lhd = await fresh(t);
  const base = (await lhd.call('daemon.info')).page;
  assert.match(base, /^http:\/\/127\.0\.0\.1:\d+\/$/);
  const index = await request(base, '/');
  assert.equal(index.status, 200);
  assert.equal(index.headers['content-type'], 'text/html; charset=utf-8');
  assert.equal(index.headers['cache-control'], 'no-cache');
  assert.equal((await request(base, '/', { headers: { 'if-none-match': index.headers.etag } })).status, 304);
  assert.equal((await request(base, '/', { method: 'HEAD' })).text, '');
  const paths = ['/', ...[...index.text.matchAll(/(?:src|href)="(\/[^"]*)"/g)].map((m) => m[1])];
  let packed = 0;
  for (const path of paths) {
    const file = await request(base, path), small = await request(base, path, { headers: { 'accept-encoding': 'br, gzip' } });
    assert.equal(file.status, 200, path);
    if (path.startsWith('/assets/')) assert.match(file.headers['cache-control'], /immutable/);
    if (small.headers['content-encoding'] !== 'gzip') continue;
    packed++;
    assert.deepEqual(gunzipSync(small.bytes), file.bytes);
  }
  assert.ok(packed > 0);
  const missing = await request(base, '/nothing');
  assert.equal(missing.status, 404);
  assert.equal(missing.json.error.code, 'LH_ENOTFOUND');
  for (const r of [index, missing, await request(base, '/rpc', { method: 'POST', body: {} })]) {
    assert.match(r.headers['content-security-policy'], /^default-src 'none'; script-src 'self'; .*frame-ancestors 'none'$/);
    assert.equal(r.headers['x-content-type-options'], 'nosniff');
    assert.equal(r.headers['referrer-policy'], 'no-referrer');
    assert.equal(r.headers['cross-origin-opener-policy'], 'same-origin');
    assert.equal(r.headers['cross-origin-resource-policy'], 'same-origin');
    assert.equal(r.headers['set-cookie'], undefined);
  }
});

// ---- keys ----

test('a token gives a key once, and what is stored of the key does not give it away', async (t) => {
  const lhd = await fresh(t);
  const token = async (steer) => new URL((await lhd.call('daemon.dashboard', { steer })).url).hash.slice('#token='.length);
  const base = (await lhd.call('daemon.info')).page;
  const exchange = (body) => request(base, '/session', { method: 'POST', body });

  const one = await token(false);
  const first = await exchange({ token: one });
  assert.equal(first.status, 200);
  assert.equal(first.json.role, 'read');
  assert.match(first.json.key, /^[0-9a-f]{64}$/);
  const again = await exchange({ token: one });
  assert.equal(again.status, 403);
  assert.match(again.json.error.hint, /lhctl dashboard/);
  assert.equal((await exchange({ token: await token(true) })).json.role, 'steer');
  for (const body of ['', '[]', '{}', '{"token":5}', '{"token":""}', '{"token":"x","token":"y"}'])
    assert.ok([400, 403].includes((await exchange(body)).status), body);
  await until('the keys are stored', () => lhd.sql('select * from page_keys').length === 2);
  assert.ok(!JSON.stringify(lhd.sql('select * from page_keys')).includes(first.json.key));
});

const SANITIZED = build.endsWith('/san') && 'a preloaded clock and AddressSanitizer do not go together';

test('a token is over after a minute, a key after a week', { skip: SANITIZED }, async (t) => {
  const shim = join(build, 'tests/clock.so'), dir = scratch(t), clock = join(dir, 'clock');
  assert.ok(existsSync(shim), `${shim} was not built`);
  writeFileSync(clock, '0');
  const lhd = await Lhd.start(t, dir, [], { env: { LD_PRELOAD: shim, LH_CLOCK_FILE: clock } });
  const page = await Page.open(lhd);
  const { url } = await lhd.call('daemon.dashboard', {});
  writeFileSync(clock, '61');
  assert.equal((await request(page.base, '/session', { method: 'POST', body: { token: new URL(url).hash.slice(7) } })).status, 403);
  assert.equal((await page.request('/metrics')).status, 200);
  writeFileSync(clock, String(8 * 86400));
  assert.equal((await page.request('/metrics')).status, 401);
});

test('a stream ends with its key, and that of the metrics does not', { skip: SANITIZED }, async (t) => {
  const dir = scratch(t), clock = join(dir, 'clock');
  writeFileSync(clock, '0');
  const lhd = await Lhd.start(t, dir, [], { env: { LD_PRELOAD: join(build, 'tests/clock.so'), LH_CLOCK_FILE: clock } });
  const page = await Page.open(lhd), stream = Stream.open(t, page);
  const lasting = Stream.open(t, new Page(page.base, { key: readFileSync(join(lhd.state, 'metrics.key'), 'utf8') }));
  for (const s of [stream, lasting]) await s.until('it lives', () => s.comments > 0);
  writeFileSync(clock, String(8 * 86400));
  await until('it has ended', () => stream.ended);
  assert.equal((await page.request('/events')).status, 401);
  const { comments } = lasting;
  await lasting.until('it goes on', () => lasting.comments > comments);
});

test('a page lives on when lhd is killed: same port, same key', async (t) => {
  const lhd = await fresh(t);
  const page = await Page.open(lhd);
  await until('the key is stored', () => lhd.sql('select * from page_keys').length === 1);
  await lhd.restart('SIGKILL');
  assert.equal((await lhd.call('daemon.info')).page, `${page.base}/`);
  assert.ok((await page.rpc('daemon.info')).result.generation === 2);
});

test('a port that is asked for and taken stops lhd; one of last time that is taken does not', async (t) => {
  const lhd = await fresh(t);
  const { port } = new URL((await lhd.call('daemon.info')).page);
  const r = spawnSync(bin('lhd'), ['--state', join(lhd.dir, 'other'), '--page-port', port], { encoding: 'utf8', timeout: 30_000 });
  assert.equal(r.status, 1);
  assert.match(r.stderr, /cannot listen at 127\.0\.0\.1, port \d+: .*hint: .*--page-port/);

  await lhd.end('SIGTERM');
  const taker = net.createServer().listen(Number(port), '127.0.0.1');
  t.after(() => taker.close());
  await lhd.boot();
  assert.notEqual(new URL((await lhd.call('daemon.info')).page).port, port);
});

test('--no-page serves none and says so', async (t) => {
  const lhd = await fresh(t, ['--no-page']);
  assert.equal((await lhd.call('daemon.info')).page, null);
  await assert.rejects(lhd.call('daemon.dashboard', {}), /serves no page/);
});

test('lhctl dashboard prints an address that is good', async (t) => {
  const lhd = await fresh(t);
  const r = spawnSync(bin('lhctl'), ['--state', lhd.state, 'dashboard', '--steer'], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  const url = new URL(r.stdout.trim());
  const got = await request(url.origin, '/session', { method: 'POST', body: { token: url.hash.slice(7) } });
  assert.equal(got.json.role, 'steer');
});

// ---- calls ----

test('a call is answered over HTTP as over the socket', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, short(20));
  await lhd.jobUntil(job, 'DONE', done);
  const page = await Page.open(lhd);
  const calls = [['daemon.info', {}], ['job.list', {}], ['job.show', { job }], ['job.steps', { job, limit: 7 }], ['job.events', {}],
    ['job.get', { job: 999 }], ['job.get', { job: 'x' }], ['job.get', {}], ['job.get', { job, more: 1 }], ['no.such', {}]];
  for (const [method, params] of calls) {
    const there = await lhd.client.request(method, params), here = await page.rpc(method, params);
    assert.deepEqual({ ...here, id: 0 }, { ...there, id: 0 }, method);
  }
  const raw = async (body) => page.request('/rpc', { method: 'POST', body });
  assert.equal((await raw('{')).json.error.data.name, 'LH_EPARSE');
  assert.equal((await raw('[]')).json.error.data.name, 'LH_EREQUEST');
  assert.equal((await raw('')).json.error.data.name, 'LH_EPARSE');
  const quiet = await raw({ jsonrpc: '2.0', method: 'job.list' });
  assert.deepEqual([quiet.status, quiet.text], [204, '']);
  assert.equal((await page.rpc('job.subscribe')).error.data.name, 'LH_EUNSUPPORTED');
  assert.equal((await page.rpc('job.unsubscribe', { subscription: 1 })).error.data.name, 'LH_ENOTFOUND');
});

test('a key reads, or steers when that was asked for, and never submits', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'steps', (j) => j.step > 3);
  const reader = await Page.open(lhd), steerer = await Page.open(lhd, true);
  const denied = await reader.rpc('job.pause', { job });
  assert.equal(denied.error.data.name, 'LH_EDENIED');
  assert.match(denied.error.data.hint, /lhctl dashboard --steer/);
  for (const method of ['daemon.stop', 'daemon.restart', 'daemon.dashboard'])
    assert.equal((await steerer.rpc(method)).error.data.name, 'LH_EDENIED', method);
  assert.equal((await steerer.rpc('job.submit', { yaml: '{}', base_dir: '/' })).error.data.name, 'LH_EDENIED');

  const { result } = await steerer.rpc('job.pause', { job, program: 'not me', message: 'lunch' });
  await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
  const [row] = lhd.sql(`select program, uid, message, outcome from commands where id=${result.command}`);
  assert.deepEqual(row, { program: 'page', uid: process.getuid(), message: 'lunch', outcome: 'applied' });
  assert.match((await steerer.rpc('job.sample', { job, max_tokens: 3 })).result.text, /^[^]*$/);
});

// ---- the stream ----

/** Reads on, from one stream to the next, until `test`; gives all messages. */
async function readOn(t, page, query, state, test) {
  const s = Stream.open(t, page, query, state.lastId);
  try {
    await s.opened;
    await until('the stream has it', () => s.ended || test([...state.messages, ...s.messages]));
  } catch (e) { if (e.code === 'ERR_ASSERTION') throw e; }
  s.close();
  state.messages.push(...s.messages);
  state.lastId = s.lastId ?? state.lastId;
}

const stepsOf = (messages) => messages.filter((m) => m.event === 'step').map((m) => m.data);
const strip = ({ subscription, ...rest }) => rest;

test('a stream that is cut, again and again, also by the death of lhd, has every step and event once', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...short(1_000_000), checkpoint: { every_steps: 50, keep: 2 } });
  const page = await Page.open(lhd);
  await until('the key is stored', () => lhd.sql('select * from page_keys').length === 1);
  const state = { messages: [], lastId: null };
  const query = `?job=${job}&steps=1&after_step=0&after_event=0`;
  for (const goal of [20, 60, 61, 62, 120]) await readOn(t, page, query, state, (m) => stepsOf(m).length >= goal);
  for (const goal of [200, 300]) {
    const dies = readOn(t, page, query, state, () => false);
    await lhd.jobUntil(job, `step ${goal}`, (j) => j.step >= goal);
    await lhd.restart('SIGKILL');
    await dies;
    await readOn(t, page, query, state, (m) => stepsOf(m).length >= goal);
  }
  process.kill(await lhd.workerPid(job), 'SIGKILL'); // another attempt, from a checkpoint
  const { step } = await lhd.jobUntil(job, 'it goes on', (j) => j.attempt === 2 && j.step > 300);
  await lhd.call('job.set', { job, phase_steps: step + 200 });
  await readOn(t, page, query, state, (m) => m.some((x) => x.data.kind === 'job.state' && x.data.data.to === 'DONE'));
  await lhd.jobUntil(job, 'DONE', done);
  const last = lhd.sql(`select max(id) id from events where job=${job}`)[0].id;
  await readOn(t, page, query, state, (m) => m.some((x) => x.data.id === last));

  const steps = lhd.sql(`select attempt, step, loss, job from steps where job=${job} order by attempt, step`);
  assert.deepEqual(stepsOf(state.messages).map(({ attempt, step, loss, job: j }) => ({ attempt, step, loss, job: j })), steps);
  assert.ok(new Set(steps.map((s) => s.attempt)).size === 2);
  const { events } = await lhd.call('job.events', { job, limit: 10000 });
  assert.deepEqual(state.messages.filter((m) => m.event === 'event').map((m) => strip(m.data)), events);
  assert.equal(state.messages.filter((m) => m.event === 'lost').length, 0);
});

test('rows that were read and lines that were pushed have the same shape', async (t) => {
  const lhd = await fresh(t);
  const page = await Page.open(lhd);
  const live = Stream.open(t, page, '?job=1');
  assert.equal((await live.opened).statusCode, 404);
  const job = await submit(lhd, LONG);
  const pushed = Stream.open(t, page, `?job=${job}&steps=1`);
  await pushed.until('steps are pushed', (s) => s.of('step').length >= 3);
  const { step } = pushed.of('step')[2];
  await lhd.jobUntil(job, 'more', (j) => j.step > step + 5);
  const rows = Stream.open(t, page, `?job=${job}&steps=1&after_step=${step - 1}&after_event=0`);
  await rows.until('it catches up', (s) => s.of('step').length >= 3);
  assert.deepEqual(rows.of('step')[0], pushed.of('step')[2]);
  assert.equal(rows.messages[0].event, 'hello');
  assert.equal(rows.of('hello')[0].generation, 1);
  const both = pushed.of('event').at(-1);
  assert.deepEqual(rows.of('event').find((e) => e.id === both.id), both);
  const all = Stream.open(t, page, '?after_event=0');
  await all.until('events of all jobs', (s) => s.of('event').some((e) => e.job === job));
  for (const bad of ['?steps=1', '?job=x', `?job=${job}&after_step=-1`, '?steps=2', '?after_event=1x'])
    assert.equal((await page.request(`/events${bad}`)).status, 400, bad);
  assert.equal((await page.request('/events', { headers: { 'last-event-id': '1.2' } })).status, 400);
});

test('a quiet stream is heard of all the same', async (t) => {
  const lhd = await fresh(t);
  const s = Stream.open(t, await Page.open(lhd));
  await s.until('comments', (x) => x.comments >= 2);
});

test('a reader that stands still is told what it lost, can get it, and holds up nobody', async (t) => {
  const lhd = await fresh(t);
  const page = await Page.open(lhd);
  const steps = 8000;
  const job = await submit(lhd, { ...short(steps), model: { vocab: 257, dim: 8, layers: 1, heads: 1, ffn_dim: 8 },
    data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 16 }, batch: { sequences: 1 }, checkpoint: { every_steps: steps, keep: 1 } });
  const query = `?job=${job}&steps=1&after_step=0`;
  const slow = Stream.open(t, page, query);
  await slow.until('it reads', (s) => s.of('step').length > 0);
  slow.response.pause();
  const fast = Array.from({ length: 20 }, () => Stream.open(t, page, query));
  const hasLast = (s) => s.of('step').at(-1)?.step === steps;
  const lostBy = (s) => s.of('lost').reduce((n, l) => n + l.steps, 0);
  await Promise.all(fast.map((s) => s.until('the last step', hasLast)));
  // On a busy machine one of so many may fall behind, too, and is told; what it lost of
  // the feed, rows may have brought.
  for (const s of fast) assert.ok(s.of('step').length + lostBy(s) >= steps);
  slow.response.resume();
  await slow.until('it has read on', hasLast);
  const lost = lostBy(slow);
  assert.ok(lost > 0);
  assert.equal(slow.of('step').length + lost, steps);
  // With the id it was told that with, it gets them.
  const cut = slow.messages.findIndex((m) => m.event === 'lost');
  const state = { messages: slow.messages.slice(0, cut), lastId: slow.messages[cut].id };
  await readOn(t, page, query, state, (m) => stepsOf(m).length >= steps);
  assert.deepEqual(stepsOf(state.messages).map((s) => s.step), Array.from({ length: steps }, (_, i) => i + 1));
});

/** Somebody's transaction that is not ended. */
async function lock(t, lhd) {
  const p = spawn('sqlite3', [lhd.db], { stdio: ['pipe', 'pipe', 'inherit'] });
  p.stdin.write('.timeout 5000\nBEGIN IMMEDIATE;\nSELECT 1;\n');
  await once(p.stdout, 'data');
  atEnd(t, () => p.kill());
  return p;
}

test('while somebody locks the database a stream is quiet but alive, then it has all', async (t) => {
  const lhd = await fresh(t);
  const page = await Page.open(lhd);
  await until('the key is stored', () => lhd.sql('select * from page_keys').length === 1);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'steps', (j) => j.step > 10);
  const locker = await lock(t, lhd);
  const { step } = await lhd.call('job.get', { job });
  await until('it goes on', async () => (await lhd.call('job.get', { job })).step > step + 50);
  const s = Stream.open(t, page, `?job=${job}&steps=1&after_step=0`);
  await s.until('it is heard of', (x) => x.comments > 0);
  assert.equal((await page.rpc('job.list')).result.jobs.length, 1);
  locker.stdin.end('ROLLBACK;\n');
  await s.until('it has caught up', (x) => x.of('step').length > step + 50);
  assert.deepEqual(s.of('step').map((x) => x.step), s.of('step').map((_, i) => i + 1));
});

test('lhd stops though a stream waits for a database that is locked', async (t) => {
  const lhd = await fresh(t);
  const page = await Page.open(lhd);
  await lock(t, lhd);
  const s = Stream.open(t, page);
  await s.until('it waits', (x) => x.comments > 0);
  assert.deepEqual(await lhd.end('SIGTERM'), { code: 0, signal: null });
});

// ---- metrics ----

const promtool = [join(build, 'promtool'), join(dirname(build), 'promtool'), '/usr/bin/promtool'].find(existsSync);

test('promtool finds nothing wrong with /metrics', { skip: promtool ? false : "there is no promtool: 'make deps-promtool' fetches it" }, async (t) => {
  const lhd = await fresh(t);
  await lhd.jobUntil(await submit(lhd, short(20)), 'DONE', done);
  const key = readFileSync(join(lhd.state, 'metrics.key'), 'utf8');
  const { text } = await request((await lhd.call('daemon.info')).page, '/metrics', { key });
  const r = spawnSync(promtool, ['check', 'metrics'], { input: text, encoding: 'utf8' });
  assert.deepEqual([r.status, r.stdout + r.stderr], [0, ''], text);
});

test('/metrics is what Prometheus takes, with the numbers of the jobs', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { ...short(20), name: 'named' });
  await lhd.jobUntil(job, 'DONE', done);
  const base = (await lhd.call('daemon.info')).page, file = join(lhd.state, 'metrics.key');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const r = await request(base, '/metrics', { key: readFileSync(file, 'utf8') });
  assert.equal(r.status, 200);
  assert.equal(r.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  const value = (name) => r.text.split('\n').find((l) => l.startsWith(`${name} `))?.slice(name.length + 1);
  const of = (name, more = '') => value(`${name}{job_id="${job}",name="named"${more}}`);
  const [last] = lhd.sql(`select time_ms, loss from steps where job=${job} order by step desc limit 1`);
  assert.equal(of('lighthouse_job_step'), '20');
  assert.equal(Number(of('lighthouse_job_loss_nats_per_token')), last.loss);
  assert.equal(Number(of('lighthouse_job_last_step_timestamp_seconds')) * 1000, last.time_ms);
  assert.equal(of('lighthouse_job_state', ',state="DONE"'), '1');
  assert.equal(of('lighthouse_job_state', ',state="RUNNING"'), '0');
  assert.equal(of('lighthouse_worker_restarts_total'), '0');
  assert.equal(Number(of('lighthouse_job_checkpoints_total')), lhd.sql(`select count(*) n from checkpoints where job=${job}`)[0].n);
  assert.equal(value('lighthouse_database_up'), '1');
  await lhd.restart();
  assert.equal((await request(base, '/metrics', { key: readFileSync(file, 'utf8') })).status, 200);
});
