// case.mjs: one case of the crash harness: a small job or two, commands and
// faults, run until it ends and everything that was started is gone.
import { spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, openSync, closeSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { Client, bin, until, jobYaml, processesOf } from '../e2e/lib/lhd.mjs';

export const STEPS = [40, 30]; // of the two phases
const LIMIT_MS = 90_000;
/** Workers that a case may lose. The daemon's own limit on starts of itself. */
const RESTARTS = 30, BOOTS_MAX = 40;

/** The job: one that switches by itself, by command, or whose switch is taken back. */
const RULES = [{ name: 'saves', when: 'step >= 6', do: 'checkpoint' }, { name: 'tells', when: 'step >= 9', do: 'exec tell' }];

export function jobOf(kind, switchStep = STEPS[0], rules = RULES) {
  const first = kind === 'natural' ? switchStep : 100_000;
  return jobYaml({
    restarts: RESTARTS,
    model: { vocab: 257, dim: 48, layers: 2, heads: 2, ffn_dim: 96 },
    data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 256 },
    phases: [
      { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: first } },
      { name: 'recovery', attention: 'full', until: { steps: STEPS[1] } },
    ],
    switch: { watch_steps: 10, loss_ceiling: kind === 'rewind' ? 1e-6 : 1000 },
    checkpoint: { every_steps: 8, keep: 2 },
    evaluation: { sequences: 1, every_steps: 16 },
    rules,
  });
}

export class Case {
  /** `env`: what the processes get; `kind` as in jobOf; `count` of jobs, at once. */
  constructor(dir, text, kind, env, count = 1, rules = RULES) {
    Object.assign(this, { rules, dir, text, kind, count, boots: 0, killed: 0, jobs: [], accepted: [], stopping: false });
    this.state = join(dir, 'state');
    this.notes = join(dir, 'points');
    mkdirSync(this.notes, { recursive: true });
    mkdirSync(join(this.state, 'hooks'), { recursive: true, mode: 0o700 });
    writeFileSync(join(this.state, 'hooks', 'tell'), '#!/bin/sh\nread line\n', { mode: 0o700 });
    this.env = { ...process.env, LH_FAILPOINT_DIR: this.notes, ...env };
  }

  // ---- the daemon, kept alive as an init system would ----------------------

  boot() {
    if (++this.boots > BOOTS_MAX) throw new Error(`lhd ended ${BOOTS_MAX} times`);
    const log = openSync(join(this.dir, 'lhd.log'), 'a');
    this.lhd = spawn(bin('lhd'), ['--state', this.state, '--hang-ms', '600', '--slots', this.count], { stdio: ['ignore', log, log], env: this.env });
    closeSync(log);
    this.lhdGone = new Promise((r) => this.lhd.once('exit', r));
    this.lhd.once('exit', () => { if (!this.stopping) this.boot(); });
  }

  async client() {
    if (this.connection && !this.connection.socket.destroyed) return this.connection;
    this.connection = null;
    try { this.connection = await Client.connect(join(this.state, 'control.sock')); } catch { /* it is starting */ }
    return this.connection;
  }

  /** Until lhd answers: a lost connection is asked again, with the same request id. */
  async call(method, params) {
    return until(method, async () => {
      const c = await this.client();
      if (!c) return null;
      const answer = await Promise.race([c.call(method, params).then((result) => ({ result }), (error) => ({ error })), c.closed.then(() => null)]);
      if (!answer || /closed|EPIPE|ECONNRESET/.test(answer.error?.message ?? '')) return null;
      if (/is stopping and takes no/.test(answer.error?.message ?? '')) return null;
      return answer;
    }, LIMIT_MS);
  }

  /** To the first job unless another is named. */
  async command(verb, params = {}) {
    const job = params.job ?? this.jobs[0];
    const { result, error } = await this.call(`job.${verb}`, { job, request_id: randomUUID(), ...params });
    this.note(`${verb} -> ${result ? `command ${result.command}` : error.message}`);
    if (result) this.accepted.push({ job, command: result.command });
    return result;
  }

  note(text) { appendFileSync(join(this.dir, 'case.log'), `${new Date().toISOString()} ${text}\n`); }

  // ---- the job ---------------------------------------------------------------

  async jobUntil(what, test, job = this.jobs[0]) {
    return until(what, async () => {
      const j = (await this.call('job.get', { job })).result;
      return (test(j) || ['DONE', 'FAILED', 'CANCELLED'].includes(j.state)) && j;
    }, LIMIT_MS);
  }

  /** Refused for want of room, somebody asks again. */
  async submit() {
    for (;;) {
      const { result, error } = await this.call('job.submit', { yaml: jobOf(this.kind, STEPS[0], this.rules), base_dir: this.text, request_id: randomUUID() });
      if (result) return result.job;
      if (!/No space left/.test(error.message)) throw error;
    }
  }

  /** `script`: [{step, act, args}], each done once the job has come that far. */
  async run(script) {
    this.boot();
    while (this.jobs.length < this.count) this.jobs.push(await this.submit());
    for (const { step, act, args } of script) {
      await this.jobUntil(`step ${step}`, (j) => j.step >= step);
      await this.act(act, args);
    }
    if (this.kind === 'rewind') {
      await this.jobUntil('it was taken back and goes on', (j) => j.attempt > 1 && j.phase === 0 && j.step > 60);
      await this.command('cancel');
    }
    this.last = [];
    for (const job of this.jobs) this.last.push(await this.end(job));
    await this.stop();
  }

  /** A switch is taken back when two workers were lost in its trial; then somebody asks again. */
  async end(job) {
    const asked = new Set();
    return until('the end', async () => {
      const j = (await this.call('job.get', { job })).result;
      if (['DONE', 'FAILED', 'CANCELLED'].includes(j.state) || /^held/.test(j.reason)) return j;
      if (this.kind === 'rewind' || j.attempt < 3) return null;
      const { last_switch: last } = (await this.call('job.show', { job })).result;
      const key = `${last?.command} ${last?.from_step}`;
      if (last?.verdict === 'reverted' && !asked.has(key) && await this.command('switch', { job, phase: 'recovery' })) asked.add(key);
      return null;
    }, LIMIT_MS);
  }

  async act(act, args) {
    if (act === 'kill') return this.kill(args);
    if (act === 'term') {
      this.note('SIGTERM to lhd');
      this.killed++;
      this.lhd.kill('SIGTERM');
      return this.lhdGone;
    }
    if (act === 'pause') {
      if (await this.command('pause', args)) await this.command('resume');
      return null;
    }
    if (act === 'restart') return this.call('daemon.restart', {});
    return this.command(act, args);
  }

  /** SIGKILL or SIGSTOP, from outside, to processes of these programs. */
  kill({ programs, signal = 'SIGKILL' }) {
    for (const pid of processesOf(this.dir)) {
      let name = '';
      try { name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim(); } catch { continue; }
      if (!programs.some((p) => name.startsWith(p))) continue;
      this.note(`${signal} to ${name} ${pid}`);
      this.killed++;
      try { process.kill(pid, signal); } catch { /* it has ended */ }
    }
  }

  async stop() {
    this.stopping = true;
    this.connection?.close();
    this.lhd.kill('SIGTERM');
    await this.lhdGone;
  }

  async destroy() {
    this.stopping = true;
    this.lhd?.kill('SIGKILL');
    await until('no process is left', () => {
      const left = processesOf(this.dir);
      for (const pid of left) try { process.kill(pid, 'SIGKILL'); } catch { /* it has ended */ }
      return !left.length;
    });
  }

  /** Names of the failpoints that were come to, and actions that were taken. */
  points() {
    const files = readdirSync(this.notes);
    const of = (prefix) => files.filter((f) => f.startsWith(prefix)).map((f) => f.slice(prefix.length));
    return { hit: of('hit-'), done: of('done-') };
  }
}
