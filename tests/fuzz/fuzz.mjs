// fuzz.mjs: runs every target under libFuzzer, two at a time.
//
//   node tests/fuzz/fuzz.mjs [--minutes M] [--only NAME] [--keep]
//
// Needs a build with FUZZ=1. A target begins with the inputs of tests/fuzz/corpus/NAME
// and goes on from what earlier runs found (BUILD/corpus/NAME). A finding is a crash, a
// sanitizer's report, a leak, LIMIT_S for one input or too much memory; the input stays
// in BUILD/found/NAME with what was said of it. Ends with a table; exit status 1 if there
// was a finding. --keep runs nothing: it adds to tests/fuzz/corpus what earlier runs found,
// as little of it as reaches the same edges.
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const LIMIT_S = 20, MEMORY_MB = 2048, KEEP_FILES = 140, KEEP_BYTES = 2048;

/** The targets, from the sources, so that one that was not built is missed. */
export const targets = () => readdirSync('tests/fuzz').map((f) => /^fuzz_(.*)\.c$/.exec(f)?.[1]).filter(Boolean);

export const corpusOf = (name) => join('tests/fuzz/corpus', name);
const list = (dir) => existsSync(dir) ? readdirSync(dir).map((f) => join(dir, f)) : [];
const make = (...parts) => { const dir = join(...parts); mkdirSync(dir, { recursive: true }); return dir; };

/** In memory where that can be had: targets write a database an input. */
export function scratch() {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'lh-fuzz-'));
}

/** Runs a program; gives what it said and its exit code. */
function run(file, args, TMPDIR) {
  return new Promise((done) => {
    const child = spawn(file, args, { env: { ...process.env, TMPDIR }, stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    // The end tells all; a fuzzer that runs for hours says much.
    child.stderr.on('data', (d) => { text = (text + d).slice(-1 << 16); });
    child.on('close', (code) => done({ code, text }));
  });
}

/** {name, runs, seconds, edges, corpus, found: [path]}. */
async function fuzz(build, name, seconds, dir) {
  const found = make(build, 'found', name), corpus = make(build, 'corpus', name), before = new Set(list(found));
  const file = join(build, 'tests/fuzz', `fuzz_${name}`), began = Date.now();
  const { code, text } = await run(file, [`-max_total_time=${seconds}`, `-timeout=${LIMIT_S}`, `-rss_limit_mb=${MEMORY_MB}`,
    '-print_final_stats=1', `-artifact_prefix=${found}/`, corpus, corpusOf(name)], dir);
  const out = list(found).filter((f) => !before.has(f));
  for (const f of out) {
    writeFileSync(`${f}.txt`, text.slice(text.search(/^.*(BUG|ERROR|runtime error|ALARM)/m)));
    console.log(`FOUND ${text.match(/^(BUG|SUMMARY|.*runtime error).*$/m)?.[0] ?? ''}\n  ${file} ${f}`);
  }
  if (code && !out.length) throw new Error(`${file} failed:\n${text.slice(-2000)}`);
  const last = (pattern) => Number([...text.matchAll(pattern)].at(-1)?.[1] ?? 0);
  return { name, runs: last(/number_of_executed_units: (\d+)/g), seconds: Math.round((Date.now() - began) / 1000),
    edges: last(/cov: (\d+)/g), corpus: list(corpus).length, found: out };
}

/** The smallest inputs that reach every edge reached, into the tree. */
async function keep(build, name, dir) {
  const small = make(dir, 'small', name), tree = corpusOf(name);
  // Without counters a feature is an edge: how often it was passed is not kept.
  const { code, text } = await run(join(build, 'tests/fuzz', `fuzz_${name}`), ['-merge=1', '-use_counters=0', '-use_value_profile=0',
    `-timeout=${LIMIT_S}`, `-max_len=${KEEP_BYTES}`, small, tree, join(build, 'corpus', name)], dir);
  if (code) throw new Error(text.slice(-2000));
  const have = new Set(list(tree).map((f) => readFileSync(f).toString('latin1')));
  const fresh = list(small).filter((f) => !have.has(readFileSync(f).toString('latin1'))).sort((a, b) => statSync(a).size - statSync(b).size);
  for (const f of fresh.slice(0, KEEP_FILES - have.size)) copyFileSync(f, join(tree, f.split('/').at(-1).slice(0, 12)));
  console.log(`${name}: ${list(tree).length} inputs`);
}

export function table(rows) {
  const line = (cells) => `${String(cells[0]).padEnd(12)}${cells.slice(1).map((c) => String(c).padStart(11)).join('')}`;
  return [line(['target', 'seconds', 'runs', 'edges', 'corpus', 'findings']),
    ...rows.map((r) => line([r.name, r.seconds, r.runs, r.edges, r.corpus, r.found.length]))].join('\n');
}

async function main(args) {
  const option = (name, none) => { const at = args.indexOf(`--${name}`); return at < 0 ? none : args[at + 1]; };
  const build = join(resolve(process.env.LH_BUILD ?? 'build'), 'fuzz'), dir = scratch(), rows = [];
  const only = option('only'), names = targets().filter((n) => !only || n === only), seconds = Math.round(Number(option('minutes', 10)) * 60);
  const each = args.includes('--keep') ? (n) => keep(build, n, dir) : async (n) => { rows.push(await fuzz(build, n, seconds, dir)); };
  const lane = async () => { while (names.length) await each(names.shift()); };
  // Both are over before the directory of their targets goes.
  const ended = await Promise.allSettled([lane(), lane()]);
  rmSync(dir, { recursive: true, force: true });
  for (const e of ended) if (e.reason) throw e.reason;
  if (rows.length) console.log(table(rows));
  process.exitCode = rows.some((r) => r.found.length) ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main(process.argv.slice(2));
