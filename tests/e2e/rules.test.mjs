// rules.test.mjs: rules against real processes: they fire once, whatever crashes,
// give commands and run scripts, and are refused with their column when wrong.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';

async function fresh(t, args) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir, args);
}

const PHASES = [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, until: { steps: 100000 } },
  { name: 'recovery', attention: 'full', until: { steps: 30 } },
];

function ctl(lhd, ...args) {
  return spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
}

function hook(lhd, name, text) {
  mkdirSync(join(lhd.state, 'hooks'), { recursive: true, mode: 0o700 });
  const path = join(lhd.state, 'hooks', name);
  writeFileSync(path, text, { mode: 0o700 });
  return path;
}

const firings = (lhd) => lhd.sql('select rule, n, command, event, step, values_json, outcome, text from rule_firings order by rule, n');

test('a rule of the job file switches the phase, once, and the journal has what it saw', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: PHASES, rules: [{ name: 'enough', when: "step >= 40 AND phase = 'lighthouse'", do: 'switch recovery' }] });
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');
  const [f, ...more] = firings(lhd);
  assert.deepEqual(more, []);
  const values = JSON.parse(f.values_json);
  assert.ok(values.step >= 40 && values.phase === 'lighthouse' && values.loss > 0, f.values_json);
  const [command] = lhd.sql(`select method, message, program, outcome, step from commands where id=${f.command}`);
  assert.equal(command.method, 'job.switch');
  assert.equal(command.program, 'lhd');
  assert.match(command.message, /^rule 'enough': step >= 40/);
  assert.equal(command.outcome, 'applied');
  assert.ok(command.step >= 40);
  const { rules } = await lhd.call('rule.list', { job });
  assert.deepEqual(rules.map((r) => [r.name, r.state, r.fired]), [['enough', 'fired', 1]]);
  assert.match(lhd.sql("select text from events where kind='rule.fired'")[0].text, /rule 'enough' fired: switch recovery/);
});

test('a rule can be added live, listed and removed; a removed one does nothing', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: PHASES });
  let r = ctl(lhd, 'rule', 'add', 'tiny', 'never', '--when', 'step > 1000000', '--do', 'cancel', '-m', 'a test');
  assert.equal(r.status, 0, r.stderr);
  r = ctl(lhd, 'rule', 'ls', 'tiny');
  assert.match(r.stdout, /^1\tnever\tarmed\t0\tcancel\twhen step > 1000000$/m);
  assert.equal(ctl(lhd, 'rule', 'rm', 'tiny', 'never').status, 0);
  assert.equal(ctl(lhd, 'rule', 'ls').stdout, '');
  assert.equal(ctl(lhd, 'rule', 'rm', 'tiny', 'never').status, 1);
  r = ctl(lhd, 'rule', 'add', 'tiny', 'pauses', '--when', 'step > 5', '--do', 'pause');
  assert.equal(r.status, 0, r.stderr);
  await lhd.jobUntil(job, 'paused by its rule', (j) => j.state === 'PAUSED');
  const methods = lhd.sql("select method, message from commands where method like 'rule.%' order by id");
  assert.deepEqual(methods.map((m) => m.method), ['rule.add', 'rule.remove', 'rule.add']);
  assert.equal(methods[0].message, 'a test');
  assert.equal((await lhd.end('SIGTERM')).code, 0);
});

test('what is wrong with a rule is said, with its column, and nothing is stored', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: PHASES });
  const add = (over) => lhd.client.request('rule.add', { job, name: 'x', when: 'step > 1', do: 'pause', ...over }).then((a) => a.error);
  for (const [over, want] of [
    [{ when: 'step > 1 AND los < 2' }, /column 14 of the condition: no such column: los/],
    [{ when: "(SELECT token FROM attempts)" }, /access to attempts.token is prohibited/],
    [{ when: "seconds_for('recovry') < 1" }, /takes the name of a phase/],
    [{ when: undefined }, /either a condition or kinds of events/],
    [{ when: undefined, on: '*' }, /a rule on events runs a script/],
    [{ do: 'reboot' }, /'reboot' is nothing that a rule can do/],
    [{ do: 'exec ../evil' }, /nothing that a rule can do/],
    [{ do: 'exec .hidden' }, /nothing that a rule can do/],
    [{ do: 'exec a b' }, /nothing that a rule can do/],
  ]) {
    const error = await add(over);
    assert.match(error?.message ?? '', want);
    assert.ok(error.data.hint, error.message);
  }
  assert.equal(await add({}), undefined);
  assert.match((await add({})).message, /has a rule of that name/);
  assert.equal(lhd.sql('select count(*) n from rules')[0].n, 1);
  await assert.rejects(submit(lhd, { rules: [{ name: 'r', when: 'stp > 1', do: 'pause' }] }), /rules\.0 \(r\): column 1 of the condition: no such column: stp/);
  await assert.rejects(submit(lhd, { rules: [{ name: 'r', when: 'step > 1', do: 'switch nowhere' }] }), /there is no phase 'nowhere'/);
  await assert.rejects(submit(lhd, { rules: [{ name: 'r', wen: 'step > 1', do: 'pause' }] }), /rules\.0\.wen: there is no such key/);
});

test('everything that the help names can be asked', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: PHASES });
  const help = ctl(lhd, 'help', 'rules').stdout;
  const examples = help.split('examples:\n')[1].trim().split('\n').map((l) => l.trim());
  assert.ok(examples.length >= 5);
  const now = [...help.split('Now:\n')[1].split('\n\nTables')[0].matchAll(/^ {2}((?:\w+(?:, )?)+) {2}/gm)].flatMap((m) => m[1].split(', '));
  assert.equal(now.length, 20, now.join());
  const tables = ['steps', 'evals', 'sets'].map((table) => `(SELECT ${help.match(new RegExp(`  ${table}  (.*)`))[1].replaceAll(', ', ' || ')} FROM ${table} LIMIT 1) IS NULL`);
  for (const [i, when] of [...examples, ...now.map((c) => `${c} IS NULL`), ...tables].entries())
    await lhd.call('rule.add', { job, name: `r${i}`, when, do: 'checkpoint' }).catch((e) => assert.fail(`${when}: ${e.message}`));
});

test('a script gets its event on stdin, a clean environment, and no shell', async (t) => {
  const lhd = await fresh(t);
  hook(lhd, 'note', '#!/bin/sh\ncat >> ../note.json\nenv | sort > ../note.env\n');
  const job = await submit(lhd, { rules: [{ name: 'tell', on: 'job.state', do: 'exec note' }] });
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');
  const read = () => existsSync(join(lhd.state, 'note.json')) ? readFileSync(join(lhd.state, 'note.json'), 'utf8').trim().split('\n').map((l) => JSON.parse(l)) : [];
  const told = await until('the end is told', () => read().some((n) => n.event.data.to === 'DONE') && read());
  const all = lhd.sql(`select id from events where job=${job} and kind='job.state' order by id`).map((e) => e.id);
  assert.deepEqual(told.map((n) => n.event.id), all);
  assert.equal(told.at(-1).rule, 'tell');
  assert.equal(told.at(-1).job.name, 'tiny');
  await until('every outcome is stored', () => firings(lhd).every((f) => f.outcome === 'done'));
  const env = readFileSync(join(lhd.state, 'note.env'), 'utf8').split('\n').map((l) => l.split('=')[0]).filter((k) => !['PWD', 'SHLVL', '_', 'OLDPWD', ''].includes(k));
  assert.deepEqual(env, ['LANG', 'LIGHTHOUSE_STATE', 'PATH']);
});

test('a script that others could have written is not run', async (t) => {
  const lhd = await fresh(t);
  chmodSync(hook(lhd, 'open', '#!/bin/sh\ntouch ../ran\n'), 0o722);
  symlinkSync('/bin/true', join(lhd.state, 'hooks', 'link'));
  const job = await submit(lhd, { phases: PHASES, rules: ['open', 'link', 'missing'].map((f) => ({ name: f, when: 'step > 0', do: `exec ${f}` })) });
  await lhd.jobUntil(job, 'some steps', (j) => j.step > 3);
  const got = await until('all were refused', () => firings(lhd).length === 3 && firings(lhd).every((f) => f.outcome) && firings(lhd));
  assert.deepEqual(got.map((f) => f.outcome), ['refused', 'refused', 'refused']);
  assert.match(got[0].text, /is no script of lhd's alone/);
  assert.match(got[1].text, /is no script of lhd's alone/);
  assert.match(got[2].text, /No such file/);
  assert.ok(!existsSync(join(lhd.state, 'ran')));
});

test('a repeating rule fires at each rise of its condition', async (t) => {
  const lhd = await fresh(t);
  hook(lhd, 'rise', '#!/bin/sh\ncat > /dev/null\n');
  const job = await submit(lhd, { phases: PHASES, rules: [{ name: 'rise', when: "state = 'PAUSED'", do: 'exec rise', repeat: true }] });
  for (let i = 1; i <= 2; i++) {
    await lhd.jobUntil(job, 'a step', (j) => j.state === 'RUNNING' && j.step > 2 * i);
    await lhd.call('job.pause', { job });
    await until(`firing ${i}`, () => firings(lhd).length === i && firings(lhd).every((f) => f.outcome));
    await lhd.call('job.resume', { job });
    await until('it has fallen', () => lhd.sql('select held from rules')[0].held === 0);
  }
  assert.equal(firings(lhd).length, 2);
});

test('rules survive a killed lhd and do not fire twice', async (t) => {
  const lhd = await fresh(t);
  hook(lhd, 'slow', '#!/bin/sh\nread line\necho $$ > ../slow.pid\necho "$line" >> ../slow.log\n[ -e ../go ] && exit 0\nexec sleep 1000\n');
  const job = await submit(lhd, { phases: PHASES, rules: [
    { name: 'script', when: 'step > 3', do: 'exec slow' },
    { name: 'saves', when: 'step > 3', do: 'checkpoint' },
    { name: 'later', when: 'step > 2000', do: 'switch recovery' }] });
  await until('the script runs', () => existsSync(join(lhd.state, 'slow.log')));
  await until('the checkpoint was fired', () => firings(lhd).length >= 2);
  await lhd.end('SIGKILL');
  process.kill(Number(readFileSync(join(lhd.state, 'slow.pid'), 'utf8')), 'SIGKILL');
  writeFileSync(join(lhd.state, 'go'), '');
  await lhd.boot();
  await lhd.jobUntil(job, 'DONE', (j) => j.state === 'DONE');
  await until('all have outcomes', () => firings(lhd).every((f) => f.outcome));
  assert.deepEqual(firings(lhd).map((f) => [f.rule, f.n, f.outcome]), [[1, 1, 'done'], [2, 1, 'done'], [3, 1, 'done']]);
  const lines = readFileSync(join(lhd.state, 'slow.log'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
  assert.equal(lines.length, 2, 'cut short, so it ran again');
  assert.deepEqual(lines[0], lines[1]);
  assert.equal(lhd.sql("select count(*) n from commands where method='job.switch'")[0].n, 1);
});
