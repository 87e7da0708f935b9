// build.test.mjs: where the CUDA backend cannot be built, make says so in one line and
// builds the rest. Nothing is built here: make only tells what it would do.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// A toolkit of this release under `home`, as far as make asks.
function toolkit(home, { release, blas, cudnn }) {
  for (const d of ['bin', 'lib64', 'include', 'cudnn/include']) mkdirSync(join(home, d), { recursive: true });
  const nvcc = join(home, 'bin/nvcc');
  writeFileSync(nvcc, `#!/bin/sh
if [ "$1" = --version ]; then echo 'Cuda compilation tools, release ${release}, V${release}.1'
else echo '#$ TOP=${home}' >&2; echo '#$ INCLUDES="-I${home}/include"  ' >&2; fi
`);
  chmodSync(nvcc, 0o755);
  if (blas) writeFileSync(join(home, 'lib64/libcublasLt.so'), '');
  for (const [dir, major] of Object.entries(cudnn)) {
    writeFileSync(join(home, dir, 'cudnn.h'), '');
    writeFileSync(join(home, dir, 'cudnn_version.h'), `#define CUDNN_MAJOR ${major}\n`);
  }
  return nvcc;
}

// @ in an argument is the toolkit's directory.
function make(t, what, ...args) {
  const home = mkdtempSync(join(tmpdir(), 'lh-build-'));
  t.after(() => rmSync(home, { recursive: true }));
  const nvcc = toolkit(home, { release: '13.0', blas: true, cudnn: {}, ...what });
  const env = { ...process.env, MAKELEVEL: '0', MAKEFLAGS: '' };
  const r = spawnSync('make', ['-n', '-B', `BUILD=${home}/build`, `NVCC=${nvcc}`,
    ...args.map((a) => a.replace('@', home)), 'all'], { encoding: 'utf8', env });
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /lhworker-cpu/);
  const said = r.stdout.split('\n').filter((l) => l.startsWith('lhworker-cuda is left out: '));
  return { said: said.join('\n'), cuda: r.stdout.includes('bin/lhworker-cuda'), text: r.stdout, lines: r.stdout.split('\n') };
}

test('make: nvcc without what else is needed leaves lhworker-cuda out and says why', (t) => {
  const cases = [
    [{ release: '12.4', cudnn: { include: 9 } }, /: nvcc is of CUDA 12: name CUDA 13's in NVCC=FILE$/],
    [{ blas: false, cudnn: { include: 9 } }, /: there is no \S*\/lib64\/libcublasLt.so: install /],
    [{ cudnn: {} }, /: there is no cudnn.h of cuDNN 9: install cuDNN 9 for CUDA 13, or name its directory in CUDNN_HOME=DIR$/],
    [{ cudnn: { include: 8 } }, /: there is no cudnn.h of cuDNN 9: /],
  ];
  for (const [what, why] of cases) {
    // What this machine itself has of cuDNN is not looked at.
    const { said, cuda } = make(t, what, ...(what.cudnn.include ? [] : ['CUDNN_HOME=@/cudnn']));
    assert.match(said, why);
    assert.equal(said.split('\n').length, 1);
    assert.equal(cuda, false);
  }
  const { said } = make(t, {}, 'NVCC=/bin/false');
  assert.match(said, /: '\/bin\/false' does not run: /);
});

test('make: with all of it lhworker-cuda is built, with cuDNN beside CUDA or elsewhere', (t) => {
  for (const [cudnn, args] of [[{ include: 9 }, []], [{ 'cudnn/include': 9 }, ['CUDNN_HOME=@/cudnn']]]) {
    const { said, cuda, text } = make(t, { cudnn }, ...args);
    assert.equal(said, '');
    assert.ok(cuda);
    assert.ok(text.includes(`/${Object.keys(cudnn)[0]} `), 'its header is found');
  }
  const { said, cuda } = make(t, { cudnn: { include: 9 } }, 'NVCC=');
  assert.deepEqual([said, cuda], ['', false]);
});

test('make: what tokenizers need is missed by them alone, and said', (t) => {
  const { text, lines } = make(t, {}, 'NVCC=', 'HF_NPM=', 'HAVE_SENTENCEPIECE=');
  assert.match(lines[0], /^what reads tokenizer.json is left out: it takes npm; 'make deps' installs that$/);
  assert.match(lines[1], /^what reads SentencePiece's .model is left out: it takes libsentencepiece-dev; /);
  assert.ok(!/bin\/lhsentencepiece|lib\/lighthouse/.test(text));
});
