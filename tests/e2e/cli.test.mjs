// cli.test.mjs: lhctl without a daemon: help, usage, and packing text.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bin, scratch } from './lib/lhd.mjs';

const lhctl = (args, more = {}) => spawnSync(bin('lhctl'), args, { encoding: 'utf8', timeout: 30_000, ...more });
const commands = lhctl(['-h']).stdout.split('\n').map((l) => /^ {2}([a-z]+) +[A-Z]/.exec(l)?.[1]).filter(Boolean);

test('every subcommand has help that ends in examples', () => {
  for (const name of ['pack', 'submit', 'ls', 'show', 'watch', 'switch', 'pause', 'resume', 'cancel', 'wait', 'sample'])
    assert.ok(commands.includes(name), `${name} is not listed`);
  for (const name of commands) {
    const r = lhctl([name, '-h']);
    assert.equal(r.status, 0, name);
    assert.match(r.stdout, /examples:\n( {2}\S.*\n)+$/, name);
    assert.match(r.stdout, /exit status/, name);
    assert.equal(lhctl(['help', name]).stdout, r.stdout);
  }
});

test('help job lists every key of the schema', () => {
  const text = lhctl(['help', 'job']).stdout;
  const schema = JSON.parse(readFileSync('schema/job.json'));
  for (const { key } of [...schema.job, ...schema.phase, ...schema.rule]) assert.ok(text.includes(key), key);
});

test('bad usage exits with 2 and a hint', () => {
  for (const args of [[], ['expode'], ['show'], ['ls', 'x'], ['ls', '--nonsense'], ['wait', '1', '--for', 'luck'],
    ['sample', '1', '--tokens'], ['metrics', '1', '--kind', 'all'],
    ['metrics', '1', '--points', '5', '--all-attempts'], ['metrics', '1', '--points', '0'], ['metrics', '1', '--csv', '--json'], ['logs', '1', '-n', '-1'],
    ['wait', '1', '--for', 'loss<'], ['wait', '1', '--for', 'loss=2'], ['wait', '1', '--for', 'val_loss<x'], ['events', '--since', 'soon'], ['journal', '--uid', 'me'], ['journal', '--since', '5'], ['pack', 'x'], ['pack', '-o', 'x', '--validation', '2', 'y'], ['ls', '--json=1']]) {
    const r = lhctl(args);
    assert.equal(r.status, 2, args.join(' '));
    assert.ok(r.stderr.length > 10, args.join(' '));
  }
  assert.match(lhctl(['swich', '1']).stderr, /did you mean 'switch'/);
});

test('without a daemon every command that needs one exits with 3 and says how to start it', (t) => {
  const dir = scratch(t);
  for (const args of [['ls'], ['show', '1'], ['checkpoints', '1'], ['metrics', '1'], ['logs', '1'], ['events', '-f'], ['journal'], ['watch', '1'], ['switch', '1'], ['wait', '1'], ['sample', '1'], ['info'], ['stop']]) {
    const r = lhctl(['--state', dir, ...args]);
    assert.equal(r.status, 3, args.join(' '));
    assert.match(r.stderr, /hint: start it: lhd --state/);
  }
});

test('estimate: bytes that add up and times, without daemon, GPU or data', (t) => {
  const file = join(scratch(t), 'job.yaml');
  writeFileSync(file, `name: big
model: { preset: llama-268m }
data: { train: none/here/*.lhs, tokenizer: none, seq_len: 98304 }
batch: { sequences: 1 }
optimizer: { lr: 1e-3 }
phases:
  - { name: light, attention: lighthouse, dense_layers: [0, 1, -2, -1], until: { steps: 10 } }
  - { name: recovery, attention: full, until: { steps: 10 } }
`);
  const estimate = (...args) => {
    const r = lhctl(['estimate', file, '--json', ...args]);
    assert.equal(r.status, 0, r.stderr);
    return JSON.parse(r.stdout);
  };
  let before;
  for (const recompute of ['none', 'cheap', 'mlp', 'layer']) {
    const e = estimate('--set', `recompute=${recompute}`);
    assert.deepEqual(e.phases.map((p) => p.name), ['light', 'recovery']);
    for (const [i, p] of e.phases.entries()) {
      const { total, ...parts } = p.bytes;
      assert.equal(p.recompute, recompute);
      assert.equal(total, Object.values(parts).reduce((a, b) => a + b));
      if (before) assert.ok(total < before[i].bytes.total && p.step_s > before[i].step_s, `${recompute} ${p.name}`);
    }
    assert.ok(e.phases[0].step_s < e.phases[1].step_s / 3);
    before = e.phases;
  }
  // auto takes the least that fits, each phase for itself.
  assert.deepEqual(estimate('--memory', '70').phases.map((p) => p.recompute), ['none', 'cheap']);
  const r = lhctl(['estimate', file, '--memory', '17']);
  assert.equal(r.status, 1);
  assert.match(r.stderr, /phase 'recovery'.*GiB are needed with recompute: layer[\s\S]*hint: /);
  assert.match(lhctl(['estimate', file]).stdout, /phase 'light': recompute none.*tokens\/s/);
  assert.equal(lhctl(['estimate', file, '--gpu', 'b300']).status, 2);
  // The scorer's own attention is paid for.
  const light = (scorer) => estimate('--set', `phases.0.scorer=${scorer}`).phases[0];
  assert.ok(light('dilated').step_s > light('norm').step_s * 1.3);
  assert.ok(light('dilated').bytes.total > light('norm').bytes.total);
});

test('estimate: a job on the CPU has no times and the machine\'s memory', (t) => {
  const file = join(scratch(t), 'job.yaml');
  writeFileSync(file, `name: small
device: cpu
model: { preset: demo, head_dim: 20 }
data: { train: none/here/*.lhs, tokenizer: none, seq_len: 512 }
batch: { sequences: 1 }
optimizer: { lr: 1e-3 }
phases: [{ name: only, attention: full, until: { steps: 10 } }]
`);
  const r = lhctl(['estimate', file]);
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /^'small' on the CPU: .* GiB at most\nphase 'only': recompute none, [0-9.]+ GiB\n/);
  const e = JSON.parse(lhctl(['estimate', file, '--json']).stdout).phases[0];
  assert.deepEqual([e.step_s, e.tokens_per_s, e.bytes.device], [null, null, 0]);
  assert.match(lhctl(['estimate', file, '--memory', '0.01']).stderr, /the device has 0.01[\s\S]*hint: /);
  assert.equal(lhctl(['estimate', file, '--gpu', 'h100']).status, 2);
  // Its width is not for a GPU, which needs no GPU to be known.
  const gpu = lhctl(['estimate', file, '--set', 'device=cuda']);
  assert.equal(gpu.status, 1);
  assert.match(gpu.stderr, /head_dim is 20, a GPU takes multiples of 8 from 32 to 256\nhint: /);
});

test('estimate: what deterministic costs, and that a head too long for it is refused with numbers', (t) => {
  const file = join(scratch(t), 'job.yaml');
  writeFileSync(file, `name: exact
deterministic: true
model: { preset: llama-530m }
data: { train: none/here/*.lhs, tokenizer: none, seq_len: 98304 }
batch: { sequences: 1 }
optimizer: { lr: 1e-3 }
phases:
  - { name: light, attention: lighthouse, until: { steps: 10 } }
  - { name: recovery, attention: full, until: { steps: 10 } }
`);
  const estimate = (...args) => JSON.parse(lhctl(['estimate', file, '--json', '--set', 'recompute=cheap', '--gpu', 'h200', ...args]).stdout).phases;
  const on = estimate(), off = estimate('--set', 'deterministic=false');
  for (const i of [0, 1]) {
    assert.equal(on[i].bytes.total - on[i].deterministic_bytes, off[i].bytes.total);
    assert.ok(Math.abs(on[i].step_s - on[i].deterministic_s - off[i].step_s) < 1e-6);
    assert.ok(on[i].deterministic_bytes > 0 && on[i].deterministic_s > 0);
    assert.deepEqual([off[i].deterministic_bytes, off[i].deterministic_s], [0, 0]);
  }
  // One head's square of 98,304 queries and keys, less the float32 dq of all heads.
  assert.ok(Math.abs(on[1].deterministic_bytes / 2 ** 30 - 17.6) < 0.1);
  assert.match(lhctl(['estimate', file]).stdout, /deterministic: 17\.\d+ GiB, [\d.]+ s a step/);
  const r = lhctl(['estimate', file, '--set', 'data.seq_len=524288', '--set', 'phases.0.topk=4096']);
  assert.equal(r.status, 1);
  assert.match(r.stderr, /phase 'recovery': deterministic: true takes 50\d\.\d+ GiB: .* the device has 78\.\d+[\s\S]*hint: .*deterministic: false/);
});

test('estimate: the same job on more devices, with what they hand each other', (t) => {
  const file = join(scratch(t), 'job.yaml');
  writeFileSync(file, `name: wide
device: cuda
model: { preset: llama-530m }
data: { train: none/here/*.lhs, tokenizer: none, seq_len: 98304 }
batch: { sequences: 24, micro_sequences: 1 }
recompute: cheap
optimizer: { lr: 1e-3 }
phases:
  - { name: light, attention: lighthouse, until: { steps: 10 } }
  - { name: recovery, attention: full, until: { steps: 10 } }
`);
  const scale = (...args) => JSON.parse(lhctl(['estimate', file, '--json', '--devices', '24', ...args]).stdout);
  const rows = scale(), fast = scale('--network', '400'), apart = scale('--host', '1');
  assert.deepEqual(rows.map((r) => r.devices), [1, 2, 4, 8, 24]); // 16 do not divide 24
  for (const phase of [0, 1]) {
    const of = (all) => all.map((r) => r.phases[phase]);
    for (const [i, p] of of(rows).entries()) {
      assert.ok(rows[i].fits && Math.abs(p.tokens_per_s * p.step_s - 24 * 98304) < 1);
      assert.ok(i === 0 ? p.exchange_s === 0 : p.exchange_s > of(rows)[i - 1].exchange_s);
      assert.ok(i === 0 || p.bytes < of(rows)[i - 1].bytes, 'a smaller share of the moments');
    }
    // Within a host the network does not matter; beyond it, it does.
    assert.equal(of(fast)[3].exchange_s, of(rows)[3].exchange_s);
    assert.ok(of(fast)[4].exchange_s < of(rows)[4].exchange_s / 3);
    assert.ok(of(apart)[1].exchange_s > of(rows)[1].exchange_s * 3);
    // What a job of as many devices says itself.
    const one = JSON.parse(lhctl(['estimate', file, '--json', '--set', 'devices=8']).stdout).phases[phase];
    assert.deepEqual([one.step_s, one.exchange_s], [of(rows)[3].step_s, of(rows)[3].exchange_s]);
  }
  // Two that share a sequence have half of it each, and hand each other more.
  const shared = scale('--set', 'devices=2', '--set', 'context=2');
  assert.deepEqual(shared.map((r) => r.devices), [2, 4, 8, 16, 24]);
  for (const phase of [0, 1]) {
    const [one, two] = [rows[1].phases[phase], shared[0].phases[phase]];
    assert.ok(two.bytes < one.bytes);
    assert.ok(two.exchange_s > one.exchange_s);
    assert.ok(Math.abs(two.step_s - two.exchange_s - one.step_s + one.exchange_s) < 0.03 * one.step_s);
  }
  assert.match(lhctl(['estimate', file, '--set', 'devices=4', '--set', 'context=2']).stdout, /on each of 4 devices, 2 of which share a sequence/);
  assert.deepEqual(scale('--memory', '6').map((r) => [r.fits, r.phases]), rows.map(() => [false, []]));
  const r = lhctl(['estimate', file, '--devices', '16']);
  assert.match(r.stdout, /^light\t1\t[\d.]+\t[\d.]+\t0\t\d+\t1.000\n[^]*recovery\t8\t[^\n]*\n$/);
  assert.match(r.stderr, /hint: 16 devices cannot divide batch.sequences: 24/);
  assert.match(lhctl(['estimate', file, '--set', 'devices=2']).stdout, /devices hand each other: 0\.00\d+ s/);
  assert.equal(lhctl(['estimate', file, '--devices', '2', '--set', 'device=cpu']).status, 2);
});

test('verify: what is no checkpoint is refused with a hint', (t) => {
  const dir = scratch(t);
  for (const [at, why] of [['none', /there is no checkpoint/], ['', /manifest\.json/]]) {
    const r = lhctl(['verify', join(dir, at)]);
    assert.equal(r.status, 1);
    assert.match(r.stderr, why);
    assert.match(r.stderr, /^hint: /m);
  }
  writeFileSync(join(dir, 'manifest.json'), '{"format":"lighthouse-checkpoint","version":9}');
  const r = lhctl(['verify', '--json', dir]);
  assert.equal(r.status, 1);
  assert.equal(JSON.parse(r.stdout).ok, false);
  assert.match(r.stderr, /format version 9[\s\S]*hint: /);
});

/** Ids of a shard. */
function ids(path) {
  const b = readFileSync(path);
  assert.equal(b.subarray(0, 8).toString(), 'LHTOKENS');
  assert.equal(b.readBigUInt64LE(16), BigInt((b.length - 64) / 2));
  return Array.from({ length: (b.length - 64) / 2 }, (_, i) => b.readUInt16LE(64 + 2 * i));
}

test('pack: bytes with a separator after each document, in sorted order, always the same', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'in/sub'), { recursive: true });
  writeFileSync(join(dir, 'in/b.txt'), 'bee');
  writeFileSync(join(dir, 'in/a.txt'), 'a\xc3');
  writeFileSync(join(dir, 'in/sub/c.md'), 'sea');
  writeFileSync(join(dir, 'in/binary.txt'), Buffer.from([65, 0, 66]));
  writeFileSync(join(dir, 'in/other.dat'), 'not wanted');
  const pack = (out) => lhctl(['pack', '-o', join(dir, out), '--validation', '0', '--ext', '.txt,.md', '--json', join(dir, 'in')]);
  const r = JSON.parse(pack('one').stdout);
  assert.equal(r.train_documents, 3);
  assert.equal(r.binary_files, 1);
  const bytes = (s) => [...Buffer.from(s)];
  assert.deepEqual(ids(join(dir, 'one.train.bin')), [...bytes('a\xc3'), 256, ...bytes('bee'), 256, ...bytes('sea'), 256]);
  pack('two');
  assert.deepEqual(readFileSync(join(dir, 'one.train.bin')), readFileSync(join(dir, 'two.train.bin')));
  assert.deepEqual(readdirSync(dir).filter((f) => f.includes('val') || f.endsWith('.tmp')), []);
});

test('pack: lines of JSON are documents; a line without the field is refused', (t) => {
  const dir = scratch(t);
  writeFileSync(join(dir, 'd.jsonl'), '{"text":"one"}\n\n{"text":"t\\u00e9"}\n');
  assert.equal(lhctl(['pack', '-o', join(dir, 'o'), '--validation', '0', join(dir, 'd.jsonl')]).status, 0);
  assert.deepEqual(ids(join(dir, 'o.train.bin')), [...Buffer.from('one'), 256, ...Buffer.from('té'), 256]);
  writeFileSync(join(dir, 'd.jsonl'), '{"text":"one"}\n{"body":"two"}\n');
  const r = lhctl(['pack', '-o', join(dir, 'p'), join(dir, 'd.jsonl')]);
  assert.equal(r.status, 1);
  assert.match(r.stderr, /line 2/);
  assert.match(r.stderr, /hint: --field/);
  assert.deepEqual(readdirSync(dir).filter((f) => f.startsWith('p.')), [], 'something was left behind');
});

test('pack: nothing to pack, and a path that is not there, are refused', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'empty'));
  assert.match(lhctl(['pack', '-o', join(dir, 'o'), join(dir, 'empty')]).stderr, /no text was found[\s\S]*hint: /);
  assert.match(lhctl(['pack', '-o', join(dir, 'o'), join(dir, 'none')]).stderr, /none[\s\S]*hint: /);
  assert.match(lhctl(['pack', '-o', '/nowhere/o', dir]).stderr, /nowhere/);
});

test('pack --stats: the byte models know what they were counted on', (t) => {
  const dir = scratch(t);
  for (let i = 0; i < 200; i++) writeFileSync(join(dir, `f${i}.txt`), `${i} ` + 'ab'.repeat(200));
  const r = JSON.parse(lhctl(['pack', '-o', join(dir, 'o'), '--validation', '0.2', '--ext', '.txt', '--stats', '--json', dir]).stdout);
  assert.ok(r.validation_documents > 10 && r.validation_documents < 80);
  // Two letters, each half of the time: ln 2 alone, almost nothing in context.
  assert.ok(Math.abs(r.nats.unigram - Math.log(2)) < 0.1, `${r.nats.unigram}`);
  assert.ok(r.nats.bigram < 0.1 && r.nats.trigram < 0.1, JSON.stringify(r.nats));
});
