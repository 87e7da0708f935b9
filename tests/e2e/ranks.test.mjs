// ranks.test.mjs: a job of several devices is one job: the same losses, every command at
// one step, one attempt that lives and dies as a whole.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, atEnd, until, bin, scratch, packText, submit, losses } from './lib/lhd.mjs';
import { quietRun, steps } from './lib/quiet.mjs';

async function fresh(t, args = [], env = {}) {
  const dir = scratch(t);
  packText(dir);
  atEnd(t, () => processes({ dir }).all.forEach((p) => process.kill(p.pid, 'SIGKILL'))); // of a test that failed
  return Lhd.start(t, dir, args, { env: { RANKS_OF: dir, ...env } });
}

const done = (j) => j.state === 'DONE';
const BATCH = { sequences: 4, micro_sequences: 1 };
const LIGHT = { attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 4 };
/** Two phases and everything that comes with them; `steps` of the first. */
const job = (devices, steps) => ({ devices, batch: BATCH, checkpoint: { every_steps: 10, keep: 3 },
  evaluation: { sequences: 5, every_steps: 20 },
  phases: [{ name: 'light', ...LIGHT, until: { steps } }, { name: 'full', attention: 'full', until: { steps: 20 } }] });
const LONG = 100000;

const stat = (pid) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8'), f = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { pid, state: f[0], parent: Number(f[1]), started: Number(f[19]) };
  } catch { return null; }
};
const read = (pid, name) => {
  try { return readFileSync(`/proc/${pid}/${name}`, 'utf8').split('\0'); } catch { return []; }
};
const lives = (p) => { const now = stat(p.pid); return now?.started === p.started && now.state !== 'Z'; };

/** What attempts consist of: { keeper, launcher, proxy, parents, ranks, all }. Whoever its
 * parent is, a process has the environment of the lhd that it comes from. */
function processes(lhd) {
  const named = (p, name) => read(p.pid, 'cmdline')[0]?.endsWith(name);
  const all = readdirSync('/proc').filter((p) => /^\d+$/.test(p)).map((p) => stat(Number(p)))
    .filter((p) => p && p.state !== 'Z' && read(p.pid, 'environ').includes(`RANKS_OF=${lhd.dir}`) && !named(p, '/lhd') && !named(p, '/lhgpus'));
  const rankOf = (p) => Number(read(p.pid, 'environ').find((v) => v.startsWith('PMI_RANK='))?.slice(9) ?? -1);
  const ofRanks = all.filter((p) => rankOf(p) >= 0 && named(p, '/lhworker-cpu'));
  const [parents, ranks] = [false, true].map((inner) => ofRanks.filter((p) => ofRanks.some((o) => o.pid === p.parent) === inner)
    .sort((a, b) => rankOf(a) - rankOf(b)));
  const find = (name) => all.find((p) => named(p, name));
  return { keeper: find('/lhkeeper'), launcher: find('/mpiexec.hydra'), proxy: find('/hydra_pmi_proxy'), parents, ranks, all };
}
const ranksOf = (lhd) => processes(lhd).ranks.map((p) => p.pid);
const training = (lhd, id, attempt, n) => lhd.jobUntil(id, `attempt ${attempt} trains`, (j) =>
  j.attempt === attempt && j.state === 'RUNNING' && lhd.sql(`select 1 from steps where job=${id} and attempt=${attempt} limit 1`).length &&
  processes(lhd).ranks.length === n);
const attempts = async (lhd, id) => (await lhd.call('job.show', { job: id })).attempts;
const noneLeft = (lhd) => until('no process is left', () => processes(lhd).all.length === 0);

/** Devices, what they divide, and those that share a sequence. */
const DIVISIONS = [[1, 'moments', 1], [2, 'moments', 1], [4, 'gradients', 1], [2, 'weights', 1], [2, 'moments', 2], [4, 'weights', 2]];
test('jobs of 1, 2 and 4 devices have the same losses, evaluations and looks', async (t) => {
  const lhd = await fresh(t);
  const first = await submit(lhd, { name: 'first', phases: [{ name: 'all', attention: 'full', until: { steps: 20 } }] });
  await lhd.jobUntil(first, 'DONE', done);
  const from = (await lhd.call('job.checkpoints', { job: first })).checkpoints.at(-1).path;
  writeFileSync(join(lhd.dir, 'c.jsonl'), JSON.stringify({ ctx: 'the lamp turns ', endings: ['3 times', 'ship'], label: 0 }) + '\n');
  const got = [];
  for (const [devices, divide, context] of DIVISIONS) {
    const { evaluation, ...rest } = job(devices, 30);
    // Slowly: words come twice, and what ties is chosen by a rounding.
    const id = await submit(lhd, { ...rest, divide, context, model: { from }, optimizer: { lr: 2e-4 }, evaluation: { ...evaluation, passkey: { every_steps: 20, from_tokens: 64, samples: 5 },
      choices: { every_steps: 20, files: 'c.jsonl' } },
      data: { train: [{ path: 'text.train.bin', weight: 3 }, { path: 'text.val.bin', weight: 1 }],
        validation: { seen: 'text.train.bin', other: 'text.val.bin' }, tokenizer: 'bytes', seq_len: 128 } });
    await lhd.jobUntil(id, 'ranks', (j) => devices === 1 || done(j) || ranksOf(lhd).length === devices);
    await lhd.jobUntil(id, 'DONE', done);
    assert.equal((await attempts(lhd, id)).length, 1);
    const looks = {};
    for (const kind of ['selection', 'positions', 'passkey', 'choices']) looks[kind] = (await lhd.call('job.looks', { job: id, kind, limit: 1000 })).looks;
    got.push({ steps: await losses(lhd, id), looks,
      evals: lhd.sql(`select step, attention, set_name, reason, tokens, loss from evaluations where job=${id} order by seq`) });
    await noneLeft(lhd);
  }
  const [one, ...more] = got;
  const near = (x, y, what, bar = 1e-3) => assert.ok(Math.abs(x - y) <= bar * y, `${what}: ${x}, not ${y}`);
  assert.equal(one.steps.size, 50);
  assert.ok(one.steps.get(1) < 5, 'it began with the weights');
  for (const all of more) {
    assert.deepEqual([...all.steps.keys()], [...one.steps.keys()]);
    for (const [step, loss] of one.steps) near(all.steps.get(step), loss, `step ${step}`);
    assert.deepEqual(all.evals.map((e) => ({ ...e, loss: 0 })), one.evals.map((e) => ({ ...e, loss: 0 })));
    all.evals.forEach((e, i) => near(e.loss, one.evals[i].loss, `evaluation ${i}`));
    for (const [kind, looks] of Object.entries(one.looks)) {
      assert.ok(looks.length, kind);
      assert.deepEqual(all.looks[kind].map((l) => [l.step, l.attention]), looks.map((l) => [l.step, l.attention]), kind);
    }
    all.looks.positions.forEach(({ data }, i) => {
      const was = one.looks.positions[i].data;
      assert.deepEqual([data.edges, data.tokens], [was.edges, was.tokens]);
      data.loss.forEach((x, k) => near(x, was.loss[k], `bucket ${k} of ${i}`, 0.03));
    });
    all.looks.selection.forEach(({ data }, i) => near(data.never, one.looks.selection[i].data.never, `selection ${i}`, 0.1));
    all.looks.passkey.forEach(({ data }, i) => {
      const was = one.looks.passkey[i].data;
      assert.deepEqual([data.contexts, data.samples], [was.contexts, was.samples]);
      assert.ok(Math.abs(data.right - was.right) < 0.05, `${data.right} of them are found, not ${was.right}`);
    });
  }
});

test('a job whose weights are divided samples as its checkpoint does, loses a rank and goes on with the same losses', async (t) => {
  const lhd = await fresh(t);
  const open = job(2, 20), phases = open.phases.map((p, i) => (i ? p : { ...p, until: { steps: LONG } }));
  const id = await submit(lhd, { ...open, divide: 'weights', recompute: 'mlp', phases });
  const sampled = async () => (await lhd.call('job.sample', { job: id, prompt: 'the ', max_tokens: 40, temperature: 0 })).text;
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 5);
  assert.ok((await sampled()).length);
  await lhd.jobUntil(id, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${id} and step>0`).length > 0);
  process.kill(ranksOf(lhd)[1], 'SIGKILL');
  await training(lhd, id, 2, 2);
  await lhd.call('job.pause', { job: id });
  await lhd.jobUntil(id, 'PAUSED', (j) => j.state === 'PAUSED');
  const live = await sampled();
  await lhd.call('job.pause', { job: id, release: true });
  await lhd.jobUntil(id, 'its workers are gone', () => processes(lhd).all.length === 0);
  assert.equal(await sampled(), live, 'of the checkpoint, by one process');
  const { path } = (await lhd.call('job.checkpoints', { job: id })).checkpoints.at(-1);
  assert.ok(readdirSync(path).filter((f) => /^params-0000[12]-of-00002\.safetensors$/.test(f)).length === 2, 'each rank saves its part');
  for (const args of [['verify', path], ['export', String(id), join(lhd.dir, 'exported')]])
    execFileSync(bin('lhctl'), ['--state', lhd.state, ...args], { stdio: 'pipe' });
  await lhd.call('job.resume', { job: id });
  await training(lhd, id, 3, 2);
  const { command: set } = await lhd.call('job.set', { job: id, phase_steps: (await lhd.call('job.get', { job: id })).step + 100 });
  await lhd.jobUntil(id, 'it is set', () => lhd.sql(`select 1 from commands where id=${set} and outcome='applied'`).length);
  await lhd.jobUntil(id, 'DONE', done);
  const was = await steps(lhd, id), one = quietRun(lhd, id, { devices: 1 });
  assert.deepEqual(was.map((s) => s.step), one.map((s) => s.step));
  // Of more steps than these the roundings of some have grown.
  was.slice(0, 50).forEach((s, i) => assert.ok(Math.abs(s.loss - one[i].loss) < 0.01 * s.loss, `step ${s.step}: ${s.loss}, with one rank ${one[i].loss}`));
});

test('commands, pauses, another lhd and a stop find ranks as they find one worker', async (t) => {
  const lhd = await fresh(t);
  const open = job(2, LONG);
  const id = await submit(lhd, { ...open, phases: open.phases.map((p) => ({ ...p, until: { steps: LONG } })) });
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 5);
  await lhd.call('job.pause', { job: id });
  await lhd.jobUntil(id, 'PAUSED', (j) => j.state === 'PAUSED');
  const { text } = await lhd.call('job.sample', { job: id, prompt: 'a', max_tokens: 4 });
  assert.ok(text.length);
  const before = ranksOf(lhd);
  await lhd.restart();
  await lhd.call('job.resume', { job: id });
  const { step } = await lhd.call('job.get', { job: id });
  await lhd.jobUntil(id, 'it goes on', (j) => j.step > step + 5);
  assert.deepEqual(ranksOf(lhd), before, 'other workers');
  const { command } = await lhd.call('job.switch', { job: id });
  await lhd.jobUntil(id, 'the other phase', (j) => j.phase === 1);
  const [row] = lhd.sql(`select outcome, step from commands where id=${command}`);
  assert.equal(row.outcome, 'applied');
  await lhd.call('daemon.stop', {});
  await lhd.exited;
  await noneLeft(lhd);
  await lhd.boot();
  await lhd.jobUntil(id, 'it goes on', (j) => j.state === 'RUNNING' && j.phase === 1);
  await lhd.call('job.set', { job: id, phase_steps: 20 });
  const { step: last } = await lhd.jobUntil(id, 'DONE', done);
  const keys = [...(await losses(lhd, id)).keys()];
  assert.deepEqual(keys, Array.from({ length: last }, (_, i) => i + 1));
  assert.deepEqual((await attempts(lhd, id)).map((a) => a.outcome), ['stopped', 'done']);
});

/** A file of other text than packText's, as a source of a mixture. */
function packOther(dir) {
  writeFileSync(join(dir, 'o.txt'), Array.from({ length: 4000 }, (_, i) => (i * i * 7919 % 1000003).toString(36)).join(' '));
  execFileSync(bin('lhctl'), ['pack', '-o', join(dir, 'other'), '--validation', '0', join(dir, 'o.txt')], { stdio: ['ignore', 'ignore', 'pipe'] });
}

test('what is set and switched holds from one step on, on all ranks; it is done again to the bit after one was lost', async (t) => {
  const lhd = await fresh(t);
  packOther(lhd.dir);
  const open = job(2, LONG);
  const id = await submit(lhd, { ...open, phases: open.phases.map((p) => ({ ...p, until: { steps: LONG } })), optimizer: { lr: 1e-3 },
    data: { train: [{ path: 'text.train.bin', name: 'text', weight: 1 }, { path: 'other*.bin', name: 'other', weight: 0 }],
      validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 128, documents: 'separate' } });
  const set = async (change) => {
    const { command } = await lhd.call('job.set', { job: id, ...change });
    await lhd.jobUntil(id, 'it is set', () => lhd.sql(`select 1 from commands where id=${command} and outcome='applied'`).length);
  };
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 5);
  await set({ lr: 3e-4, clip: 0.5, weight: { other: 1 } });
  await lhd.call('job.switch', { job: id });
  const { step } = await lhd.jobUntil(id, 'the other phase', (j) => j.phase === 1);
  await set({ weight: { text: 0 } });
  await set({ phase_steps: step + 30 });
  await lhd.jobUntil(id, 'DONE', done);
  const was = await steps(lhd, id), one = quietRun(lhd, id, { devices: 1 });
  assert.deepEqual(one.map((s) => ({ ...s, loss: 0 })), was.map((s) => ({ ...s, loss: 0 })));
  was.forEach((s, i) => assert.ok(Math.abs(s.loss - one[i].loss) < 0.01 * s.loss, `step ${s.step}: ${s.loss}, with one rank ${one[i].loss}`));

  const { job: again } = await lhd.call('job.replay', { job: id });
  await training(lhd, again, 1, 2);
  await lhd.jobUntil(again, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${again} and step>0`).length > 0);
  process.kill(ranksOf(lhd)[1], 'SIGKILL');
  await lhd.jobUntil(again, 'DONE', done);
  assert.equal((await attempts(lhd, again)).length, 2);
  assert.deepEqual(await steps(lhd, again), was);
});

test('devices that share sequences are steered, lost and found as others are; a checkpoint is for any number of them', async (t) => {
  const lhd = await fresh(t);
  const open = job(2, LONG);
  const id = await submit(lhd, { ...open, context: 2, optimizer: { lr: 1e-3 }, checkpoint: { every_steps: 10, keep: 9 }, phases: open.phases.map((p) => ({ ...p, until: { steps: LONG } })) });
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 5);
  await lhd.call('job.pause', { job: id });
  await lhd.jobUntil(id, 'PAUSED', (j) => j.state === 'PAUSED');
  const { text } = await lhd.call('job.sample', { job: id, prompt: 'a', max_tokens: 4 });
  assert.ok(text.length);
  await lhd.call('job.resume', { job: id });
  const { command } = await lhd.call('job.switch', { job: id });
  const { step: switched } = await lhd.jobUntil(id, 'the other phase', (j) => j.phase === 1);
  assert.equal(lhd.sql(`select outcome from commands where id=${command}`)[0].outcome, 'applied');
  await lhd.jobUntil(id, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${id} and step>${switched}`).length > 0);
  process.kill(ranksOf(lhd)[1], 'SIGKILL');
  await training(lhd, id, 2, 2);
  assert.equal((await attempts(lhd, id))[0].outcome, 'lost');
  const { command: set } = await lhd.call('job.set', { job: id, phase_steps: (await lhd.call('job.get', { job: id })).step - switched + 100 });
  await lhd.jobUntil(id, 'it is set', () => lhd.sql(`select 1 from commands where id=${set} and outcome='applied'`).length);
  await lhd.jobUntil(id, 'DONE', done);
  await noneLeft(lhd);

  const was = await steps(lhd, id), near = (one, bar) => one.forEach((s) => {
    const { loss, phase } = was.find((o) => o.step === s.step);
    assert.equal(s.phase, phase);
    assert.ok(Math.abs(s.loss - loss) < bar * loss, `step ${s.step}: ${loss}, with one rank ${s.loss}`);
  });
  const one = quietRun(lhd, id, { devices: 1, context: 1 });
  assert.deepEqual(one.map((s) => [s.step, s.phase]), was.map((s) => [s.step, s.phase]));
  near(one.slice(0, 50), 0.01); // of more steps the roundings of some have grown
  const kept = quietRun(lhd, id, { devices: 1, context: 1 }, lhd.sql(`select max(step) - 15 step from steps where job=${id}`)[0].step);
  assert.ok(kept.length >= 15 && kept.length < was.length, `${kept.length} steps`);
  near(kept, 1e-3);
});

test('a switch that fails on ranks is taken back', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, { ...job(2, LONG), switch: { watch_steps: 20, loss_ceiling: 1e-6 } });
  await lhd.jobUntil(id, 'some steps', (j) => j.step >= 5);
  const { command } = await lhd.call('job.switch', { job: id });
  await training(lhd, id, 2, 2);
  assert.deepEqual(lhd.sql(`select outcome from commands where id=${command}`), [{ outcome: 'reverted' }]);
  assert.deepEqual(lhd.sql(`select distinct phase from steps where job=${id} and attempt=2`), [{ phase: 0 }]);
  await lhd.call('job.cancel', { job: id });
  await noneLeft(lhd);
});

const LOST = 'in step \\d+, (in|after) collective \\d+ \\(.+\\)';
const VICTIMS = [
  ['rank 0', (p) => p.ranks[0], new RegExp(`rank 0 was killed by signal 9 \\(Killed\\) ${LOST}`)],
  ['rank 1', (p) => p.ranks[1], new RegExp(`rank 1 was killed by signal 9 \\(Killed\\) ${LOST}`)],
  ['the parent of rank 0', (p) => p.parents[0], /rank 0 lost its parent/],
  ['the parent of rank 1', (p) => p.parents[1], /rank 1 lost its parent/],
  ["the launcher's proxy", (p) => p.proxy, /rank [01] lost its launcher/],
  ['the launcher', (p) => p.launcher, /the launcher of its ranks was killed by signal 9/],
  ['the launcher, whose proxy stands still', (p) => { process.kill(p.proxy.pid, 'SIGSTOP'); return p.launcher; },
    /the launcher of its ranks was killed by signal 9/],
];
test('whichever process of an attempt is killed, none is left, and the job goes on from its checkpoint', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, { ...job(2, LONG), restarts: 20 });
  const saved = (attempt) => lhd.jobUntil(id, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${id} and attempt=${attempt} and step>0`).length > 0);
  for (const [i, [name, find, why]] of VICTIMS.entries()) {
    await training(lhd, id, i + 1, 2);
    await saved(i + 1);
    const now = processes(lhd), { step } = await lhd.call('job.get', { job: id });
    assert.equal(now.all.length, 7, 'keeper, launcher, proxy, and two processes a rank');
    process.kill(find(now).pid, 'SIGKILL');
    await until(`${name} was killed: all end`, () => !now.all.some(lives), 5000);
    await training(lhd, id, i + 2, 2);
    const [{ first }] = lhd.sql(`select min(step) first from steps where job=${id} and attempt=${i + 2}`);
    assert.ok(first > 1 && first <= step + 20, `${name}: it went on with step ${first}`);
    const { why: told, outcome } = (await attempts(lhd, id))[i];
    assert.equal(outcome, 'lost');
    assert.match(told, why, name);
  }
  // While they start, wherever they are.
  for (let n = 0; n < 3; n++) {
    const { launcher } = await until('a launcher', () => { const p = processes(lhd); return p.launcher && p; });
    process.kill(launcher.pid, 'SIGKILL');
    await until('its attempt is over', () => !processes(lhd).all.some((p) => p.started <= launcher.started));
  }
  // Without a keeper the job goes on, and is still one.
  const { attempt } = await lhd.jobUntil(id, 'it trains again', (j) => j.state === 'RUNNING' && j.step > 0 && processes(lhd).ranks.length === 2);
  const now = processes(lhd), { step } = await lhd.call('job.get', { job: id });
  process.kill(now.keeper.pid, 'SIGKILL');
  await lhd.jobUntil(id, 'it goes on', (j) => j.step > step + 20);
  assert.deepEqual(ranksOf(lhd), now.ranks.map((p) => p.pid));
  process.kill(now.launcher.pid, 'SIGKILL');
  await until('all end without their keeper', () => !now.all.some(lives), 5000);
  await training(lhd, id, attempt + 1, 2);
  await lhd.call('job.cancel', { job: id });
  await noneLeft(lhd);
});

test('a rank that is killed while parts are written leaves whole checkpoints, and the job goes on from the newest', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, { ...job(2, LONG), restarts: 20, evaluation: { sequences: 0 }, checkpoint: { every_steps: 1, keep: 2 },
    model: { vocab: 257, dim: 512, layers: 4, heads: 8, ffn_dim: 1024 } });
  const dir = join(lhd.state, 'jobs', String(id), 'checkpoints'), names = () => readdirSync(dir);
  let newest = 0;
  for (let n = 1; n <= 4; n++) {
    await training(lhd, id, n, 2);
    const now = processes(lhd), [{ first }] = lhd.sql(`select min(step) first from steps where job=${id} and attempt=${n}`);
    assert.equal(first, newest + 1, `attempt ${n} goes on from the newest`);
    await lhd.jobUntil(id, 'a save of this attempt', () => lhd.sql(`select 1 from checkpoints where job=${id} and attempt=${n}`).length);
    await until('parts are written', () => names().some((f) => f.endsWith('.tmp')));
    process.kill(now.ranks[n % 2].pid, 'SIGKILL');
    await until('all end', () => !now.all.some(lives), 5000);
    const whole = names().filter((f) => /^step-\d+$/.test(f));
    newest = Number(whole.at(-1).slice(5));
    for (const f of whole) execFileSync(bin('lhctl'), ['verify', join(dir, f)], { stdio: 'pipe' });
  }
  assert.deepEqual(names().filter((f) => /damaged|unread/.test(f)), []);
  await lhd.call('job.cancel', { job: id });
  await noneLeft(lhd);
});

test('a rank that stands still is found by the others, who say which; the job goes on', async (t) => {
  const lhd = await fresh(t, ['--hang-ms', '8000']);
  const id = await submit(lhd, { ...job(2, LONG), evaluation: { sequences: 0 } });
  await lhd.jobUntil(id, 'a checkpoint', () => lhd.sql(`select 1 from checkpoints where job=${id} and step>0`).length > 0);
  // Saving and evaluating may take long: nobody is given up soon then.
  const { command } = await lhd.call('job.set', { job: id, checkpoint_every: 0 });
  await lhd.jobUntil(id, 'no more checkpoints', () => lhd.sql(`select 1 from commands where id=${command} and outcome='applied'`).length);
  const set = (await lhd.call('job.get', { job: id })).step;
  await lhd.jobUntil(id, 'it trains on', (j) => j.step > set + 2);
  const now = processes(lhd);
  process.kill(now.ranks[1].pid, 'SIGSTOP');
  const { step } = await lhd.call('job.get', { job: id });
  await lhd.jobUntil(id, 'it trains again', (j) => j.attempt === 2 && j.step > step + 5);
  assert.ok(!now.all.some(lives), 'one that stands still has to go, too');
  const [first] = await attempts(lhd, id);
  assert.equal(first.outcome, 'lost');
  assert.match(first.why, /made no progress.*waiting for rank 1 in collective \d+ \(.+\)/, JSON.stringify(first));
  await lhd.call('job.cancel', { job: id });
  await noneLeft(lhd);
});

test('what ranks cannot do is refused when it is submitted', async (t) => {
  const lhd = await fresh(t, [], { PATH: '/nowhere' });
  await assert.rejects(submit(lhd, job(2, 5)), ({ reply: { message, data } }) => {
    assert.match(message, /devices: 2 need MPI's launcher, and there is no mpiexec\.hydra/);
    assert.match(data.hint, /apt-get install mpich/);
    return true;
  });
  await assert.rejects(submit(lhd, { ...job(3, 5) }), /devices: found 3, which does not divide the 4 sequences/);
  await assert.rejects(submit(lhd, { ...job(2, 5), batch: { sequences: 4, micro_sequences: 4 } }), /which does not divide the 2 sequences of a device/);
  const refused = (change, why, hint) => assert.rejects(submit(lhd, { ...job(4, 5), context: 2, ...change }), ({ reply: { message, data } }) => {
    assert.match(message, why);
    assert.match(data.hint, hint);
    return true;
  });
  await refused({ context: 3 }, /context: found 3, which does not divide the 4 devices/, /2 would do/);
  await refused({ batch: { sequences: 3 } }, /devices: found 4, whose 2 groups of 2 do not divide the 3 sequences/, /e.g. of 4/);
  await refused({ phases: [{ name: 'light', ...LIGHT, topk: 8, until: { steps: 5 } }] }, /phases\.0\.topk: found 8, whose tiles of 4 are 2/, /topk: 16 would do, or tile: 2/);
  await refused({ phases: [{ name: 'light', ...LIGHT, scorer: 'dilated', until: { steps: 5 } }] }, /phases\.0\.scorer: this scorer attends to whole sequences/, /norm, or context: 1/);
  await refused({ data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 128, documents: 'separate' } }, /data\.documents: devices that share a sequence/, /attend, or context: 1/);
});

test('without its launcher, or with another world, a rank does not train', async (t) => {
  const lhd = await fresh(t);
  const id = await submit(lhd, { ...job(2, LONG), restarts: 1 });
  await training(lhd, id, 1, 2);
  lhd.env.PATH = '/nowhere';
  await lhd.restart();
  process.kill(ranksOf(lhd)[1], 'SIGKILL');
  const j = await until('FAILED', async () => {
    const now = await lhd.call('job.get', { job: id });
    return now.state === 'FAILED' && now;
  });
  assert.match(j.reason, /devices: 2 need MPI's launcher, and there is no mpiexec.hydra \(.*apt-get install mpich/);

  const dir = join(lhd.state, 'jobs', String(id), 'attempt-9');
  mkdirSync(dir);
  writeFileSync(join(dir, 'start.json'), JSON.stringify({ job: id, attempt: 9, token: 'x', generation: 1, socket: '/nowhere', paused: false }));
  const says = (env) => {
    const r = spawnSync(bin('lhworker-cpu'), ['--attempt', dir], { env, encoding: 'utf8' });
    assert.equal(r.status, 1);
    return r.stderr;
  };
  assert.match(says({}), /which of 2 ranks: PMI_RANK is not set/);
  assert.match(says({ PMI_RANK: '0' }), /PMI_SIZE is not set/);
  assert.match(says({ PMI_RANK: '0', PMI_SIZE: '1' }), /the job has 2 ranks, the launcher says that this is rank 0 of 1/);
  assert.match(says({ PMI_RANK: 'x', PMI_SIZE: '2' }), /PMI_RANK is 'x'/);
});
