// disk.test.mjs: disks that are full or read-only, and a database that somebody else
// locks for minutes. Training goes on, people are told, and nothing is lost. The
// tests mostly wait, so they run beside each other.
import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, atEnd, until, bin, scratch, packText, submit, losses, jobYaml } from './lib/lhd.mjs';
import { Disk } from './lib/disk.mjs';

const LONG = { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }], checkpoint: { every_steps: 20, keep: 2 } };
const LOCKED_MS = 125_000;

const warnings = (lhd, job) => lhd.sql(`select text from events where job=${job} and kind='worker.warn' order by id`).map((e) => e.text);
const stored = (lhd, job) => lhd.sql(`select max(step) s from steps where job=${job}`)[0].s ?? 0;
const saved = (lhd, job) => lhd.sql(`select max(step) s from checkpoints where job=${job}`)[0].s ?? 0;

/** CPU time a process has used. */
const cpuMs = (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ').slice(11, 13).reduce((sum, ticks) => sum + 10 * ticks, 0);

/** Lets a job train a twentieth of the time, from here on. */
async function slowly(t, lhd, job) {
  const pid = await lhd.workerPid(job);
  const signal = (s) => { try { process.kill(pid, s); } catch { /* it has ended */ } };
  const timer = setInterval(() => { signal('SIGCONT'); setTimeout(() => signal('SIGSTOP'), 20); }, 400);
  const stop = () => { clearInterval(timer); setTimeout(() => signal('SIGCONT'), 30); };
  atEnd(t, stop);
  return stop;
}

/** All steps up to the newest, each once. */
async function hasAllSteps(lhd, job) {
  const keys = [...(await losses(lhd, job)).keys()];
  assert.deepEqual(keys, Array.from({ length: keys.length }, (_, i) => i + 1));
}

async function cancel(lhd, job) {
  await lhd.call('job.cancel', { job });
  await lhd.jobUntil(job, 'CANCELLED', (j) => j.state === 'CANCELLED');
}

describe('a disk', { concurrency: true }, () => {
  test('of checkpoints that is full, then read-only, takes them again when it can', async (t) => {
    const dir = scratch(t);
    packText(dir);
    const state = await Disk.mount(t, join(dir, 'state'), '64m');
    const lhd = await Lhd.start(t, dir, [], { disk: state });
    const job = await submit(lhd, LONG);
    await slowly(t, lhd, job);
    await lhd.jobUntil(job, 'a checkpoint', () => saved(lhd, job) > 0);
    const disk = state.mountAt(join(lhd.inner, 'jobs', String(job), 'checkpoints'), '4m');
    const mounted = stored(lhd, job);
    await lhd.jobUntil(job, 'one on that disk', () => saved(lhd, job) > mounted);

    disk.fill();
    await lhd.jobUntil(job, 'it is told of', () => warnings(lhd, job).some((w) => /^no checkpoint of step \d+: .*No space left on device/.test(w)));
    const full = stored(lhd, job);
    await lhd.jobUntil(job, 'training goes on', () => stored(lhd, job) > full + 20);
    disk.makeRoom();
    await lhd.jobUntil(job, 'checkpoints again', () => saved(lhd, job) > full);

    await until('it is read-only', () => disk.remount('ro'));
    await lhd.jobUntil(job, 'it is told of', () => warnings(lhd, job).some((w) => /Read-only file system/.test(w)));
    const readonly = stored(lhd, job);
    await lhd.jobUntil(job, 'training goes on', () => stored(lhd, job) > readonly + 20);
    await until('it is writable', () => disk.remount('rw'));
    await lhd.jobUntil(job, 'checkpoints again', () => saved(lhd, job) > readonly);
    await cancel(lhd, job);
    await hasAllSteps(lhd, job);
  });

  test('of the state directory that is full: commands are refused, records are kept', async (t) => {
    const dir = scratch(t);
    packText(dir);
    const disk = await Disk.mount(t, join(dir, 'state'), '16m');
    const lhd = await Lhd.start(t, dir, [], { disk });
    const job = await submit(lhd, LONG);
    await slowly(t, lhd, job);
    await lhd.jobUntil(job, 'a checkpoint', () => saved(lhd, job) > 0);

    disk.fill();
    await until('it is told of', () => /store: .*(disk is full|disk I\/O error); writes wait/.test(lhd.log()));
    const before = stored(lhd, job), pid = await lhd.workerPid(job);
    const refusal = (e) => /LH_E(STORE|IO)/.test(e.reply?.data.name) && /room|disk/.test(e.reply.data.hint);
    await assert.rejects(lhd.call('job.pause', { job }), refusal);
    await assert.rejects(lhd.call('job.submit', { yaml: jobYaml(LONG), base_dir: dir }), refusal);
    const full = { from: Date.now(), cpu: cpuMs(pid) };
    await until('training goes on', () => cpuMs(pid) > full.cpu + 500);
    full.to = Date.now();

    disk.makeRoom();
    await lhd.jobUntil(job, 'all is stored', () => stored(lhd, job) > before + 20);
    await lhd.jobUntil(job, 'checkpoints again', () => saved(lhd, job) > before);
    await lhd.call('job.pause', { job });
    await lhd.jobUntil(job, 'PAUSED', (j) => j.state === 'PAUSED');
    await cancel(lhd, job);
    await hasAllSteps(lhd, job);
    const [{ n }] = lhd.sql(`select count(*) n from steps where job=${job} and time_ms between ${full.from} and ${full.to}`);
    assert.ok(n > 20, `${n} steps of that time`);
    assert.equal(lhd.sql("select count(*) n from events where text like '%were dropped%'")[0].n, 0);
  });

  test('on which lhd cannot start is named, with a remedy', async (t) => {
    const dir = scratch(t), state = join(dir, 'disk/state');
    const disk = await Disk.mount(t, join(dir, 'disk'), '1m');
    const start = () => disk.run(bin('lhd'), '--state', state);
    disk.fill();
    const full = start();
    assert.equal(full.status, 1, full.stderr);
    assert.match(full.stderr, /cannot start: .*No space left on device.*\(hint: make room/);
    disk.makeRoom();
    await until('it is read-only', () => disk.remount('ro'));
    const readonly = start();
    assert.equal(readonly.status, 1, readonly.stderr);
    assert.match(readonly.stderr, /cannot start: .*Read-only file system.*\(hint: .*read-only/);
  });

  test('and a database locked for two minutes, through the death of lhd: nothing is lost', async (t) => {
    const dir = scratch(t);
    packText(dir);
    const lhd = await Lhd.start(t, dir);
    const job = await submit(lhd, LONG);
    const hurry = await slowly(t, lhd, job);
    await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
    const lock = spawn('sqlite3', [lhd.db], { stdio: ['pipe', 'pipe', 'inherit'] });
    atEnd(t, () => lock.kill('SIGKILL'));
    lock.stdin.write('.timeout 5000\nBEGIN IMMEDIATE;\nSELECT 1;\n');
    await once(lock.stdout, 'data');
    const before = stored(lhd, job), pid = await lhd.workerPid(job);
    const half = new Promise((r) => setTimeout(r, LOCKED_MS / 2));
    const whole = new Promise((r) => setTimeout(r, LOCKED_MS));
    await until('training goes on', async () => (await lhd.call('job.get', { job })).step > before + 20);
    await half;
    await lhd.restart();
    await until('the worker is found again', async () => (await lhd.call('daemon.info', {})).workers === 1);
    await until('training goes on', async () => (await lhd.call('job.get', { job })).step > before + 40);
    await whole;
    assert.equal(stored(lhd, job), before);
    lock.stdin.end('ROLLBACK;\n');
    await lhd.jobUntil(job, 'all is stored', () => stored(lhd, job) > before + 40);
    hurry();
    await cancel(lhd, job);
    await hasAllSteps(lhd, job);
    const { attempts } = await lhd.call('job.show', { job });
    assert.deepEqual(attempts.map((a) => [a.pid, a.outcome]), [[pid, 'cancelled']]);
  });
});
