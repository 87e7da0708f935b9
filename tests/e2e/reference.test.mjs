// reference.test.mjs: what is made from tables and schemas is there and up to date:
// the protocol reference, manual pages, completions, and the checks of a machine.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync, chmodSync, mkdirSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Lhd, bin, build, jobYaml, packText, scratch } from './lib/lhd.mjs';

const lhctl = (args, more = {}) => spawnSync(bin('lhctl'), args, { encoding: 'utf8', timeout: 30_000, ...more });
const commands = lhctl(['help', '--list']).stdout.trim().split('\n');

test('the reference of the protocol is up to date', () => {
  assert.equal(readFileSync('schema/README.md', 'utf8'), readFileSync(join(build, 'gen/README.md'), 'utf8'), '`make reference` brings it up to date');
});

test('every command has a manual page with its options', () => {
  assert.ok(commands.length > 20);
  for (const name of commands) {
    const page = lhctl(['help', '--man', name]).stdout;
    assert.match(page, new RegExp(`^\\.TH LHCTL-${name} 1 `));
    const options = [...lhctl(['help', name]).stdout.split('options:')[1].split('exit status')[0].matchAll(/--([a-z-]+)/g)].map((m) => m[1]);
    for (const o of new Set(options)) assert.ok(page.includes(o.replaceAll('-', '\\-')) || page.includes(o), `${name}: ${o}`);
    for (const section of ['SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'EXAMPLES']) assert.match(page, new RegExp(`^\\.SH ${section}$`, 'm'), name);
  }
  const all = lhctl(['help', '--man']).stdout;
  for (const name of commands) assert.ok(all.includes(`lhctl\\-${name} `), name);
});

test('bash completes commands, options and names of jobs', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  await lhd.call('job.submit', { yaml: jobYaml({ name: 'a-job' }), base_dir: dir });
  const script = lhctl(['completion', 'bash']).stdout;
  const complete = (...words) => spawnSync('bash', ['-c', `${script}
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _lhctl; printf '%s\\n' "\${COMPREPLY[@]}"`, 'x', ...words],
  { encoding: 'utf8', env: { ...process.env, PATH: `${join(build, 'bin')}:${process.env.PATH}`, LIGHTHOUSE_STATE: lhd.state } }).stdout.trim().split('\n');
  assert.deepEqual(complete('lhctl', 'swi'), ['switch']);
  assert.deepEqual(complete('lhctl', 'switch', '--mess'), ['--message']);
  assert.deepEqual(complete('lhctl', 'switch', 'a'), ['a-job']);
  for (const name of commands) assert.ok(complete('lhctl', name.slice(0, -1)).includes(name), name);
});

test('completions of the other shells name every command and option', () => {
  for (const shell of ['zsh', 'fish']) {
    const script = lhctl(['completion', shell]).stdout;
    for (const name of commands) assert.match(script, new RegExp(`\\b${name}\\b`), `${shell}: ${name}`);
    assert.match(script, /message/);
  }
  const r = lhctl(['completion', 'tcsh']);
  assert.equal(r.status, 2);
  assert.match(r.stderr, /bash, zsh and fish/);
});

test('check judges a job file without a daemon', (t) => {
  const dir = scratch(t), file = join(dir, 'job.yaml');
  packText(dir);
  writeFileSync(file, jobYaml({ rules: [{ name: 'r', when: 'step > 3', do: 'pause' }] }));
  let r = lhctl(['check', file]);
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /'tiny' is fine: .* 2 phases, 1 rules/);
  assert.equal(JSON.parse(lhctl(['check', file, '--json', '--set', 'seed=7']).stdout).seed, 7);
  for (const [over, want] of [[{ seed: 'x' }, /seed: found 'x'/], [{ rules: [{ name: 'r', when: 'stp > 3', do: 'pause' }] }, /no such column: stp/], [{ data: { train: 'none.bin', seq_len: 128 } }, /none\.bin/]]) {
    writeFileSync(file, jobYaml(over));
    r = lhctl(['check', file]);
    assert.equal(r.status, 1);
    assert.match(r.stderr, want);
    assert.match(r.stderr, /hint: /);
  }
});

test('doctor names what is wrong and what to do', async (t) => {
  const dir = scratch(t);
  const lhd = await Lhd.start(t, dir);
  let r = lhctl(['--state', lhd.state, 'doctor', '--json']);
  assert.equal(r.status, 0, r.stdout);
  const { checks } = JSON.parse(r.stdout);
  assert.deepEqual(checks.map((c) => c.what), ['state directory', 'disk', 'programs', 'tokenizer.json', 'SentencePiece', 'GPU', 'daemon']);
  for (const c of checks) assert.ok(c.verdict === 'good' || c.remedy, c.what);
  const open = join(dir, 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  r = lhctl(['--state', open, 'doctor']);
  assert.equal(r.status, 1);
  assert.match(r.stdout, /✗ state directory .*mode 777/);
  assert.match(r.stdout, /chmod go-w/);
  r = lhctl(['--state', join(dir, 'nowhere'), 'doctor']);
  assert.equal(r.status, 0);
  assert.match(r.stdout, /- daemon .*no daemon at/);
  assert.match(r.stdout, /start it: lhd --state/);
});

test('version tells both', async (t) => {
  const lhd = await Lhd.start(t, scratch(t));
  assert.match(lhctl(['--state', lhd.state, 'version']).stdout, /^lhctl (\S+)\nlhd \1\n$/);
  assert.match(lhctl(['--state', '/nowhere', 'version']).stdout, /lhd: not running/);
});
