// quiet.mjs: a job done once more by a worker that nobody disturbs: no daemon, no loss,
// and the commands of the first run given at the steps at which they were applied.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { bin } from './lhd.mjs';

/** [{step, phase, loss, lr}] of the line of attempts that counts. */
export async function steps(lhd, job) {
  const { steps: rows, more } = await lhd.call('job.steps', { job, limit: 10000 });
  assert.equal(more, false);
  return rows.map(({ step, phase, loss, lr }) => ({ step, phase, loss, lr }));
}

/** The same of the quiet run of a job of `lhd`; `over` replaces parts of its spec. `from`: it
 * goes on from the job's newest checkpoint of that step or before. */
export function quietRun(lhd, job, over = {}, from = 0) {
  const dir = join(lhd.dir, `quiet-${job}-${from}`), attempt = join(dir, 'attempt-1');
  const spec = JSON.parse(readFileSync(join(lhd.state, 'jobs', String(job), 'job.json'), 'utf8'));
  const replay = lhd.sql(`select id, substr(method, 5) verb, args_json, step from commands where job=${job} and outcome='applied' and method in ('job.switch', 'job.set') order by id`)
    .map(({ args_json, ...c }) => ({ ...c, args: JSON.parse(args_json) }));
  mkdirSync(attempt, { recursive: true });
  if (from) {
    const all = join(lhd.state, 'jobs', String(job), 'checkpoints');
    const name = readdirSync(all).filter((d) => Number(/^step-(\d+)$/.exec(d)?.[1]) <= from).sort().at(-1);
    cpSync(join(all, name), join(dir, 'checkpoints', name), { recursive: true });
  }
  writeFileSync(join(dir, 'job.json'), JSON.stringify({ ...spec, ...over }));
  writeFileSync(join(attempt, 'start.json'), JSON.stringify({ job: 1, attempt: 1, token: 'quiet', generation: 1, socket: join(dir, 'nobody.sock'), paused: false, saved: false, replay }));
  const r = spawnSync(bin('lhworker-cpu'), ['--attempt', attempt], { encoding: 'utf8', timeout: 120_000 });
  assert.equal(r.status, 0, r.stderr);
  return readFileSync(join(attempt, 'spool.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l))
    .filter((r) => r.t === 'step').map(({ step, phase, loss, lr }) => ({ step, phase, loss, lr }));
}
