// The page in a real browser, on a real lhd that trains: what it shows is what the
// database holds, it follows what happens, and it steers only who may.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atEnd, build, Lhd, packText, scratch, submit, until } from '../e2e/lib/lhd.mjs';
import { browser, go, keep, openPage, pageUntil, serious, stat, watched } from './lib/browser.mjs';

const PHASES = (first, second) => [
  { name: 'lighthouse', attention: 'lighthouse', levels: 2, pool: 2, topk: 16, tile: 8, dense_layers: [0], until: { steps: first } },
  { name: 'recovery', attention: 'full', until: { steps: second } },
];
/** Tens of steps a second, so that a person could follow. */
const SLOW = { model: { vocab: 257, dim: 128, layers: 2, heads: 4, ffn_dim: 512 }, data: { train: 'text.train.bin', validation: 'text.val.bin', tokenizer: 'bytes', seq_len: 512 } };

const number = (text) => Number(text.replaceAll(',', '').split(' ')[0]);

async function start(t, env = {}) {
  const dir = scratch(t);
  packText(dir);
  return Lhd.start(t, dir, [], { env });
}

/** Two GPUs that are not there (tests/devices/stub_nvml.c). */
const GPUS = { LD_LIBRARY_PATH: join(build, 'tests/devices') };

/** Nothing was thrown, logged or refused by the page's policy. */
const quiet = (page) => assert.deepEqual(page.complaints, []);

test('the page in a browser', async (t) => {
  const b = await browser(t);

  await t.test('with no job yet it tells how to submit one', async (t) => {
    const lhd = await Lhd.start(t, scratch(t));
    const page = await openPage(t, b, lhd);
    await page.getByText('No job yet').waitFor();
    assert.match(await page.locator('.empty').textContent(), /lhctl submit job\.yaml/);
    assert.ok(!page.url().includes('token'), 'the token has left the address');
    assert.deepEqual(await serious(page), []);
    await keep(page, 'empty-1280-light');
    quiet(page);
  });

  await t.test('without a key it tells where to get one, and an address opens it once', async (t) => {
    const lhd = await Lhd.start(t, scratch(t));
    const { url } = await lhd.call('daemon.dashboard', {});
    const tab = async () => {
      const context = await b.newContext();
      atEnd(t, () => context.close());
      return watched(await context.newPage());
    };
    const first = await tab();
    await first.goto(new URL('/', url).href);
    await first.getByText('lhctl dashboard').first().waitFor();
    assert.deepEqual(await serious(first), []);
    await first.getByLabel('Address').fill(url);
    await first.getByRole('button', { name: 'Open' }).click();
    await first.waitForSelector('.overview');
    await first.reload();
    await first.waitForSelector('.overview'); // the key is this tab's
    const second = await tab();
    await second.goto(url);
    await second.getByText('Not opened: this address was used before').waitFor();
    assert.ok(!second.url().includes('token'));
    quiet(first);
    quiet(second);
  });

  await t.test('a job shows the numbers that the database holds', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { name: 'small', phases: PHASES(60, 40), evaluation: { every_steps: 20, sequences: 2 } });
    await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
    const page = await openPage(t, b, lhd);
    const [last] = lhd.sql(`select step, loss, grad_norm, lr, tokens_per_s from steps where job=${job} order by step desc limit 1`);
    const [{ tokens }] = lhd.sql(`select sum(tokens) tokens from steps where job=${job}`);
    const [val] = lhd.sql(`select loss from evaluations where job=${job} order by seq desc limit 1`);
    const row = page.locator(`[data-job="${job}"]`);

    await row.getByText('done', { exact: true }).waitFor();
    assert.equal(await row.locator('.who .name').textContent(), 'small');
    assert.equal(await row.locator('[data-stat="loss"] b').textContent(), last.loss.toFixed(4));
    assert.match(await row.locator('.where').textContent(), /recovery · step 100 \/ 100/);

    await row.locator('.who .name').click();
    await pageUntil('the values of the last step', async () => (await page.locator('.readout [data-stat="step"] b').textContent()) === String(last.step));
    const shown = async (name) => page.locator(`.readout [data-stat="${name}"] b`).textContent();
    assert.equal(await shown('loss'), last.loss.toFixed(4));
    assert.equal(await shown('val. full'), val.loss.toFixed(4));
    assert.equal(Number(await shown('lr')), Number(last.lr.toPrecision(4)));
    assert.equal(Number(await shown('grad norm')), Number(last.grad_norm.toPrecision(4)));
    assert.equal(number(await shown('tokens')) * 1000, Number(Number(tokens).toPrecision(3)));
    assert.equal(await stat(page, 'loss'), last.loss.toFixed(4));

    // What is downloaded is every step.
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'CSV, every step' }).click()]);
    const [head, ...rows] = readFileSync(await file.path(), 'utf8').trim().split('\n');
    const column = head.split(',').indexOf('loss');
    const stored = lhd.sql(`select loss from steps where job=${job} order by step`);
    assert.deepEqual(rows.map((r) => Number(r.split(',')[column])), stored.map((s) => s.loss));
    const [picture] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'PNG' }).click()]);
    assert.equal(readFileSync(await picture.path()).subarray(1, 4).toString(), 'PNG');
    quiet(page);
  });

  await t.test('devices are told of as the driver tells, or why it does not', async (t) => {
    const lhd = await start(t, GPUS);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10) });
    await lhd.jobUntil(job, 'it trains', (j) => j.step > 0);
    const page = await openPage(t, b, lhd);
    const gpu = page.locator('.device').first();
    await gpu.getByText('GPU 0 · NVIDIA Stub 0').waitFor();
    assert.deepEqual(await gpu.locator('.meter b').allTextContents(), ['10.0 of 80.0 GiB', '97 %', '512 of 700 W', '61 °C']);
    assert.match(await page.locator('.device').last().textContent(), /^CPU · \d+ × /);
    await page.locator('.devicepanel .facts').getByText(/^tiny · [\d.]+ [MG]iB of RAM · process \d+$/).waitFor();
    await go(page, `#/job/${job}`);
    await pageUntil('the memory of its worker', async () => /^[\d.]+ [MG]iB$/.test(await stat(page, 'memory')));
    quiet(page);

    const broken = await start(t, { ...GPUS, LH_STUB_NVML: 'fails' });
    const other = await openPage(t, b, broken);
    await other.getByText("NVIDIA's driver does not start: Driver Not Loaded").waitFor();
    assert.equal(await other.locator('.device').count(), 1);
    quiet(other);
  });

  await t.test('the tab of evaluations has each set, the loss by place, passkeys, multiple choice and selections', async (t) => {
    const lhd = await start(t);
    writeFileSync(join(lhd.dir, 'quiz.jsonl'), '{"ctx": "line 3: the", "endings": ["lamp", "zebra"], "label": 0}\n');
    const job = await submit(lhd, { phases: PHASES(40, 20), evaluation: { every_steps: 20, sequences: 2, passkey: { every_steps: 20, from_tokens: 64, samples: 2 },
      choices: { every_steps: 20, files: { quiz: 'quiz.jsonl' } } },
      data: { train: 'text.train.bin', validation: { web: 'text.val.bin', seen: 'text.train.bin' }, tokenizer: 'bytes', seq_len: 128 } });
    await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
    const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });
    await page.getByRole('tab', { name: 'Evaluations' }).click();
    const looks = page.locator('.looks');
    await pageUntil('the curves', async () => (await looks.locator('polyline').count()) === 2);
    const text = await looks.textContent();
    const { right } = (await lhd.call('job.looks', { job, kind: 'passkey', newest: true, limit: 1 })).looks[0].data;
    for (const part of ['web, full attention', 'seen, full attention', 'web, Lighthouse', `Passkeys found: ${(100 * right).toFixed(1)} % at step 60`, 'Multiple choice at step 60, full attention', 'quiz', 'Selection at step 40', 'By the time of steps, these took: validation loss'])
      assert.ok(text.includes(part), `${part} is not in ${text}`);
    assert.equal(await looks.locator('td.cell').count(), 2 * 7);
    assert.deepEqual(await serious(page), []);
    await keep(page, 'evaluations-1280-light');
    quiet(page);
  });

  await t.test('the keyboard moves the cursor and zooms', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { phases: PHASES(200, 100) });
    await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
    const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });
    const step = async () => page.locator('.readout [data-stat="step"] b').textContent();

    await pageUntil('the last step', async () => (await step()) === '300');
    await page.locator('.plot').first().focus();
    await page.keyboard.press('ArrowRight');
    await pageUntil('the cursor is in the middle', async () => Math.abs(number(await step()) - 150) < 20);
    await page.keyboard.press('+');
    await page.keyboard.press('+');
    const asked = page.waitForRequest((r) => r.url().endsWith('/rpc') && /"job\.curve"/.test(r.postData()) && JSON.parse(r.postData()).params.from_step > 0);
    await page.keyboard.press('+');
    const { params } = JSON.parse((await asked).postData());
    assert.ok(params.to_step - params.from_step < 200, 'a zoom asks for what is seen and a margin');
    await page.keyboard.press('0');
    for (const mode of ['Tokens', 'Time']) {
      await page.getByText(mode, { exact: true }).click();
      await pageUntil(`the last step by ${mode}`, async () => (await step()) === '300');
    }
    await page.getByLabel('Log scale').check();
    quiet(page);
  });

  await t.test('jobs are laid over each other', async (t) => {
    const lhd = await start(t);
    const jobs = [await submit(lhd, { name: 'one', phases: PHASES(40, 20) }), await submit(lhd, { name: 'two', seed: 2, phases: PHASES(30, 20) })];
    for (const job of jobs) await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
    const page = await openPage(t, b, lhd);
    for (const job of jobs) await page.getByLabel(`compare job ${job}`).check();
    await page.getByText('Compare 2 jobs').click();
    await page.locator('.compared tbody tr').nth(1).waitFor();
    const shown = await page.locator('.compared tbody tr').evaluateAll((rows) => rows.map((r) => [...r.cells].map((c) => c.textContent)));
    const stored = jobs.map((job) => lhd.sql(`select step, loss from steps where job=${job} order by step desc limit 1`)[0]);
    assert.deepEqual(shown.map((r) => [r[0], r[2], r[4]]),
      [[`one #${jobs[0]}`, '60', stored[0].loss.toFixed(4)], [`two #${jobs[1]}`, '50', stored[1].loss.toFixed(4)]]);
    for (const mode of ['Tokens', 'Elapsed']) await page.getByText(mode, { exact: true }).click();
    quiet(page);
  });

  await t.test('a live switch is asked for, journalled, and drawn as a band and a mark', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 100_000) });
    const page = await openPage(t, b, lhd, { steer: true, hash: `#/job/${job}` });

    await page.getByRole('button', { name: 'Switch phase…' }).click();
    await page.getByRole('dialog').getByText('Trial', { exact: true }).waitFor(); // the pre-flight is there
    await page.getByLabel('Why').fill('looks <i>flat</i>');
    await page.getByRole('dialog').getByRole('button', { name: 'Switch' }).click();
    await page.locator('.mark[data-kind="switch"]').first().waitFor();
    await pageUntil('its phase', async () => /recovery/.test(await page.locator('.head .where').textContent()));
    const [command] = lhd.sql(`select method, message, program from commands where job=${job} and method='job.switch'`);
    assert.equal(command.message, 'looks <i>flat</i>');
    await page.locator('.mark[data-kind="switch"]').first().focus();
    // The open tip takes in the journal line, which may come after the event.
    await pageUntil('its journal line', async () => /job\.switch .*looks <i>flat<\/i>/.test(await page.locator('#mark-tip').textContent()));
    assert.equal(await page.locator('i:text("flat")').count(), 0);

    const before = (await lhd.call('job.get', { job })).step;
    await pageUntil('new steps arrive by themselves', async () => number(await stat(page, 'step')) > before);
    await page.getByRole('button', { name: 'Pause…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click();
    await lhd.jobUntil(job, 'it is paused', (j) => j.state === 'PAUSED');
    await page.getByRole('button', { name: 'Resume…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
    await lhd.jobUntil(job, 'it runs', (j) => j.state === 'RUNNING');
    await page.getByRole('button', { name: 'Checkpoint…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Checkpoint' }).click();
    await until('the checkpoint is written', () => lhd.sql(`select 1 from commands where job=${job} and method='job.checkpoint' and outcome='applied'`).length);
    quiet(page);
  });

  await t.test('who may only look is offered no command', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10) });
    const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });
    await page.getByText('read-only').waitFor();
    await page.evaluate(() => { location.hash = '#/job/99'; });
    await page.getByText('There is no job 99').waitFor();
    assert.ok(await page.locator('#stale').isHidden(), 'lhd is there');
    await go(page, `#/job/${job}`);
    await pageUntil('it runs', async () => (await page.locator('.head .pill').textContent()) === 'running');
    assert.equal(await page.getByRole('group', { name: 'steering' }).getByRole('button').count(), 0);
    const refused = await page.evaluate(async (id) => {
      const { key } = JSON.parse(sessionStorage.getItem('lighthouse.session'));
      const res = await fetch('/rpc', { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'job.pause', params: { job: id } }) });
      return (await res.json()).error?.message;
    }, job);
    assert.ok(refused, 'nor does the server take one');
    assert.equal((await lhd.call('job.get', { job })).state, 'RUNNING');
    quiet(page);
  });

  await t.test('commands that lhd does not know are not offered', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10) });
    let known = false;
    const notes = [];
    const prepare = (page) => page.route('**/rpc', async (route) => {
      const { id, method, params } = route.request().postDataJSON();
      if (method !== 'job.annotate') return route.continue();
      if (params.text) notes.push(params);
      const refused = { code: known ? -32602 : -32601, message: known ? "'job' is missing" : 'no such method' };
      return route.fulfill({ json: { jsonrpc: '2.0', id, ...(params.text ? { result: { command: 1, job, state: 'accepted' } } : { error: refused }) } });
    });
    const offers = (page) => page.getByRole('group', { name: 'steering' });
    const page = await openPage(t, b, lhd, { prepare, steer: true, hash: `#/job/${job}` });
    await offers(page).getByText('Pause…').waitFor();
    assert.ok(await offers(page).getByText('Annotate…').isHidden());

    known = true;
    await page.reload();
    await offers(page).getByText('Annotate…').click();
    await page.getByLabel('Note').fill('the disk was slow');
    await page.keyboard.press('Enter');
    await page.getByText('annotate: accepted').waitFor();
    assert.deepEqual(notes.map((n) => [n.job, n.text]), [[job, 'the disk was slow']]);
    quiet(page);
  });

  await t.test('when lhd is killed it says since when, and goes on without a gap', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10) });
    const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });

    await pageUntil('it follows', async () => number(await stat(page, 'step')) > 5);
    await lhd.end('SIGKILL');
    await page.getByText(/Stale since \d\d:\d\d:\d\d/).waitFor();
    assert.deepEqual(await serious(page), []);
    await keep(page, 'stale-1280-light');
    const stopped = number(await stat(page, 'step'));
    await lhd.boot();
    await page.locator('#stale').waitFor({ state: 'hidden' });
    await pageUntil('it follows again', async () => number(await stat(page, 'step')) > stopped + 5);
    await lhd.call('job.pause', { job });
    const { step } = await lhd.jobUntil(job, 'it is paused', (j) => j.state === 'PAUSED');
    await pageUntil('the last step', async () => number(await stat(page, 'step')) === step);

    // What is drawn is each step once.
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'CSV', exact: true }).click()]);
    const [head, ...rows] = readFileSync(await file.path(), 'utf8').trim().split('\n');
    const at = (name) => head.split(',').indexOf(name);
    let next = 1;
    for (const r of rows.map((line) => line.split(',').map(Number))) {
      assert.equal(r[at('first_step')], next);
      assert.equal(r[at('steps')], r[at('last_step')] - r[at('first_step')] + 1);
      next = r[at('last_step')] + 1;
    }
    assert.equal(next, step + 1);
    quiet(page);
  });

  await t.test('a job that waits and one that failed say why', async (t) => {
    const lhd = await start(t);
    const running = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10), restarts: 0 });
    const waiting = await submit(lhd, { name: 'waits' });
    await lhd.jobUntil(running, 'it trains', (j) => j.step > 3);
    const page = await openPage(t, b, lhd, { hash: `#/job/${waiting}` });
    await pageUntil('it is queued', async () => (await page.locator('.head .pill').textContent()) === 'queued');
    process.kill(await lhd.workerPid(running), 'SIGKILL');
    await lhd.jobUntil(waiting, 'it begins by itself', (j) => j.step > 3);
    await pageUntil('its first steps are shown', async () => number(await page.locator('.readout [data-stat="step"] b').textContent()) > 3);
    await go(page, '#/');
    await page.locator('[data-group="ended"]').getByText('failed', { exact: true }).waitFor();
    await go(page, `#/job/${running}`);
    await page.locator('.notice[data-tone="bad"]').getByText(/signal 9|killed/).waitFor();
    quiet(page);
  });

  await t.test('an abandoned branch and a restart are shown', async (t) => {
    const lhd = await start(t);
    const job = await submit(lhd, { ...SLOW, phases: PHASES(100_000, 10), checkpoint: { every_steps: 10, keep: 2 } });
    await lhd.jobUntil(job, 'a checkpoint and more', (j) => j.step > 15);
    process.kill(await lhd.workerPid(job), 'SIGKILL');
    await lhd.jobUntil(job, 'another attempt trains', (j) => j.attempt === 2 && j.step > 12);
    const page = await openPage(t, b, lhd, { hash: `#/job/${job}` });
    await page.locator('.mark[data-kind="restart"]').first().waitFor();
    await page.locator('.legend').getByText('abandoned branch').waitFor();
    await page.getByRole('tab', { name: 'Attempts' }).click();
    assert.match(await page.locator('.tabbody').textContent(), /signal 9|killed|lost/);
    quiet(page);
  });

  await t.test('names, notes and log lines of others stay text', async (t) => {
    const evil = '<img src=x onerror="globalThis.pwned=1"><script>globalThis.pwned=1</script>‮';
    const lhd = await start(t);
    const job = await submit(lhd, { phases: PHASES(20, 10) });
    await lhd.jobUntil(job, 'it is done', (j) => j.state === 'DONE');
    // lhd takes no such name; another program's database might have one.
    const poison = (value, key) => typeof value === 'string' ? (['state', 'kind', 'attention', 'outcome', 'method'].includes(key) ? value : value + evil)
      : Array.isArray(value) ? value.map((v) => poison(v)) : value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, poison(v, k)])) : value;
    const prepare = (page) => page.route('**/rpc', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: poison(await response.json()) });
    });
    const page = await openPage(t, b, lhd, { prepare });
    await page.locator(`[data-job="${job}"] .who .name`).waitFor();
    assert.ok((await page.locator(`[data-job="${job}"] .who .name`).textContent()).includes(evil));
    await go(page, `#/job/${job}`);
    for (const tab of ['Journal', 'Log', 'Evaluations', 'Checkpoints', 'Attempts', 'Configuration', 'Events']) {
      await page.getByRole('tab', { name: tab }).click();
      await pageUntil(`${tab} has it as text`, async () => (await page.locator('.tabbody').textContent()).includes('<img src=x') || tab === 'Journal');
    }
    await page.locator('.mark').first().focus();
    assert.ok((await page.locator('#mark-tip').textContent()).includes('<img'));
    await go(page, `#/compare/${job},${job}`);
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
    assert.equal(await page.locator('main img, main script').count(), 0);
    quiet(page);
  });

  await t.test('nothing keeps somebody out, at both widths and in both schemes', async (t) => {
    const lhd = await start(t, GPUS);
    const done = await submit(lhd, { name: 'first', phases: PHASES(300, 200), evaluation: { every_steps: 25, sequences: 2 } });
    await lhd.jobUntil(done, 'it is done', (j) => j.state === 'DONE');
    const job = await submit(lhd, { ...SLOW, name: 'second', phases: PHASES(100_000, 50_000) });
    await submit(lhd, { name: 'third' });
    await lhd.jobUntil(job, 'it trains', (j) => j.step > 3);

    for (const [width, height] of [[1280, 860], [390, 844]])
      for (const scheme of ['light', 'dark']) {
        const name = (what) => `${what}-${width}-${scheme}`;
        const page = await openPage(t, b, lhd, { width, height, scheme, steer: true });
        await page.locator(`[data-job="${job}"] .part`).first().waitFor();
        assert.deepEqual(await serious(page), [], name('overview'));
        await keep(page, name('overview'));
        await go(page, `#/job/${done}`);
        await pageUntil('the curve', async () => (await page.locator('.readout [data-stat="step"] b').textContent()) === '500');
        assert.deepEqual(await serious(page), [], name('job'));
        await keep(page, name('job'));
        await go(page, `#/compare/${done},${job}`);
        assert.deepEqual(await serious(page), [], name('compare'));
        await keep(page, name('compare'));
        await go(page, `#/job/${job}`);
        await page.getByRole('button', { name: 'Switch phase…' }).click();
        await page.getByRole('dialog').getByText('Trial', { exact: true }).waitFor();
        assert.deepEqual(await serious(page), [], name('switch'));
        await keep(page, name('switch'));
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `${name('job')} scrolls sideways by ${wider} px`);
        quiet(page);
        await page.context().close();
      }
  });
});
