// tokenizer_job.test.mjs: a job whose ids are a tokenizer's: text of its data and of what
// its model writes, from a live worker and from a checkpoint. tokenizer.test.mjs has how
// text becomes ids.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Lhd, bin, scratch, submit } from './lib/lhd.mjs';

const file = (family, name = 'tokenizer.json') => resolve('tests/tokenizers', family, name);
const text = Array.from({ length: 400 }, (_, i) => `The ${i}th boat 🚢 sails, naïve 世界\n`).join('');

function packed(dir, out, tokenizer) {
  writeFileSync(join(dir, 'text.txt'), text);
  const r = spawnSync(bin('lhctl'), ['pack', '-o', out, '--validation', '0', '--tokenizer', tokenizer, 'text.txt'], { cwd: dir, encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
}

const job = (data, steps = 100000) => ({
  model: { vocab: 1024, dim: 16, layers: 1, heads: 2, ffn_dim: 32 }, data: { validation: '', seq_len: 32, ...data },
  batch: { sequences: 1 }, phases: [{ name: 'a', attention: 'full', until: { steps } }],
});

const ctl = (dir, ...args) => spawnSync(bin('lhctl'), ['--state', join(dir, 'state'), ...args], { cwd: dir, encoding: 'utf8' });

test('inspect shows text of a tokenizer\'s ids, of a file and of a job', async (t) => {
  const dir = scratch(t);
  for (const [family, name, end] of [['llama3', 'tokenizer.json', '<|end_of_text|>'], ['sentencepiece', 'tokenizer.model', '</s>']]) {
    packed(dir, family, file(family, name));
    const inspect = (...args) => ctl(dir, 'data', 'inspect', `${family}.train.bin`, ...args);
    const all = inspect('--tokenizer', file(family, name), '-n', '1000000', '--json');
    assert.equal(all.status, 0, all.stderr);
    assert.equal(JSON.parse(all.stdout).text, text + end);
    assert.match(inspect('--tokenizer', file(family, name)).stdout, /\n\nThe 0th boat 🚢 sails, naïve 世界\nThe 1th/);
    assert.equal(JSON.parse(inspect('--json').stdout).text, null);
    assert.match(inspect().stdout, /\n\n[0-9]+( [0-9]+)+\n$/);
    assert.equal(JSON.parse(inspect('--ids', '--json', '--tokenizer', file(family, name)).stdout).text, null);
  }
  const other = ctl(dir, 'data', 'inspect', 'sentencepiece.train.bin', '-n', '1000000', '--tokenizer', file('gpt2'));
  assert.equal(other.status, 1);
  assert.match(other.stderr, /id \d+ is none of the tokenizer's 757\nhint: /);
  const lhd = await Lhd.start(t, dir);
  await submit(lhd, { ...job({ train: 'llama3.train.bin', tokenizer: file('llama3') }), name: 'boats' });
  const shown = ctl(dir, 'data', 'inspect', 'boats', '--at', '3', '--json');
  assert.equal(shown.status, 0, shown.stderr);
  assert.ok(text.includes(JSON.parse(shown.stdout).text.replace(/^\ufffd+|\ufffd+$/g, '')));
});

test('sample takes text and gives text, from a worker and from a checkpoint', async (t) => {
  const dir = scratch(t);
  packed(dir, 'o', file('llama3'));
  copyFileSync(file('llama3'), join(dir, 'mine.json')); // the path is relative to the job file
  copyFileSync(file('llama3', 'tokenizer_config.json'), join(dir, 'tokenizer_config.json'));
  const lhd = await Lhd.start(t, dir);
  const id = await submit(lhd, job({ train: 'o.train.bin', tokenizer: 'mine.json' }));
  const args = ['sample', String(id), '--prompt', '世界 🚢', '--seed', '3', '-n', '60', '--temperature', '2', '--top-k', '0'];
  await lhd.jobUntil(id, 'it trains', (j) => j.step >= 3);
  ctl(dir, 'pause', String(id));
  const asked = () => {
    const json = ctl(dir, ...args, '--json');
    assert.equal(json.status, 0, json.stderr);
    const result = JSON.parse(json.stdout), plain = ctl(dir, ...args);
    assert.equal(plain.stdout, `世界 🚢${result.text}\n`);
    assert.equal(result.ids.length, result.tokens);
    assert.ok(result.text.includes('\ufffd')); // it has learnt nothing of characters yet
    for (const i of result.ids) assert.ok(i >= 0 && i < 758 && i !== 757, String(i)); // of the 1,024
    return result;
  };
  const live = asked();
  ctl(dir, 'cancel', String(id));
  await lhd.jobUntil(id, 'CANCELLED', (j) => j.state === 'CANCELLED');
  const saved = asked();
  assert.equal(saved.step, live.step);
  assert.equal(saved.text, live.text);
  const empty = ctl(dir, 'sample', String(id), '-n', '5');
  assert.equal(empty.status, 0, empty.stderr);
  // Who has no tokenizer is told that it takes one.
  const refused = await lhd.client.request('job.sample', { job: id, prompt: 'text' });
  assert.match(refused.error.message, /ids are of a tokenizer/);
  assert.match(refused.error.data.hint, /give ids/);
});

test('a job file names a tokenizer that is there and fits', (t) => {
  const dir = scratch(t);
  packed(dir, 'o', file('gpt2'));
  const check = (tokenizer, vocab) => {
    writeFileSync(join(dir, 'job.yaml'), JSON.stringify({ name: 'x', optimizer: { lr: 1e-3 }, ...job({ train: 'o.train.bin', tokenizer }), model: { vocab, dim: 16, layers: 1, heads: 2, ffn_dim: 32 } }));
    return ctl(dir, 'check', 'job.yaml');
  };
  assert.equal(check(file('gpt2'), 757).status, 0);
  for (const [tokenizer, vocab, why] of [
    [file('qwen'), 757, /job.yaml:1: data.tokenizer: .*has ids up to 758, model.vocab is 757\nhint: model.vocab: 759/],
    ['none.json', 757, /data.tokenizer: there is no tokenizer '.*none.json'\nhint: bytes, none, or a path/],
    ['text.txt', 757, /data.tokenizer: '.*text.txt': is no model of SentencePiece\nhint: /],
  ]) {
    const r = check(tokenizer, vocab);
    assert.equal(r.status, 1);
    assert.match(r.stderr, why);
  }
  writeFileSync(join(dir, 'cut.json'), readFileSync(file('gpt2')).subarray(0, 5000));
  assert.match(check('cut.json', 757).stderr, /cut.json': is no JSON of a tokenizer/);
});

test('a tokenizer goes out with its model and comes in with it', async (t) => {
  const dir = scratch(t);
  packed(dir, 'o', file('llama3'));
  const lhd = await Lhd.start(t, dir);
  const id = await submit(lhd, job({ train: 'o.train.bin', tokenizer: file('llama3') }, 8));
  await lhd.jobUntil(id, 'DONE', (j) => j.state === 'DONE');
  const ok = (...args) => {
    const r = ctl(dir, ...args);
    assert.equal(r.status, 0, r.stderr);
    return r;
  };
  const has = (d, name) => JSON.parse(readFileSync(join(dir, d, name)));
  assert.match(ok('export', String(id), 'out').stdout, /in 1 file, its tokenizer$/m);
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) assert.ok(readFileSync(join(dir, 'out', name)).equals(readFileSync(file('llama3', name))));
  for (const name of ['config.json', 'generation_config.json']) {
    assert.equal(has('out', name).bos_token_id, 756);
    assert.equal(has('out', name).eos_token_id, 757);
  }
  assert.match(ok('import', 'out', '-o', 'start').stdout, /, with its tokenizer; start from it/);
  assert.equal(has('start', 'manifest.json').job.data.tokenizer, join(dir, 'out/tokenizer.json'));

  // A job that starts from it has its tokenizer, unless it says another.
  const next = (data) => submit(lhd, { ...job({ train: 'o.train.bin', ...data }, 8), model: { from: 'start' }, name: 'next' });
  const tokenizerOf = async (data) => (await lhd.call('job.show', { job: await next(data) })).spec.data.tokenizer;
  assert.equal(await tokenizerOf({}), join(dir, 'out/tokenizer.json'));
  assert.equal(await tokenizerOf({ tokenizer: 'none' }), 'none');
  ok('export', './start', 'again');
  assert.deepEqual(readdirSync(join(dir, 'again')).sort(), readdirSync(join(dir, 'out')).sort());

  // Weights go in and out without one that is damaged, gone, or larger than the model.
  const whole = readFileSync(file('llama3'));
  const large = JSON.parse(whole);
  large.added_tokens[0].id = 1024;
  for (const [data, why] of [[whole.subarray(0, 999), /is no JSON of a tokenizer/], [JSON.stringify(large), /has ids up to 1024, the model those below 1024/]]) {
    writeFileSync(join(dir, 'out/tokenizer.json'), data);
    const r = ok('import', 'out', '-o', 'bare', '--force');
    assert.match(r.stderr, /^without its tokenizer: /);
    assert.match(r.stderr, why);
    assert.equal(has('bare', 'manifest.json').job.data.tokenizer, 'none');
  }
  rmSync(join(dir, 'out/tokenizer.json'));
  const gone = ok('export', './start', 'third', '--json');
  assert.match(gone.stderr, /without its tokenizer: there is no tokenizer/);
  assert.equal(JSON.parse(gone.stdout).tokenizer, false);
  assert.equal(has('third', 'config.json').eos_token_id, null);

  // A file that is a link to somewhere else would go out with the next export.
  writeFileSync(join(dir, 'secret'), '{}');
  for (const name of ['tokenizer.json', 'special_tokens_map.json']) {
    rmSync(join(dir, 'linked'), { recursive: true, force: true });
    cpSync(join(dir, 'again'), join(dir, 'linked'), { recursive: true });
    rmSync(join(dir, 'linked', name), { force: true });
    symlinkSync('../secret', join(dir, 'linked', name));
    const r = ctl(dir, 'import', 'linked', '-o', 'never');
    assert.equal(r.status, 1);
    assert.match(r.stderr, new RegExp(`'${name}' is a link out of the directory\nhint: `));
    assert.ok(!existsSync(join(dir, 'never')));
  }
});
