// units.test.mjs: runs every cmocka program, as built and under the sanitizers.
//
// A program under BUILD/tests/DIR/test_NAME is one test here; its own tests are
// printed only when it fails. Each is its own process with a time limit, so a
// hang is a failure and nothing else. Two run at a time: many wait more than they compute,
// and no other file is left when they do.
import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

const LIMIT_MS = 240_000;
const build = resolve(process.env.LH_BUILD ?? 'build');

// Names are taken from the sources, so that a test that was not built is missed.
// What is in tests/gpu is built with the CUDA backend only.
function programs(dir) {
  const cuda = existsSync(join(dir, 'bin/lhworker-cuda'));
  const here = resolve('tests');
  const found = [];
  for (const dir of readdirSync(here, { withFileTypes: true })) {
    if (!dir.isDirectory() || (dir.name === 'gpu' && !cuda)) continue;
    for (const f of readdirSync(join(here, dir.name)).sort())
      if (/^test_.*\.c$/.test(f)) found.push(join(dir.name, f.slice(0, -2)));
  }
  return found;
}

function run(file, args, env) {
  return new Promise((done) => {
    execFile(file, args, { timeout: LIMIT_MS, killSignal: 'SIGKILL', maxBuffer: 64 << 20,
      env: { ...process.env, ...env } }, (error, stdout, stderr) => {
      done({ ok: !error, text: `${error ?? ''}\n${stdout}\n${stderr}` });
    });
  });
}

const SANITIZED = { ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=1', UBSAN_OPTIONS: 'print_stacktrace=1' };

describe('units', { concurrency: 2 }, () => {
  for (const [kind, dir, env] of [['', build, {}], [' (sanitized)', join(build, 'san'), SANITIZED]]) {
    for (const name of programs(dir)) {
      test(`${name}${kind}`, async () => {
        const file = join(dir, 'tests', name);
        assert.ok(existsSync(file), `${file} was not built`);
        const { ok, text } = await run(file, [], { ...env, LH_BUILD: dir });
        assert.ok(ok, text.slice(-8000));
      });
    }
  }

  // What the sanitizers do not see: bytes that were never written. Where hostile
  // input is parsed.
  for (const name of ['jobs/test_jobfile', 'control/test_rpc', 'data/test_shard']) {
    test(`${name} (valgrind)`, async () => {
      const { ok, text } = await run('valgrind', ['-q', '--error-exitcode=9', '--leak-check=full',
        '--errors-for-leak-kinds=definite', join(build, 'tests', name)], {});
      assert.ok(ok, text.slice(-8000));
    });
  }

  test('lighthouse-vectors: selection, outputs and gradients match the reference vectors', async () => {
    const dir = resolve('tests/vectors');
    const files = readdirSync(dir).filter((f) => f.endsWith('.safetensors')).sort();
    assert.equal(files.length, 5);
    const { ok, text } = await run(join(build, 'tests/lighthouse-vectors'), files.map((f) => join(dir, f)), {});
    assert.ok(ok, text);
  });
});
