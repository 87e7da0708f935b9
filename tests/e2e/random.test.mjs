// random.test.mjs: no sequence of calls, legal or not, brings lhd or a job where they may
// not be. Calls of every method with any parameters, to a few jobs that train, lhd ended
// now and then in every way it can be.
//
// LH_RANDOM_SEED=N does other calls, the same for the same N; how they meet the training
// is not told by it. LH_RANDOM_CALLS=N makes more of them.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, checkShape, jobYaml, packText, schemas, scratch, submit, until } from './lib/lhd.mjs';
import { anyCall } from './lib/calls.mjs';
import { random } from './lib/random.mjs';
import { LEGAL, checkCommands, checkStates, checkSteps } from '../crash/check.mjs';

const SEED = Number(process.env.LH_RANDOM_SEED ?? 1);
const CALLS = Number(process.env.LH_RANDOM_CALLS ?? 2000);
const LIMIT_MS = 20_000;
const JOBS_MAX = 12; // a submit beyond them is a dry run

/** What any call may be refused by. */
const ANY = ['LH_EPARAMS', 'LH_EMETHOD'];
const STEERING = ['job.switch', 'job.pause', 'job.resume', 'job.checkpoint', 'job.set', 'job.eval'];
/** Those that change something come more often than those that look. */
const METHODS = [...schemas.keys(), 'job.unknown', ...STEERING, ...STEERING, ...STEERING, 'job.resume', 'job.resume', 'job.resume', 'job.submit', 'job.submit', 'rule.add']
  .filter((m) => !['daemon.stop', 'daemon.restart'].includes(m));

/** Every call is answered. */
async function answered(reply, method) {
  let timer;
  const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`${method} is not answered`)), LIMIT_MS); });
  try { return await Promise.race([reply, late]); } finally { clearTimeout(timer); }
}

class Run {
  constructor(lhd, r) { Object.assign(this, { lhd, r, states: new Map(), lastEvent: 0, commands: new Map(), asked: new Map(), steps: new Map(), calls: [], counts: { done: 0, refused: 0 } }); }

  /** What was pushed, whenever the connection goes. */
  takeNotes() {
    for (const { method, params } of this.lhd.client.notes.splice(0))
      if (method === 'step') this.steps.set(params.job, Math.max(this.steps.get(params.job) ?? 0, params.step));
  }

  async listen() { await this.lhd.call('job.subscribe', { steps: true }); }

  /** One call; its answer is what its schema says. */
  async call() {
    const { method, params } = anyCall(this.r, METHODS, this.lhd.dir);
    if (method === 'job.cancel' && this.r.chance(0.8)) return; // too many would leave nothing to steer
    if (['job.submit', 'job.replay'].includes(method) && this.states.size >= JOBS_MAX) {
      if (method === 'job.replay') return;
      params.dry_run = true;
    }
    this.calls.push(`${method} ${JSON.stringify(params).slice(0, 200)}`);
    const { result, error } = await answered(this.lhd.client.request(method, params), method);
    if (error) this.checkError(method, error);
    else this.checkResult(method, params, result);
    this.counts[error ? 'refused' : 'done']++;
  }

  checkError(method, error) {
    const { code, message, data } = error;
    assert.ok(code < 0 && message.length > 5 && !/[\u0000-\u001f]/.test(message), JSON.stringify(error));
    assert.ok([...ANY, ...schemas.get(method)?.errors ?? []].includes(data.name), `${method} does not say that it may be refused by ${data.name}: ${message}`);
  }

  checkResult(method, params, result) {
    checkShape(result, schemas.get(method).result, method);
    const { request_id: id, message, program, ...rest } = params, key = JSON.stringify([method, rest]);
    if (!result.command || params.dry_run) return;
    if (this.asked.has(id)) assert.deepEqual(this.asked.get(id), { key, command: result.command }, `request id ${id}`);
    else assert.ok(!this.commands.has(result.command), `command ${result.command} was given twice`);
    if (id) this.asked.set(id, { key, command: result.command });
    this.commands.set(result.command, { job: result.job, method });
  }

  /** Every change of a state that was stored since is one that job.c allows. */
  async checkStates() {
    const { events } = await this.lhd.call('job.events', { after_id: this.lastEvent, kind: 'job.*', limit: 10000 });
    for (const { id, job, kind, data } of events) {
      this.lastEvent = id;
      if (kind === 'job.submitted') this.states.set(job, 'QUEUED');
      if (kind !== 'job.state') continue;
      assert.equal(data.from, this.states.get(job), `event ${id} of job ${job}`);
      assert.ok(LEGAL[data.from]?.includes(data.to), `event ${id} of job ${job}: ${data.from} -> ${data.to}`);
      this.states.set(job, data.to);
    }
  }

  /** Lets the jobs get on: until something happens, if anything does. */
  async pause() {
    const end = Date.now() + 150;
    await until('something happens', () => this.lhd.client.notes.length > 20 || Date.now() > end);
  }

  async endLhd() {
    const { lhd, r } = this, how = r.pick(['SIGKILL', 'SIGKILL', 'SIGTERM', 'daemon.restart', 'daemon.stop']);
    this.calls.push(how);
    this.takeNotes();
    if (how.startsWith('SIG')) {
      await lhd.restart(how);
    } else {
      await lhd.call(how, {});
      await lhd.client.closed;
      if (how === 'daemon.stop') assert.equal((await lhd.end('SIGCONT')).code, 0);
      if (how === 'daemon.stop') await lhd.boot();
      else await lhd.answers();
    }
    await this.listen();
  }

  /** Ends what still runs; a call may come too late for it. */
  async endJobs() {
    for (const { job } of (await this.lhd.call('job.list', {})).jobs)
      await until(`job ${job} ends`, async () => {
        const { state } = await this.lhd.call('job.get', { job });
        if (['DONE', 'FAILED', 'CANCELLED'].includes(state)) return true;
        const { result } = await this.lhd.client.request('job.cancel', { job });
        if (result) this.commands.set(result.command, { job, method: 'job.cancel' });
        return false;
      });
  }

  /** What the database must have in the end. */
  checkStore() {
    const bad = [], { db } = this.lhd;
    for (const job of this.states.keys()) {
      const accepted = [...this.commands].filter(([, c]) => c.job === job && c.method.startsWith('job.') && !['job.submit', 'job.replay'].includes(c.method));
      const of = { file: db, job };
      const found = [];
      checkStates(of, found);
      checkSteps(of, found);
      checkCommands(of, accepted.map(([id]) => id), found);
      const [{ step }] = this.lhd.sql(`select coalesce(max(step), 0) step from steps where job=${job}`);
      if (step < (this.steps.get(job) ?? 0)) found.push(`step ${this.steps.get(job)} was told and is not in the store, ${step} is the last`);
      bad.push(...found.map((text) => `job ${job}: ${text}`));
    }
    const rows = this.lhd.sql('select id from commands').map((c) => c.id);
    for (const id of this.commands.keys()) if (!rows.includes(id)) bad.push(`command ${id} is not in the journal`);
    for (const { id } of this.lhd.sql("select id from commands where outcome is null or outcome not in ('applied', 'refused', 'reverted')")) bad.push(`command ${id} has no outcome`);
    assert.deepEqual(bad, []);
  }
}

test('no calls bring lhd or a job where they may not be', async (t) => {
  const dir = scratch(t);
  packText(dir);
  mkdirSync(join(dir, 'state', 'hooks'), { recursive: true, mode: 0o700 });
  writeFileSync(join(dir, 'state', 'hooks', 'note'), '#!/bin/sh\nread line\n', { mode: 0o700 });
  const lhd = await Lhd.start(t, dir, ['--slots', '2']), run = new Run(lhd, random(SEED));
  console.log(`LH_RANDOM_SEED=${SEED}`);
  await run.listen();
  for (const name of ['a', 'b', 'c'])
    await submit(lhd, { name, phases: [...JSON.parse(jobYaml()).phases].map((p, i) => ({ ...p, until: { steps: i ? 100 : 100_000 } })) });
  try {
    for (let i = 0; i < CALLS; i++) {
      await run.call();
      await run.checkStates();
      if (run.r.chance(0.04)) await run.pause();
      if (run.r.chance(0.008)) await run.endLhd();
    }
    run.takeNotes();
    await run.endJobs();
    await run.checkStates();
    assert.equal((await lhd.end('SIGTERM')).code, 0);
    run.checkStore();
    assert.deepEqual(lhd.log().split('\n').filter((line) => /^\S+ error /.test(line)), []);
  } catch (error) {
    error.message += `\nLH_RANDOM_SEED=${SEED}; the last calls:\n${run.calls.slice(-15).join('\n')}\n${lhd.log().slice(-2000)}`;
    throw error;
  }
  console.log(`${run.counts.done} calls done, ${run.counts.refused} refused, ${run.states.size} jobs, ${[...run.steps.values()].reduce((a, b) => a + b, 0)} steps`);
  assert.ok(run.counts.done > CALLS / 5 && run.counts.refused > CALLS / 5);
});
