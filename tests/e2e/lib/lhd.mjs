// lhd.mjs: a real lhd for one test: started in a directory of its own, spoken to
// over its control socket, and ended with everything it started.
//
// Every result is checked against schema/rpc/METHOD.json, so a reply that does
// not match its published shape fails whichever test saw it.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, readFileSync, readdirSync, existsSync, writeFileSync, openSync, closeSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import net from 'node:net';
import assert from 'node:assert/strict';

export const build = resolve(process.env.LH_BUILD ?? 'build');
export const bin = (name) => join(build, 'bin', name);

/** Every method of schema/rpc/ by its name. */
export const schemas = new Map(readdirSync('schema/rpc').map((f) => {
  const s = JSON.parse(readFileSync(join('schema/rpc', f)));
  return [s.method, s];
}));

/** Polls `probe` until it gives something true; fails after `limitMs`. */
export async function until(what, probe, limitMs = 60_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const got = await probe();
    if (got) return got;
    if (Date.now() > end) assert.fail(`timed out after ${limitMs} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

/** Throws unless `value` has the shape that a result schema describes. */
export function checkShape(value, schema, where) {
  if (value === null) return assert.ok(schema.nullable, `${where} is null`);
  const type = Array.isArray(value) ? 'array' : Number.isInteger(value) && schema.type === 'integer' ? 'integer' : typeof value;
  assert.equal(type, schema.type, `${where} is ${JSON.stringify(value)?.slice(0, 80)}`);
  if (type === 'array') value.forEach((v, i) => schema.items && checkShape(v, schema.items, `${where}[${i}]`));
  if (type !== 'object' || !schema.properties) return;
  for (const key of Object.keys(value)) assert.ok(schema.properties[key], `${where} has an undocumented '${key}'`);
  for (const [key, sub] of Object.entries(schema.properties)) {
    if (!(key in value)) assert.ok(sub.optional, `${where} lacks '${key}'`);
    else checkShape(value[key], sub, `${where}.${key}`);
  }
}

/** One control connection. Notifications are kept in `notes`. */
export class Client {
  static connect(path) {
    return new Promise((done, fail) => {
      const socket = net.createConnection(path, () => done(new Client(socket)));
      socket.once('error', fail);
    });
  }

  constructor(socket) {
    this.socket = socket;
    this.notes = [];
    this.waiting = new Map();
    this.next = 1;
    this.closed = new Promise((r) => socket.once('close', r));
    let text = '';
    socket.on('error', () => {});
    socket.setEncoding('utf8').on('data', (chunk) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop();
      for (const line of lines) this.take(JSON.parse(line));
    });
    socket.once('close', () => { for (const { fail } of this.waiting.values()) fail(new Error('connection closed')); });
  }

  take(message) {
    const wait = this.waiting.get(message.id);
    if (message.method || !wait) return void this.notes.push(message);
    this.waiting.delete(message.id);
    wait.done(message);
  }

  /** The whole reply object, result or error. */
  request(method, params = {}) {
    const id = this.next++;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      this.socket.write(JSON.stringify({ jsonrpc: '2.0', id, method, params }) + '\n');
    });
  }

  /** The result, its shape checked; an error reply throws. */
  async call(method, params) {
    const reply = await this.request(method, params);
    if (reply.error) throw Object.assign(new Error(`${method}: ${reply.error.message}`), { reply: reply.error });
    checkShape(reply.result, schemas.get(method).result, method);
    return reply.result;
  }

  close() { this.socket.destroy(); }
}

/** Runs `undo` after the test, the last one given first; all of them, though one fails: what
 * it leaves running would take the processors of tests to come. */
const undone = new WeakMap();
export function atEnd(t, undo) {
  if (!undone.has(t)) {
    const stack = [];
    undone.set(t, stack);
    t.after(async () => {
      let failed = null;
      while (stack.length) await Promise.resolve().then(stack.pop()).catch((e) => { failed ??= e; });
      if (failed) throw failed;
    });
  }
  undone.get(t).push(undo);
}

/** A directory for one test, removed at its end. Short: socket paths are. */
export function scratch(t) {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'lh-')));
  atEnd(t, () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Pids of live processes whose command line names `dir`. */
export function processesOf(dir) {
  return readdirSync('/proc').filter((p) => /^\d+$/.test(p)).filter((p) => {
    try {
      return Number(p) !== process.pid && readFileSync(`/proc/${p}/cmdline`, 'utf8').includes(dir) &&
        !/^State:\s+Z/m.test(readFileSync(`/proc/${p}/status`, 'utf8'));
    } catch { return false; }
  }).map(Number);
}

export class Lhd {
  /** Starts lhd on DIR/state and waits until it answers. `env`: for it and its
   * workers; `disk` (lib/disk.mjs): it runs where that is mounted. */
  static async start(t, dir, args = [], over = {}) {
    const lhd = new Lhd(t, dir, args, over);
    atEnd(t, () => lhd.destroy());
    await lhd.boot();
    return lhd;
  }

  constructor(t, dir, args, { env = {}, disk = null }) {
    Object.assign(this, { dir, args, env, disk, clients: [] });
    this.inner = join(dir, 'state'); // as lhd sees it, and as we do
    this.state = disk ? disk.path(this.inner) : this.inner;
    this.socket = join(this.state, 'control.sock');
    this.db = join(this.state, 'lighthouse.db');
  }

  spawn() {
    const log = openSync(join(this.dir, 'lhd.log'), 'a');
    const command = [...(this.disk?.within ?? []), bin('lhd'), '--state', this.inner, ...this.args];
    this.process = spawn(command[0], command.slice(1), { stdio: ['ignore', log, log], env: { ...process.env, ...this.env } });
    closeSync(log);
    this.exited = new Promise((r) => this.process.once('exit', (code, signal) => r({ code, signal })));
  }

  async boot() {
    this.spawn();
    let ended = null;
    this.exited.then((e) => { ended = e; });
    await this.answers(() => assert.equal(ended, null, `lhd ended early: ${this.log()}`));
  }

  /** Until it does: a child of one that was killed may have its socket for a moment. */
  async answers(look = () => {}) {
    this.client = await until('lhd answers', async () => {
      look();
      try {
        const c = await this.connect();
        await c.call('daemon.info', {});
        return c;
      } catch { return null; }
    });
  }

  log() { return readFileSync(join(this.dir, 'lhd.log'), 'utf8'); }
  async connect() {
    const c = await Client.connect(this.socket);
    this.clients.push(c);
    return c;
  }

  call(method, params) { return this.client.call(method, params); }

  /** Rows of a query on the database, as objects. */
  sql(query) {
    const db = join(this.inner, 'lighthouse.db'); // sqlite3 resolves links: it must see the disk itself
    const [file, ...args] = [...(this.disk?.within ?? []), 'sqlite3', '-readonly', '-json', db, query];
    const text = execFileSync(file, args, { encoding: 'utf8' });
    return text.trim() ? JSON.parse(text) : [];
  }

  /** Ends lhd by a signal and waits; gives {code, signal}. */
  async end(signal) {
    for (const c of this.clients.splice(0)) c.close();
    this.process.kill(signal);
    return this.exited;
  }

  async restart(signal = 'SIGKILL') {
    await this.end(signal);
    await this.boot();
  }

  /** Until job.get satisfies `test`. A job that ended otherwise fails at once. */
  async jobUntil(job, what, test, limitMs = 90_000) {
    return until(`job ${job}: ${what}`, async () => {
      const j = await this.call('job.get', { job });
      if (test(j)) return this.stored(j);
      if (['DONE', 'FAILED', 'CANCELLED'].includes(j.state))
        assert.fail(`job ${job} is ${j.state} (${j.reason}) before: ${what}\n${this.log().slice(-3000)}\n${this.workerLog(job).slice(-3000)}`);
      return null;
    }, limitMs);
  }

  /** What the daemon knows reaches the database a moment later: waits for it. */
  async stored(j) {
    await until(`job ${j.job} is stored as ${j.state}`, async () => {
      const [row] = this.sql(`select state, step, attempt from jobs where id=${j.job}`);
      const [last] = this.sql(`select max(step) s, (select count(*) from attempts where job=${j.job} and pid > 0) n from steps where job=${j.job}`);
      const ended = ['DONE', 'FAILED', 'CANCELLED'].includes(j.state);
      return ended ? row.state === j.state : row.attempt >= j.attempt && (last.s ?? 0) >= Math.min(j.step, 1) && (!j.step || last.n >= 1);
    });
    return j;
  }

  workerLog(job) {
    const dir = join(this.state, 'jobs', String(job));
    if (!existsSync(dir)) return '';
    return readdirSync(dir).filter((d) => d.startsWith('attempt-')).map((d) => join(dir, d, 'worker.log'))
      .filter((f) => existsSync(f)).map((f) => readFileSync(f, 'utf8')).join('\n');
  }

  /** The pid of the worker that trains a job now. */
  async workerPid(job) {
    return until('the worker of the newest attempt', async () => {
      const { attempts, summary } = await this.call('job.show', { job });
      const newest = attempts.at(-1);
      return newest?.attempt === summary.attempt && newest.pid;
    });
  }

  async destroy() {
    for (const c of this.clients.splice(0)) c.close();
    this.process.kill('SIGKILL'); // first: it starts others
    await this.exited;
    await until('no process is left', () => {
      const left = processesOf(this.dir);
      for (const pid of left) try { process.kill(pid, 'SIGKILL'); } catch { /* it has ended */ }
      return left.length === 0;
    });
  }
}

/** Packs a little repetitive text into DIR/text.{train,val}.bin. */
export function packText(dir) {
  let text = '';
  for (let i = 0; text.length < 60_000; i++) text += `line ${i % 97}: the lamp turns ${i % 7} times and the ship goes on\n`;
  for (let i = 0; i < 10; i++) writeFileSync(join(dir, `t${i}.txt`), text.slice(i * 6000, (i + 1) * 6000));
  execFileSync(bin('lhctl'), ['pack', '-o', join(dir, 'text'), '--validation', '0.2', ...Array.from({ length: 10 }, (_, i) => join(dir, `t${i}.txt`))],
    { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Packs text with a few documents of noise in it, the same every time. */
export function noisyText(dir) {
  const files = [];
  let x = 1;
  const noise = () => String.fromCharCode(33 + (x = (x * 48271) % 2147483647) % 93);
  for (let i = 0; i < 60; i++) {
    let text = '';
    for (let k = 0; text.length < 1000; k++) text += i % 10 === 7 ? noise() : `line ${k % 7}: the lamp turns and the ship goes on\n`;
    files.push(join(dir, `t${String(i).padStart(2, '0')}.txt`));
    writeFileSync(files[i], text);
  }
  execFileSync(bin('lhctl'), ['pack', '-o', join(dir, 'text'), '--validation', '0.1', ...files], { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** A job file of a tiny model; `over` replaces top-level keys. */
export function jobYaml(over = {}) {
  const job = {
    name: 'tiny', device: 'cpu', threads: 1,
    model: { vocab: 257, dim: 32, layers: 2, heads: 2, ffn_dim: 64 },
    data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 128 },
    batch: { sequences: 2 },
    optimizer: { lr: 2e-3, warmup_steps: 5 },
    phases: [
      { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: 60 } },
      { name: 'recovery', attention: 'full', until: { steps: 40 } },
    ],
    evaluation: { sequences: 2 },
    checkpoint: { every_steps: 20, keep: 2 },
    ...over,
  };
  return JSON.stringify(job); // JSON is YAML
}

export async function submit(lhd, over = {}, more = {}) {
  const r = await lhd.call('job.submit', { yaml: jobYaml(over), base_dir: lhd.dir, ...more });
  return r.job;
}

/** {step: loss} of the final line of attempts, from the database. */
export async function losses(lhd, job) {
  const out = new Map();
  for (let from = 0; ;) {
    const { steps, more } = await lhd.call('job.steps', { job, from_step: from, limit: 10000 });
    for (const s of steps) {
      assert.ok(!out.has(s.step), `step ${s.step} twice`);
      out.set(s.step, s.loss);
    }
    if (!more) return out;
    from = steps.at(-1).step + 1;
  }
}
