// ctl.test.mjs: lhctl against a fake daemon: what it makes of hostile names, of
// silence, of refusals, and of notifications that were lost.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bin, scratch } from './lib/lhd.mjs';
import { fakeDaemon, job, lhctl } from './lib/fake.mjs';

const EVIL = 'a\x1b[2Jb\u009b31mc\x07';
const harmless = (text, where) => assert.doesNotMatch(text, /[\x00-\x08\x0b-\x1f\x7f-\x9f]/, where);
const show = (summary) => ({ summary, phases: [{ name: summary.phase_name, attention: 'full', steps: 5, first_step: 0 }],
  attempts: [], evaluations: [], checkpoints: [], spec: {}, directory: '/x' });
/** The methods that every steering command asks first; `more` adds and replaces. */
const steered = (more = {}) => ({
  'job.subscribe': () => ({ subscription: 1, last_event: 0 }),
  'job.get': () => job(), 'job.show': () => show(job()),
  'job.journal': () => ({ commands: [] }),
  'job.pause': () => ({ command: 9, job: 1, state: 'accepted' }), ...more });
const outcome = (kind, command = 9) => ({ subscription: 1, id: 3, job: 1, attempt: 1, step: 5, time_ms: 1, kind: `command.${kind}`,
  text: `pause ${kind} at step 5`, data: { command, verb: 'pause', outcome: kind, text: '', hint: 'try again' } });

test('names of jobs and phases cannot steer the terminal', async (t) => {
  const evil = job({ name: EVIL, phase_name: EVIL, reason: EVIL, state: 'DONE' });
  const checkpoint = { step: 5, attempt: 1, path: `/${EVIL}`, bytes: 9, duration_ms: 1, reason: EVIL, time_ms: 1 };
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.list': () => ({ jobs: [evil] }), 'job.get': () => evil, 'job.show': () => ({ ...show(evil),
    checkpoints: [checkpoint] }),
    'job.checkpoints': () => ({ checkpoints: [{ ...checkpoint, removed: false, pinned: true }] }) }));
  for (const args of [['ls'], ['show', '1'], ['checkpoints', '1'], ['wait', '1'], ['watch', '1']]) {
    const r = await lhctl(d.state, args);
    assert.equal(r.code, 0, `${args}: ${r.err}`);
    harmless(r.out + r.err, args.join(' '));
  }
});

test('a refusal is a sentence and a hint, and exits with 1', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.pause': () => {
    throw { code: -32006, message: `job 1 is ${EVIL}`, data: { name: 'LH_ESTATE', hint: 'look first' } };
  } }));
  const r = await lhctl(d.state, ['pause', '1']);
  assert.equal(r.code, 1);
  assert.match(r.err, /^error: job 1 is a\\x1b/m);
  assert.match(r.err, /^hint: look first$/m);
  harmless(r.err);
});

test('a command waits for its outcome, with --json too, and not with --no-wait', async (t) => {
  for (const [kind, code] of [['applied', 0], ['refused', 1]]) {
    for (const more of [[], ['--json']]) {
      const d = await fakeDaemon(t, scratch(t), steered({ 'job.pause': (p, peer) => {
        setTimeout(() => { peer.note('event', outcome(kind, 8)); peer.note('event', outcome(kind)); }, 50);
        return { command: 9, job: 1, state: 'accepted' };
      } }));
      const r = await lhctl(d.state, ['pause', '1', ...more]);
      assert.equal(r.code, code, `${kind} ${more}: ${r.out}${r.err}`);
      if (more.length) assert.deepEqual(JSON.parse(r.out), { command: 9, job: 1, state: 'accepted' });
    }
  }
  const d = await fakeDaemon(t, scratch(t), steered());
  assert.equal((await lhctl(d.state, ['pause', '1', '--no-wait'])).code, 0);
});

test('each command has a request id of its own', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered());
  for (let i = 0; i < 2; i++) await lhctl(d.state, ['pause', '1', '--no-wait']);
  const ids = d.calls.filter((c) => c.method === 'job.pause').map((c) => c.params.request_id);
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(ids[0], ids[1]);
});

test('an outcome whose event was lost is found in the journal', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({
    'job.journal': () => ({ commands: [{ command: 9, job: 1, method: 'job.pause', outcome: 'applied', text: 'done' }] }),
    'job.pause': (p, peer) => {
      setTimeout(() => peer.note('lost', { subscription: 1, events: 4, steps: 0 }), 50);
      return { command: 9, job: 1, state: 'accepted' };
    } }));
  const r = await lhctl(d.state, ['pause', '1']);
  assert.equal(r.code, 0, r.err);
});

test('--timeout of a command counts from the start, whatever else happens', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.pause': (p, peer) => {
    const timer = setInterval(() => peer.note('event', outcome('applied', 8)), 50);
    peer.socket.once('close', () => clearInterval(timer));
    return { command: 9, job: 1, state: 'accepted' };
  } }));
  assert.equal((await lhctl(d.state, ['pause', '1', '--timeout', '0.5'])).code, 4);
});

test('--timeout holds when the daemon is silent, whatever it was asked', async (t) => {
  const silent = () => undefined;
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.list': silent, 'job.get': silent, 'job.pause': silent }));
  for (const args of [['wait', '1'], ['wait', 'one'], ['pause', '1']]) {
    const r = await lhctl(d.state, [...args, '--timeout', '0.1']);
    assert.equal(r.code, 4, `${args}: ${r.err}`);
  }
});

test('wait: a state or phase that cannot come is refused at once', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered());
  assert.equal((await lhctl(d.state, ['ls', '--state', 'RUNING'])).code, 2);
  assert.equal((await lhctl(d.state, ['wait', '1', '--for', 'state=RUNING'])).code, 2);
  const r = await lhctl(d.state, ['wait', '1', '--for', 'phase=secnd']);
  assert.equal(r.code, 1);
  assert.match(r.err, /secnd[\s\S]*hint: .*first/);
});

test('wait: a phase is not reached while the job is in the queue', async (t) => {
  const queued = job({ state: 'QUEUED', attempt: 0, step: 0 });
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.get': () => queued, 'job.show': () => show(queued) }));
  assert.equal((await lhctl(d.state, ['wait', '1', '--for', 'phase=first', '--timeout', '0.3'])).code, 4);
});

test('wait: a phase was not reached by a job that was cancelled in the queue', async (t) => {
  const gone = job({ state: 'CANCELLED', attempt: 0, step: 0 });
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.get': () => gone, 'job.show': () => show(gone) }));
  assert.equal((await lhctl(d.state, ['wait', '1', '--for', 'phase=first'])).code, 5);
});

test('wait: a timeout of 0 still looks once', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered());
  assert.equal((await lhctl(d.state, ['wait', '1', '--for', 'state=RUNNING', '--timeout', '0'])).code, 0);
  assert.equal((await lhctl(d.state, ['wait', '1', '--for', 'state=DONE', '--timeout', '0'])).code, 4);
});

test('wait: a very long timeout is still one', async (t) => {
  let asked = 0;
  const d = await fakeDaemon(t, scratch(t), steered({
    'job.subscribe': (p, peer) => {
      setTimeout(() => peer.note('event', outcome('applied')), 100);
      return { subscription: 1, last_event: 0 };
    },
    'job.get': () => job({ state: asked++ ? 'DONE' : 'RUNNING' }) }));
  assert.equal((await lhctl(d.state, ['wait', '1', '--timeout', '1e9'])).code, 0);
  assert.ok(asked < 4, `asked ${asked} times: it did not wait`);
});

test('watch says what it could not show', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.subscribe': (p, peer) => {
    setTimeout(() => {
      peer.note('lost', { subscription: 1, events: 0, steps: 900 });
      peer.note('event', { subscription: 1, id: 4, job: 1, attempt: 1, step: 9, time_ms: 1, kind: 'job.state',
        text: 'STOPPING -> DONE', data: { from: 'STOPPING', to: 'DONE' } });
    }, 50);
    return { subscription: 1, last_event: 0 };
  } }));
  const r = await lhctl(d.state, ['watch', '1']);
  assert.equal(r.code, 0);
  assert.match(r.err, /900 steps/);
});

test('watch sees the end of a job when the event of it was lost', async (t) => {
  let asked = 0;
  const d = await fakeDaemon(t, scratch(t), steered({
    'job.subscribe': (p, peer) => {
      setTimeout(() => peer.note('lost', { subscription: 1, events: 2, steps: 0 }), 100);
      return { subscription: 1, last_event: 0 };
    },
    'job.get': () => job({ state: asked++ ? 'FAILED' : 'RUNNING' }) }));
  assert.equal((await lhctl(d.state, ['watch', '1'])).code, 5);
});

test('watch --json prints nothing but JSON', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.get': () => job({ state: 'DONE' }) }));
  const r = await lhctl(d.state, ['watch', '1', '--json']);
  assert.deepEqual([r.code, r.out], [0, '']);
  assert.match(r.err, /DONE/);
});

test('an answer that is neither result nor error is named', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.list': (p, peer) => { peer.socket.write('{"jsonrpc": "2.0", "id": 1}\n'); } }));
  const r = await lhctl(d.state, ['ls']);
  assert.equal(r.code, 1);
  assert.match(r.err, /^error: .*job\.list/);
});

test('a daemon that goes away while it is waited for is told from a job that ended', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.pause': (p, peer) => { peer.socket.destroy(); } }));
  const r = await lhctl(d.state, ['pause', '1']);
  assert.equal(r.code, 3);
  assert.match(r.err, /^error: .*\nhint: /m);
});

test('submit refuses what is no text, and never drops an override', async (t) => {
  const dir = scratch(t);
  const d = await fakeDaemon(t, dir, steered({ 'job.submit': () => ({ job: 1, name: 'x', state: 'QUEUED', command: 1, spec: {}, params: 1 }) }));
  const file = join(dir, 'job.yaml');
  writeFileSync(file, Buffer.from([0x61, 0x3a, 0x20, 0xff, 0x0a]));
  const r = await lhctl(d.state, ['submit', file]);
  assert.equal(r.code, 1);
  assert.match(r.err, /job\.yaml.*UTF-8/);
  writeFileSync(file, 'name: x');
  for (const args of [`submit ${file} --set "$bad"`, `submit ${file} -m "$bad"`, 'switch 1 "$bad"', 'sample 1 --prompt "$bad"']) {
    const sh = spawnSync('sh', ['-c', `bad=$(printf 'name=\\377'); exec ${bin('lhctl')} --state ${d.state} ${args}`], { encoding: 'utf8', timeout: 20_000 });
    assert.equal(sh.status, 2, `${args}: ${sh.stderr}`);
    assert.match(sh.stderr, /UTF-8/);
  }
  await new Promise((r) => setTimeout(r, 50));
  assert.deepEqual(d.calls, []);
});

test('sample refuses a prompt that is too long instead of cutting it', async (t) => {
  const d = await fakeDaemon(t, scratch(t), steered({ 'job.sample': () => ({ text: 'x', tokens: 1, step: 1 }) }));
  const r = await lhctl(d.state, ['sample', '1', '--prompt', '-'], { input: 'x'.repeat(70_000) });
  assert.equal(r.code, 2);
  assert.match(r.err, /65536/);
  assert.equal((await lhctl(d.state, ['sample', '1', '--prompt', 'x'.repeat(65_537)])).code, 2);
  assert.equal((await lhctl(d.state, ['sample', '1', '--prompt', '-'], { input: 'a\0b' })).code, 2);
  assert.equal((await lhctl(d.state, ['sample', '1', '--prompt', '-'], { input: 'x'.repeat(65_536) })).code, 0);
});

test('stop returns once the daemon has ended', async (t) => {
  const d = await fakeDaemon(t, scratch(t), { 'daemon.stop': () => {
    setTimeout(() => { closed = true; d.close(); }, 300);
    return { state: 'stopping' };
  } });
  let closed = false;
  assert.equal((await lhctl(d.state, ['stop', '--no-wait'])).code, 0);
  assert.ok(!closed, 'it waited');
  assert.equal((await lhctl(d.state, ['stop'])).code, 0);
  assert.ok(closed, 'it did not wait');
});

test('lhctl and lhd look for the state directory in the same place', async () => {
  const r = await lhctl(null, ['ls'], { env: { LIGHTHOUSE_STATE: '', XDG_STATE_HOME: '/nowhere/state', HOME: '/nowhere' } });
  assert.equal(r.code, 3);
  const where = process.getuid() === 0 ? '/var/lib/lighthouse' : '/nowhere/state/lighthouse';
  assert.ok(r.err.includes(`'${where}/control.sock'`), r.err);
});
