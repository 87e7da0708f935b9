// sanitized.test.mjs: the end-to-end tests again, every program under
// AddressSanitizer and UBSan: no report, no leak, the same results.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';

const build = resolve(process.env.LH_BUILD ?? 'build');

for (const name of ['life', 'socket', 'daemon', 'ctl', 'rules', 'http', 'http_attack', 'devices', 'join']) {
  test(`${name}, sanitized`, () => {
    const env = { ...process.env, LH_BUILD: join(build, 'san'), ASAN_OPTIONS: 'detect_leaks=1' };
    delete env.NODE_TEST_CONTEXT; // a run of its own, not a part of this one
    const r = spawnSync(process.execPath, ['--test', `tests/e2e/${name}.test.mjs`], { env, encoding: 'utf8', timeout: 300_000 });
    assert.equal(r.status, 0, (r.stdout + r.stderr).slice(-8000));
    assert.match(r.stdout, /pass [1-9]/);
  });
}
