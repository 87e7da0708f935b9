// monitoring.test.mjs: the alerts fire when they should and not else, and alerts and
// dashboard ask for nothing that lhd does not tell.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const build = resolve(process.env.LH_BUILD ?? 'build'), dir = 'web/monitoring';
const promtool = [join(build, 'promtool'), join(dirname(build), 'promtool'), '/usr/bin/promtool'].find(existsSync);
const skip = promtool ? false : "there is no promtool: 'make deps-promtool' fetches it";
const read = (name) => readFileSync(join(dir, name), 'utf8');
const names = (text) => [...new Set(text.match(/\blighthouse_[a-z0-9_]+/g))].sort();
const told = new Set(names(readFileSync('daemon/http/prom.c', 'utf8')));
const run = (...args) => spawnSync(promtool, args, { encoding: 'utf8' });

test('the alerts are rules, and hold in their cases', { skip }, () => {
  for (const args of [['check', 'rules', 'lighthouse.rules.yml'], ['test', 'rules', 'lighthouse.test.yml'], ['check', 'config', '--syntax-only', 'prometheus.yml']]) {
    const r = spawnSync(promtool, args, { encoding: 'utf8', cwd: dir });
    assert.equal(r.status, 0, `${args.join(' ')}: ${r.stdout}${r.stderr}`);
  }
});

test('every alert has a case in which it fires', () => {
  const alerts = [...read('lighthouse.rules.yml').matchAll(/- alert: (\w+)/g)].map((m) => m[1]);
  const fired = [...read('lighthouse.test.yml').matchAll(/alertname: (\w+)\n\s+exp_alerts:/g)].map((m) => m[1]);
  assert.ok(alerts.length > 8);
  assert.deepEqual([...new Set(fired)].sort(), alerts.sort());
});

test('alerts and dashboard ask for what lhd tells', () => {
  assert.ok(told.size > 25);
  for (const name of names(read('lighthouse.rules.yml'))) assert.ok(told.has(name), `alerts: ${name}`);
  for (const name of names(read('lighthouse.test.yml'))) assert.ok(told.has(name), `cases: ${name}`);
  for (const name of names(read('grafana.json')).filter((n) => n !== 'lighthouse')) assert.ok(told.has(name), `dashboard: ${name}`);
});

test('the dashboard is one: panels do not overlap, and every expression is one', () => {
  const board = JSON.parse(read('grafana.json'));
  const ids = board.panels.map((p) => p.id), cells = new Map();
  assert.equal(new Set(ids).size, ids.length);
  for (const { title, gridPos: { x, y, w, h } } of board.panels) {
    assert.ok(title && x >= 0 && x + w <= 24, title);
    for (let i = x; i < x + w; i++) for (let k = y; k < y + h; k++) {
      assert.ok(!cells.has(`${i},${k}`), `${title} lies over ${cells.get(`${i},${k}`)}`);
      cells.set(`${i},${k}`, title);
    }
  }
  const variables = new Set(board.templating.list.map((v) => v.name));
  const targets = board.panels.flatMap((p) => p.targets ?? []);
  assert.ok(targets.length > 20);
  for (const { expr } of targets) for (const [, name] of expr.matchAll(/\$(\w+)/g)) assert.ok(variables.has(name), expr);
  if (!promtool) return;
  // promtool reads expressions in rules alone.
  const scratch = mkdtempSync(join(tmpdir(), 'lh-'));
  try {
    const rules = targets.map(({ expr }, i) => ({ record: `x:${i}`, expr }));
    writeFileSync(join(scratch, 'rules.yml'), JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    const r = run('check', 'rules', join(scratch, 'rules.yml'));
    assert.equal(r.status, 0, r.stdout + r.stderr);
  } finally {
    rmSync(scratch, { recursive: true });
  }
});
