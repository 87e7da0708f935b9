// tour.test.mjs: the README's tour by hand, with lhctl against a real daemon.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, until, scratch, packText, jobYaml, processesOf, bin, checkShape } from './lib/lhd.mjs';

test('the tour by hand', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const ctl = (...args) => {
    const r = spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', timeout: 90_000, cwd: dir });
    return { code: r.status, out: r.stdout, err: r.stderr };
  };
  const ok = (...args) => {
    const r = ctl(...args);
    assert.equal(r.code, 0, `lhctl ${args.join(' ')}: ${r.err}${r.out}`);
    return r.out;
  };
  const json = (method, ...args) => {
    const value = JSON.parse(ok(...args, '--json'));
    checkShape(value, JSON.parse(readFileSync(`schema/rpc/${method}.json`)).result, `lhctl ${args[0]}`);
    return value;
  };
  const phases = (steps) => ({ phases: [
    { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps } },
    { name: 'recovery', attention: 'full', until: { steps: 30 } }] });
  writeFileSync(join(dir, 'job.yaml'), jobYaml({ name: 'tour', ...phases(100000) }));

  await t.test('submit --dry-run checks and queues nothing', () => {
    assert.equal(json('job.submit', 'submit', 'job.yaml', '--dry-run').job, null);
    assert.equal(json('job.list', 'ls').jobs.length, 0);
  });

  await t.test('submit, ls and show', () => {
    const { job, spec } = json('job.submit', 'submit', 'job.yaml', '--set', 'optimizer.lr=1e-3');
    assert.equal(job, 1);
    assert.equal(spec.optimizer.lr, 1e-3);
    assert.match(ok('ls'), /^1\ttour\t/m);
    assert.match(ok('show', 'tour'), /lighthouse/);
    assert.equal(json('job.show', 'show', '1').summary.name, 'tour');
  });

  await t.test('wait --for step', () => ok('wait', 'tour', '--for', 'step=10', '--timeout', '60'));

  await t.test('wait says 4 when it does not happen in time', () => {
    const r = ctl('wait', 'tour', '--for', 'state=DONE', '--timeout', '0.3');
    assert.equal(r.code, 4);
  });

  await t.test('pause, sample while paused, resume', async () => {
    ok('pause', 'tour', '-m', 'a look');
    await lhd.jobUntil(1, 'PAUSED', (j) => j.state === 'PAUSED');
    assert.ok(ok('sample', 'tour', '--prompt', 'line 1', '--tokens', '20', '--seed', '3').length > 0);
    assert.equal(json('job.sample', 'sample', 'tour', '--tokens', '8', '--temperature', '0').step, json('job.get', 'wait', 'tour', '--for', 'state=PAUSED').step);
    ok('resume', 'tour');
  });

  await t.test('watch follows a job to its end, switch included', async () => {
    const watch = spawn(bin('lhctl'), ['--state', lhd.state, 'watch', 'tour'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    watch.stdout.on('data', (d) => { text += d; });
    const ended = new Promise((r) => watch.once('exit', r));
    await until('watch prints a step', () => /\d/.test(text));
    assert.match(ok('switch', 'tour', 'recovery', '-m', 'enough'), /applied/);
    assert.equal(await ended, 0);
    assert.match(text, /recovery/);
    ok('wait', 'tour', '--for', 'state=DONE');
  });

  await t.test('the journal tells who asked for what, and why', () => {
    const { commands } = json('job.journal', 'journal', 'tour');
    assert.deepEqual(commands.map((c) => [c.method, c.outcome]),
      [['job.submit', 'applied'], ['job.pause', 'applied'], ['job.resume', 'applied'], ['job.switch', 'applied']]);
    assert.equal(commands[3].message, 'enough');
    assert.equal(commands[3].program, 'lhctl');
    assert.equal(commands[3].uid, process.getuid());
  });

  await t.test('metrics and events can be had as data', () => {
    const { steps } = json('job.steps', 'metrics', 'tour');
    assert.equal(steps[0].step, 1);
    assert.ok(json('job.events', 'events', 'tour').events.some((e) => e.kind === 'job.state'));
    assert.match(ok('metrics', 'tour', '--csv'), /^attempt,step,phase/);
  });

  await t.test('a job that has ended is sampled from its checkpoint', () => {
    assert.ok(ok('sample', 'tour', '--tokens', '20').length > 0);
    const kept = json('job.checkpoints', 'checkpoints', 'tour').checkpoints.filter((c) => !c.removed).map((c) => c.step);
    assert.ok(kept.length > 1);
    for (const step of kept) assert.equal(json('job.sample', 'sample', 'tour', '--tokens', '2', '--step', String(step)).step, step);
    const r = ctl('sample', 'tour', '--step', '999');
    assert.equal(r.code, 1);
    assert.match(r.err, /job 1 has no checkpoint of step 999[^]*hint: 'lhctl checkpoints 1' has those that remain/);
  });

  await t.test('refusals exit with 1, a sentence and a hint', () => {
    for (const args of [['switch', 'tour'], ['pause', 'tour'], ['show', '77'], ['cancel', 'nobody']]) {
      const r = ctl(...args);
      assert.equal(r.code, 1, args.join(' '));
      assert.match(r.err, /^(lhctl|error): .{10,}/m);
    }
    assert.match(ctl('switch', 'tour').err, /^hint: /m);
  });

  await t.test('a bad job file is refused with file, line, key and hint', () => {
    const yaml = readFileSync('ctl/examples/demo.yaml', 'utf8').replace('levels: 3', 'levls: 3');
    writeFileSync(join(dir, 'bad.yaml'), yaml);
    const r = ctl('submit', 'bad.yaml');
    assert.equal(r.code, 1);
    const line = yaml.split('\n').findIndex((l) => l.includes('levls')) + 1;
    assert.match(r.err, new RegExp(`bad\\.yaml:${line}: .*levls`));
    assert.match(r.err, /^hint: .*levels/m);
    assert.equal(json('job.list', 'ls').jobs.length, 1);
  });

  await t.test('data files that are missing, foreign or truncated are refused', () => {
    const text = readFileSync(join(dir, 'text.train.bin'));
    writeFileSync(join(dir, 'short.bin'), text.subarray(0, text.length - 100));
    writeFileSync(join(dir, 'foreign.bin'), 'this is no shard, but it is long enough to hold a header of one, is it not?');
    writeFileSync(join(dir, 'empty.bin'), '');
    for (const name of ['none.bin', 'short.bin', 'foreign.bin', 'empty.bin']) {
      const r = ctl('submit', 'job.yaml', '--set', `data.train=${name}`);
      assert.equal(r.code, 1, name);
      assert.ok(r.err.includes(name), r.err);
    }
    const r = ctl('submit', 'job.yaml', '--set', 'model.vocab=200', '--set', 'data.tokenizer=none');
    assert.equal(r.code, 1);
    assert.match(r.err, /vocab/);
  });

  await t.test('cancel ends a running job; wait then says 5', () => {
    ok('submit', 'job.yaml', '--set', 'name=second');
    ok('wait', 'second', '--for', 'step=3', '--timeout', '60');
    ok('cancel', 'second');
    const r = ctl('wait', 'second', '--for', 'phase=recovery', '--timeout', '60');
    assert.equal(r.code, 5);
  });

  await t.test('stop ends the daemon and everything it started', async () => {
    ok('stop');
    await lhd.exited;
    assert.deepEqual(processesOf(lhd.dir), []);
    assert.equal(ctl('ls').code, 3);
  });
});

test('make demo: the same by script, interrupted and started again', async (t) => {
  const dir = scratch(t);
  const text = join(dir, 'text');
  mkdirSync(text);
  for (let i = 0; i < 40; i++)
    writeFileSync(join(text, `f${i}.txt`), Array.from({ length: 400 }, (_, j) => `${i} ${j * j} sheep jump over the fence ${j % 10}\n`).join(''));
  const demo = () => spawn('ctl/examples/demo.sh', { env: { ...process.env, LH_BUILD: bin('..'), DEMO_DIR: join(dir, 'demo'), DEMO_TEXT: text, DEMO_STEPS: '12' }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const listen = (p) => { let s = ''; for (const f of [p.stdout, p.stderr]) f.on('data', (d) => { s += d; }); return () => s; };

  await t.test('Ctrl-C stops everything', async () => {
    const p = demo(), said = listen(p);
    const ended = new Promise((r) => p.once('exit', (code) => r(code)));
    await until('training began', () => /Training/.test(said()));
    process.kill(-p.pid, 'SIGINT');
    assert.equal(await ended, 130, said());
    await until('nothing is left running', () => processesOf(dir).length === 0);
  });

  await t.test('a second demo starts fresh and shows all it promises', async () => {
    const p = demo(), said = listen(p);
    const code = await new Promise((r) => p.once('exit', r));
    assert.equal(code, 0, said());
    for (const word of [/before_switch/, /after_switch/, /\bend\b/, /unigram/, /bigram/, /database:/, /applied/]) assert.match(said(), word);
    assert.ok(existsSync(join(dir, 'demo/state/lighthouse.db')));
    await until('nothing is left running', () => processesOf(dir).length === 0);
  });
});
