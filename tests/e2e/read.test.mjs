// read.test.mjs: reading with lhctl: logs, events, metrics, the journal, checkpoints,
// lists of jobs and waiting; from a real daemon with a job that was restarted, and
// from a fake one for what is rare.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Lhd, checkShape, packText, scratch, submit, until } from './lib/lhd.mjs';
import { fakeDaemon, job, lhctl } from './lib/fake.mjs';
import { lhctlOnTerminal } from './lib/pty.mjs';

const schema = (method) => JSON.parse(readFileSync(`schema/rpc/${method}.json`)).result;
const lines = (text) => text.split('\n').filter(Boolean);
const EVIL = 'a\x1b[2Jb\u009b31mc\x07';

test('reading a job that was restarted', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const ok = async (...args) => {
    const r = await lhctl(lhd.state, args, { limitMs: 90_000 });
    assert.equal(r.code, 0, `lhctl ${args.join(' ')}: ${r.err}${r.out}`);
    return r.out;
  };
  const json = async (method, ...args) => {
    const value = JSON.parse(await ok(...args, '--json'));
    checkShape(value, schema(method), `lhctl ${args[0]}`);
    return value;
  };

  // Both follow from before the job begins until after it has ended.
  const id = await submit(lhd, { name: 'read', evaluation: { sequences: 2, every_steps: 10 },
    checkpoint: { every_steps: 20, keep: 2 }, phases: [{ name: 'only', attention: 'full', until: { steps: 400 } }] });
  const events = lhctl(lhd.state, ['events', 'read', '-f', '--since', '0', '--json'], { limitMs: 90_000 });
  const logs = lhctl(lhd.state, ['logs', 'read', '-f', '-n', '1000'], { limitMs: 90_000 });
  await ok('wait', 'read', '--for', 'step=30', '--timeout', '60');
  await until('a checkpoint to go on from', async () => (await lhd.call('job.checkpoints', { job: id })).checkpoints.length);
  process.kill(await lhd.workerPid(id), 'SIGKILL');
  await lhd.jobUntil(id, 'a second attempt', (j) => j.attempt === 2 && j.state === 'RUNNING' && j.step > 60);
  await ok('checkpoint', 'read', '--pin', '-m', 'keep this');
  await ok('wait', 'read', '--timeout', '90');

  await t.test('metrics: each step once, all of them, or one attempt', async () => {
    const { steps, more } = await json('job.steps', 'metrics', 'read');
    assert.equal(more, false);
    assert.deepEqual(steps.map((s) => s.step), Array.from({ length: 400 }, (_, i) => i + 1));
    assert.ok(steps[0].attempt === 1 && steps[399].attempt === 2);
    const all = (await json('job.steps', 'metrics', 'read', '--all-attempts')).steps;
    assert.equal(all.length, lhd.sql('select count(*) n from steps')[0].n);
    assert.deepEqual(all, [...all].sort((a, b) => a.attempt - b.attempt || a.step - b.step));
    const first = (await json('job.steps', 'metrics', 'read', '--attempt', '1')).steps;
    assert.deepEqual(first, all.filter((s) => s.attempt === 1));
    const some = (await json('job.steps', 'metrics', 'read', '--from', '90', '--to', '110')).steps;
    assert.deepEqual(some, steps.slice(89, 110));
  });

  await t.test('metrics: CSV is the same as JSON, with a head', async () => {
    const { steps } = await json('job.steps', 'metrics', 'read');
    const [head, ...rows] = lines(await ok('metrics', 'read', '--csv'));
    assert.equal(head, Object.keys(steps[0]).join(','));
    assert.equal(rows.length, 400);
    const values = rows[7].split(',').map(Number);
    Object.values(steps[7]).forEach((v, i) => assert.ok(Math.abs(v - values[i]) <= 1e-8 * Math.abs(v), `${head}: ${rows[7]}`));
    assert.equal(lines(await ok('metrics', 'read')).length, 400);
  });

  await t.test('metrics: groups of steps', async () => {
    const { steps } = await json('job.steps', 'metrics', 'read');
    const { points } = await json('job.curve', 'metrics', 'read', '--points', '10');
    assert.deepEqual(points.map((p) => p.first_step), Array.from({ length: 10 }, (_, i) => 40 * i + 1));
    for (const [i, p] of points.entries()) {
      const losses = steps.slice(40 * i, 40 * i + 40).map((s) => s.loss);
      assert.equal(p.loss_min, Math.min(...losses));
      assert.equal(p.loss_max, Math.max(...losses));
      assert.ok(Math.abs(p.loss_mean - losses.reduce((a, b) => a + b) / 40) < 1e-9);
    }
    assert.equal(lines(await ok('metrics', 'read', '--points', '7')).length, 7);
  });

  await t.test('metrics: evaluations', async () => {
    const { evaluations } = await json('job.evaluations', 'metrics', 'read', '--kind', 'evals');
    const steps = evaluations.map((e) => e.step);
    assert.deepEqual(steps, [...steps].sort((a, b) => a - b));
    assert.ok(steps.includes(390));
    assert.match(await ok('metrics', 'read', '--kind', 'evals', '--csv'), /^attempt,seq,step[\s\S]*,"full","interval",/);
  });

  await t.test('logs: of an attempt, the last lines, and followed over both', async () => {
    const whole = [await ok('logs', 'read', '--attempt', '1'), await ok('logs', 'read')];
    for (const [i, text] of whole.entries()) {
      assert.equal(text, readFileSync(`${lhd.state}/jobs/${id}/attempt-${i + 1}/worker.log`, 'utf8'));
      assert.ok(lines(text).length > 1);
    }
    assert.equal(await ok('logs', 'read', '-n', '2'), lines(whole[1]).slice(-2).map((l) => `${l}\n`).join(''));
    checkShape(JSON.parse(await ok('logs', 'read', '-n', '1', '--json')), schema('job.logs'), 'logs');
    const followed = await logs;
    assert.equal(followed.code, 0, followed.err);
    assert.equal(followed.out, whole.join(''));
    assert.match(followed.err, /attempt 2:/);
    const r = await lhctl(lhd.state, ['logs', 'read', '--attempt', '9']);
    assert.equal(r.code, 1);
    assert.match(r.err, /no attempt 9\nhint: its newest is 2/);
  });

  await t.test('events: by time, id and kind, and followed without gap or double', async () => {
    const all = (await json('job.events', 'events', 'read', '--since', '1h')).events;
    assert.deepEqual(all, lhd.sql('select id from events order by id').map(({ id: n }) => all.find((e) => e.id === n)));
    const kinds = (await json('job.events', 'events', '--kind', 'command.*')).events;
    assert.deepEqual(kinds, all.filter((e) => e.kind.startsWith('command.')));
    assert.deepEqual((await json('job.events', 'events', 'read', '--since', String(all[4].id))).events, all.slice(5));
    assert.deepEqual((await json('job.events', 'events', 'read', '--limit', '3')).events, all.slice(-3));
    assert.equal(lines(await ok('events', 'read', '--since', '2001-01-01 08:00')).length, all.length);
    assert.equal(await ok('events', 'read', '--since', '2999-01-01T00:00:00Z'), '');
  });

  await t.test('the journal: by method, outcome and time', async () => {
    const { commands } = await json('job.journal', 'journal', 'read', '--method', 'checkpoint', '--outcome', 'applied', '--since', '1d');
    assert.deepEqual(commands.map((c) => [c.method, c.message]), [['job.checkpoint', 'keep this']]);
    assert.deepEqual((await json('job.journal', 'journal', '--outcome', 'refused')).commands, []);
    assert.deepEqual((await json('job.journal', 'journal', '--uid', String(process.getuid() + 1))).commands, []);
    const r = await lhctl(lhd.state, ['journal', '--outcome', 'maybe']);
    assert.equal(r.code, 1);
    assert.match(r.err, /outcome/);
  });

  await t.test('checkpoints: which remain', async () => {
    const { checkpoints } = await json('job.checkpoints', 'checkpoints', 'read');
    const there = checkpoints.filter((c) => !c.removed);
    assert.equal(there.filter((c) => c.pinned).length, 1);
    assert.equal(there.length, 3);
    assert.ok(checkpoints.length > 5);
    assert.match(await ok('checkpoints', 'read'), /\tremoved\t[\s\S]*\tpinned\t[\s\S]*\tthere\t/);
  });

  await t.test('wait: a loss below a limit', async () => {
    const best = Math.min(...(await json('job.steps', 'metrics', 'read')).steps.map((s) => s.loss));
    await ok('wait', 'read', '--for', 'val_loss<100');
    await ok('wait', 'read', '--for', 'loss>0');
    for (const what of [`loss<${best / 2}`, 'val_loss>100']) {
      const r = await lhctl(lhd.state, ['wait', 'read', '--for', what, '--timeout', '20']);
      assert.equal(r.code, 5, `${what}: ${r.err}`);
    }
  });

  // Only now: it follows until the daemon is gone.
  await t.test('events -f ends with the daemon, having missed nothing', async () => {
    const all = lhd.sql('select id from events order by id').map((e) => e.id);
    await lhd.end('SIGKILL');
    const followed = await events;
    assert.equal(followed.code, 3);
    assert.deepEqual(lines(followed.out).map((l) => JSON.parse(l).id), all);
  });
});

test('wait: a loss that crosses its limit for one step is seen', async (t) => {
  const step = (loss) => ({ subscription: 1, job: 1, attempt: 1, step: 6, phase: 0, loss });
  const evaluation = (attention, loss) => ({ subscription: 1, id: 9, job: 1, step: 6, kind: 'job.eval', text: '', data: { attention, loss } });
  for (const [what, notes, code] of [
    ['loss<1', [['step', step(2)], ['step', step(0.5)], ['step', step(2)]], 0],
    ['loss<1', [['step', step(2)], ['step', step(null)]], 4],
    ['loss>8', [['step', step(2)], ['step', step(null)]], 0],
    ['val_loss<1', [['step', step(0.5)], ['event', evaluation('lighthouse', 0.5)]], 4],
    ['val_loss<1', [['event', evaluation('full', 0.5)]], 0],
  ]) {
    const d = await fakeDaemon(t, scratch(t), { 'job.get': () => job(), 'job.evaluations': () => ({ evaluations: [], more: false }),
      'job.subscribe': (p, peer) => {
        setTimeout(() => notes.forEach(([m, params]) => peer.note(m, params)), 50);
        return { subscription: 1, last_event: 0 };
      } });
    const r = await lhctl(d.state, ['wait', '1', '--for', what, '--timeout', '0.5']);
    assert.equal(r.code, code, `${what} ${JSON.stringify(notes)}: ${r.err}`);
  }
});

test('events -f: what comes between listening and reading, and what was lost, is read', async (t) => {
  const stored = [1, 2, 3];
  const row = (id) => ({ id, job: 1, attempt: 1, step: 1, time_ms: 1, kind: 'x', text: `event ${id}`, data: {} });
  let reads = 0;
  const d = await fakeDaemon(t, scratch(t), {
    'job.subscribe': () => ({ subscription: 1, last_event: 3 }),
    'job.events': (p, peer) => {
      const found = stored.filter((id) => id > (p.after_id ?? 0)).slice(p.newest ? -p.limit : 0);
      if (++reads === 1) {
        stored.push(4);       // after the read, told of
        peer.note('event', { subscription: 1, ...row(4) });
        peer.note('event', { subscription: 1, ...row(3) }); // an old one
      } else if (reads === 2) {
        stored.push(5, 6);    // told of as lost only
        peer.note('lost', { subscription: 1, events: 2, steps: 0 });
      } else {
        setTimeout(() => peer.socket.destroy(), 50);
      }
      return { events: found.map(row), more: false };
    } });
  const r = await lhctl(d.state, ['events', '-f', '--limit', '2']);
  assert.equal(r.code, 3);
  assert.deepEqual(lines(r.out).map((l) => l.split('\t')[0]), ['2', '3', '4', '5', '6']);
  assert.equal(reads, 3);
});

test('metrics: pages are joined, whatever their number', async (t) => {
  const row = (attempt, step) => ({ attempt, step, phase: 0, time_ms: 1, loss: step === 2 ? null : 2.5, grad_norm: 1, lr: 1e-3, tokens: 64,
    step_ms: 1, tokens_per_s: 64, data_epoch: 0 });
  const all = [row(1, 1), row(1, 2), row(2, 2), row(2, 3), row(2, 4)];
  const d = await fakeDaemon(t, scratch(t), { 'job.steps': (p) => {
    const rest = all.filter((s) => s.attempt > (p.after_attempt ?? 0) || (s.attempt === p.after_attempt && s.step > p.after_step));
    const n = Math.min(2, p.limit);
    return { steps: rest.slice(0, n), more: rest.length > n };
  } });
  const r = await lhctl(d.state, ['metrics', '1', '--all-attempts', '--json']);
  assert.deepEqual(JSON.parse(r.out), { steps: all, more: false });
  assert.equal(d.calls.length, 3);
  assert.deepEqual(lines((await lhctl(d.state, ['metrics', '1', '--csv'])).out).map((l) => l.split(',').slice(0, 5).join(',')),
    ['attempt,step,phase,time_ms,loss', '1,1,0,1,2.5', '1,2,0,1,', '2,2,0,1,', '2,3,0,1,2.5', '2,4,0,1,2.5']);
  assert.deepEqual(JSON.parse((await lhctl(d.state, ['metrics', '1', '--limit', '3', '--json'])).out), { steps: all.slice(0, 3), more: true });
  const none = await fakeDaemon(t, scratch(t), { 'job.steps': () => ({ steps: [], more: false }) });
  assert.deepEqual(JSON.parse((await lhctl(none.state, ['metrics', '1', '--json'])).out), { steps: [], more: false });
});

test('logs -f reads an attempt to its end before the next one', async (t) => {
  const files = { 1: 'one\ntwo\n', 2: 'three\n' };
  let asked = 0, newest = 0, ended = false;
  const d = await fakeDaemon(t, scratch(t), { 'job.logs': (p) => {
    asked++;
    if (asked === 2) newest = 1;
    if (asked === 4) newest = 2; // and the first has gone on meanwhile
    if (asked === 4) files[1] += 'last\n';
    if (asked >= 6) ended = true;
    const attempt = p.attempt ?? newest, text = files[attempt] ?? '', offset = p.offset ?? 0;
    const piece = text.slice(offset, offset + 5);
    return { attempt, newest_attempt: newest, live: attempt === newest && !ended, bytes: text.length, offset,
      next_offset: offset + piece.length, more: offset + piece.length < text.length, text: piece };
  } });
  const r = await lhctl(d.state, ['logs', '1', '-f']);
  assert.equal(r.code, 0, r.err);
  assert.equal(r.out, 'one\ntwo\nlast\nthree\n');
  const none = await fakeDaemon(t, scratch(t), { 'job.logs': () => ({ attempt: 0, newest_attempt: 0, live: true, bytes: 0, offset: 0, next_offset: 0, more: false, text: '' }) });
  const waiting = await lhctl(none.state, ['logs', '1']);
  assert.deepEqual([waiting.code, waiting.out], [0, '']);
  assert.match(waiting.err, /not started/);
});

test('logs, events, journal and metrics cannot steer a terminal', async (t) => {
  const d = await fakeDaemon(t, scratch(t), {
    'job.list': () => ({ jobs: [job({ name: EVIL, reason: EVIL })] }),
    'job.logs': () => ({ attempt: 1, newest_attempt: 1, live: false, bytes: 9, offset: 0, next_offset: 9, more: false, text: `${EVIL}\tü\n${EVIL}` }),
    'job.events': () => ({ events: [{ id: 1, job: 1, attempt: 1, step: 1, time_ms: 1, kind: EVIL, text: EVIL, data: { x: EVIL } }], more: false }),
    'job.journal': () => ({ commands: [{ command: 1, job: 1, method: EVIL, args: {}, uid: 1, pid: 1, program: EVIL, message: EVIL, accepted_ms: 1,
      outcome: EVIL, outcome_ms: 1, step: 1, text: EVIL }], more: false }),
    'job.evaluations': () => ({ evaluations: [{ attempt: 1, seq: 1, step: 1, phase: 0, attention: EVIL, reason: EVIL, loss: 1, tokens: 1, time_ms: 1 }], more: false }) });
  for (const args of ['logs 1', 'logs 1 --json', 'events', 'events --json', 'journal', 'journal --json', 'metrics 1 --kind evals',
    'metrics 1 --kind evals --csv', 'metrics 1 --kind evals --json', 'ls -c name,reason', 'ls --json']) {
    const w = lhctlOnTerminal(d.state, args, { columns: 200 });
    assert.equal(await w.ended, 0, args);
    assert.doesNotMatch(w.said, /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/, args);
    assert.match(w.said, /a(\\x1b|\\u001b)\[2Jb/i, args);
  }
  const w = lhctlOnTerminal(d.state, 'logs 1');
  await w.ended;
  assert.match(w.said, /\tü\r\n/);
});

test('ls: filters, order, columns', async (t) => {
  const jobs = [job({ job: 1, name: 'sweep-2', state: 'DONE', loss: 3 }), job({ job: 2, name: 'sweep-10', state: 'RUNNING', loss: null }),
    job({ job: 3, name: 'big', state: 'PAUSED', loss: 2, priority: 5 })];
  const d = await fakeDaemon(t, scratch(t), { 'job.list': () => ({ jobs }) });
  const ls = async (...args) => {
    const r = await lhctl(d.state, ['ls', ...args]);
    assert.equal(r.code, 0, r.err);
    return lines(r.out).map((l) => l.split('\t')[0]).join(' ');
  };
  assert.equal(await ls(), '1 2 3');
  assert.equal(await ls('-s', 'RUNNING,PAUSED'), '2 3');
  assert.equal(await ls('-s', 'RUNNING', '--state', 'DONE'), '1 2');
  assert.equal(await ls('--name', 'sweep-*'), '1 2');
  assert.equal(await ls('--name', 'sweep'), '');
  assert.equal(await ls('--sort', 'loss'), '3 1 2');
  assert.equal(await ls('--sort', '-loss'), '1 3 2');
  assert.equal(await ls('--sort', 'name'), '3 2 1');
  assert.equal(await ls('--sort=-job'), '3 2 1');
  assert.equal((await lhctl(d.state, ['ls', '-c', 'name,priority'])).out, 'sweep-2\t0\nsweep-10\t0\nbig\t5\n');
  assert.deepEqual(JSON.parse((await lhctl(d.state, ['ls', '-s', 'DONE', '--json'])).out), { jobs: [jobs[0]] });
  const terminal = async (args) => {
    const w = lhctlOnTerminal(d.state, args);
    await w.ended;
    return lines(w.said.replaceAll('\r', ''));
  };
  assert.deepEqual(await terminal('ls -c job,name -s DONE'), ['JOB  NAME', '1    sweep-2']);
  assert.deepEqual(await terminal('ls -c job,name -s DONE --no-headers'), ['1    sweep-2']);
  for (const args of [['-s', 'RUNING'], ['-s', 'DONE,'], ['--sort', 'lost'], ['-c', 'job,'], ['-c', 'nme']]) {
    const r = await lhctl(d.state, ['ls', ...args]);
    assert.equal(r.code, 2, args.join(' '));
    assert.match(r.err, /hint: /);
  }
});

test('--since: durations, times, ids, and what is none', async (t) => {
  const d = await fakeDaemon(t, scratch(t), { 'job.events': () => ({ events: [], more: false }) });
  const asked = async (since) => {
    const r = await lhctl(d.state, ['events', '--since', since], { env: { TZ: 'Etc/GMT-2' } });
    return r.code ? r.code : d.calls.at(-1).params;
  };
  assert.equal((await asked('17')).after_id, 17);
  for (const [since, ms] of [['2026-01-31 08:00', '2026-01-31T06:00:00Z'], ['2026-01-31', '2026-01-30T22:00:00Z'],
    ['2026-01-31T08:00:30', '2026-01-31T06:00:30Z'], ['2026-01-31T08:00:30Z', '2026-01-31T08:00:30Z'],
    ['2026-01-31T08:00:30+01:00', '2026-01-31T07:00:30Z'], ['2026-01-31 08:00-0330', '2026-01-31T11:30:00Z']])
    assert.equal((await asked(since)).since_ms, Date.parse(ms), since);
  for (const [since, s] of [['90s', 90], ['10m', 600], ['2h', 7200], ['3d', 3 * 86400], ['1w', 7 * 86400]])
    assert.ok(Math.abs(Date.now() - s * 1000 - (await asked(since)).since_ms) < 20_000, since);
  for (const since of ['', 'soon', '10', '10x', '-5m', '2026-02-30', '2026-13-01', '2026-01-31 08:00 CET', '2026-01-31T08:00+99:00', '99999999999999999999'])
    assert.equal(await asked(since), since === '10' ? d.calls.at(-1).params : 2, `'${since}'`);
});
