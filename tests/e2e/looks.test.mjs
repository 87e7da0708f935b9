// looks.test.mjs: what is looked at beside the loss of training: validation sets by name,
// and that a run with all of it is to the last bit the run without.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';
import { request } from './lib/page.mjs';
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
  // Long enough that the rule is looked at while there is something to save.
  const job = await submit(lhd, { phases: phases(600), data: data({ web: 'text.val.bin', seen: 'text.train.bin' }),
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
  const key = readFileSync(join(lhd.state, 'metrics.key'), 'utf8');
  const { text } = await request((await lhd.call('daemon.info')).page, '/metrics', { key });
  for (const e of [last, other]) assert.ok(text.includes(`lighthouse_job_validation_loss_nats_per_token{job_id="${job}",name="tiny",set="${e.set_name}"} ${e.loss}\n`));
  assert.deepEqual(await steps(lhd, job), quietRun(lhd, job, { evaluation: NONE }));
});

const LOOKS = { every_steps: 20, sequences: 2, passkey: { every_steps: 20, from_tokens: 64, samples: 3 } };
const looksOf = (lhd, job, kind) => lhd.call('job.looks', { job, kind, limit: 10000 }).then((r) => r.looks);

test('selections, the loss by place and passkeys are told, and leave training as it was', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(40), batch: { sequences: 4, micro_sequences: 2 }, evaluation: LOOKS });
  await lhd.jobUntil(job, 'DONE', done);

  const selections = await looksOf(lhd, job, 'selection');
  assert.deepEqual(selections.map((s) => [s.step, s.attention]), [[20, 'lighthouse'], [40, 'lighthouse']], 'of the Lighthouse phase alone');
  const [first, second] = selections.map((s) => s.data);
  assert.deepEqual([first.layers, first.window, second.window], [1, 1, 2]);
  assert.equal(first.levels[0].expanded, 16 / 64, 'k of N_1 entries');
  assert.equal(first.levels[0].kept, null);
  assert.ok(second.levels[0].kept > 0 && second.levels[0].kept <= 1);
  assert.ok(first.never > 0 && first.never <= 0.75 && second.never <= first.never);

  const places = await looksOf(lhd, job, 'positions');
  const evals = lhd.sql(`select step, attention, loss, tokens from evaluations where job=${job} order by seq`);
  assert.equal(places.length, evals.length);
  places.forEach(({ data }, i) => {
    assert.equal(data.edges.at(-1), 128);
    const sum = data.loss.reduce((a, x, b) => a + (x ?? 0) * data.tokens[b], 0), tokens = data.tokens.reduce((a, b) => a + b);
    assert.equal(tokens, evals[i].tokens);
    assert.ok(Math.abs(sum / tokens - evals[i].loss) < 1e-4, 'the places together are the loss');
  });

  const passkeys = await looksOf(lhd, job, 'passkey');
  assert.deepEqual(passkeys.map((p) => [p.step, p.attention, p.reason]), [20, 40, 60].map((s) => [s, 'full', 'interval']));
  assert.deepEqual(passkeys[0].data.contexts, [64, 128]);
  assert.deepEqual(passkeys[0].data.depths, [0, 15, 30, 50, 70, 85, 100]);
  assert.ok(passkeys.every((p) => p.data.right < 0.5 && p.cost > 0 && p.duration_ms > 0), 'nobody taught it');

  const { stdout } = ctl(lhd, 'show', 'tiny');
  for (const line of [/^selection at step 40: \d+\.\d % of tokens chosen by no head in 2 looks\n {2}level 1: a head expands 25\.0 %, any head/m, /^passkeys at step 60 with full attention: \d+\.\d % found/m,
    /^ +128 {2}0: +\d+ {2}15: +\d+/m, /^looks, by the time of steps: validation loss \S+ %, by place \S+ %, selection \S+ %, passkeys \S+ %$/m]) assert.match(stdout, line);
  const csv = (kind) => ctl(lhd, 'metrics', 'tiny', '--kind', kind, '--csv').stdout.trim().split('\n');
  assert.equal(csv('passkey').length, 1 + 3 * 2);
  assert.equal(csv('selection').length, 1 + 2);
  assert.equal(csv('positions').length, 1 + places.reduce((n, p) => n + p.data.loss.length, 0));
  assert.equal(csv('positions')[0], 'attempt,step,phase,attention,set_name,from,to,loss,tokens');
  assert.match(ctl(lhd, 'metrics', 'tiny', '--kind', 'passkey', '--limit', '1').stdout, /^1\t20\tfull\t64(\t\d\.\d\d){7}$/m);
  assert.equal(ctl(lhd, 'metrics', 'tiny', '--kind', 'other').status, 2);
  assert.match(ctl(lhd, 'events', 'tiny').stdout, /passkeys: \d+\.\d % found; such looks take \S+ % of training's time/);
  assert.deepEqual(await steps(lhd, job), quietRun(lhd, job, { evaluation: { ...NONE, selection: false, positions: false } }));
});

test('passkeys are asked for by command, with either attention, where there are words', async (t) => {
  const lhd = await fresh(t);
  const job = await submit(lhd, { phases: phases(100000), evaluation: { sequences: 2, passkey: { from_tokens: 64, samples: 1 } } });
  await lhd.jobUntil(job, 'it trains', (j) => j.step > 5);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--passkey').status, 0);
  assert.equal(ctl(lhd, 'eval', 'tiny', '--passkey', '-a', 'lighthouse').status, 0);
  await until('both are stored', async () => (await looksOf(lhd, job, 'passkey')).length === 2);
  const [a, b] = await looksOf(lhd, job, 'passkey');
  assert.deepEqual([a.attention, b.attention, a.reason], ['full', 'lighthouse', 'command']);
  await lhd.call('job.cancel', { job });
  const other = await submit(lhd, { name: 'ids', phases: phases(100000), data: { ...data('text.val.bin'), tokenizer: 'none' } });
  await lhd.jobUntil(other, 'it trains', (j) => j.step > 5);
  const r = ctl(lhd, 'eval', 'ids', '--passkey');
  assert.equal(r.status, 1);
  assert.match(r.stderr, /and it has no words to hide digits in\nhint: evaluation\.passkey\.file, .*lhctl ids/);
});
