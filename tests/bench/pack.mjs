// pack.mjs: how fast `lhctl pack` is. Targets: 100 MB of text a second on two cores, from
// a warm cache to a file; what is packed or JSON is shown beside it. By a tokenizer.json 10
// MB/s, and 90 % of what its library does of the same texts at once in as many threads.
// Beside it stands what CPUs were busy with it, which other programs disturb less.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';

const lhctl = join(resolve(process.env.LH_BUILD ?? 'build'), 'bin', 'lhctl');
const dir = mkdtempSync(join(tmpdir(), 'lh-bench-')), MB = 300;

const text = (n) => Array.from({ length: n }, (_, i) => `word${(i * 104729) % 9973} and ${i}`).join(' ');
const piece = text(50_000), rows = Array.from({ length: 250 }, (_, i) => JSON.stringify({ id: i, text: piece.slice(i * 4000, i * 4000 + 4000) })).join('\n') + '\n';

/** Files of about a megabyte each, MB of them. */
function write(name, ext, data) {
  mkdirSync(join(dir, name));
  for (let i = 0; i < MB; i++) writeFileSync(join(dir, name, `${i}${ext}`), data);
}

const median = (run) => [0, 1, 2].map(run).sort((a, b) => a - b)[1];

/** Seconds that pass, and those of CPUs, its own and of what it starts. */
function packTimes(...args) {
  const pack = [lhctl, 'pack', '-o', join(dir, 'out'), '--validation', '0', '--threads', '2', ...args];
  const { status, stderr } = spawnSync('bash', ['-c', 'TIMEFORMAT="%R %U %S"; time "$@" &>/dev/null', 'bash', ...pack], { encoding: 'utf8' });
  if (status) throw new Error(`lhctl pack ended with ${status}`);
  const [seconds, user, system] = stderr.split(' ').map(Number);
  return { seconds, cpu: user + system };
}
const packSeconds = (...args) => packTimes(...args).seconds;

// ---- by a tokenizer ---------------------------------------------------------

const hf = join(lhctl, '../../lib/lighthouse/hf/main.mjs'), llama3 = resolve('tests/tokenizers/llama3/tokenizer.json');

/** Real text, 20 MB in pieces of 4 KB: the headers of this machine. */
function realTexts() {
  const all = [];
  let bytes = 0;
  for (const f of readdirSync('/usr/include', { recursive: true }).sort()) {
    const path = join('/usr/include', f);
    if (bytes > 20e6 || !f.endsWith('.h') || !statSync(path).isFile()) continue;
    const text = readFileSync(path, 'utf8');
    for (let i = 0; i < text.length; i += 4000) all.push(text.slice(i, i + 4000));
    bytes += text.length;
  }
  return all;
}

/** Llama 3's way to cut text, with 30,000 ids that the library learns from it. */
function learn(text, path) {
  const { Tokenizer } = createRequire(hf)('tokenizers'), tokenizer = JSON.parse(readFileSync(llama3));
  Object.assign(tokenizer, { added_tokens: [], post_processor: null, model: { ...tokenizer.model, vocab: {}, merges: [] } });
  const learner = Tokenizer.fromString(JSON.stringify(tokenizer));
  learner.train([text]);
  learner.save(path);
}

/** Seconds that the library takes of all texts at once, in two threads of its own. */
function librarySeconds(tokenizer, texts) {
  const script = `
    const { Tokenizer } = require('node:module').createRequire(${JSON.stringify(hf)})('tokenizers');
    const texts = require(${JSON.stringify(texts)}), tokenizer = Tokenizer.fromFile(${JSON.stringify(tokenizer)});
    const start = process.hrtime.bigint();
    tokenizer.encodeBatch(texts, { addSpecialTokens: false }).then((all) => {
      for (const e of all) e.getIds();
      console.log(Number(process.hrtime.bigint() - start) / 1e9);
    });`;
  return Number(execFileSync('node', ['-e', script], { env: { ...process.env, RAYON_NUM_THREADS: '2', TOKENIZERS_PARALLELISM: 'true' } }));
}

function benchTokenizer() {
  const texts = realTexts(), bytes = texts.reduce((sum, s) => sum + Buffer.byteLength(s), 0);
  const at = (name) => join(dir, name);
  writeFileSync(at('texts.json'), JSON.stringify(texts));
  writeFileSync(at('real.jsonl'), texts.map((text) => JSON.stringify({ text })).join('\n') + '\n');
  writeFileSync(at('real.txt'), texts.join('').slice(0, 4e6));
  learn(at('real.txt'), at('tokenizer.json'));
  const times = [0, 1, 2].map(() => packTimes('--tokenizer', at('tokenizer.json'), '--separator', '0', at('real.jsonl')));
  const seconds = median((i) => times[i].seconds), cpu = median((i) => times[i].cpu);
  const library = median(() => librarySeconds(at('tokenizer.json'), at('texts.json')));
  console.log(`tokenizer.json ${(bytes / 1e6 / seconds).toFixed(1)} MB/s, ${(100 * library / seconds).toFixed(0)} % of its library's ${(bytes / 1e6 / library).toFixed(1)} MB/s; target: >= 10 MB/s, >= 90 %; ${(1e9 * cpu / bytes).toFixed(0)} ms of a CPU for a MB`);
}

try {
  write('text', '.txt', piece);
  write('jsonl', '.jsonl', rows);
  write('gzip', '.jsonl.gz', gzipSync(rows));
  console.log(`of ${MB} files of 1 MB; target: text >= 100 MB/s`);
  for (const name of ['text', 'jsonl', 'gzip']) {
    const seconds = median(() => packSeconds(join(dir, name)));
    const bytes = MB * (name === 'text' ? piece : rows).length;
    console.log(`${name.padEnd(6)} ${(bytes / 1e6 / seconds).toFixed(0).padStart(5)} MB/s of ${name === 'gzip' ? 'unpacked ' : ''}input`);
  }
  if (existsSync(hf)) benchTokenizer();
} finally {
  rmSync(dir, { recursive: true, force: true });
}
