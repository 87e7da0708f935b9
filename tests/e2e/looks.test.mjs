// looks.test.mjs: what is looked at beside the loss of training: validation sets by name,
// and that a run with all of it is to the last bit the run without.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { Lhd, bin, packText, scratch, submit } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

async function fresh(t) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir);
}

const phases = (n) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: n } },
  { name: 'recovery', attention: 'full', until: { steps: 20 } },
];
const ctl = (lhd, ...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8' });
const done = (j) => j.state === 'DONE';
const data = (validation) => ({ train: 'text.train.bin', validation, tokenizer: 'bytes', seq_len: 128 });
const NONE = { every_steps: 0, sequences: 2, gap: false };

test('each validation set is evaluated by name; rules, wait and the gap mean the first', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(40), data: data({ web: 'text.val.bin', seen: 'text.train.bin' }),
    evaluation: { every_steps: 20, sequences: 2 },
    rules: [{ name: 'sees', when: "(SELECT count(*) FROM sets WHERE name = 'seen') > (SELECT count(*) FROM evals) - 2 AND gap IS NOT NULL", do: 'checkpoint' }] });
  await lhd.jobUntil(job, 'DONE', done);
  const rows = lhd.sql(`select step, attention, set_no, set_name, reason, loss, cost from evaluations where job=${job} order by seq`);
  const at20 = rows.filter((r) => r.step === 20).map((r) => `${r.set_no} ${r.set_name} ${r.attention}`);
  assert.deepEqual(at20, ['0 web full', '0 web lighthouse', '1 seen full', '1 seen lighthouse']);
  assert.deepEqual(rows.filter((r) => r.reason === 'end').map((r) => r.set_name), ['web', 'seen']);
  assert.ok(rows.filter((r) => r.step > 0).every((r) => r.cost > 0), 'an evaluation costs something');
  assert.equal(rows[0].cost, null);
  const [f] = lhd.sql('select values_json from rule_firings'), seen = JSON.parse(f.values_json);
  const first = rows.filter((r) => r.set_no === 0);
  assert.ok(first.some((r) => r.attention === 'full' && r.loss === seen.val_loss), 'val_loss is of the first set');
  assert.ok(first.some((r) => r.attention === 'lighthouse' && r.loss === seen.val_loss_lighthouse));
  const last = rows.at(-2), other = rows.at(-1), between = (last.loss + other.loss) / 2;
  const met = last.loss < between ? '<' : '>';
  assert.equal(ctl(lhd, 'wait', 'tiny', '--for', `val_loss${met}${between}`).status, 0);
  assert.equal(ctl(lhd, 'wait', 'tiny', '--for', `val_loss${met === '<' ? '>' : '<'}${between}`).status, 5);
  assert.match(ctl(lhd, 'metrics', 'tiny', '--kind', 'evals').stdout, /\t20\t0\t\d+\.\d{4}\tseen\tlighthouse\tinterval/);
  assert.match(ctl(lhd, 'show', 'tiny', '-e').stdout, /\d+\.\d{4}\s+seen\s+full/);
  assert.deepEqual(await steps(lhd, job), quietRun(lhd, job, { evaluation: NONE }));
});
