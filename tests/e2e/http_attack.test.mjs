// http_attack.test.mjs: what other sites' pages, other users and broken clients try at
// the page's server. None of it is done, and lhd serves on.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, atEnd, packText, scratch, submit, until } from './lib/lhd.mjs';
import { Page, Stream, request } from './lib/page.mjs';

const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] };
const IDLE_MS = 10_000; // LH_HTTP_IDLE_S

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  return { lhd, base: new URL((await lhd.call('daemon.info')).page) };
}

/** A bare connection: {socket, said, closed}. */
function connect(t, base) {
  const c = { said: '', closed: false };
  c.socket = net.createConnection(Number(base.port), base.hostname);
  c.socket.setEncoding('latin1').on('data', (d) => { c.said += d; }).on('error', () => {}).on('close', () => { c.closed = true; });
  atEnd(t, () => c.socket.destroy());
  return c;
}

/** What is answered to these bytes, once the connection is closed. */
async function raw(t, base, bytes) {
  const c = connect(t, base);
  c.socket.write(bytes);
  await until('the connection is closed', () => c.closed);
  return c.said;
}

const statusOf = (said) => Number(said.match(/^HTTP\/1\.\d (\d+)/)?.[1] ?? 0);
const pauses = (lhd) => lhd.sql("select * from commands where method='job.pause' and outcome <> 'denied'").length;
const PAUSE = { jsonrpc: '2.0', id: 1, method: 'job.pause', params: { job: 1 } };
const serves = async (lhd, base) => {
  assert.equal((await request(base, '/')).status, 200);
  assert.ok((await lhd.call('daemon.info')).pid);
};

test('a name that leads here and is not ours (DNS rebinding) is refused, key or not', async (t) => {
  const { lhd, base } = await fresh(t);
  const page = await Page.open(lhd, true);
  for (const host of ['evil.example', `evil.example:${base.port}`, '127.0.0.1.evil.example', 'localhost.evil.example', '127.0.0.1@evil.example',
    '127.0.0.1:80x', `127.0.0.2:${base.port}`, '0.0.0.0', '[::]', '[::1', 'localhost:1:2']) {
    for (const [path, method, body] of [['/', 'GET'], ['/metrics', 'GET'], ['/events', 'GET'], ['/rpc', 'POST', PAUSE], ['/session', 'POST', {}]]) {
      const r = await page.request(path, { method, body, headers: { host } });
      assert.equal(r.status, 403, `${host} ${path}`);
      assert.equal(r.json.error.code, 'LH_EDENIED');
    }
  }
  assert.equal(statusOf(await raw(t, base, 'GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n')), 403);
  assert.equal(statusOf(await raw(t, base, 'GET / HTTP/1.0\r\n\r\n')), 403);
  assert.ok([400, 403].includes(statusOf(await raw(t, base, 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n'))));
  assert.ok([400, 403].includes(statusOf(await raw(t, base, 'GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n'))));
  for (const host of ['127.0.0.1', 'localhost', 'LocalHost:8080', '[::1]:9', `127.0.0.1:${base.port}`])
    assert.equal((await page.request('/metrics', { headers: { host } })).status, 200, host);
});

test('a page of another site can do nothing, by whatever method', async (t) => {
  const { lhd, base } = await fresh(t);
  await lhd.jobUntil(await submit(lhd, LONG), 'steps', (j) => j.step > 1);
  const page = await Page.open(lhd, true);
  const { url } = await lhd.call('daemon.dashboard', {});
  const token = new URL(url).hash.slice(7);
  for (const origin of ['http://evil.example', 'https://127.0.0.1', 'null', '', 'http://127.0.0.1:1', 'file://', `http://127.0.0.1:${base.port}.evil.example`]) {
    for (const [path, method, body] of [['/rpc', 'POST', PAUSE], ['/rpc', 'DELETE'], ['/session', 'POST', { token }], ['/session', 'DELETE'],
      ['/events', 'GET'], ['/metrics', 'GET'], ['/rpc', 'OPTIONS'], ['/', 'DELETE'], ['/rpc', 'PUT', PAUSE]]) {
      const r = await page.request(path, { method, body, headers: { origin } });
      assert.equal(r.status, 403, `${origin} ${method} ${path}`);
      assert.deepEqual(Object.keys(r.headers).filter((h) => h.startsWith('access-control')), []);
    }
  }
  assert.equal(pauses(lhd), 0);
  // The token was not used up by them, and the page's own origin is fine.
  const own = await request(base, '/session', { method: 'POST', body: { token }, headers: { origin: base.origin } });
  assert.equal(own.status, 200);
  // A WebSocket is nothing that is spoken here.
  const ws = await request(base, '/events', { headers: { upgrade: 'websocket', 'sec-websocket-key': 'x', 'sec-websocket-version': '13' } });
  assert.equal(ws.status, 401);
});

test('a body that a form could send is not taken', async (t) => {
  const { lhd } = await fresh(t);
  await lhd.jobUntil(await submit(lhd, LONG), 'steps', (j) => j.step > 1);
  const page = await Page.open(lhd, true);
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonp', 'text/json', '', 'text/plain, application/json'])
    for (const path of ['/rpc', '/session'])
      assert.equal((await page.request(path, { method: 'POST', body: PAUSE, headers: { 'content-type': type } })).status, 415, type);
  const none = await raw(t, new URL(page.base), `POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${page.key}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`);
  assert.equal(statusOf(none), 415);
  assert.equal(pauses(lhd), 0);
  assert.ok((await page.request('/rpc', { method: 'POST', body: PAUSE, headers: { 'content-type': 'application/json; charset=utf-8' } })).json.result.command);
});

test('without a good key there is no data', async (t) => {
  const { lhd, base } = await fresh(t);
  const page = await Page.open(lhd);
  const token = new URL((await lhd.call('daemon.dashboard', {})).url).hash.slice(7);
  const wrong = [{}, { authorization: '' }, { authorization: 'Bearer' }, { authorization: 'Bearer ' }, { authorization: page.key }, { authorization: `Basic ${page.key}` },
    { authorization: `Bearer ${page.key.slice(0, -1)}` }, { authorization: `Bearer ${page.key}0` }, { authorization: `Bearer ${page.key.toUpperCase()}` },
    { authorization: `Bearer ${token}` }, { authorization: `Bearer ${'0'.repeat(64)}` }, { cookie: `key=${page.key}` }];
  for (const headers of wrong)
    for (const [path, method, body] of [['/rpc', 'POST', { jsonrpc: '2.0', id: 1, method: 'job.list' }], ['/events', 'GET'], ['/metrics', 'GET'], [`/metrics?key=${page.key}`, 'GET']]) {
      const r = await request(base, path, { method, body, headers });
      assert.equal(r.status, 401, JSON.stringify(headers));
      assert.equal(r.headers['www-authenticate'], 'Bearer');
      assert.ok(!r.text.includes('lighthouse_') && !r.text.includes('jobs'));
    }
  const metrics = new Page(base.origin, { key: readFileSync(join(lhd.state, 'metrics.key'), 'utf8') });
  assert.equal((await metrics.rpc('job.pause', { job: 1 })).error.data.name, 'LH_EDENIED');
});

test('of many who have the same token one gets a key', async (t) => {
  const { lhd, base } = await fresh(t);
  const token = new URL((await lhd.call('daemon.dashboard', {})).url).hash.slice(7);
  const all = await Promise.all(Array.from({ length: 20 }, () => request(base, '/session', { method: 'POST', body: { token } })));
  assert.deepEqual(all.map((r) => r.status).sort(), [200, ...Array(19).fill(403)]);
});

test('no path leads out of the page', async (t) => {
  const { lhd, base } = await fresh(t);
  for (const path of ['/../../../../etc/passwd', '/assets/../../../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/..%2f..%2fetc%2fpasswd', '/assets/..%5c..%5cx',
    '//etc/passwd', '/etc/passwd%00.html', '/%00', '/index.html/../metrics.key', '/assets/', '/.', `/${'a'.repeat(9000)}`, '/%', '/%zz']) {
    const said = await raw(t, base, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    assert.equal(statusOf(said), 404, path.slice(0, 60));
    assert.doesNotMatch(said, /root:/);
  }
  await serves(lhd, base);
});

test('a method is what it says, and only where it belongs', async (t) => {
  const { lhd, base } = await fresh(t);
  await lhd.jobUntil(await submit(lhd, LONG), 'steps', (j) => j.step > 1);
  const page = await Page.open(lhd, true);
  for (const [method, path] of [['GET', '/rpc'], ['HEAD', '/rpc'], ['PUT', '/rpc'], ['DELETE', '/rpc'], ['PATCH', '/rpc'], ['OPTIONS', '/rpc'], ['GET', '/session'],
    ['POST', '/events'], ['HEAD', '/events'], ['POST', '/metrics'], ['POST', '/'], ['DELETE', '/'], ['TRACE', '/']]) {
    const r = await page.request(path, { method, headers: { 'x-http-method-override': 'POST' } });
    assert.equal(r.status, 405, `${method} ${path}`);
    assert.ok(r.headers.allow);
  }
  const q = encodeURIComponent(JSON.stringify(PAUSE));
  assert.equal((await page.request(`/rpc?${q}`)).status, 405);
  for (const method of ['get', 'POSTX', 'FOO'])
    assert.ok([400, 405, 501].includes(statusOf(await raw(t, base, `${method} /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`))), method);
  // Two lengths: whatever it is taken for, what is behind it is not a second request with another's key.
  const body = JSON.stringify(PAUSE);
  const inner = `POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${'0'.repeat(64)}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
  await raw(t, base, `POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n${inner}`);
  assert.equal(pauses(lhd), 0);
});

test('what is too large is refused, and costs nothing', async (t) => {
  const { lhd, base } = await fresh(t);
  const page = await Page.open(lhd);
  const resident = () => Number(readFileSync(`/proc/${lhd.process.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]);
  const before = resident();
  for (let i = 0; i < 20; i++) {
    const head = await raw(t, base, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(1 << 20)}\r\n\r\n`);
    assert.ok([0, 431, 413].includes(statusOf(head)), head.slice(0, 40));
  }
  const many = await raw(t, base, `GET / HTTP/1.1\r\nHost: localhost\r\n${'X: y\r\n'.repeat(1 << 16)}\r\n`);
  assert.ok([0, 431, 413].includes(statusOf(many)));
  assert.ok([0, 414, 431].includes(statusOf(await raw(t, base, `GET /${'a'.repeat(1 << 20)} HTTP/1.1\r\nHost: localhost\r\n\r\n`))));

  const post = (path, more) => `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer ${page.key}\r\n${more}`;
  for (const [path, length] of [['/session', 1 << 20], ['/rpc', 1 << 20], ['/rpc', 1e18]])
    assert.equal(statusOf(await raw(t, base, post(path, `Content-Length: ${length}\r\n\r\n`))), 413, path);
  assert.ok([400, 413].includes(statusOf(await raw(t, base, post('/rpc', 'Content-Length: 99999999999999999999999\r\n\r\n')))));
  // A body that does not say how long it is, and never ends.
  const c = connect(t, base);
  c.socket.write(post('/rpc', 'Transfer-Encoding: chunked\r\n\r\n'));
  const chunk = `10000\r\n${'x'.repeat(65536)}\r\n`;
  await until('it is cut', () => { if (!c.closed && c.socket.writableLength < 1 << 20) c.socket.write(chunk); return c.closed; });
  assert.ok(resident() - before < 64 << 10, `${resident() - before} KiB more`);
  await serves(lhd, base);
});

test('requests that are never finished end, and hold up nobody', async (t) => {
  const { lhd, base } = await fresh(t);
  const page = await Page.open(lhd);
  const halves = ['', 'G', 'GET / HT', 'GET / HTTP/1.1\r\nHost: loc', 'POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"tok',
    `POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${page.key}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"j`];
  const open = Array.from({ length: 60 }, (_, i) => { const c = connect(t, base); c.socket.write(halves[i % halves.length]); return c; });
  const stream = Stream.open(t, page);
  await stream.until('the stream lives', (s) => s.of('hello').length === 1);
  await serves(lhd, base);
  await until('they are closed', () => open.every((c) => c.closed), 6 * IDLE_MS);
  assert.equal(stream.ended, false, 'a stream is not idle');
  for (const bytes of ['\0\0\0\0\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 'GET\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n'])
    await raw(t, base, bytes);
  await serves(lhd, base);
});

test('who gives or takes a byte now and then is cut, who works or listens is not', async (t) => {
  const { lhd, base } = await fresh(t);
  const page = await Page.open(lhd), stream = Stream.open(t, page);
  const begun = ['GET / HTTP/1.1\r\nHost: localhost\r\nX: ', 'POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n'];
  const open = begun.map((text) => { const c = connect(t, base); c.socket.write(text); return c; });
  const again = connect(t, base); // a connection is bound by each request anew
  again.socket.write('GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\nX: ');
  await until('its first is answered', () => statusOf(again.said) === 404);
  const drip = setInterval(() => { for (const c of [...open, again]) if (!c.closed) c.socket.write('x'); }, 500);
  t.after(() => clearInterval(drip));
  await until('they are cut', () => [...open, again].every((c) => c.closed), 6 * IDLE_MS);
  assert.ok(!open.some((c) => statusOf(c.said) === 200));
  assert.equal(stream.ended, false);
  await serves(lhd, base);
});

test('more idle connections than there may be keep others waiting for a while, and the control socket not at all', async (t) => {
  const { lhd, base } = await fresh(t);
  const open = Array.from({ length: 400 }, () => connect(t, base));
  await until('they are there', () => open.every((c) => !c.socket.connecting));
  assert.ok((await lhd.call('daemon.info')).pid);
  await until('the page is served', async () => (await request(base, '/')).status === 200, 6 * IDLE_MS);
});

test('there are no more streams than there may be', async (t) => {
  const { lhd } = await fresh(t);
  const page = await Page.open(lhd);
  const open = Array.from({ length: 128 }, () => Stream.open(t, page));
  await Promise.all(open.map((s) => s.opened));
  assert.equal((await page.request('/events')).status, 503);
  open[0].close();
  await until('a place is free', async () => {
    const s = Stream.open(t, page);
    const ok = (await s.opened).statusCode === 200;
    s.close();
    return ok;
  });
});
