// tokenizer.test.mjs: text by tokenizers of others: the ids that upstream gives, whatever
// the threads and however often it was cut short; and files that are no tokenizers.
// tests/tokenizers/make.mjs tells what the tokenizers and the kept ids are.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { atEnd, bin, scratch, until } from './lib/lhd.mjs';

const home = resolve('tests/tokenizers');
const file = (family) => join(home, family, family === 'sentencepiece' ? 'tokenizer.model' : 'tokenizer.json');
const families = ['gpt2', 'llama3', 'qwen', 'sentencepiece'];
const corners = readFileSync(join(home, 'corners.txt'));
const upstream = JSON.parse(readFileSync(join(home, 'ids.json')));

const pack = (dir, out, args, input, env = {}) => spawnSync(bin('lhctl'), ['pack', '-o', out, ...args], { cwd: dir, encoding: 'utf8', input, env: { ...process.env, ...env } });

/** Ids of a shard, and what its header says. */
function shard(path) {
  const data = readFileSync(path), width = data.readUInt32LE(12);
  const ids = new (width === 2 ? Uint16Array : Uint32Array)(data.buffer.slice(data.byteOffset + 64, data.byteOffset + data.length));
  return { width, vocab: data.readUInt32LE(24), separator: data.readUInt32LE(32), documents: Number(data.readBigUInt64LE(48)), ids: [...ids] };
}

function packed(dir, out, args, input) {
  const r = pack(dir, out, args, input);
  assert.equal(r.status, 0, r.stderr);
  return ['train', 'val'].map((s) => join(dir, `${out}.${s}.bin`)).map((f) => (existsSync(f) ? readFileSync(f) : null));
}

/** Nothing is written, within a minute. */
function refused(dir, tokenizer, why, { args = [], input = 'some text', env } = {}) {
  const start = Date.now();
  const r = pack(dir, 'bad', ['--validation', '0', '--tokenizer', tokenizer, ...args, '-'], input, env);
  assert.equal(r.status, 1, r.stderr);
  assert.match(r.stderr, why);
  assert.match(r.stderr, /\nhint: /);
  assert.ok(Date.now() - start < 60_000);
  assert.deepEqual(readdirSync(dir).filter((f) => f.startsWith('bad.')), []);
}

const words = (i, n) => Array.from({ length: n }, (_, k) => `wörd${(i * 7919 + k * 104729) % 997}${k % 9 ? '' : '\n'}`).join(' ');
const lines = (from, count, n) => Array.from({ length: count }, (_, i) => JSON.stringify({ text: `${from + i} ${words(from + i, n)} \u{1f6a2}` })).join('\n') + '\n';

for (const family of families) {
  test(`${family}: ids are those of upstream, at every corner of Unicode`, (t) => {
    const dir = scratch(t);
    packed(dir, 'o', ['--validation', '0', '--tokenizer', file(family), '-'], corners);
    const s = shard(join(dir, 'o.train.bin'));
    const eos = { gpt2: 756, llama3: 757, qwen: 756, sentencepiece: 2 }[family];
    assert.deepEqual({ ...s, ids: 0 }, { width: 2, vocab: { gpt2: 757, llama3: 758, qwen: 759, sentencepiece: 800 }[family], separator: eos, documents: 1, ids: 0 });
    assert.deepEqual(s.ids, [...upstream[family], eos]);
  });
}

test('documents are encoded one by one, with a separator of one\'s own', (t) => {
  const dir = scratch(t), text = ['one', ' two', '', 'three\u0301'];
  const input = text.map((s) => JSON.stringify({ text: s })).join('\n');
  for (const [separator, id] of [['<|im_start|>', 757], ['0', 0]]) {
    packed(dir, 'o', ['--validation', '0', '--jsonl', '--tokenizer', file('qwen'), '--separator', separator, '-'], input);
    const s = shard(join(dir, 'o.train.bin')), alone = [];
    for (const [i, document] of text.filter(Boolean).entries()) {
      packed(dir, `a${i}`, ['--validation', '0', '--tokenizer', file('qwen'), '--separator', separator, '-'], document);
      alone.push(...shard(join(dir, `a${i}.train.bin`)).ids);
    }
    assert.deepEqual(s.ids, alone);
    assert.equal(s.separator, id);
    assert.equal(s.documents, 3);
  }
  const r = pack(dir, 'o', ['--tokenizer', file('qwen'), '--separator', '<none>', '-'], input);
  assert.match(r.stderr, /has no token '<none>'\nhint: /);
  assert.match(pack(dir, 'o', ['--tokenizer', file('qwen'), '--separator', '759', '-'], input).stderr, /759 is no id of .*\nhint: ids are from 0 to 758/);
  copyFileSync(file('gpt2'), join(dir, 'alone.json'));
  refused(dir, 'alone.json', /which token ends a text is not told/);
});

test('ids beyond 65,535 take four bytes', (t) => {
  const dir = scratch(t), tokenizer = JSON.parse(readFileSync(file('gpt2')));
  tokenizer.added_tokens[0].id = tokenizer.model.vocab['<far>'] = 70_000;
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify(tokenizer));
  packed(dir, 'o', ['--validation', '0', '--tokenizer', 'tokenizer.json', '--separator', '<far>', '-'], 'a<far>b');
  const s = shard(join(dir, 'o.train.bin'));
  assert.equal(s.width, 4);
  assert.equal(s.vocab, 70_001);
  assert.equal(s.ids.at(-1), 70_000);
});

test('the number of threads changes nothing', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  for (let i = 0; i < 30; i++) writeFileSync(join(dir, 'in', `t${i}.txt`), words(i, 300 * i));
  writeFileSync(join(dir, 'in', 'm.jsonl'), lines(0, 9000, 40));
  const args = ['--tokenizer', file('sentencepiece'), 'in'];
  const want = packed(dir, 'one', ['--threads', '1', ...args]);
  assert.ok(want[0] && want[1]);
  assert.deepEqual(packed(dir, 'four', ['--threads', '4', ...args]), want);
  const cut = ['--max-bytes', '1000001', '--tokenizer', file('gpt2'), 'in'];
  assert.deepEqual(packed(dir, 'a', ['--threads', '1', ...cut]), packed(dir, 'b', ['--threads', '4', ...cut]));
});

test('one that was killed goes on, and comes out the same', async (t) => {
  const dir = scratch(t), args = ['--threads', '1', '--save-every', '1', '--tokenizer', file('gpt2'), 'in'];
  mkdirSync(join(dir, 'in'));
  for (let i = 0; i < 4; i++) writeFileSync(join(dir, 'in', `${i}.jsonl`), lines(i, 4500, 40)); // two chunks
  const child = spawn(bin('lhctl'), ['pack', '-o', 'o', ...args], { cwd: dir, stdio: 'ignore' });
  const gone = new Promise((r) => child.once('exit', r));
  atEnd(t, () => child.kill('SIGKILL'));
  await until('a place was noted', () => existsSync(join(dir, 'o.pack')) || child.exitCode !== null);
  child.kill('SIGKILL');
  await gone;
  const r = pack(dir, 'o', args);
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stderr, /going on behind/);
  assert.deepEqual(['train', 'val'].map((s) => readFileSync(join(dir, `o.${s}.bin`))), packed(dir, 'whole', ['--tokenizer', file('gpt2'), 'in']));
});

test('the library of tokenizer.json has the allocator that was built in, and all else of the environment', async (t) => {
  const dir = scratch(t), child = spawn(bin('lhctl'), ['pack', '-o', 'o', '--threads', '1', '--jsonl', '--tokenizer', file('gpt2'), '-'],
    { cwd: dir, stdio: ['pipe', 'ignore', 'ignore'], env: { ...process.env, LH_MARK: 'kept' } });
  atEnd(t, () => child.kill('SIGKILL'));
  child.stdin.write(lines(0, 20_000, 40)); // chunks enough, and no end
  const ids = () => readdirSync(`/proc/${child.pid}/task`).flatMap((id) => readFileSync(`/proc/${child.pid}/task/${id}/children`, 'utf8').split(' ').filter(Boolean));
  const at = (name) => ids().map((id) => readFileSync(`/proc/${id}/${name}`, 'utf8')).join('');
  await until('node has loaded it', () => at('maps').includes('tokenizers.linux'));
  const allocator = resolve(bin('lhctl'), '../../lib/lighthouse/hf/libmimalloc.so');
  assert.equal(at('maps').includes(allocator), existsSync(allocator));
  assert.ok(at('environ').split('\0').includes('LH_MARK=kept'));
  child.stdin.destroy();
});

test('files that are no tokenizers are refused, and nothing is written', (t) => {
  const dir = scratch(t), put = (name, data) => writeFileSync(join(dir, name), data);
  const whole = readFileSync(file('gpt2')), eos = ['--separator', '0'];
  const changed = (change) => {
    const tokenizer = JSON.parse(whole);
    change(tokenizer);
    put('t.json', JSON.stringify(tokenizer));
  };
  refused(dir, 'none.json', /there is no tokenizer 'none.json'/);
  refused(dir, '.', /is a directory\nhint: name the tokenizer.json/);
  put('t.json', whole.subarray(0, whole.length / 2));
  refused(dir, 't.json', /'t.json': is no JSON of a tokenizer/);
  put('t.json', `{"a":${'['.repeat(1 << 20)}`);
  refused(dir, 't.json', /is no JSON/);
  put('t.json', `{"model":{"vocab":{"a":0}},"x":${'['.repeat(1000)}${']'.repeat(1000)}}`);
  refused(dir, 't.json', /the tokenizer says: /, { args: eos });
  changed((j) => j.model.merges.push(['never', 'there']));
  refused(dir, 't.json', /the tokenizer says: .*never/, { args: eos });
  changed((j) => { j.model.merges[0] = ['a', 3]; });
  refused(dir, 't.json', /the tokenizer says: /, { args: eos });
  changed((j) => { j.model.type = 'Magic'; });
  refused(dir, 't.json', /the tokenizer says: /, { args: eos });
  // A pattern that would try for ever.
  changed((j) => { j.pre_tokenizer = { type: 'Split', pattern: { Regex: '(a+)+$b' }, behavior: 'Isolated', invert: false }; });
  refused(dir, 't.json', /'stdin': the tokenizer was ended by signal 6: .*retry-limit/, { args: eos, input: 'a'.repeat(100) });
  const model = readFileSync(file('sentencepiece'));
  for (const n of [1, 100, model.length - 3]) {
    put('t.model', model.subarray(0, n));
    refused(dir, 't.model', /'t.model': is no model of SentencePiece/);
  }
  put('t.model', Buffer.concat([Buffer.from([0x0a, 0x03, 0x0a, 0x01, 0x61]), Buffer.from('12020000', 'hex')])); // one piece, no more
  refused(dir, 't.model', /'t.model': the tokenizer (says|ended|was ended)/, { args: eos });
});

// Each of two tokens is made of the other; all there is of both is one another.
test('merges in a circle end', (t) => {
  const dir = scratch(t), tokenizer = JSON.parse(readFileSync(file('gpt2')));
  tokenizer.model.vocab = { a: 0, b: 1, ab: 2, aba: 0, abab: 2 };
  tokenizer.model.merges = [['a', 'b'], ['ab', 'a'], ['ab', 'ab'], ['aba', 'b'], ['abab', 'ab']];
  tokenizer.added_tokens = [];
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify(tokenizer));
  const r = pack(dir, 'o', ['--validation', '0', '--tokenizer', 'tokenizer.json', '--separator', '1', '-'], 'ab'.repeat(100_000));
  assert.ok(r.status === 0 || /hint: /.test(r.stderr), r.stderr);
});

test('what is missing is named', (t) => {
  const dir = scratch(t);
  refused(dir, file('gpt2'), /tokenizer.json needs node, which is not on PATH\nhint: install Debian's nodejs/, { env: { PATH: dir } });
  // A lhctl without what lies beside it.
  mkdirSync(join(dir, 'bin'));
  copyFileSync(bin('lhctl'), join(dir, 'bin', 'lhctl'));
  chmodSync(join(dir, 'bin', 'lhctl'), 0o755);
  for (const [family, what] of [['gpt2', /there is no '.*main.mjs'\nhint: make builds it where npm is/], ['sentencepiece', /there is no '.*lhsentencepiece'\nhint: .*libsentencepiece-dev/]]) {
    const r = spawnSync(join(dir, 'bin', 'lhctl'), ['pack', '-o', 'o', '--tokenizer', file(family), '-'], { cwd: dir, input: 'x', encoding: 'utf8' });
    assert.equal(r.status, 1);
    assert.match(r.stderr, what);
  }
});
