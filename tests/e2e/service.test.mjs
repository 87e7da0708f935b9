// service.test.mjs: the systemd unit: what it promises, and that lhd takes what it says.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { scratch, bin } from './lib/lhd.mjs';

const unit = readFileSync('daemon/lhd.service', 'utf8');
const value = (key) => {
  const all = unit.split('\n').filter((l) => l.startsWith(`${key}=`)).map((l) => l.slice(key.length + 1));
  assert.equal(all.length, 1, `${key} stands there ${all.length} times`);
  return all[0];
};
const number = (text, pattern) => Number(pattern.exec(text)?.[1]);

test('the unit stops lhd alone, and neither stop nor lack of memory ends the workers', () => {
  assert.equal(value('Type'), 'notify');
  assert.equal(value('KillMode'), 'process');
  assert.equal(value('OOMPolicy'), 'continue');
  assert.equal(value('Restart'), 'on-failure');
  assert.ok(Number(value('WatchdogSec')) > 0);
});

test('the time that a save may take, and all that comes after it, fits into the time to stop', () => {
  const graceMs = number(value('ExecStart'), / --stop-grace-ms (\d+)( |$)/);
  const main = readFileSync('daemon/main.c', 'utf8'), jobs = readFileSync('daemon/jobs/jobs.c', 'utf8');
  const afterMs = number(main, /KILL_GRACE_MS (\d+)/) + number(jobs, /DRAIN_SLACK_MS = (\d+)/) +
    number(readFileSync('daemon/store/store_int.h', 'utf8'), /LH_STORE_CLOSE_GRACE_MS = (\d+)/);
  assert.ok(graceMs >= 600_000, `${graceMs} ms are less than a large checkpoint takes`);
  assert.ok(graceMs + afterMs < 1000 * Number(value('TimeoutStopSec')), `${graceMs} + ${afterMs} ms are too long`);
});

test('lhd and lhctl take the options of the unit', () => {
  for (const line of [value('ExecStart'), value('ExecReload')]) {
    const [program, ...args] = line.split(' ');
    assert.match(program, /^@PREFIX@\/bin\/(lhd|lhctl)$/);
    const r = spawnSync(bin(program.slice('@PREFIX@/bin/'.length)), [...args, '-h'], { encoding: 'utf8', timeout: 20_000 });
    assert.equal(r.status, 0, r.stderr);
    assert.match(r.stdout, /^usage: /);
  }
});

const systemd = spawnSync('systemd-analyze', ['--version']);
test('systemd finds nothing wrong with it', { skip: systemd.error && 'there is no systemd-analyze' }, (t) => {
  const file = join(scratch(t), 'lhd.service');
  writeFileSync(file, unit.replaceAll('@PREFIX@/bin', dirname(bin('lhd'))));
  const r = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8', timeout: 60_000 });
  assert.equal(r.status, 0, r.stderr);
  assert.ok(!r.stderr.includes('lhd.service'), r.stderr);
});
