// crash.test.mjs: every failpoint fires and no case is violated; bugs that are
// planted are found. `make soak` goes on from here, with other seeds.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { casesOfAll, crash, table } from './crash.mjs';

const SEED = Number(process.env.LH_CRASH_SEED ?? 1);

test('a job comes through a kill or an error at every failpoint, and random ones', async () => {
  const cases = casesOfAll(), told = [];
  assert.ok(cases >= 60);
  const sum = await crash({ seed: SEED, more: (i) => i < cases, tell: (text) => told.push(text) });
  console.log(`seed ${SEED}\n${table(sum)}`);
  assert.deepEqual(told, []);
  assert.equal(sum.cases, cases);
  assert.deepEqual([...sum.actions].filter(([, n]) => !n).map(([name]) => name), [], 'failpoints that never fired');
  assert.deepEqual([...sum.hits].filter(([, n]) => n < 5), [], 'failpoints that hardly any case came to');
});

test('a switch in whose trial two workers die is taken back, whatever dies while that is done', async () => {
  const two = ['trial.written=kill@1', 'trial.step=kill@1'], told = [];
  const command = { kind: 'command', script: [{ step: 20, act: 'switch', args: { phase: 'recovery' } }] };
  const cases = [{ kind: 'natural', orders: two, script: [] }, { ...command, orders: two },
    ...['checkpoint.written', 'rewind.saved', 'rewind.removed'].map((p) => ({ ...command, orders: [...two, `${p}=kill@1`] }))];
  const sum = await crash({ seed: SEED, more: (i) => i < cases.length, planned: (seed, i) => cases[i], tell: (text) => told.push(text) });
  assert.deepEqual(told, []);
  assert.equal(sum.actions.get('trial.step'), cases.length);
  assert.ok(sum.hits.get('rewind.removed') >= cases.length - 1, `${sum.hits.get('rewind.removed')} were taken back`);
});

/** A fault under which each planted bug shows. */
const PLANTED = {
  lost_record: { kind: 'natural', orders: [], script: [] },
  stale_cursor: { kind: 'natural', orders: ['step.posted=kill@30'], script: [] },
  early_retention: { kind: 'natural', orders: ['tensors.sync=kill@3'], script: [] },
  early_rename: { kind: 'natural', orders: ['tensors.sync=kill@3'], script: [] },
  // lhd dies before it has noted that the command was carried out.
  double_apply: { kind: 'command', rules: [], orders: ['command.outcome=kill@1'], script: [{ step: 5, act: 'checkpoint' }, { step: 60, act: 'switch', args: { phase: 'recovery' } }] },
};

for (const [bug, planned] of Object.entries(PLANTED))
  test(`a planted bug is found: ${bug}`, async () => {
    const told = [];
    // Once in a while it does no harm: a command that comes again may ask for what is there.
    await crash({ seed: SEED, more: (i) => i < 3 && !told.length, env: { LH_PLANT: bug }, keep: false, planned: () => planned, tell: (text) => told.push(text) });
    assert.ok(told.length, 'nobody noticed');
    const calm = await crash({ seed: SEED, more: (i) => i < 1, planned: () => planned, tell: (text) => told.push(text) });
    assert.equal(calm.violations, 0, told.at(-1));
  });

// Killed processes leave what they wrote to the kernel; only a cut of the power does not.
const cuts = (bug) => spawnSync(join(process.env.LH_BUILD, 'tests/train/test_power_cut'), { env: { ...process.env, LH_PLANT: bug }, encoding: 'utf8' });

test('no bug is found by power cuts where none is planted', () => {
  const { status, stderr } = cuts('');
  assert.equal(status, 0, stderr);
});

for (const bug of ['no_fsync', 'early_rename', 'early_retention'])
  test(`a planted bug is found by power cuts: ${bug}`, () => {
    const { status, stdout } = cuts(bug);
    assert.notEqual(status, 0, 'nobody noticed');
    assert.match(stdout, /FAILED.*a_cut_leaves_the_old_one_or_the_new_one/);
  });
