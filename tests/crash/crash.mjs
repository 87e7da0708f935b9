// crash.mjs: runs small real jobs, kills what runs them at every named point and at
// random, and checks what must be true afterwards (check.mjs).
//
//   node tests/crash/crash.mjs [--seed N] [--cases N | --hours H] [--case I]
//
// Needs a build with FAILPOINTS=1. A case is told by seed and number, so it can be
// run again; scheduling is not, so it may take another road. Ends with the points
// and `cases, faults, violations`; exit status 1 if there was a violation.
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

process.env.LH_BUILD = join(resolve(process.env.LH_BUILD ?? 'build'), 'fail');
const { Case, jobOf } = await import('./case.mjs');
const { check, lossesOf } = await import('./check.mjs');
const { packText } = await import('../e2e/lib/lhd.mjs');
const { random } = await import('../e2e/lib/random.mjs');

/** Every failpoint in the sources: {name, fails: it can also make a call fail}. */
export function failpoints() {
  const out = new Map();
  for (const f of readdirSync('daemon', { recursive: true }).filter((n) => n.endsWith('.c')))
    for (const [, macro, name] of readFileSync(join('daemon', f), 'utf8').matchAll(/LH_(FAILPOINT|FAILS)\("([^"]+)"\)/g))
      out.set(name, { name, fails: macro === 'FAILS' });
  return [...out.values()];
}

/** At which allocation memory runs out: while lhd starts, while it works, in a worker. */
export const ALLOCATIONS = [1, 60, 300, 1000, 3000, 8000, 20000, 50000];
const VICTIMS = [['lhd'], ['lhworker'], ['lhkeeper'], ['lhd', 'lhworker'], ['lhkeeper', 'lhworker'], ['lhd', 'lhkeeper', 'lhworker']];

/** The point that case `i` is for, and at which time: every one twice, every
 * allocation, then round and round. */
function pointOf(r, i, points) {
  const alloc = points.find((p) => p.name === 'alloc'), late = i - 2 * points.length;
  if (late >= 0 && late < ALLOCATIONS.length) return { point: alloc, at: ALLOCATIONS[late] };
  const nth = late < 0 ? i : i - ALLOCATIONS.length;
  // Some are come to but once in a process.
  return { point: points[nth % points.length], at: Math.floor(nth / points.length) % 2 ? r.int(1, 3) : 1 };
}

/** What case `i` of a seed does: the kind of job, orders for failpoints, a script. */
export function plan(seed, i, points) {
  const r = random(seed * 1000003 + i);
  const { point, at } = pointOf(r, i, points);
  // Points of going back are come to in such a job alone, and it ends by a command.
  const kinds = point.name === 'checkpoint.pinned' ? ['natural'] : ['natural', 'natural', 'command', 'command', 'rewind'];
  const kind = /^rewind\.|^link\.told$/.test(point.name) ? 'rewind' : r.pick(kinds);
  // A switch whose checkpoint cannot be written has no way back, and is not tried there.
  const errs = (p) => p.name === 'alloc' || (p.fails && kind !== 'rewind' && r.chance(0.5));
  const order = (p, n) => `${p.name}=${errs(p) ? 'error' : 'kill'}@${n}`;
  const orders = [order(point, at)];
  while (r.chance(0.4)) orders.push(order(r.pick(points), r.int(1, 3)));
  const script = [];
  // Those of commands need some.
  const always = i < points.length;
  if (kind !== 'natural') script.push({ step: r.int(10, 30), act: 'switch', args: { phase: 'recovery' } });
  for (const act of ['checkpoint', 'pause']) if (r.chance(0.5) || always) script.push({ step: r.int(3, 50), act });
  if (r.chance(0.1) || point.name === 'lhd.restart') script.push({ step: r.int(3, 50), act: 'restart' });
  // What is pinned beyond the step that a job goes back to is set aside.
  if (kind !== 'rewind' && (r.chance(0.3) || always)) script.push({ step: r.int(3, 50), act: 'checkpoint', args: { pin: true } });
  while (r.chance(0.4)) script.push({ step: r.int(1, 60), act: 'kill', args: { programs: r.pick(VICTIMS) } });
  if (r.chance(0.1)) script.push({ step: r.int(1, 50), act: 'term' });
  if (r.chance(0.05)) script.push({ step: r.int(3, 50), act: 'kill', args: { programs: ['lhworker'], signal: 'SIGSTOP' } });
  script.sort((a, b) => a.step - b.step);
  return { kind, orders, script, jobs: kind === 'natural' && r.chance(0.3) ? 2 : 1 };
}

/** Losses of runs that nothing happens to, each made once. */
class References {
  constructor(text) { Object.assign(this, { text, known: new Map() }); }

  get(switchStep) {
    if (!this.known.has(switchStep)) this.known.set(switchStep, this.make(switchStep));
    return this.known.get(switchStep);
  }

  async make(switchStep) {
    const dir = mkdtempSync(join(tmpdir(), 'lh-calm-'));
    const c = new Case(dir, this.text, 'natural', {});
    try {
      c.boot();
      const { result } = await c.call('job.submit', { yaml: jobOf('natural', switchStep ?? 400), base_dir: this.text });
      await c.jobUntil('the reference ends', () => false, result.job);
      await c.stop();
      return lossesOf({ file: join(c.state, 'lighthouse.db'), job: result.job });
    } finally {
      await c.destroy();
      rmSync(dir, { recursive: true, force: true });
    }
  }
}

/** {violations: [text], faults, hit: [name], done: [name-action], dir}. */
async function runCase(text, references, { kind, orders, script, jobs = 1, rules }, env = {}, keep = true) {
  const dir = mkdtempSync(join(tmpdir(), 'lh-crash-'));
  const c = new Case(dir, text, kind, { LH_FAILPOINTS: orders.join(','), ...env }, jobs, rules);
  let violations;
  try {
    c.note(JSON.stringify({ kind, orders, script, jobs, env }));
    await c.run(script);
    violations = await check(c, (s) => references.get(s));
  } catch (e) {
    violations = [e.message];
  }
  await c.destroy();
  const { hit, done } = c.points();
  if (!violations.length || !keep) rmSync(dir, { recursive: true, force: true });
  return { violations, faults: done.length + c.killed, hit, done, dir };
}

/**
 * Runs cases until `more(i)` is false, two at a time. Calls `tell` with each
 * violation, whose directory is left if `keep`. Gives {cases, faults, violations, hits: Map, actions: Map}.
 */
export async function crash({ seed, first = 0, more, tell, env, planned = plan, keep = true }) {
  const text = mkdtempSync(join(tmpdir(), 'lh-text-'));
  packText(text);
  const references = new References(text), points = failpoints();
  const sum = { cases: 0, faults: 0, violations: 0, hits: new Map(points.map((p) => [p.name, 0])), actions: new Map(points.map((p) => [p.name, 0])) };
  let next = first;
  const lane = async () => {
    while (more(next)) {
      const i = next++, got = await runCase(text, references, planned(seed, i, points), env, keep);
      sum.cases++;
      sum.faults += got.faults;
      for (const name of got.hit) if (sum.hits.has(name)) sum.hits.set(name, sum.hits.get(name) + 1);
      for (const name of got.done) { const at = name.replace(/-(kill|error|stop)$/, ''); sum.actions.set(at, (sum.actions.get(at) ?? 0) + 1); }
      if (!got.violations.length) continue;
      sum.violations++;
      tell(`seed ${seed} case ${i}: ${got.violations.join('; ')} (${got.dir})`);
    }
  };
  await Promise.all([lane(), lane()]);
  rmSync(text, { recursive: true, force: true });
  return sum;
}

/** Cases until every point has had its two and memory has run out everywhere. */
export const casesOfAll = () => 2 * failpoints().length + ALLOCATIONS.length;

export function table(sum) {
  const rows = [...sum.hits].map(([name, hits]) => `${name.padEnd(24)} ${String(hits).padStart(6)} ${String(sum.actions.get(name) ?? 0).padStart(6)}`);
  return [`${'failpoint'.padEnd(24)}  cases  fired`, ...rows, `${sum.cases} cases, ${sum.faults} faults, ${sum.violations} violations`].join('\n');
}

async function main(args) {
  const option = (name, none) => { const at = args.indexOf(`--${name}`); return at < 0 ? none : Number(args[at + 1]); };
  const seed = option('seed', Date.now() % 1e9), hours = option('hours', 0), only = option('case', -1);
  const cases = option('cases', 60), end = Date.now() + hours * 3_600_000;
  console.log(`seed ${seed}`);
  const more = only >= 0 ? (i) => i === only : hours ? () => Date.now() < end : (i) => i < cases;
  const sum = await crash({ seed, first: Math.max(only, 0), more, tell: (text) => console.log(`VIOLATION ${text}`) });
  console.log(table(sum));
  process.exitCode = sum.violations ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main(process.argv.slice(2));
