// ids.test.mjs: what evaluations ask of a job whose ids are a tokenizer's: made by lhctl,
// equal to what the tokenizer makes of the text, and asked while a job trains.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Lhd, bin, scratch, submit, until } from './lib/lhd.mjs';

const file = (family) => resolve('tests/tokenizers', family, family === 'sentencepiece' ? 'tokenizer.model' : 'tokenizer.json');
const families = ['llama3', 'qwen', 'sentencepiece'];
const run = (dir, ...args) => spawnSync(bin('lhctl'), args, { cwd: dir, encoding: 'utf8' });
const jsonl = (items) => items.map((i) => JSON.stringify(i)).join('\n') + '\n';

function ok(dir, ...args) {
  const r = run(dir, ...args);
  assert.equal(r.status, 0, r.stderr);
  return r.stdout;
}

/** Ids that the tokenizer makes of a text. */
function encode(dir, family, text) {
  writeFileSync(join(dir, 'one.txt'), text);
  ok(dir, 'pack', '-o', 'one', '--validation', '0', '--tokenizer', file(family), 'one.txt');
  const data = readFileSync(join(dir, 'one.train.bin'));
  return [...new Uint16Array(data.buffer.slice(data.byteOffset + 64, data.byteOffset + data.length))].slice(0, -1);
}

function decode(dir, family, ids) {
  writeFileSync(join(dir, 'raw.bin'), Buffer.from(Uint16Array.from(ids).buffer));
  return JSON.parse(ok(dir, 'data', 'inspect', 'raw.bin', '--format', 'uint16', '-n', '1000000', '--tokenizer', file(family), '--json')).text;
}

const words = (dir, family) => {
  assert.match(ok(dir, 'ids', '--passkey', '--tokenizer', file(family), '-o', `${family}.json`), /for evaluation\.passkey\.file\n$/);
  return JSON.parse(readFileSync(join(dir, `${family}.json`)));
};

for (const family of families) {
  test(`${family}: ids of words one behind the other are those of the text`, (t) => {
    const dir = scratch(t), w = words(dir, family), start = encode(dir, family, 'x');
    assert.ok(w.words.length > 900 && w.words.some((x) => x.length === 1));
    assert.equal(new Set(w.digits).size, 10);
    let x = 1;
    const some = (n) => Array.from({ length: n }, () => w.words[(x = (x * 48271) % 2147483647) % w.words.length]).flat();
    for (const digit of [0, 7, 9]) {
      const ids = [...start, ...some(300), ...w.question, w.digits[digit], ...w.end, ...some(200), ...w.question, w.digits[digit]];
      const text = decode(dir, family, ids);
      assert.match(text, new RegExp(`^x( [a-zA-Z0-9]{1,6}){300} The pass key is ${digit}\\.( [a-zA-Z0-9]{1,6}){200} The pass key is ${digit}$`));
      assert.deepEqual(encode(dir, family, text), ids);
    }
  });

  test(`${family}: endings have the ids that they have behind their context`, (t) => {
    const dir = scratch(t), items = [
      { ctx: 'The boat is', endings: ['at sea', ' gone', 's'], label: 2, ind: 7 },
      { ctx: 'naïve 世界 and ', endings: ['some 12345', 'don\'t'], label: '0', ctx_ids: [1] },
      { ctx: 'tab\t ', endings: ['x', 'The pass key.'], label: 1 }];
    writeFileSync(join(dir, 'quiz.jsonl'), jsonl(items));
    assert.match(ok(dir, 'ids', '--tokenizer', file(family), '-o', 'quiz.ids.jsonl', 'quiz.jsonl'), /3 items, for evaluation\.choices\.files\n$/);
    const made = readFileSync(join(dir, 'quiz.ids.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
    for (const [i, item] of items.entries()) {
      const { ctx_ids, endings_ids, tokenizer, ...rest } = made[i], context = item.ctx.trimEnd();
      assert.match(tokenizer, /^[0-9a-f]{16}$/);
      const { ctx_ids: _, ...given } = item;
      assert.deepEqual(rest, given);
      assert.deepEqual(ctx_ids, encode(dir, family, context));
      item.endings.forEach((ending, e) => {
        const both = item.ctx + (/\s$/.test(item.ctx) || /^\s/.test(ending) ? '' : ' ') + ending;
        assert.deepEqual(endings_ids[e], encode(dir, family, both).slice(ctx_ids.length));
        assert.equal(decode(dir, family, [...ctx_ids, ...endings_ids[e]]), both);
      });
    }
  });
}

test('what cannot be made into ids is refused, and nothing is written', (t) => {
  const dir = scratch(t), out = join(dir, 'out');
  const refused = (why, ...args) => {
    const r = run(dir, 'ids', '-o', 'out', ...args);
    assert.equal(r.status, 1, r.stderr);
    assert.match(r.stderr, why);
    assert.match(r.stderr, /\nhint: /);
    assert.ok(!existsSync(out));
  };
  const item = (over) => jsonl([{ ctx: 'a', endings: ['b', 'c'], label: 0 }, { ctx: 'a', endings: ['b', 'c'], label: 0, ...over }]);
  for (const [over, why] of [[{ ctx: '' }, /'quiz.jsonl':2: 'ctx' is missing or empty/], [{ ctx: ' \n' }, /'ctx' is missing/], [{ ctx: 3 }, /'ctx' is missing/],
    [{ endings: ['b'] }, /'endings' is no list of 2 to 8/], [{ endings: ['b', ''] }, /an ending is no text, or empty/], [{ endings: ['b', 3] }, /an ending is no text/]]) {
    writeFileSync(join(dir, 'quiz.jsonl'), item(over));
    refused(why, '--tokenizer', file('llama3'), 'quiz.jsonl');
  }
  for (const [text, why] of [['\n', /'quiz.jsonl': it holds no items/], ['[1]\n', /'quiz.jsonl':1: it is no JSON object/], ['{', /it is no JSON object/], [`{"ctx": "${'a'.repeat(1 << 20)}"}`, /longer than 1 MiB/]]) {
    writeFileSync(join(dir, 'quiz.jsonl'), text);
    refused(why, '--tokenizer', file('llama3'), 'quiz.jsonl');
  }
  refused(/cannot open 'none.jsonl'/, '--tokenizer', file('llama3'), 'none.jsonl');
  refused(/there is no tokenizer/, '--tokenizer', 'none.json', '--passkey');
  // No id for each of ' 0' to ' 9': some have two.
  refused(/the tokenizer has no id for each digit behind ' The pass key is'/, '--tokenizer', file('gpt2'), '--passkey');
  // One that knows no cuts: ids cross from word to word.
  const whole = JSON.parse(readFileSync(file('llama3'))), { vocab, merges } = whole.model;
  whole.pre_tokenizer = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  vocab['aĠ'] = 999;
  merges.unshift(['a', 'Ġ']);
  writeFileSync(join(dir, 'uncut.json'), JSON.stringify(whole));
  refused(/the tokenizer cuts text elsewhere than between words/, '--tokenizer', 'uncut.json', '--passkey');
  for (const args of [['-o', 'out', '--passkey'], ['--tokenizer', file('llama3'), '--passkey'], ['-o', 'out', '--tokenizer', file('llama3')], ['-o', 'out', '--tokenizer', file('llama3'), '--passkey', 'quiz.jsonl']])
    assert.equal(run(dir, 'ids', ...args).status, 2);
});

// ---- jobs ----

/** Of the text that is packed: how its lines go on, beside two that never do. */
const QUIZ = Array.from({ length: 12 }, (_, i) => ({
  ctx: `line ${i}: the lamp turns ${i % 7} times and`, label: i % 3, endings: [0, 1, 2].map((e) => (e === i % 3 ? 'the ship goes on' : e % 2 ? 'zebras quack!' : 'QX qx 9#')),
}));

async function fresh(t, family) {
  const dir = scratch(t);
  writeFileSync(join(dir, 'text.txt'), Array.from({ length: 900 }, (_, i) => `line ${i % 97}: the lamp turns ${i % 7} times and the ship goes on\n`).join(''));
  writeFileSync(join(dir, 'quiz.jsonl'), jsonl(QUIZ));
  ok(dir, 'pack', '-o', 'text', '--validation', '0', '--tokenizer', file(family), 'text.txt');
  ok(dir, 'ids', '--tokenizer', file(family), '-o', 'quiz.ids.jsonl', 'quiz.jsonl');
  words(dir, family);
  return Lhd.start(t, dir);
}

const job = (family, evaluation, over = {}) => ({
  model: { vocab: 1024, dim: 32, layers: 2, heads: 2, ffn_dim: 64 }, data: { train: 'text.train.bin', validation: '', tokenizer: file(family), seq_len: 128 },
  batch: { sequences: 2 }, optimizer: { lr: 3e-3, warmup_steps: 5 }, evaluation: { sequences: 2, ...evaluation },
  phases: [{ name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: 150 } }, { name: 'recovery', attention: 'full', until: { steps: 30 } }],
  ...over,
});
const looksOf = (lhd, id, kind) => lhd.call('job.looks', { job: id, kind, limit: 1000 }).then((r) => r.looks);

for (const family of ['llama3', 'sentencepiece']) {
  test(`a job of ${family} ids asks for digits, and for endings, which it learns`, async (t) => {
    const lhd = await fresh(t, family);
    const passkey = { every_steps: 60, from_tokens: 64, samples: 2, file: `${family}.json` };
    const id = await submit(lhd, job(family, { passkey, choices: { every_steps: 60, files: 'quiz.ids.jsonl' } }));
    await lhd.jobUntil(id, 'DONE', (j) => j.state === 'DONE');
    const asked = await looksOf(lhd, id, 'passkey'), chosen = await looksOf(lhd, id, 'choices');
    assert.deepEqual(asked.map((l) => [l.step, l.attention]), [60, 120, 180].map((s) => [s, 'full']));
    assert.deepEqual(asked[0].data.contexts, [64, 128]);
    assert.ok(asked.every((l) => l.data.right <= 0.5 && l.cost > 0), 'nobody taught it');
    assert.deepEqual(chosen.at(-1).data.sets.map((s) => [s.items, s.acc, s.cut]), [[12, 1, 0]]);
  });
}

test('what a job is asked is of its own tokenizer', async (t) => {
  const lhd = await fresh(t, 'llama3');
  const passkey = { every_steps: 20, from_tokens: 64, samples: 1 }, bytes = { tokenizer: 'bytes', train: 'text.train.bin', validation: '', seq_len: 128 };
  words(lhd.dir, 'qwen');
  ok(lhd.dir, 'ids', '--tokenizer', file('qwen'), '-o', 'qwen.ids.jsonl', 'quiz.jsonl');
  for (const [evaluation, over, why] of [
    [{ passkey }, {}, /evaluation\.passkey\.every_steps: the job's ids are not bytes, and it has no words to hide digits in/],
    [{ passkey: { ...passkey, file: 'qwen.json' } }, {}, /evaluation\.passkey\.file: '.*qwen\.json': its ids are of another tokenizer than the job's/],
    [{ passkey: { ...passkey, file: 'none.json' } }, {}, /evaluation\.passkey\.file: no such file/],
    [{ passkey: { ...passkey, file: 'quiz.jsonl' } }, {}, /quiz\.jsonl': it has no words for passkeys/],
    [{ passkey: { ...passkey, file: 'llama3.json' } }, { data: bytes }, /evaluation\.passkey\.file: the job's ids are bytes/],
    [{ choices: { files: 'quiz.jsonl' } }, {}, /quiz\.jsonl':1: the job's ids are not bytes, and the item has no ids/],
    [{ choices: { files: 'qwen.ids.jsonl' } }, {}, /qwen\.ids\.jsonl': its ids are of another tokenizer/],
    [{ choices: { files: 'quiz.ids.jsonl' } }, { data: bytes }, /quiz\.ids\.jsonl': its ids are of another tokenizer/],
  ]) {
    const { error } = await lhd.client.request('job.submit', { yaml: JSON.stringify({ name: 'bad', ...job('llama3', evaluation, over) }), base_dir: lhd.dir });
    assert.match(error.message, why);
    assert.ok(error.data.hint, error.message);
  }
  // With words alone it asks when it is told to.
  const id = await submit(lhd, job('llama3', { passkey: { file: 'llama3.json', from_tokens: 64, samples: 1 } }, { phases: [{ name: 'a', attention: 'full', until: { steps: 100000 } }] }));
  await lhd.jobUntil(id, 'it trains', (j) => j.step > 3);
  ok(lhd.dir, '--state', lhd.state, 'eval', String(id), '--passkey');
  await until('it is stored', async () => (await looksOf(lhd, id, 'passkey')).length === 1);
});
