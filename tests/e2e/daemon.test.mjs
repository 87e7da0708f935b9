// daemon.test.mjs: lhd as a program: its options, its start, its end.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, bin } from './lib/lhd.mjs';

const lhd = (...args) => {
  const r = spawnSync(bin('lhd'), args, { encoding: 'utf8', timeout: 30_000 });
  return { status: r.status, out: r.stdout, err: r.stderr };
};

test('wrong usage exits 2 and says what is allowed', () => {
  for (const [args, want] of [
    [['--slots', '0'], /--slots is '0'; it must be a number from 1 to 64/],
    [['--slots', '1x'], /'1x'/],
    [['--stop-grace-ms', '-1'], /from 0 to/],
    [['--log-level', 'loud'], /debug, info, warn or error/],
    [['--state', '/x', 'more'], /'more'/],
    [['--fly'], /--fly/],
  ]) {
    const r = lhd(...args);
    assert.equal(r.status, 2, r.err);
    assert.match(r.err, want);
    assert.match(r.err, /hint: /);
  }
});

test('help ends in examples, and the version is one line', () => {
  const help = lhd('-h');
  assert.equal(help.status, 0);
  assert.match(help.out, /Examples:\n {2}lhd/);
  for (const line of help.out.split('\n')) assert.ok(line.length <= 80, line);
  assert.match(lhd('--version').out, /^lhd \d+\.\d+\.\d+\n$/);
});

test('a state directory that cannot work is refused with a hint', (t) => {
  const dir = scratch(t);
  const long = lhd('--state', join(dir, 'x'.repeat(100)));
  assert.equal(long.status, 1);
  assert.match(long.err, /may have 107 bytes.*hint: .*--state/);
  writeFileSync(join(dir, 'file'), '');
  assert.equal(lhd('--state', join(dir, 'file')).status, 1);
});

test('daemon.stop ends it cleanly, and each start is a new generation', async (t) => {
  const d = await Lhd.start(t, scratch(t));
  const { generation, pid, state_dir, database } = await d.call('daemon.info', {});
  assert.deepEqual([generation, pid, state_dir, database], [1, d.process.pid, d.state, d.db]);
  for (const file of [d.db, join(d.state, 'lock')]) assert.equal(statSync(file).mode & 0o077, 0, file);
  assert.equal((await d.call('daemon.stop', {})).state, 'stopping');
  await d.client.closed;
  assert.deepEqual(await d.exited, { code: 0, signal: null });
  assert.ok(!existsSync(d.socket));
  await d.boot();
  assert.equal((await d.call('daemon.info', {})).generation, 2);
  await d.restart();
  assert.equal((await d.call('daemon.info', {})).generation, 3);
  assert.deepEqual(await d.end('SIGINT'), { code: 0, signal: null });
  assert.ok(!/BUG|Sanitizer/.test(d.log()), d.log());
});
