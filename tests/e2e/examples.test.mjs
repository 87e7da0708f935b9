// examples.test.mjs: the scripts of ctl/examples/ do what they say, twice too, and end
// with the status that they say.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync, chmodSync } from 'node:fs';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Lhd, atEnd, build, jobYaml, packText, scratch, submit, until } from './lib/lhd.mjs';

const EXAMPLES = 'ctl/examples';
const scripts = readdirSync(EXAMPLES).filter((f) => f.endsWith('.sh') && f !== 'demo.sh');

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

/** Starts a script; `ended` gives {code, out, err}. */
function start(t, lhd, script, ...args) {
  const p = spawn(join(EXAMPLES, script), args, { detached: true, timeout: 60_000,
    env: { ...process.env, ...lhd.env, PATH: `${join(build, 'bin')}:${lhd.env.PATH ?? process.env.PATH}`, LIGHTHOUSE_STATE: lhd.state } });
  const r = { out: '', err: '' };
  p.stdout.on('data', (d) => { r.out += d; });
  p.stderr.on('data', (d) => { r.err += d; });
  p.ended = new Promise((done) => p.once('close', (code) => done({ ...r, code })));
  p.stop = () => { try { process.kill(-p.pid, 'SIGTERM'); } catch { /* it has ended */ } return p.ended; };
  atEnd(t, p.stop);
  return p;
}
const run = (t, lhd, ...args) => start(t, lhd, ...args).ended;

const commands = (lhd, method) => lhd.sql(`select outcome, message, step from commands where method='${method}' order by id`);
const phases = (steps) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps } },
  { name: 'recovery', attention: 'full', until: { steps: 30 } }];
const done = (j) => j.state === 'DONE';
const FLAT = { phases: phases(1000000), optimizer: { lr: 1e-9 }, evaluation: { sequences: 2, every_steps: 10 } };

test('every script is strict and says how it is used', () => {
  assert.ok(scripts.length >= 6);
  for (const script of scripts) {
    const text = readFileSync(join(EXAMPLES, script), 'utf8');
    assert.match(text, new RegExp(`^#!/bin/bash\n# ${script}: `), script);
    assert.match(text, /^set -euo pipefail$/m, script);
    if (script === 'notify-hook.sh') continue; // it takes no arguments
    const r = spawnSync(join(EXAMPLES, script), { encoding: 'utf8' });
    assert.equal(r.status, 2, script);
    assert.match(r.stderr, new RegExp(`^${script}: [^]*^  ${script} [A-Z]`, 'm'));
  }
});

test('plateau.sh switches once the loss is flat, and once', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, FLAT);
  const r = await run(t, lhd, 'plateau.sh', 'tiny', 'recovery', '40');
  assert.equal(r.code, 0, r.err);
  const [s] = commands(lhd, 'job.switch');
  assert.deepEqual([s.outcome, s.message], ['applied', 'validation loss fell by less than 0.005 in 40 steps']);
  assert.ok(s.step >= 40);
  await lhd.jobUntil(job, 'DONE', done);
  assert.equal((await run(t, lhd, 'plateau.sh', 'tiny', 'recovery', '40')).code, 0);
  assert.equal(commands(lhd, 'job.switch').length, 1);
});

test('plateau.sh ends with 5 when the job ends first', async (t) => {
  const lhd = await fresh(t);
  await submit(lhd, { phases: phases(40), evaluation: { sequences: 2, every_steps: 10 } });
  const r = await run(t, lhd, 'plateau.sh', 'tiny', 'recovery', '20');
  assert.equal(r.code, 5, r.err);
  assert.deepEqual(commands(lhd, 'job.switch'), []);
});

test('plateau-rule.sh has lhd do the same', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, FLAT);
  for (let i = 0; i < 2; i++) {
    const r = await run(t, lhd, 'plateau-rule.sh', 'tiny', 'recovery', '40');
    assert.equal(r.code, 0, r.err);
  }
  await lhd.jobUntil(job, 'DONE', done);
  const [s, ...more] = commands(lhd, 'job.switch');
  assert.deepEqual(more, []);
  assert.match(s.message, /^rule 'plateau': improvement\(40\) < 0\.005/);
  assert.equal(commands(lhd, 'rule.add').length, 1);
});

test('sweep.sh compares jobs, and waits for the same ones when run again', async (t) => {
  const lhd = await fresh(t), file = join(lhd.dir, 'job.yaml');
  writeFileSync(file, jobYaml({ phases: phases(20) }));
  const first = await run(t, lhd, 'sweep.sh', file, 'lighthouse', '8', '32');
  assert.equal(first.code, 0, first.err);
  const rows = first.out.trim().split('\n').map((l) => l.split('\t'));
  assert.deepEqual(rows.map((r) => r[0]).sort(), ['32', '8']);
  const losses = rows.map(([k, job, loss]) => {
    assert.equal(lhd.sql(`select json_extract(spec_json, '$.phases[0].topk') k from jobs where id=${job}`)[0].k, Number(k));
    return Number(loss);
  });
  assert.ok(losses[0] > 0 && losses[0] <= losses[1], first.out);
  assert.deepEqual(await run(t, lhd, 'sweep.sh', file, 'lighthouse', '8', '32'), first);
  assert.equal(lhd.sql('select count(*) n from jobs')[0].n, 2);
  assert.equal((await run(t, lhd, 'sweep.sh', file, 'nowhere', '8')).code, 1);
});

test('nightly.sh stops in the morning, goes on the next night, and says how far it is', async (t) => {
  const lhd = await fresh(t), file = join(lhd.dir, 'job.yaml');
  writeFileSync(file, jobYaml({ phases: phases(1000000) }));
  const evening = await run(t, lhd, 'nightly.sh', file, '2 seconds', '--priority', '3');
  assert.equal(evening.code, 4, evening.err);
  const { attempt } = await lhd.jobUntil(1, 'released', (j) => j.state === 'QUEUED');
  const next = start(t, lhd, 'nightly.sh', file, '1 hour', '--priority', '3');
  await lhd.jobUntil(1, 'it goes on', (j) => j.state === 'RUNNING' && j.attempt > attempt);
  await lhd.call('job.cancel', { job: 1 });
  assert.equal((await next.ended).code, 5);
  assert.equal(lhd.sql('select count(*) n from jobs')[0].n, 1);
  assert.deepEqual(commands(lhd, 'job.resume').map((c) => [c.outcome, c.message]), [['applied', 'the night begins']]);
  writeFileSync(file, jobYaml({ name: 'short' }));
  for (let i = 0; i < 2; i++) assert.equal((await run(t, lhd, 'nightly.sh', file, '1 hour')).code, 0);
  assert.equal(lhd.sql('select count(*) n from jobs')[0].n, 2);
});

test('notify.sh tells each change of state, going on where it was', async (t) => {
  const lhd = await fresh(t), told = join(lhd.dir, 'told'), tell = join(lhd.dir, 'tell');
  writeFileSync(tell, `#!/bin/sh\necho "$1" >>"${lhd.dir}/notices"\n`);
  chmodSync(tell, 0o755);
  const notices = () => existsSync(join(lhd.dir, 'notices')) ? readFileSync(join(lhd.dir, 'notices'), 'utf8').trim().split('\n') : [];
  for (let job = 1; job <= 2; job++) {
    const p = start(t, lhd, 'notify.sh', told, tell);
    await submit(lhd);
    const last = `job ${job}: STOPPING -> DONE (all phases ended, at step 100)`;
    await until(last, () => notices().at(-1) === last);
    const { id } = lhd.sql('select max(id) id from events where kind=\'job.state\'')[0];
    await until('it is noted', () => readFileSync(told, 'utf8') === `${id}\n`);
    await p.stop();
  }
  const all = lhd.sql("select job, text from events where kind='job.state' order by id");
  assert.deepEqual(notices(), all.map((e) => `job ${e.job}: ${e.text}`));
  const p = start(t, lhd, 'notify.sh', told, tell);
  assert.equal((await lhd.end('SIGTERM')).code, 0);
  assert.equal((await p.ended).code, 3);
});

test('notify-hook.sh tells of the end, run by a rule', async (t) => {
  const lhd = await fresh(t), hooks = join(lhd.state, 'hooks');
  mkdirSync(hooks, { mode: 0o700 });
  copyFileSync(join(EXAMPLES, 'notify-hook.sh'), join(hooks, 'notify.sh'));
  chmodSync(join(hooks, 'notify.sh'), 0o700);
  const job = await submit(lhd, { rules: [{ name: 'tell', on: 'job.*', do: 'exec notify.sh' }] });
  await lhd.jobUntil(job, 'DONE', done);
  await until('every outcome is stored', () => lhd.sql("select count(*) n from rule_firings where outcome is null")[0].n === 0 &&
    existsSync(join(lhd.state, 'notices.jsonl')));
  assert.deepEqual(lhd.sql("select distinct outcome, text from rule_firings"), [{ outcome: 'done', text: 'ended with status 0' }]);
  const notices = readFileSync(join(lhd.state, 'notices.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
  assert.deepEqual(notices.map((n) => [n.rule, n.event.kind, n.event.data.to]), [['tell', 'job.state', 'DONE']]);
});

/** Launchers that start their ranks here, the first time none, as when one was lost. */
const LAUNCHERS = {
  srun: `while [[ $1 == -* ]]; do shift; done
    lose srun
    for ((r = 0; r < SLURM_NTASKS; r++)); do SLURM_PROCID=$r SLURM_LOCALID=$r "$@" & done`,
  sbcast: 'cp -p "$3" "$4"',
  mpirun: `[[ $1 == -n ]] && n=$2 && shift 4 && while [[ $1 == --* ]]; do [ "$1" != --wrong ] || wrong=1; shift; done
    lose mpirun
    for ((r = 0; r < n; r++)); do
      [ -z "$wrong" ] || { OMPI_COMM_WORLD_RANK=x OMPI_COMM_WORLD_SIZE=$n "$@" & continue; }
      SLURM_PROCID=0 SLURM_NTASKS=1 OMPI_COMM_WORLD_RANK=$r OMPI_COMM_WORLD_SIZE=$n OMPI_COMM_WORLD_LOCAL_RANK=$r "$@" & done`,
  ssh: 'host=$1; shift; case $host in one|two) sh -c "$*"; exit;; esac; exit 255',
};

test('slurm.sh, openmpi.sh and plain.sh train a job by ranks of their launcher', async (t) => {
  const lhd = await fresh(t), fakes = join(lhd.dir, 'fakes'), file = join(lhd.dir, 'job.yaml');
  mkdirSync(fakes);
  for (const [name, text] of Object.entries(LAUNCHERS))
    writeFileSync(join(fakes, name), `#!/bin/bash\nlose() { [ -e "${fakes}/lost-$1" ] || { touch "${fakes}/lost-$1"; exit 1; }; }
${text}\nfail=0; for p in $(jobs -p); do wait $p || fail=$?; done; exit $fail\n`, { mode: 0o755 });
  Object.assign(lhd.env, { PATH: `${fakes}:${process.env.PATH}`, LH_ADDRESS: '127.0.0.1', LH_SHARED: lhd.dir, TMPDIR: lhd.dir, SLURM_NTASKS: '2', SLURM_JOB_ID: '7' });
  for (const [i, args] of [['slurm.sh', file, '--exact'], ['openmpi.sh', file, '2', '--hostfile=x'], ['plain.sh', file, 'one', 'two']].entries()) {
    writeFileSync(file, jobYaml({ name: `j${i}`, phases: phases(20) }));
    lhd.env.LH_PORT = String(29431 + i);
    const r = await run(t, lhd, ...args);
    assert.equal(r.code, 0, r.err);
    const [job] = lhd.sql(`select id, state from jobs where name='j${i}'`);
    assert.equal(job.state, 'DONE');
    assert.equal((await lhd.call('job.show', { job: job.id })).attempts.length, 1);
  }
  assert.ok(existsSync(join(fakes, 'lost-srun')) && existsSync(join(fakes, 'lost-mpirun')));
  // A rank that could never be one ends it all.
  writeFileSync(file, jobYaml({ name: 'no', phases: phases(20) }));
  const no = await run(t, lhd, 'openmpi.sh', file, '2', '--wrong');
  assert.equal(no.code, 2, no.err);
  assert.match(no.err, /OMPI_COMM_WORLD_RANK is 'x'/);
  await until('CANCELLED', () => lhd.sql("select 1 from jobs where name='no' and state='CANCELLED'").length);
});
