// The page's arithmetic, without a browser: what is drawn of which steps.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

// Its packages are web/'s; the module by its file, for nodejs 18.
const vite = await import(pathToFileURL(resolve('web/node_modules/vite/dist/node/index.js')));

/** A module of web/src, as JavaScript. */
async function load(name) {
  const [{ output }] = await vite.build({ configFile: false, root: 'web', logLevel: 'error',
    build: { write: false, minify: false, lib: { entry: `src/${name}.ts`, formats: ['es'] } } });
  return import(`data:text/javascript,${encodeURIComponent(output[0].code)}`);
}

const step = (n, more = {}) => ({ job: 1, attempt: 1, step: n, phase: 0, time_ms: n * 10, loss: n, grad_norm: 1, lr: 0.1, tokens: 100, step_ms: 10, tokens_per_s: 5, ...more });

test('pushed steps go on with the last group', async () => {
  const { appendStep } = await load('series');
  const points = [];
  for (let n = 1; n <= 5; n++) assert.ok(appendStep(points, step(n), 2));
  assert.deepEqual(points.map((p) => [p.first_step, p.last_step, p.steps, p.tokens]), [[1, 2, 2, 200], [3, 4, 2, 200], [5, 5, 1, 100]]);
  assert.deepEqual([points[0].loss_min, points[0].loss_mean, points[0].loss_max], [1, 1.5, 2]);
  assert.ok(appendStep(points, step(4), 2), 'one that is there changes nothing');
  assert.equal(points.length, 3);
  assert.ok(!appendStep(points, step(7), 2), 'a hole is seen');
  assert.ok(appendStep(points, step(6, { phase: 1 }), 2));
  assert.equal(points[3].phase, 1, 'a group is of one phase');
});

test('a loss that is no number leaves the rest of its group', async () => {
  const { appendStep, smooth } = await load('series');
  const points = [];
  for (const [n, loss] of [[1, 2], [2, null], [3, 4]]) appendStep(points, step(n, { loss }), 1);
  assert.deepEqual(smooth(points, 0), [2, null, 4]);
  assert.equal(smooth(points, 1)[0], 2, 'the first value is itself, however smooth');
});

test('smoothing does not depend on the width of groups', async () => {
  const { appendStep, smooth } = await load('series');
  const of = (width) => {
    const points = [];
    for (let n = 1; n <= 400; n++) appendStep(points, step(n, { loss: n < 200 ? 3 : 1 }), width);
    return smooth(points, 50).at(-1);
  };
  assert.ok(Math.abs(of(1) - of(10)) < 0.02);
});

test('what a later attempt did again is abandoned', async () => {
  const { abandoned } = await load('series');
  const attempt = (n, first_step, last_step) => ({ attempt: n, first_step, last_step });
  assert.deepEqual(abandoned([attempt(1, 0, 100)]), []);
  assert.deepEqual(abandoned([attempt(1, 0, 100), attempt(2, 100, 150)]), []);
  assert.deepEqual(abandoned([attempt(1, 0, 100), attempt(2, 50, 60), attempt(3, 50, 55)]),
    [{ attempt: 2, from_step: 50, to_step: 60 }, { attempt: 1, from_step: 50, to_step: 100 }]);
  assert.deepEqual(abandoned([attempt(1, 0, 100), attempt(2, 50, 60), attempt(3, 20, null)]),
    [{ attempt: 2, from_step: 50, to_step: 60 }, { attempt: 1, from_step: 20, to_step: 100 }]);
});

test('the gap is full less Lighthouse, at steps that have both', async () => {
  const { gaps, finalEvaluations } = await load('series');
  const e = (s, attention, loss, attempt = 1) => ({ step: s, attempt, attention, loss, time_ms: s });
  const all = [e(10, 'full', 3), e(10, 'lighthouse', 2.5), e(20, 'full', 9), e(20, 'full', 2, 2), e(30, 'full', null, 2)];
  const branches = [{ attempt: 1, from_step: 15, to_step: 20 }];
  const full = finalEvaluations(all, branches, 'full');
  assert.deepEqual(full.map((x) => x.loss), [3, 2]);
  assert.deepEqual(gaps(full, finalEvaluations(all, branches, 'lighthouse')), [{ step: 10, loss: 0.5, time_ms: 10 }]);
});

test('marks near each other become one with the more telling sign', async () => {
  const { cluster, marksOf, journalLine } = await load('marks');
  const event = (kind, s, data = {}) => ({ id: s, job: 1, attempt: 1, step: s, time_ms: s, kind, text: kind, data });
  const command = { command: 7, job: 1, method: 'job.switch', args: { job: 1, phase: 'recovery' }, uid: 5, program: 'page', message: 'flat', accepted_ms: 1, outcome: 'applied', step: 60, text: 'done' };
  const marks = marksOf([event('job.phase', 0), event('job.phase', 60)], [command], [], [{ step: 61, time_ms: 61, reason: 'interval' }]);
  assert.deepEqual(marks.map((m) => m.kind), ['switch', 'checkpoint']);
  assert.deepEqual(marks[0].lines, [journalLine(command)]);
  assert.match(journalLine(command), /^#7 job\.switch phase=recovery by uid 5 \(page\) “flat”: applied, done$/);
  const [one, ...none] = cluster(marks, (m) => m.step, 10, 100);
  assert.deepEqual([one.kind, one.marks.length, none.length], ['switch', 2, 0]);
});

test('a stream is read however it is cut', async () => {
  const { SseParser } = await load('sse');
  const text = ': beat\n\nevent: step\nid: 1.2.3\ndata: {"a":1}\n\nevent: lost\r\ndata: x\r\ndata: y\r\n\r\n';
  for (const size of [1, 3, 7, text.length]) {
    const parser = new SseParser();
    const got = [];
    for (let i = 0; i < text.length; i += size) got.push(...parser.push(text.slice(i, i + size)));
    assert.deepEqual(got, [{ event: 'step', id: '1.2.3', data: '{"a":1}' }, { event: 'lost', id: null, data: 'x\ny' }]);
  }
});

test('numbers read well', async () => {
  const f = await load('format');
  assert.deepEqual([f.count(1234567), f.count(null), f.loss(0.12345), f.loss(0.00001), f.short(262295), f.short(999_900), f.short(12.345), f.short(0)],
    ['1,234,567', '–', '0.1235', '1.00e-5', '262 k', '1 M', '12.3', '0']);
  assert.deepEqual([f.duration(8), f.duration(245), f.duration(12_000), f.duration(187_200), f.bytes(1536), f.bytes(20)],
    ['8 s', '4 min 05 s', '3 h 20 min', '2 d 04 h', '1.5 KiB', '20 B']);
  assert.equal(f.yaml({ a: 1, b: { c: ['x', 'y z'] }, d: [{ e: 1, f: 2 }], g: {} }), '\na: 1\nb:\n  c: [x, "y z"]\nd:\n  - e: 1\n    f: 2\ng: {}\n');
});

test('utilisation says what it counts, and is silent where the peak is not known', async () => {
  const { mfu, matrixParameters } = await load('mfu');
  const model = { vocab: 100, dim: 8, layers: 2, heads: 2, kv_heads: 1, head_dim: 4, ffn_dim: 16 };
  assert.equal(matrixParameters(model), 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16) + 800);
  const n = matrixParameters(model);
  const used = mfu({ device: 'cuda', model }, 'NVIDIA H100 80GB HBM3', 989.4e12 / (6 * n) / 2);
  assert.ok(Math.abs(used.share - 0.5) < 1e-9);
  assert.match(used.how, /989\.4 TFLOP\/s, H100\/H200 SXM dense bf16/);
  for (const [device, gpu] of [['cpu', 'H100'], ['cuda', 'NVIDIA H100 PCIe'], ['cuda', 'some other GPU'], ['cuda', '']]) assert.equal(mfu({ device, model }, gpu, 1000), null);
});

test('the sources are well typed', () => {
  const r = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '--noEmit'], { cwd: 'web', encoding: 'utf8' });
  assert.equal(r.stdout, '');
  assert.equal(r.status, 0);
});
