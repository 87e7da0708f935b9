// socket.test.mjs: what a hostile or clumsy peer can do to the control socket of
// a working daemon: nothing.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import { readFileSync, statSync } from 'node:fs';
import { Lhd, Client, until, scratch, packText, submit } from './lib/lhd.mjs';

const rssMb = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;

/** Sends raw bytes; gives the first `count` reply lines. */
function raw(path, bytes, count = 1) {
  return new Promise((done, fail) => {
    const s = net.createConnection(path, () => s.write(bytes));
    let text = '';
    s.on('error', fail).on('data', (d) => {
      text += d;
      const lines = text.split('\n').slice(0, -1);
      if (lines.length >= count) { s.destroy(); done(lines.map((l) => JSON.parse(l))); }
    }).once('close', () => fail(new Error(`closed after: ${text}`)));
  });
}

const INFO = '{"jsonrpc":"2.0","id":7,"method":"daemon.info"}\n';

test('the control socket', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const path = lhd.socket;
  const job = await submit(lhd, { phases: [{ name: 'only', attention: 'full', until: { steps: 1000000 } }] });
  await lhd.jobUntil(job, 'RUNNING', (j) => j.state === 'RUNNING');

  await t.test('is private to its owner', () => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(lhd.state).mode & 0o777, 0o700);
  });

  const refusals = [
    ['garbage', 'hello\n', -32700],
    ['invalid UTF-8', Buffer.from('{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}\n', 'latin1'), -32700],
    ['nesting of 100,000 levels', '['.repeat(100000) + ']'.repeat(100000) + '\n', -32700],
    ['a repeated key', '{"jsonrpc":"2.0","id":1,"id":2,"method":"daemon.info"}\n', -32700],
    ['a batch', `[${INFO.trim()}]\n`, -32600],
    ['another version', '{"jsonrpc":"1.0","id":1,"method":"daemon.info"}\n', -32600],
    ['an unknown method', '{"jsonrpc":"2.0","id":1,"method":"job.explode"}\n', -32601],
    ['params that are no object', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":[1]}\n', -32602],
    ['a missing param', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{}}\n', -32602],
    ['an unknown param', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{"job":1,"jbo":1}}\n', -32602],
    ['a param of another type', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{"job":"1"}}\n', -32602],
    ['a param out of range', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{"job":0}}\n', -32602],
    ['an integer past 64 bits', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{"job":99999999999999999999}}\n', -32700],
    ['a job that is not there', '{"jsonrpc":"2.0","id":1,"method":"job.get","params":{"job":4242}}\n', -32005],
  ];
  for (const [what, bytes, code] of refusals) {
    await t.test(`refuses ${what} and goes on`, async () => {
      const [bad, good] = await raw(path, Buffer.concat([Buffer.from(bytes), Buffer.from(INFO)]), 2);
      assert.equal(bad.error?.code, code, JSON.stringify(bad));
      assert.ok(bad.error.message.length > 5 && bad.error.data.name.startsWith('LH_E'));
      assert.equal(good.id, 7);
      assert.equal(good.result.pid, lhd.process.pid);
    });
  }

  await t.test('joins a line that comes in pieces', async () => {
    const s = net.createConnection(path);
    const got = new Promise((r) => s.once('data', (d) => r(String(d))));
    for (const ch of INFO) await new Promise((r) => s.write(ch, r));
    assert.equal(JSON.parse(await got).id, 7);
    s.destroy();
  });

  await t.test('survives half a line and a hang-up', async () => {
    const s = net.createConnection(path);
    await new Promise((r) => s.write('{"jsonrpc":"2.0","id":', r));
    s.destroy();
    assert.equal((await raw(path, INFO))[0].id, 7);
  });

  await t.test('answers a 100 MB line with one error in bounded memory', async () => {
    const before = rssMb(lhd.process.pid);
    const s = net.createConnection(path);
    let text = '';
    s.on('data', (d) => { text += d; });
    const block = Buffer.alloc(1 << 20, 0x61);
    for (let i = 0; i < 100; i++) await new Promise((r) => s.write(block, r));
    await new Promise((r) => s.write('\n' + INFO, r));
    await until('both replies', () => text.split('\n').length >= 3);
    const [big, info] = text.split('\n').map((l) => l && JSON.parse(l));
    assert.equal(big.error.data.name, 'LH_ETOOBIG');
    assert.equal(info.id, 7);
    s.destroy();
    assert.ok(rssMb(lhd.process.pid) - before < 32, 'memory grew');
  });

  await t.test('200 idle clients and a client that never reads disturb nobody', async () => {
    const before = rssMb(lhd.process.pid);
    const idle = await Promise.all(Array.from({ length: 200 }, () => Client.connect(path)));
    const deaf = net.createConnection(path);
    deaf.on('error', () => {}).pause();
    // Far more questions than a socket buffer holds answers for.
    for (let i = 0; i < 200; i++) deaf.write(`{"jsonrpc":"2.0","id":${i},"method":"job.list"}\n`.repeat(200));
    deaf.write('{"jsonrpc":"2.0","id":1,"method":"job.subscribe","params":{"steps":true}}\n');
    const at = (await lhd.call('job.get', { job })).step;
    await lhd.jobUntil(job, 'steps go on', (j) => j.step > at + 50);
    const info = await lhd.call('daemon.info', {});
    assert.ok(info.clients >= 201);
    assert.ok(rssMb(lhd.process.pid) - before < 48, 'memory grew');
    for (const c of idle) c.close();
    deaf.destroy();
    await until('they are gone', async () => (await lhd.call('daemon.info', {})).clients < 10);
  });

  await t.test('10,000 pipelined calls are answered in order', async () => {
    const n = 10_000;
    const lines = Array.from({ length: n }, (_, i) => `{"jsonrpc":"2.0","id":${i},"method":"job.get","params":{"job":${job}}}\n`);
    const replies = await raw(path, lines.join(''), n);
    replies.forEach((r, i) => assert.equal(r.id, i));
  });

  await t.test('a subscriber gets every step it keeps up with, and the events', async () => {
    const c = await lhd.connect();
    await c.call('job.subscribe', { job, steps: true });
    await until('30 steps', () => c.notes.filter((m) => m.method === 'step').length >= 30);
    const steps = c.notes.filter((m) => m.method === 'step').map((m) => m.params.step);
    steps.forEach((s, i) => i && assert.equal(s, steps[i - 1] + 1));
    await c.call('job.checkpoint', { job });
    await until('the outcome', () => c.notes.some((m) => m.method === 'event' && m.params.kind === 'command.applied'));
    c.close();
  });

  assert.ok(!/BUG|Sanitizer/.test(lhd.log()), lhd.log());
});
