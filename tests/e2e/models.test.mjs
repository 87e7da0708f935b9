// models.test.mjs: models in and out of the form that others use: a job is exported
// while it is paused, what was exported is imported, and another job starts from it.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, scratch, packText, jobYaml, bin } from './lib/lhd.mjs';

test('a model goes out, comes in, and is trained on', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir);
  const ctl = (...args) => spawnSync(bin('lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', timeout: 90_000, cwd: dir });
  const ok = (...args) => {
    const r = ctl(...args);
    assert.equal(r.status, 0, `lhctl ${args.join(' ')}: ${r.stderr}${r.stdout}`);
    return r.stdout;
  };
  const refused = (why, hint, ...args) => {
    const r = ctl(...args);
    assert.equal(r.status, 1, r.stdout);
    assert.match(r.stderr, why);
    assert.match(r.stderr, hint);
  };
  const losses = (job) => JSON.parse(ok('metrics', job, '--json')).steps.map((s) => s.loss);
  writeFileSync(join(dir, 'job.yaml'), jobYaml({ name: 'first', phases: [{ name: 'all', attention: 'full', until: { steps: 40 } }] }));
  ok('submit', 'job.yaml');
  ok('wait', 'first', '--timeout', '60');

  await t.test('export of a job is its newest checkpoint', () => {
    assert.match(ok('export', 'first', 'out', '--dtype', 'fp32'), /^out: LlamaForCausalLM of step 40, /);
    assert.deepEqual(readdirSync(join(dir, 'out')).sort(), ['config.json', 'generation_config.json', 'model.safetensors']);
    assert.equal(JSON.parse(readFileSync(join(dir, 'out/config.json'))).eos_token_id, 256);
    assert.equal(statSync(join(dir, 'out/config.json')).mode & 0o777, 0o666 & ~process.umask());
    assert.equal(JSON.parse(ok('export', 'first', 'half', '--json')).step, 40);
    assert.ok(statSync(join(dir, 'half/model.safetensors')).size < statSync(join(dir, 'out/model.safetensors')).size * 0.6);
    ok('export', 'first', 'split', '--max-shard-bytes', '20000');
    assert.ok(existsSync(join(dir, 'split/model.safetensors.index.json')));
  });

  await t.test('nothing is written over', () => {
    refused(/'out' is there already/, /--force/, 'export', 'first', 'out');
    ok('export', 'first', 'out', '--dtype', 'fp32', '--force');
    refused(/holds no 'config.json'/, /choose another name/, 'export', 'first', 'state', '--force');
    assert.equal(ctl('export', 'first', 'new', '--dtype', 'int8').status, 2);
    assert.ok(!existsSync(join(dir, 'new')));
  });

  await t.test('what was imported goes out as it came in', () => {
    ok('import', 'out', '-o', 'start');
    ok('verify', 'start');
    ok('export', './start', 'again', '--dtype', 'fp32');
    assert.ok(readFileSync(join(dir, 'out/model.safetensors')).equals(readFileSync(join(dir, 'again/model.safetensors'))));
    refused(/no such file|cannot open/, /config\.json/, 'import', 'state', '-o', 'other');
  });

  await t.test('a job starts from it, with its dimensions', () => {
    const { model, ...rest } = JSON.parse(jobYaml({ name: 'second', phases: [{ name: 'all', attention: 'full', until: { steps: 8 } }] }));
    writeFileSync(join(dir, 'second.yaml'), JSON.stringify({ ...rest, model: { from: 'start' } }));
    ok('submit', 'second.yaml');
    ok('wait', 'second', '--timeout', '60');
    const [first, second] = [losses('first'), losses('second')];
    assert.ok(second[0] < first[0] - 0.5, `${second[0]} after ${first.at(-1)}, from scratch ${first[0]}`);
    assert.match(ok('events', 'second'), /started from the weights of '.*\/start', step 0/);
    refused(/model\.dim: found \d+, the weights of model\.from have/, /leave it out/, 'submit', 'second.yaml', '--set', 'model.dim=128');
    refused(/a preset and model\.from are given/, /hint: /, 'submit', 'second.yaml', '--set', 'model.preset=demo');
    refused(/model\.from: no such file/, /lhctl import/, 'submit', 'second.yaml', '--set', 'model.from=nowhere');
    ok('check', 'second.yaml');
    ok('estimate', 'second.yaml');
  });

  await t.test('another job starts from a checkpoint', () => {
    const { checkpoints } = JSON.parse(ok('checkpoints', 'first', '--json'));
    ok('submit', 'second.yaml', '--set', `model.from=${checkpoints.at(-1).path}`, '--set', 'name=third');
    ok('wait', 'third', '--timeout', '60');
    assert.deepEqual(losses('third'), losses('second'));
  });
});
