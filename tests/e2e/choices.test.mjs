// choices.test.mjs: multiple choice while a job trains: a model that has learned what is
// asked is right every time, one that has not is at chance, and training is as without.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const done = (j) => j.state === 'DONE';
const jsonl = (items) => items.map((i) => JSON.stringify(i)).join('\n') + '\n';

/** Of the text that is packed: how its lines go on, beside two that never do. */
const LEARNED = Array.from({ length: 20 }, (_, i) => ({
  ctx: `line ${i}: the lamp turns ${i % 7} times and`, label: String(i % 3),
  endings: [0, 1, 2].map((e) => (e === i % 3 ? 'the ship goes on' : e % 2 ? 'zebras quack!' : 'QX qx 9#')),
}));

/** Of noise: no model knows better. */
function noise(n) {
  let x = 7;
  const word = () => Array.from({ length: 8 }, () => String.fromCharCode(97 + (x = (x * 48271) % 2147483647) % 26)).join('');
  return Array.from({ length: n }, (_, i) => ({ ctx: word(), endings: [word(), word(), word(), word()], label: i % 4 }));
}

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  writeFileSync(join(dir, 'learned.jsonl'), jsonl(LEARNED));
  writeFileSync(join(dir, 'noise.jsonl'), jsonl(noise(200)));
  return Lhd.start(t, dir);
}

const phases = (n) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: n } },
  { name: 'recovery', attention: 'full', until: { steps: 20 } },
];
const CHOICES = { files: { learned: 'learned.jsonl', noise: 'noise.jsonl' }, items: 200 };
const NONE = { every_steps: 0, sequences: 2, gap: false, selection: false, positions: false };
const looksOf = (lhd, job) => lhd.call('job.looks', { job, kind: 'choices', limit: 1000 }).then((r) => r.looks);

test('what was learned is chosen every time, noise by chance; training is to the last bit as without', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(280), batch: { sequences: 4, micro_sequences: 2 }, optimizer: { lr: 3e-3, warmup_steps: 5 },
    evaluation: { sequences: 2, choices: { ...CHOICES, every_steps: 50 } } });
  await lhd.jobUntil(job, 'DONE', done);
  const looks = await looksOf(lhd, job);
  assert.deepEqual(looks.map((l) => [l.step, l.attention, l.reason]), [50, 100, 150, 200, 250, 300].map((s) => [s, 'full', 'interval']));
  const [learned, chance] = looks.at(-1).data.sets;
  assert.deepEqual(learned, { set_name: 'learned', items: 20, acc: 1, acc_norm: 1, chance: learned.chance, cut: 0 });
  assert.ok(Math.abs(learned.chance - 1 / 3) < 1e-9);
  for (const { data } of looks) {
    const [, n] = data.sets;
    assert.deepEqual([n.set_name, n.items, n.chance], ['noise', 200, 0.25]);
    assert.ok(n.acc > 0.12 && n.acc < 0.4, `of noise it chose ${n.acc}`); // 4 standard deviations
  }
  assert.equal(chance.set_name, 'noise');
  assert.ok(looks.every((l) => l.cost > 0 && l.duration_ms > 0));
  const { stdout } = ctl(lhd, 'show', 'tiny');
  for (const line of [/^multiple choice at step 300 with full attention\n {2}learned: 100\.0 % of 20 right, 100\.0 % by length; 33\.3 % by chance$/m, /^ {2}noise: \d+\.\d % of 200 right/m,
    /^looks, by the time of steps: .*multiple choice \S+ %/m]) assert.match(stdout, line);
  assert.match(ctl(lhd, 'events', 'tiny').stdout, /learned 100\.0 % right \(100\.0 % by length\), noise \d+\.\d % right .*; such looks take \S+ % of training's time/);
  assert.match(ctl(lhd, 'metrics', 'tiny', '--kind', 'choices').stdout, /^1\t300\tlearned\tfull\t20\t1\.0000\t1\.0000\t0\.3333$/m);
  assert.equal(ctl(lhd, 'metrics', 'tiny', '--kind', 'choices', '--csv').stdout.trim().split('\n').length, 1 + 6 * 2);
  assert.deepEqual(await steps(lhd, job), quietRun(lhd, job, { evaluation: NONE }));
});

test('it is asked by command, with either attention, of jobs that have it', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), checkpoint: { every_steps: 20 }, evaluation: { sequences: 2, choices: CHOICES } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 5);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--choices').status, 0);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--choices', '-a', 'lighthouse').status, 0);
  await until('both are stored', async () => (await looksOf(lhd, job)).length === 2);
  const [a, b] = await looksOf(lhd, job);
  assert.deepEqual([a.attention, b.attention, a.reason], ['full', 'lighthouse', 'command']);
  assert.deepEqual(a.data.sets.map((s) => [s.set_name, s.items]), b.data.sets.map((s) => [s.set_name, s.items]));
  assert.match(ctl(lhd, 'events', 'tiny').stdout, /by length\) with Lighthouse attention/);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--choices', '--passkey').status, 2);
  await assert.rejects(lhd.call('job.eval', { job, choices: true, passkey: true }), /at once/);
  await lhd.call('job.cancel', { job });
  const other = await submit(lhd, { name: 'none', phases: phases(100000) });
  await lhd.jobUntil(other, 'it trains', (j) => j.step > 5);
  const r = ctl(lhd, 'eval', 'none', '--choices');
  assert.equal(r.status, 1);
  assert.match(r.stderr, /no multiple choice to be asked\nhint: evaluation\.choices\.files/);
});

test('a job of other ids asks by ids; what is no item is refused at submit with its line', async (t) => {
  const lhd = await fresh(t);
  const ids = [{ ctx_ids: [116, 104, 101], endings_ids: [[32, 108], [0, 0]], endings: ['lamp', 'none'], label: 0 }];
  writeFileSync(join(lhd.dir, 'ids.jsonl'), jsonl(ids));
  writeFileSync(join(lhd.dir, 'bad.jsonl'), jsonl([...LEARNED, { ctx: 'a', endings: ['b'], label: 0 }]));
  const data = { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'none', seq_len: 128 };
  const job = await submit(lhd, { phases: phases(20), data, evaluation: { choices: { every_steps: 40, files: 'ids.jsonl' } } });
  await lhd.jobUntil(job, 'DONE', done);
  assert.deepEqual((await looksOf(lhd, job)).map((l) => [l.step, l.data.sets[0].set_name, l.data.sets[0].items]), [[40, 'choices', 1]]);
  for (const [over, want] of [
    [{ evaluation: { choices: { files: 'bad.jsonl' } } }, /evaluation\.choices\.files: '.*\/bad\.jsonl':21: 'endings' is no list of 2 to 8/],
    [{ evaluation: { choices: { files: 'none.jsonl' } } }, /evaluation\.choices\.files: cannot open '.*none\.jsonl'/],
    [{ evaluation: { choices: { every_steps: 10 } } }, /evaluation\.choices\.every_steps: there is nothing to choose from/],
    [{ data, evaluation: { choices: { files: 'learned.jsonl' } } }, /learned\.jsonl':1: the job's ids are not bytes, and the item has no ids/],
  ]) await assert.rejects(submit(lhd, { name: 'bad', phases: phases(20), ...over }), want);
});
