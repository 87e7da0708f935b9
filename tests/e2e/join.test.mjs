// join.test.mjs: ranks that the user's launcher starts, on one host and on two: the same job
// as by lhd's own, success only when it is done, and an error for whatever is not right.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { Lhd, atEnd, until, bin, scratch, packText, submit, losses } from './lib/lhd.mjs';
import { Hosts } from './lib/hosts.mjs';

const LONG = 100000;
const done = (j) => j.state === 'DONE';
const job = (address, steps, more = {}) => ({ devices: 2, join: address, batch: { sequences: 4, micro_sequences: 1 }, checkpoint: { every_steps: 10 },
  phases: [{ name: 'full', attention: 'full', until: { steps } }], ...more });

const freePort = () => new Promise((ok) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => ok(port)); });
});

async function fresh(t, over = {}) {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir, [], { ...over, env: { RANKS_OF: dir } });
  return Object.assign(lhd, { address: `127.0.0.1:${await freePort()}` });
}

/** What launchers set, of rank r of n on one host. */
const SETS = {
  plain: (r, n) => ({ RANK: r, WORLD_SIZE: n, LOCAL_RANK: r, MASTER_ADDR: 'localhost', MASTER_PORT: 29500 }),
  srun: (r, n) => ({ SLURM_PROCID: r, SLURM_NTASKS: n, SLURM_LOCALID: r, SLURM_JOB_ID: 7, SLURM_NODEID: 0 }),
  'srun --mpi=pmix': (r, n) => ({ ...SETS.srun(r, n), PMIX_RANK: r, PMIX_NAMESPACE: 'slurm.pmix.7.0' }),
  // A process manager that is not the one that MPICH is to speak to.
  'srun --mpi=pmi2': (r, n) => ({ ...SETS.srun(r, n), PMI_RANK: r, PMI_SIZE: n, PMI_FD: 99, PMI_JOBID: '7.0' }),
  mpirun: (r, n) => ({ OMPI_COMM_WORLD_RANK: r, OMPI_COMM_WORLD_SIZE: n, OMPI_COMM_WORLD_LOCAL_RANK: r, PMIX_RANK: r, OMPI_MCA_pml: 'ob1' }),
  'mpirun in a batch of Slurm': (r, n) => ({ ...SETS.mpirun(r, n), SLURM_PROCID: 0, SLURM_NTASKS: 1, LH_LAUNCHER: 'openmpi' }),
};

/** Runs a command; gives { process, ended: Promise<{ code, said }>, said() }. */
function run(t, lhd, command, env = {}) {
  const p = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, TMPDIR: lhd.dir, RANKS_OF: lhd.dir, ...env } });
  let said = '';
  for (const s of [p.stdout, p.stderr]) s.setEncoding('utf8').on('data', (d) => { said += d; });
  const ended = new Promise((ok) => p.once('close', (code) => ok({ code, said })));
  atEnd(t, async () => { p.kill('SIGKILL'); await ended; });
  return { process: p, ended, said: () => said };
}
const file = (lhd, id) => join(lhd.state, 'jobs', String(id), 'join');
const rank = (t, lhd, id, env, { within = [], path = file(lhd, id), wait = 20 } = {}) =>
  run(t, lhd, [...within, bin('lhworker-cpu'), '--join', path, String(wait)], env);
const both = (t, lhd, id, set = SETS.plain) => [0, 1].map((r) => rank(t, lhd, id, set(r, 2)));
const codes = async (ranks) => (await Promise.all(ranks.map((r) => r.ended))).map((e) => e.code);
const workerLog = (lhd, id) => lhd.workerLog(id);
const waits = (lhd, id, attempt = 1) => until('it waits for ranks', () => {
  const log = join(lhd.state, 'jobs', String(id), `attempt-${attempt}`, 'worker.log');
  return existsSync(log) && readFileSync(log, 'utf8').includes('waiting for 2 ranks');
});

const stat = (pid) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8'), f = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { pid, state: f[0], parent: Number(f[1]), started: f[19] };
  } catch { return null; }
};
const read = (pid, name) => { try { return readFileSync(`/proc/${pid}/${name}`, 'utf8').split('\0'); } catch { return []; } };
/** All that came of this lhd and its launchers, but lhd. */
const processes = (lhd) => readdirSync('/proc').filter((p) => /^\d+$/.test(p)).map((p) => stat(Number(p)))
  .filter((p) => p && p.state !== 'Z' && read(p.pid, 'environ').includes(`RANKS_OF=${lhd.dir}`) && !/\/(lhd|lhgpus)$/.test(read(p.pid, 'cmdline')[0] ?? ''));
const lives = (p) => { const now = stat(p.pid); return now?.started === p.started && now.state !== 'Z'; };
/** The rank itself, and not its parent. */
const findRank = (lhd, r) => {
  const all = processes(lhd).filter((p) => read(p.pid, 'cmdline').includes('--attempt') && read(p.pid, 'environ').includes(`PMI_RANK=${r}`));
  return all.find((p) => all.some((o) => o.pid === p.parent));
};
const noneLeft = (lhd) => until('no process is left', () => processes(lhd).length === 0, 10_000);
const saved = (lhd, id, attempt, ranks) => lhd.jobUntil(id, 'a checkpoint', () =>
  lhd.sql(`select 1 from checkpoints where job=${id} and attempt=${attempt} and step>0`).length > 0).catch((e) => {
  e.message += ranks.map((r, i) => `\nrank ${i}: ${r.said()}`).join('') + workerLog(lhd, id);
  throw e;
});
const attempts = async (lhd, id) => (await lhd.call('job.show', { job: id })).attempts;

test("ranks of any launcher train the job that lhd's own train", async (t) => {
  const lhd = await fresh(t);
  const own = await submit(lhd, job('', 12));
  await lhd.jobUntil(own, 'DONE', done);
  const was = [...(await losses(lhd, own))];
  for (const [name, set] of Object.entries(SETS)) {
    const id = await submit(lhd, job(lhd.address, 12));
    const ended = await Promise.all(both(t, lhd, id, set).map((r) => r.ended));
    assert.deepEqual(ended.map((e) => e.code), [0, 0], `${name}: ${ended.map((e) => e.said).join('')}${workerLog(lhd, id)}`);
    await lhd.jobUntil(id, 'DONE', done);
    assert.deepEqual([...(await losses(lhd, id))], was, name);
  }
  // MPICH's, for real: an mpiexec in an mpiexec.
  const id = await submit(lhd, job(lhd.address, 12));
  const all = run(t, lhd, ['mpiexec.hydra', '-launcher', 'fork', '-rmk', 'user', '-n', '2', bin('lhworker-cpu'), '--join', file(lhd, id)]);
  assert.deepEqual(await codes([all]), [0]);
  assert.deepEqual([...(await losses(lhd, id))], was);
  await noneLeft(lhd);
});

test('a job that is to be joined waits for its ranks, and says how they come', async (t) => {
  const lhd = await fresh(t);
  const early = await submit(lhd, job(lhd.address, LONG));
  await waits(lhd, early);
  const { state, reason } = await lhd.call('job.get', { job: early });
  assert.equal(state, 'STARTING');
  assert.equal(reason, `attempt 1 waits for 2 ranks: lhworker-cpu --join ${file(lhd, early)}`);
  const one = rank(t, lhd, early, SETS.plain(1, 2));
  await until('it has a seat', () => one.said().includes('rank 1 of 2 has a seat'));
  await lhd.restart(); // the door is no child of the new one
  const gone = rank(t, lhd, early, SETS.plain(0, 3)); // another size
  assert.equal((await gone.ended).code, 2);
  one.process.kill('SIGTERM'); // before all have come it ends alone
  assert.equal((await one.ended).code, 1);
  await until('its seat is free', () => workerLog(lhd, early).includes('went before all had come'));
  const again = rank(t, lhd, early, SETS.plain(1, 2));
  await until('it has a seat', () => again.said().includes('has a seat'));
  await lhd.call('job.cancel', { job: early });
  const { code, said } = await again.ended;
  assert.equal(code, 1);
  assert.match(said, /job 1: it ended before all ranks had come/);
  await until('CANCELLED', async () => (await lhd.call('job.get', { job: early })).state === 'CANCELLED');
  await noneLeft(lhd);
});

test('what does not belong to a job is refused, and it goes on waiting', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job(lhd.address, 12)), other = await submit(lhd, job('127.0.0.1:1', 12));
  await waits(lhd, id);
  const refused = async (why, env, more, code = 2) => {
    const r = await rank(t, lhd, id, env, { wait: 0, ...more }).ended;
    assert.match(r.said, why);
    assert.equal(r.code, code, r.said);
  };
  await refused(/no launcher says which rank this is/, {});
  await refused(/WORLD_SIZE is not set/, { RANK: 0 });
  await refused(/RANK is 'x'/, { ...SETS.plain(0, 2), RANK: 'x' });
  await refused(/slurm says rank 0 of 2, openmpi rank 1 of 2/, { ...SETS.srun(0, 2), ...SETS.mpirun(1, 2), PMIX_RANK: 1 });
  await refused(/the job has 2 ranks, the launcher says that this is rank 0 of 1/, SETS.plain(0, 1));
  await refused(/MASTER_ADDR is '127\.0\.0\.2', and the job's ranks meet at '127\.0\.0\.1:/, { ...SETS.plain(0, 2), MASTER_ADDR: '127.0.0.2' });
  await refused(/nobody answers at '127\.0\.0\.1:1': Connection refused/, SETS.plain(0, 2), { path: file(lhd, other) }, 1);
  await refused(/no such file/, SETS.plain(0, 2), { path: '/nowhere' });
  const copy = join(lhd.dir, 'copy'), write = (change) => {
    writeFileSync(copy, JSON.stringify({ ...JSON.parse(readFileSync(file(lhd, id))), ...change }), { mode: 0o600 });
    return { path: copy };
  };
  await refused(/the token is not that of the job there/, SETS.plain(0, 2), write({ token: '0'.repeat(64) }));
  await refused(/there is no host 'no\.such\.host\.invalid'/, SETS.plain(0, 2), write({ address: 'no.such.host.invalid:1' }), 1);
  await refused(/does not say how to join a job/, SETS.plain(0, 2), write({ address: 'x' }));
  chmodSync(copy, 0o644);
  await refused(/others may read/, SETS.plain(0, 2), { path: copy });
  // One who is no rank at all, and one who comes twice.
  await new Promise((ok) => net.connect(Number(lhd.address.split(':')[1]), '127.0.0.1').end('GET / HTTP/1.0\r\n\r\n').resume().once('close', ok));
  const one = rank(t, lhd, id, SETS.plain(1, 2));
  await until('it has a seat', () => one.said().includes('has a seat'));
  await refused(/rank 1 is here already, from /, SETS.plain(1, 2));
  const zero = rank(t, lhd, id, SETS.plain(0, 2));
  assert.deepEqual(await codes([zero, one]), [0, 0]);
  await lhd.jobUntil(id, 'DONE', done);
  assert.equal((await attempts(lhd, id)).length, 1);
});

test('a rank takes the GPU that its launcher bound it to, or the one of its number, and the way to the first host', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job(lhd.address, LONG));
  const ranks = [{ CUDA_VISIBLE_DEVICES: '3' }, { CUDA_VISIBLE_DEVICES: '2,3', NCCL_SOCKET_IFNAME: 'ib0', PMI_FD: '99' }]
    .map((more, r) => rank(t, lhd, id, { ...SETS.srun(r, 2), ...more }));
  await saved(lhd, id, 1, ranks);
  const has = (r, ...wanted) => {
    const env = read(findRank(lhd, r).pid, 'environ');
    for (const w of wanted) assert.ok(env.includes(w), `rank ${r} has no ${w} in ${env.join(' ')}`);
  };
  has(0, 'LH_JOIN_DEVICE=0', 'LH_JOIN_DEVICES=1', 'LH_JOIN_HOST_RANKS=2', 'UCX_TLS=self,tcp', 'UCX_NET_DEVICES=lo', 'NCCL_SOCKET_IFNAME==lo');
  has(1, 'LH_JOIN_DEVICE=1', 'LH_JOIN_DEVICES=2', 'LH_JOIN_HOST_RANKS=2', 'NCCL_SOCKET_IFNAME=ib0', 'SLURM_PROCID=1');
  await lhd.call('job.cancel', { job: id });
  assert.deepEqual(await codes(ranks), [1, 1]);
});

test('when a rank or its launcher is lost all end, and those who join again go on', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, job(lhd.address, LONG, { restarts: 20 }));
  const victims = [
    ['rank 1', () => findRank(lhd, 1).pid, /rank 1 was killed by signal 9 \(Killed\) in step \d+, (in|after) collective/],
    ['rank 0', () => findRank(lhd, 0).pid, /rank 0 was killed by signal 9 \(Killed\) in step \d+/],
    ["rank 1's launcher", (ranks) => ranks[1].process.pid, /rank 1 (was lost with its launcher or its host|lost its launcher)/],
    ['a proxy', (ranks) => processes(lhd).find((p) => p.parent === ranks[1].process.pid).pid, /rank 1 lost its launcher/],
    ["lhd's launcher", () => processes(lhd).find((p) => read(p.pid, 'cmdline')[0].endsWith('mpiexec.hydra')).pid, /the launcher of its ranks was killed by signal 9/],
    ['the door', () => processes(lhd).find((p) => read(p.pid, 'cmdline').includes('--gather') && !read(p.pid, 'cmdline')[0].endsWith('lhkeeper')).pid,
      /the launcher of its ranks was killed by signal 9/],
  ];
  for (const [i, [name, find, why]] of victims.entries()) {
    const ranks = both(t, lhd, id);
    await saved(lhd, id, i + 1, ranks);
    const now = processes(lhd), pid = find(ranks);
    process.kill(pid, 'SIGKILL');
    const ended = await Promise.all(ranks.map((r) => r.ended));
    assert.ok(ended.every((e) => e.code !== 0), `${name}: ${ended.map((e) => e.said)}`);
    await until(`${name} was killed: all end`, () => !now.some(lives), 10_000);
    const told = await until('its end is told', async () => (await attempts(lhd, id))[i]?.why);
    assert.match(told, why, name);
  }
  const ranks = both(t, lhd, id);
  await saved(lhd, id, victims.length + 1, ranks);
  await lhd.restart();
  const { step } = await lhd.call('job.get', { job: id });
  await lhd.jobUntil(id, 'it goes on', (j) => j.step > step + 5);
  ranks[1].process.kill('SIGTERM'); // as a batch that is over: all save and end
  assert.deepEqual(await codes(ranks), [1, 1]);
  assert.equal((await until('it is told', async () => { const a = (await attempts(lhd, id)).find((x) => x.attempt === victims.length + 1); return a?.outcome && a; })).outcome, 'stopped');
  const last = both(t, lhd, id);
  await saved(lhd, id, victims.length + 2, last);
  await lhd.call('job.set', { job: id, phase_steps: (await lhd.call('job.get', { job: id })).step + 20 });
  assert.deepEqual(await codes(last), [0, 0]);
  await lhd.jobUntil(id, 'DONE', done);
  const keys = [...(await losses(lhd, id)).keys()];
  assert.deepEqual(keys, keys.map((_, i) => i + 1), 'every step once');
  await noneLeft(lhd);
});

test('two hosts that share neither disk nor memory train one job', async (t) => {
  const hosts = Hosts.make(t);
  if (!hosts) return;
  const lhd = await fresh(t, { disk: hosts.first });
  const address = `${hosts.address}:29400`, copy = join(lhd.dir, 'copy');
  const set = (r) => ({ RANK: r, WORLD_SIZE: 2, LOCAL_RANK: 0, MASTER_ADDR: hosts.address });
  const start = async (id, attempt, ranks = [0, 1], on = ranks) => {
    await waits(lhd, id, attempt);
    copyFileSync(file(lhd, id), copy);
    return ranks.map((r, i) => rank(t, lhd, id, set(r), on[i] ? { within: hosts.second(lhd.state), path: copy } : { within: hosts.within }));
  };
  const why = (id, attempt) => until('its end is told', async () => (await attempts(lhd, id))[attempt - 1]?.why);
  const own = await submit(lhd, job('', 30));
  await lhd.jobUntil(own, 'DONE', done);
  const from = (await lhd.call('job.checkpoints', { job: own })).checkpoints.at(-1).path;

  copyFileSync(join(lhd.dir, 'text.train.bin'), join(lhd.state, 'hidden.bin'));
  const blind = await submit(lhd, job(address, LONG, { data: { train: 'state/hidden.bin', seq_len: 128 } }));
  const [wrong] = await start(blind, 1, [0], [1]); // rank 0 where lhd is not
  assert.match((await wrong.ended).said, /rank 0 is not on lhd's host/);
  assert.deepEqual(await codes([wrong, ...await start(blind, 1)]), [2, 1, 1]);
  const { reason } = await lhd.jobUntil(blind, 'FAILED', (j) => j.state === 'FAILED');
  assert.match(reason, /rank 1: .*hidden\.bin.*No such file or directory/);

  // From weights that the second host does not see, and then from a checkpoint.
  const id = await submit(lhd, job(address, LONG, { restarts: 20, model: { from } }));
  let ranks = await start(id, 1);
  await saved(lhd, id, 1, ranks);
  process.kill(findRank(lhd, 1).pid, 'SIGKILL');
  assert.deepEqual(await codes(ranks), [1, 1]);
  assert.match(await why(id, 1), /rank 1 was killed by signal 9 \(Killed\) in step \d+, (in|after) collective \d+ \(.+\), on host second/);

  ranks = await start(id, 2);
  await saved(lhd, id, 2, ranks);
  hosts.cut();
  assert.deepEqual(await codes(ranks), [1, 1]);
  assert.match(await why(id, 2), /rank 1 was lost with its launcher or its host, second/);
  await lhd.call('job.cancel', { job: id });
  await noneLeft(lhd);
  const lines = [...(await losses(lhd, id)).keys()];
  assert.deepEqual(lines, lines.map((_, i) => i + 1), 'every step once');
  assert.deepEqual(readdirSync(lhd.dir).filter((f) => f.startsWith('lighthouse-rank-')), [], 'what a rank had is removed');
});
