// import.mjs: how near `lhctl import`, and the start of a job from what it wrote, are to
// the disk: a sharded Llama checkpoint in bf16 is read from a cold cache, beside `dd`, which
// reads the same files, and copies them.
//
//   node tests/bench/import.mjs [--gb 2 | --llama-8b] [--load-gb 0.5] [--rounds 3] [--dir DIR]
//
// DIR is on the disk to be measured (the current one), and gets some three times --gb for a
// while. With --llama-8b it is of Llama 3's 8 B parameters, 16 GB in files of 5 GB as Hugging
// Face has them, and the start of a job is left out, which holds them in memory.
// Target: both >= 0.7 of what dd reads, with less than 2 GB of memory beyond the model; import
// writes as much as it reads, so that a disk which writes slower bounds it, as it does dd's
// copy.
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { randomFillSync } from 'node:crypto';

const { values } = parseArgs({ options: { gb: { type: 'string', default: '2' }, 'llama-8b': { type: 'boolean', default: false }, 'load-gb': { type: 'string', default: '0.5' }, rounds: { type: 'string', default: '3' }, dir: { type: 'string', default: '.' } } });
const build = resolve(process.env.LH_BUILD ?? 'build'), lhctl = join(build, 'bin', 'lhctl'), bench = join(build, 'bench', 'bench_load');
const dir = mkdtempSync(join(resolve(values.dir), 'lh-bench-'));

// ---- a checkpoint ----

const SMALL = { C: 2048, F: 5632, KV: 512, V: 32000, tied: true, fileBytes: 400e6 };
const LLAMA_8B = { C: 4096, F: 14336, KV: 1024, V: 128256, layers: 32, tied: false, fileBytes: 5e9 };
const bytesOf = ([, ...shape]) => 2 * shape.reduce((a, n) => a * n);
const layerOf = ({ C, F, KV }) => [['self_attn.q_proj', C, C], ['self_attn.k_proj', KV, C], ['self_attn.v_proj', KV, C], ['self_attn.o_proj', C, C],
  ['mlp.gate_proj', F, C], ['mlp.up_proj', F, C], ['mlp.down_proj', C, F], ['input_layernorm', C], ['post_attention_layernorm', C]];

/** The small one with as many layers as make so many bytes. */
function ofBytes(gb) {
  const perLayer = layerOf(SMALL).reduce((n, t) => n + bytesOf(t), 0);
  return { ...SMALL, layers: Math.max(1, Math.round((gb * 1e9 - 2 * SMALL.V * SMALL.C) / perLayer)) };
}

function tensorsOf(model) {
  const of = (i) => layerOf(model).map(([name, ...shape]) => [`model.layers.${i}.${name}.weight`, ...shape]);
  const { V, C } = model, layers = Array.from({ length: model.layers }, (_, i) => of(i)).flat();
  return [['model.embed_tokens.weight', V, C], ...layers, ['model.norm.weight', C], ...(model.tied ? [] : [['lm_head.weight', V, C]])];
}

/** One shard; nothing in it is compressible. */
function writeShard(file, tensors) {
  let at = 0;
  const entries = tensors.map((t) => [t[0], { dtype: 'BF16', shape: t.slice(1), data_offsets: [at, (at += bytesOf(t))] }]);
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries))), head = Buffer.alloc(8);
  const noise = Buffer.alloc(16 << 20), fd = openSync(file, 'w');
  head.writeBigUInt64LE(BigInt(text.length));
  writeSync(fd, head);
  writeSync(fd, text);
  for (let left = at; left > 0; left -= noise.length) writeSync(fd, randomFillSync(noise), 0, Math.min(left, noise.length));
  closeSync(fd);
}

function writeCheckpoint(name, model) {
  const path = join(dir, name), shards = [[]];
  let bytes = 0;
  mkdirSync(path);
  for (const t of tensorsOf(model)) {
    if (bytes && bytes + bytesOf(t) > model.fileBytes) { shards.push([]); bytes = 0; }
    shards.at(-1).push(t);
    bytes += bytesOf(t);
  }
  const file = (i) => `model-${String(i + 1).padStart(5, '0')}-of-${String(shards.length).padStart(5, '0')}.safetensors`;
  shards.forEach((tensors, i) => writeShard(join(path, file(i)), tensors));
  writeFileSync(join(path, 'model.safetensors.index.json'), JSON.stringify({ weight_map: Object.fromEntries(shards.flatMap((s, i) => s.map((t) => [t[0], file(i)]))) }));
  writeFileSync(join(path, 'config.json'), JSON.stringify({ model_type: 'llama', vocab_size: model.V, hidden_size: model.C, num_hidden_layers: model.layers, num_attention_heads: 32,
    num_key_value_heads: 8, intermediate_size: model.F, tie_word_embeddings: model.tied, rms_norm_eps: 1e-5, rope_theta: 10000, max_position_embeddings: 2048 }));
  return path;
}

// ---- measuring ----

const filesOf = (path) => readdirSync(path).filter((f) => f.endsWith('.safetensors')).map((f) => join(path, f));
const sizeOf = (path) => filesOf(path).reduce((n, f) => n + statSync(f).size, 0);

/** Its pages are on disk and not in memory. */
function cool(path) {
  for (const f of filesOf(path)) execFileSync('dd', [`of=${f}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']);
}

/** Seconds of a command, the most memory it had, MB, and what it printed. */
function timed(command, ...args) {
  return new Promise((done, fail) => {
    const start = process.hrtime.bigint(), child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let mb = 0, out = '';
    const timer = setInterval(() => {
      try {
        mb = Number(readFileSync(`/proc/${child.pid}/status`, 'utf8').match(/^VmHWM:\s+(\d+)/m)[1]) / 1e3;
      } catch { /* it has ended */ }
    }, 20);
    child.stdout.on('data', (d) => { out += d; });
    child.once('error', fail);
    child.once('close', (code) => {
      clearInterval(timer);
      if (code === 0) done({ seconds: Number(process.hrtime.bigint() - start) / 1e9, mb, out });
      else fail(new Error(`${command} ended with ${code}`));
    });
  });
}

/** Seconds of one after the other. */
async function inTurn(files, one) {
  let seconds = 0;
  for (const f of files) seconds += (await one(f)).seconds;
  return seconds;
}

function ddRead(path) {
  cool(path);
  return inTurn(filesOf(path), (f) => timed('dd', `if=${f}`, 'of=/dev/null', 'bs=4M', 'iflag=direct', 'status=none'));
}

async function ddCopy(path) {
  const to = join(dir, 'copy');
  cool(path);
  const seconds = await inTurn(filesOf(path), (f) => timed('dd', `if=${f}`, `of=${to}`, 'bs=4M', 'conv=fsync', 'status=none'));
  rmSync(to);
  return seconds;
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const load = () => loadavg()[0].toFixed(1);

function show(what, bytes, own, besides, mb) {
  const ratios = Object.entries(besides).map(([name, s]) => `${median(own.map((x, i) => s[i] / x)).toFixed(2)} of ${name}`);
  console.log(`${what}: ${(bytes / 1e6 / median(own)).toFixed(0)} MB/s, ${ratios.join(', ')}  target >= 0.7; ${mb.toFixed(0)} MB beyond the model  target < 2000; load ${load()}`);
}

async function importing(rounds) {
  const from = writeCheckpoint('theirs', values['llama-8b'] ? LLAMA_8B : ofBytes(Number(values.gb))), to = join(dir, 'ours'), bytes = sizeOf(from);
  const reads = [], copies = [], imports = [];
  let mb = 0;
  for (let i = 0; i < rounds; i++) {
    reads.push(await ddRead(from));
    copies.push(await ddCopy(from));
    cool(from);
    const r = await timed(lhctl, 'import', from, '-o', to, '--force');
    imports.push(r.seconds);
    mb = Math.max(mb, r.mb);
  }
  const wrote = sizeOf(to);
  rmSync(to, { recursive: true });
  rmSync(from, { recursive: true });
  console.log(`${(bytes / 1e9).toFixed(2)} GB in bf16; import wrote ${(wrote / 1e9).toFixed(2)} GB; dd reads ${(bytes / 1e6 / median(reads)).toFixed(0)} MB/s, copies ${(bytes / 1e6 / median(copies)).toFixed(0)} MB/s`);
  show('import', bytes, imports, { 'a read by dd': reads, 'a copy by dd': copies }, mb);
}

async function starting(rounds) {
  const from = writeCheckpoint('theirs', ofBytes(Number(values['load-gb']))), to = join(dir, 'ours');
  const reads = [], loads = [];
  let mb = 0;
  execFileSync(lhctl, ['import', from, '-o', to]);
  for (let i = 0; i < rounds; i++) {
    reads.push(await ddRead(to));
    cool(to);
    const { seconds, beyond_mb } = JSON.parse((await timed(bench, to)).out);
    loads.push(seconds);
    mb = Math.max(mb, beyond_mb);
  }
  show(`a job's start from ${(sizeOf(to) / 1e9).toFixed(2)} GB`, sizeOf(to), loads, { 'a read by dd': reads }, mb);
}

try {
  if (!existsSync(bench)) throw new Error(`${bench} was not built: make bench builds it`);
  await importing(Number(values.rounds));
  if (!values['llama-8b']) await starting(Number(values.rounds));
} finally {
  rmSync(dir, { recursive: true, force: true });
}
