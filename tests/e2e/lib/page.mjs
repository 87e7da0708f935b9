// page.mjs: what the page does over HTTP: a key for a token, calls, a stream of events.
import http from 'node:http';
import assert from 'node:assert/strict';
import { atEnd, until } from './lhd.mjs';

/** One request; {status, headers, bytes, text, json}. `body` that is no string is sent as JSON. */
export function request(base, path, { method = 'GET', key, headers = {}, body } = {}) {
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const all = { ...(key && { authorization: `Bearer ${key}` }), ...(body !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }), ...headers };
  return new Promise((done, fail) => {
    const r = http.request(new URL(path, base), { method, headers: all, agent: false }, (res) => {
      const got = [];
      res.on('data', (d) => got.push(d)).on('error', fail).on('end', () => {
        const bytes = Buffer.concat(got);
        let json = null;
        try { json = JSON.parse(bytes); } catch { /* it is not always */ }
        done({ status: res.statusCode, headers: res.headers, bytes, text: bytes.toString(), json });
      });
    });
    r.on('error', fail).end(text);
  });
}

export class Page {
  /** A page with a key of its own. */
  static async open(lhd, steer = false) {
    const { url } = await lhd.call('daemon.dashboard', { steer });
    const at = new URL(url);
    const r = await request(at.origin, '/session', { method: 'POST', body: { token: at.hash.slice('#token='.length) } });
    assert.equal(r.status, 200, r.text);
    return new Page(at.origin, r.json);
  }

  constructor(base, session) { Object.assign(this, { base, ...session, next: 1 }); }

  request(path, options = {}) { return request(this.base, path, { key: this.key, ...options }); }

  /** The reply object of one call, result or error. */
  async rpc(method, params = {}) {
    const r = await this.request('/rpc', { method: 'POST', body: { jsonrpc: '2.0', id: this.next++, method, params } });
    assert.equal(r.status, 200, r.text);
    return r.json;
  }
}

/** An open GET /events. Messages {event, id, data} are kept in `messages`. */
export class Stream {
  static open(t, page, query = '', lastId = null) {
    const s = new Stream();
    s.messages = [];
    s.comments = 0;
    s.ended = false;
    s.opened = new Promise((done, fail) => {
      s.request = http.get(new URL(`/events${query}`, page.base), { agent: false,
        headers: { authorization: `Bearer ${page.key}`, ...(lastId && { 'last-event-id': lastId }) } }, (res) => {
        s.response = res;
        done(res);
        let text = '';
        res.setEncoding('utf8').on('data', (d) => {
          const blocks = (text + d).split('\n\n');
          text = blocks.pop();
          for (const b of blocks) s.take(b);
        }).on('error', () => {}).on('close', () => { s.ended = true; });
      });
      s.request.on('error', (e) => { s.ended = true; fail(e); });
    });
    s.opened.catch(() => {});
    atEnd(t, () => s.close());
    return s;
  }

  take(block) {
    if (block.startsWith(':')) return void this.comments++;
    const field = Object.fromEntries(block.split('\n').map((l) => [l.slice(0, l.indexOf(': ')), l.slice(l.indexOf(': ') + 2)]));
    this.messages.push({ ...field, data: JSON.parse(field.data) });
    this.lastId = field.id;
  }

  of(event) { return this.messages.filter((m) => m.event === event).map((m) => m.data); }
  until(what, test, limitMs) { return until(what, () => test(this) && this, limitMs); }
  close() { this.request.destroy(); }
}
