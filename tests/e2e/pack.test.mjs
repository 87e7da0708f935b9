// pack.test.mjs: `lhctl pack` of files, large and packed ones, by any number of threads;
// hostile ones; and one that was cut short. cli.test.mjs has what documents are.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { join } from 'node:path';
import { atEnd, bin, scratch, until } from './lib/lhd.mjs';
import { onTerminal } from './lib/pty.mjs';

const pack = (dir, out, args, input) => spawnSync(bin('lhctl'), ['pack', '-o', out, ...args], { cwd: dir, encoding: 'utf8', input });

function packed(dir, out, args, input) {
  const r = pack(dir, out, args, input);
  assert.equal(r.status, 0, r.stderr);
  return ['train', 'val'].map((s) => join(dir, `${out}.${s}.bin`)).map((f) => (existsSync(f) ? readFileSync(f) : null));
}

/** Nothing is written, and the reason names the file. */
function refused(dir, args, why, input) {
  const r = pack(dir, 'bad', ['--validation', '0', ...args], input);
  assert.equal(r.status, 1, r.stderr);
  assert.match(r.stderr, why);
  assert.deepEqual(readdirSync(dir).filter((f) => f.startsWith('bad.')), []);
  return r;
}

/** Ids of a shard's documents, as text. */
const texts = (shard) => {
  const ids = new Uint16Array(shard.buffer, shard.byteOffset + 64, (shard.length - 64) / 2);
  const out = [];
  for (let from = 0, to; (to = ids.indexOf(256, from)) >= 0; from = to + 1) out.push(Buffer.from(ids.subarray(from, to)).toString('latin1'));
  return out;
};

/** A zstd frame of stored blocks, or of one byte over and over. */
function zstd(data, { rle = 0 } = {}) {
  const parts = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58])];
  const block = (last, type, size, body) => parts.push(Buffer.from([last | type << 1 | (size & 31) << 3, size >> 5 & 255, size >> 13 & 255]), body);
  for (let i = 0; i < rle; i++) block(i === rle - 1 ? 1 : 0, 1, 131072, data);
  for (let at = 0; !rle && at < data.length; at += 100000) block(at + 100000 >= data.length ? 1 : 0, 0, Math.min(100000, data.length - at), data.subarray(at, at + 100000));
  return Buffer.concat(parts);
}

const vocabulary = Array.from({ length: 9973 }, (_, i) => `word${(i * 104729) % 9973}`).join(' ');
/** n words, for each i others. */
const words = (i, n) => (n > 400 ? vocabulary.repeat(n / 9973 + 1) : vocabulary).slice((i * 7919) % 80000, ((i * 7919) % 80000) + 9 * n);
const lines = (from, count, n) => Array.from({ length: count }, (_, i) => JSON.stringify({ text: `${from + i}\n${words(from + i, n)} \u00e9\u{1f6a2}` })).join('\n');

test('packed files are the same as plain ones, in directories and by stdin', (t) => {
  const dir = scratch(t), jsonl = Buffer.from(lines(0, 3000, 120)), text = Buffer.from(words(5, 20000));
  for (const [name, wrap] of [['plain', (b) => b], ['.gz', (b) => Buffer.concat([gzipSync(b.subarray(0, 1000)), gzipSync(b.subarray(1000))])], ['.zst', zstd]]) {
    const ext = name === 'plain' ? '' : name;
    mkdirSync(join(dir, name));
    writeFileSync(join(dir, name, `a.jsonl${ext}`), wrap(jsonl));
    writeFileSync(join(dir, name, `b.txt${ext}`), wrap(text));
    writeFileSync(join(dir, name, `c.dat${ext}`), wrap(text));
  }
  const want = packed(dir, 'want', ['--ext', '.jsonl,.txt', 'plain']);
  assert.equal(texts(want[0]).length + texts(want[1]).length, 3001);
  for (const name of ['.gz', '.zst']) assert.deepEqual(packed(dir, 'o', ['--ext', '.jsonl,.txt', name]), want);
  assert.deepEqual(packed(dir, 'o', ['--jsonl', '-'], jsonl), packed(dir, 'o2', ['plain/a.jsonl']));
});

test('the number of threads changes nothing', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  for (let i = 0; i < 40; i++) writeFileSync(join(dir, 'in', `t${i}.txt`), words(i, 500 * i));
  writeFileSync(join(dir, 'in', 'm.jsonl'), lines(0, 20000, 40) + '\n');
  writeFileSync(join(dir, 'in', 'n.jsonl.gz'), gzipSync(lines(20000, 10000, 40)));
  const want = packed(dir, 'one', ['--threads', '1', 'in']);
  const all = [...texts(want[0]), ...texts(want[1])];
  assert.equal(all.length, 30039); // t0.txt is empty
  assert.equal(new Set(all).size, 30039, 'documents were doubled');
  for (const n of [2, 3, 9]) assert.deepEqual(packed(dir, `t${n}`, ['--threads', String(n), 'in']), want);
  assert.deepEqual(packed(dir, 'a', ['--threads', '1', '--max-bytes', '5000001', 'in']), packed(dir, 'b', ['--threads', '5', '--max-bytes', '5000001', 'in']));
});

test('a bad line is told, the first one whatever the number of threads', (t) => {
  const dir = scratch(t);
  const good = lines(0, 15000, 40);
  writeFileSync(join(dir, 'a.jsonl'), `${good}\n{"text": 3}\n${good}\n{"text": 4}\n`);
  writeFileSync(join(dir, 'b.jsonl.gz'), 'no gzip');
  for (const n of ['1', '6']) refused(dir, ['--threads', n, 'a.jsonl', 'b.jsonl.gz'], /a\.jsonl' line 15001: no text in field 'text'/);
});

test('a text in JSON may hold a NUL', (t) => {
  const dir = scratch(t);
  assert.deepEqual(texts(packed(dir, 'o', ['--validation', '0', '--jsonl', '-'], JSON.stringify({ text: 'a\0b\0' }))[0]), ['a\0b\0']);
});

test('symbolic links in a directory are not followed', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  mkdirSync(join(dir, 'out'));
  writeFileSync(join(dir, 'out', 'secret.txt'), 'secret');
  writeFileSync(join(dir, 'in', 'a.txt'), 'mine');
  symlinkSync('../out/secret.txt', join(dir, 'in', 'b.txt'));
  symlinkSync('../out', join(dir, 'in', 'c'));
  symlinkSync('in', join(dir, 'named'));
  assert.deepEqual(texts(packed(dir, 'o', ['--validation', '0', 'in'])[0]), ['mine']);
  assert.deepEqual(texts(packed(dir, 'o', ['--validation', '0', 'named'])[0]), ['mine']);
});

test('bombs and damaged files are refused', (t) => {
  const dir = scratch(t);
  const put = (name, data) => writeFileSync(join(dir, name), data);
  put('a.txt.gz', gzipSync(Buffer.alloc(100 << 20, 'a')));
  refused(dir, ['a.txt.gz'], /a\.txt\.gz': unpacked it is more than 200 times as large\nhint: /);
  put('b.jsonl.gz', gzipSync(Buffer.alloc(100 << 20, '\n')));
  refused(dir, ['b.jsonl.gz'], /more than 200 times/);
  put('c.jsonl.zst', zstd(Buffer.from('\n'), { rle: 40000 })); // 5 GB in 160 kB
  refused(dir, ['c.jsonl.zst'], /more than 200 times/);
  put('d.txt.zst', zstd(Buffer.from('d'), { rle: 40000 }));
  refused(dir, ['d.txt.zst'], /more than 200 times/);
  const whole = { gz: gzipSync(words(1, 5000)), zst: zstd(Buffer.from(words(1, 50000))) };
  for (const [ext, data] of Object.entries(whole)) {
    put(`e.txt.${ext}`, data.subarray(0, data.length - 5));
    refused(dir, [`e.txt.${ext}`], /e\.txt\.\w+': damaged (gzip|zstd)\nhint: /);
    put(`e.txt.${ext}`, 'only a text');
    refused(dir, [`e.txt.${ext}`], /damaged/);
  }
  put('f.txt.gz', Buffer.from(whole.gz.map((b, i) => (i === whole.gz.length - 6 ? b ^ 1 : b)))); // its checksum
  refused(dir, ['f.txt.gz'], /f\.txt\.gz': damaged gzip/);
  put('g.jsonl', `${'['.repeat(1 << 20)}\n`);
  refused(dir, ['g.jsonl'], /g\.jsonl' line 1: no text/);
  put('h.jsonl.gz', gzipSync(lines(0, 10000, 40)));
  const [shard] = packed(dir, 'h', ['--validation', '0', '--max-bytes', '1000000', 'h.jsonl.gz']);
  assert.equal(texts(shard).join('').length, 1000000);
});

test('a terminal sees how far it is, a pipe does not', async (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  for (const name of ['a', 'b', 'c']) writeFileSync(join(dir, 'in', `${name}.txt`), words(1, 600_000));
  const page = onTerminal(`${bin('lhctl')} pack -o ${join(dir, 'o')} --validation 0 ${join(dir, 'in')}`);
  assert.equal(await page.ended, 0);
  assert.match(page.said, /\[#+\.+\] +(33|67)%  [12] documents, \d+\.\d MB/);
  assert.match(page.said, /o\.train\.bin: 3 documents/);
  assert.equal(pack(dir, 'p', ['--validation', '0', 'in']).stderr, '');
});

test('what was cut short goes on, and comes out the same', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  writeFileSync(join(dir, 'in', 'a.jsonl'), lines(0, 20000, 40));
  writeFileSync(join(dir, 'in', 'b.txt'), words(3, 100000));
  writeFileSync(join(dir, 'in', 'c.jsonl.gz'), gzipSync(lines(9, 15000, 40)));
  writeFileSync(join(dir, 'in', 'd.txt.gz'), 'not yet');
  const args = ['--save-every', '1', 'in'];
  const cut = pack(dir, 'o', args);
  assert.equal(cut.status, 1);
  assert.match(cut.stderr, /the same command goes on behind [\d.]+ MB/);
  assert.ok(existsSync(join(dir, 'o.pack')) && !existsSync(join(dir, 'o.train.bin')));
  writeFileSync(join(dir, 'in', 'd.txt.gz'), gzipSync('at last'));
  const r = pack(dir, 'o', args);
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stderr, /going on behind (\d+)/);
  assert.ok(Number(/behind (\d+)/.exec(r.stderr)[1]) > 8, r.stderr);
  const have = ['train', 'val'].map((s) => readFileSync(join(dir, `o.${s}.bin`)));
  assert.deepEqual(have, packed(dir, 'whole', ['in']));
  assert.deepEqual(readdirSync(dir).filter((f) => /tmp|pack$/.test(f)), []);
});

test('other files or another command start over', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  const write = (from) => writeFileSync(join(dir, 'in', 'a.jsonl'), lines(from, 15000, 40));
  const spoil = () => writeFileSync(join(dir, 'in', 'd.txt.gz'), 'not yet');
  const args = ['--save-every', '1', 'in'];
  for (const [change, again] of [[() => write(1), args], [() => {}, ['--validation', '0.3', ...args]]]) {
    write(0);
    spoil();
    assert.equal(pack(dir, 'o', args).status, 1);
    writeFileSync(join(dir, 'in', 'd.txt.gz'), gzipSync('at last'));
    change();
    const r = pack(dir, 'o', again);
    assert.equal(r.status, 0, r.stderr);
    assert.doesNotMatch(r.stderr, /going on/);
    assert.deepEqual(['train', 'val'].map((s) => readFileSync(join(dir, `o.${s}.bin`))), packed(dir, 'whole', again));
  }
});

test('one that was killed goes on', async (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in'));
  const data = lines(0, 15000, 40);
  for (let i = 0; i < 8; i++) writeFileSync(join(dir, 'in', `${i}.jsonl`), data);
  const child = spawn(bin('lhctl'), ['pack', '-o', 'o', '--save-every', '1', 'in'], { cwd: dir, stdio: 'ignore' });
  const gone = new Promise((r) => child.once('exit', r));
  atEnd(t, () => child.kill('SIGKILL'));
  await until('a place was noted', () => existsSync(join(dir, 'o.pack')) || child.exitCode !== null);
  child.kill('SIGKILL');
  await gone;
  const r = pack(dir, 'o', ['--save-every', '1', 'in']);
  assert.equal(r.status, 0, r.stderr);
  assert.deepEqual(['train', 'val'].map((s) => readFileSync(join(dir, `o.${s}.bin`))), packed(dir, 'whole', ['in']));
});
