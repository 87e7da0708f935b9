// pack.mjs: how fast `lhctl pack` is. Target: 100 MB of text a second on two cores, from
// a warm cache to a file; what is packed or JSON is shown beside it.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
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

try {
  write('text', '.txt', piece);
  write('jsonl', '.jsonl', rows);
  write('gzip', '.jsonl.gz', gzipSync(rows));
  console.log(`of ${MB} files of 1 MB; target: text >= 100 MB/s`);
  for (const name of ['text', 'jsonl', 'gzip']) {
    const seconds = [0, 1, 2].map(() => {
      const start = process.hrtime.bigint();
      execFileSync(lhctl, ['pack', '-o', join(dir, 'out'), '--validation', '0', '--threads', '2', join(dir, name)]);
      return Number(process.hrtime.bigint() - start) / 1e9;
    }).sort((a, b) => a - b)[1];
    const bytes = MB * (name === 'text' ? piece : rows).length;
    console.log(`${name.padEnd(6)} ${(bytes / 1e6 / seconds).toFixed(0).padStart(5)} MB/s of ${name === 'gzip' ? 'unpacked ' : ''}input`);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
