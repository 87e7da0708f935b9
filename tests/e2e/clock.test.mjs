// clock.test.mjs: somebody sets the clock while a job runs: nothing is measured by
// it, and nothing is ordered by it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, atEnd, until, build, scratch, packText, submit, losses, processesOf } from './lib/lhd.mjs';

const YEAR_S = 365 * 86400;
const done = (j) => j.state === 'DONE';
const JOB = { phases: [{ name: 'all', attention: 'full', until: { steps: 500 } }] };

async function fresh(t) {
  const dir = scratch(t), file = join(dir, 'clock'), shim = join(build, 'tests/clock.so');
  assert.ok(existsSync(shim), `${shim} was not built`);
  packText(dir);
  const set = (seconds) => writeFileSync(file, String(seconds));
  set(0);
  const lhd = await Lhd.start(t, dir, ['--hang-ms', '5000'], { env: { LD_PRELOAD: shim, LH_CLOCK_FILE: file } });
  return { lhd, set };
}

test('a clock that jumps by years changes no loss, no order, and ends no worker', async (t) => {
  const { lhd, set } = await fresh(t);
  const quiet = await submit(lhd, JOB);
  await lhd.jobUntil(quiet, 'DONE', done);
  const job = await submit(lhd, { ...JOB, name: 'jumped' });
  const on = (what) => until(what, async () => (await lhd.call('job.get', { job })).step > at + 30);
  await lhd.jobUntil(job, 'some steps', (j) => j.step >= 10);
  let at = (await lhd.call('job.get', { job })).step;
  set(YEAR_S);
  await on('it goes on, a year later');
  set(-YEAR_S);
  at = (await lhd.call('job.get', { job })).step;
  await on('it goes on, two years earlier');
  assert.equal((await lhd.call('job.get', { job })).attempt, 1);

  process.kill(await lhd.workerPid(job), 'SIGKILL');
  await lhd.jobUntil(job, 'RESTARTING', (j) => j.state === 'RESTARTING');
  set(-2 * YEAR_S); // the pause must not last two years
  await lhd.restart();
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual(await losses(lhd, job), await losses(lhd, quiet));

  const [{ span }] = lhd.sql('select max(time_ms) - min(time_ms) span from events');
  assert.ok(span > 2 * YEAR_S * 1000, 'the clock did not jump');
  const { events } = await lhd.call('job.events', { job });
  assert.deepEqual(events.map((e) => e.id), events.map((e) => e.id).sort((a, b) => a - b));
  assert.deepEqual(lhd.sql("select id from events where kind in ('worker.hung', 'worker.kill')"), []);
  const { attempts } = await lhd.call('job.show', { job });
  assert.deepEqual(attempts.map((a) => a.outcome), ['lost', 'done']);
});

test('a worker waits for its predecessor as long as ever when the clock is set', async (t) => {
  const { lhd, set } = await fresh(t);
  const dir = join(lhd.state, 'jobs', '1');
  mkdirSync(dir, { recursive: true });
  const holder = spawn('sh', ['-c', 'exec 9>>lock && flock 9 && echo held && exec sleep 1000000'], { cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] });
  atEnd(t, () => holder.kill('SIGKILL'));
  await once(holder.stdout, 'data');
  const job = await submit(lhd, JOB);
  assert.equal(job, 1);
  const comm = (pid) => { try { return readFileSync(`/proc/${pid}/comm`, 'utf8'); } catch { return ''; } };
  const workers = () => processesOf(lhd.dir).filter((pid) => comm(pid) === 'lhworker-cpu\n');
  const [pid] = await until('its worker waits', () => workers().length && workers());
  set(YEAR_S);
  for (const end = Date.now() + 1000; Date.now() < end; await new Promise((r) => setTimeout(r, 50)))
    assert.deepEqual(workers(), [pid]); // it looks twenty times a second
  holder.kill('SIGKILL');
  await lhd.jobUntil(job, 'DONE', done);
  assert.equal((await lhd.call('job.show', { job })).attempts.length, 1);
});
