// fuzz.test.mjs: every input in the tree once more, as built and under the sanitizers:
// those that reach far, and each that ever showed a defect. `make fuzz` looks for new
// ones.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { corpusOf, scratch, targets } from './fuzz.mjs';

const LIMIT_MS = 240_000, FILES_MAX = 150, BYTES_MAX = 300_000;
const build = resolve(process.env.LH_BUILD ?? 'build'), dir = scratch();

after(() => rmSync(dir, { recursive: true, force: true }));

function replay(where, name, args) {
  const file = join(where, 'tests/fuzz', `fuzz_${name}`);
  assert.ok(existsSync(file), `${file} was not built`);
  const env = { ...process.env, TMPDIR: dir, ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=1', UBSAN_OPTIONS: 'print_stacktrace=1' };
  return new Promise((done) => execFile(file, args, { env, timeout: LIMIT_MS, killSignal: 'SIGKILL', maxBuffer: 64 << 20 },
    (error, stdout, stderr) => done({ code: error ? error.code ?? -1 : 0, stdout, text: `${error ?? ''}\n${stdout}\n${stderr}`.slice(-8000) })));
}

for (const [kind, where] of [['', build], [' (sanitized)', join(build, 'san')]])
  for (const name of targets())
    test(`fuzz_${name}${kind}`, async () => {
      const { code, stdout, text } = await replay(where, name, [corpusOf(name)]);
      assert.equal(code, 0, text);
      assert.equal(stdout, `${readdirSync(corpusOf(name)).length} inputs\n`);
    });

test('every corpus has a target and is small', () => {
  assert.deepEqual(readdirSync('tests/fuzz/corpus').sort(), targets().sort());
  let bytes = 0;
  for (const name of targets()) {
    const files = readdirSync(corpusOf(name));
    assert.ok(files.length <= FILES_MAX, `${name} has ${files.length} inputs`);
    for (const f of files) bytes += statSync(join(corpusOf(name), f)).size;
  }
  assert.ok(bytes <= BYTES_MAX, `${bytes} bytes`);
});

test('no input, or one that cannot be read, is a failure', async () => {
  mkdirSync(join(dir, 'empty'));
  assert.equal((await replay(build, 'frame', [join(dir, 'empty')])).code, 1);
  assert.equal((await replay(build, 'frame', [join(dir, 'missing')])).code, 2);
});
