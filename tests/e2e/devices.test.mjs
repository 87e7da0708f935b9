// devices.test.mjs: what the machine does, through lhd, lhctl and /metrics, with a stub of
// NVIDIA's library that is there, missing, fails, hangs or takes its process along.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, symlinkSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Lhd, bin, build, packText, scratch, submit, until } from './lib/lhd.mjs';
import { Page } from './lib/page.mjs';

const STUB = join(build, 'tests/devices');
const stub = (does = '') => ({ LD_LIBRARY_PATH: STUB, LH_STUB_NVML: does });

/** What lhgpus says to one line, without an lhd. */
function lhgpus(env, input = '\n') {
  assert.ok(existsSync(join(STUB, 'libnvidia-ml.so.1')), 'the stub was not built');
  const r = spawnSync(bin('lhgpus'), { input, encoding: 'utf8', timeout: 30_000, env: { ...process.env, ...env } });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim().split('\n').filter(Boolean).map((l) => JSON.parse(l));
}

/** Processes named lhgpus below this one of lhd. */
const children = (lhd) => readFileSync(`/proc/${lhd.process.pid}/task/${lhd.process.pid}/children`, 'utf8')
  .split(' ').filter(Boolean).filter((p) => {
    try { return /^State:\s+[^Z]/m.test(readFileSync(`/proc/${p}/status`, 'utf8')) && readFileSync(`/proc/${p}/comm`, 'utf8') === 'lhgpus\n'; } catch { return false; }
  });

test('lhgpus answers each line, and a driver that does not tell is null or a reason', () => {
  assert.equal(lhgpus(stub(), '\n\n\n').length, 3);
  assert.deepEqual(lhgpus(stub(), ''), []);
  const [{ gpus }] = lhgpus(stub('partly'));
  assert.deepEqual(gpus[0], { index: 0, name: 'NVIDIA Stub 0', uuid: 'GPU-0', memory_used_bytes: 10 * 2 ** 30, memory_total_bytes: 80 * 2 ** 30, utilisation: 0.97, power_watts: 512.345, power_limit_watts: 700, temperature_celsius: 61, processes: [{ pid: 0, bytes: 3 * 2 ** 30 }] });
  assert.deepEqual(gpus[1], { index: 1, name: 'NVIDIA Stub 1', uuid: null, memory_used_bytes: null, memory_total_bytes: null, utilisation: null, power_watts: null, power_limit_watts: null, temperature_celsius: null, processes: [] });
  assert.match(lhgpus(stub('fails'))[0].why, /does not start: Driver Not Loaded/);
  assert.match(lhgpus(stub('gone'))[0].why, /does not count its GPUs: GPU is lost/);
});

test('a library that is none, or lacks what is needed, is told of', (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'old'));
  symlinkSync('/lib/x86_64-linux-gnu/libm.so.6', join(dir, 'old/libnvidia-ml.so.1'));
  assert.match(lhgpus({ LD_LIBRARY_PATH: join(dir, 'old') })[0].why, existsSync('/lib/x86_64-linux-gnu/libm.so.6') ? /too old: .* has no nvmlInit_v2/ : /no NVIDIA driver/);
});

test('daemon.devices tells of the machine, its GPUs and what a worker takes', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir, [], { env: stub() });
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] });
  const pid = await lhd.workerPid(job);
  const d = await until('the worker is told of', async () => {
    const d = await lhd.call('daemon.devices');
    return d.workers.length && d;
  });
  assert.deepEqual(d.gpus.map((g) => g.name), ['NVIDIA Stub 0', 'NVIDIA Stub 1']);
  assert.equal(d.why_no_gpus, null);
  assert.deepEqual({ ...d.workers[0], host_bytes: 0 }, { job, name: 'tiny', pid, host_bytes: 0, gpu_bytes: null });
  assert.ok(d.workers[0].host_bytes > 1 << 20);
  assert.ok(d.host.cpus > 0 && d.host.memory_total_bytes > d.host.memory_used_bytes && d.host.disk_total_bytes > 0);
  const later = await until('a second reading has a share of time', async () => {
    const d = await lhd.call('daemon.devices');
    return d.host.utilisation !== null && d;
  });
  assert.ok(later.host.utilisation >= 0 && later.host.utilisation <= 1);

  const page = await Page.open(lhd);
  const { text } = await page.request('/metrics');
  for (const line of ['lighthouse_gpu_memory_used_bytes{gpu="0",uuid="GPU-0",model="NVIDIA Stub 0"} 10737418240',
    'lighthouse_gpu_power_watts{gpu="1",uuid="GPU-1",model="NVIDIA Stub 1"} 512.34500000000003',
    'lighthouse_gpu_temperature_celsius{gpu="0",uuid="GPU-0",model="NVIDIA Stub 0"} 61'])
    assert.ok(text.includes(`\n${line}\n`), line);
  assert.match(text, /\nlighthouse_worker_memory_bytes\{job_id="1",name="tiny"\} \d+\n/);
  assert.match(text, /\nlighthouse_disk_free_bytes \d+\n/);

  const r = spawnSync(bin('lhctl'), ['--state', lhd.state, 'devices'], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /^gpu 0\tNVIDIA Stub 0\t10\.0 of 80\.0 GiB\t97 %\t512\.3 of 700\.0 W\t61 C$/m);
  assert.match(r.stdout, /^job 1 \(tiny\), pid \d+: \d+\.\d\d GiB of RAM$/m);
});

test('memory that the driver gives to a pid is its job\'s', async (t) => {
  const dir = scratch(t);
  packText(dir);
  const lhd = await Lhd.start(t, dir, [], { env: stub() });
  const job = await submit(lhd, { phases: [{ name: 'all', attention: 'full', until: { steps: 100000 } }] });
  const pid = await lhd.workerPid(job);
  await lhd.end('SIGKILL'); // the worker goes on; the next lhd's stub knows its pid
  lhd.env.LH_STUB_PID = String(pid);
  await lhd.boot();
  await until('its GPU memory is told', async () => (await lhd.call('daemon.devices')).workers[0]?.gpu_bytes === 3 * 2 ** 30);
});

test('without a driver, and with one that takes lhgpus along, the rest is told and the reason', async (t) => {
  const bare = await Lhd.start(t, scratch(t), [], { env: { LD_LIBRARY_PATH: '/nowhere' } });
  const d = await bare.call('daemon.devices');
  if (d.why_no_gpus !== null) assert.match(d.why_no_gpus, /NVIDIA/); // this machine may have one
  assert.ok(d.host.memory_total_bytes > 0);
  const r = spawnSync(bin('lhctl'), ['--state', bare.state, 'devices'], { encoding: 'utf8' });
  assert.match(r.stdout, /^cpu\t/m);

  const crashing = await Lhd.start(t, scratch(t), [], { env: stub('crashes') });
  await until('it is told', async () => /lhgpus was ended by signal 9/.test((await crashing.call('daemon.devices')).why_no_gpus));
});

test('a driver that hangs delays a question once, and nothing else; lhd ends beside it', async (t) => {
  const lhd = await Lhd.start(t, scratch(t), [], { env: stub('hangs') });
  const first = lhd.call('daemon.devices');
  await until('lhgpus hangs', () => children(lhd).length === 1);
  assert.ok((await (await lhd.connect()).call('daemon.info')).pid); // while the first waits
  const d = await first;
  assert.match(d.why_no_gpus, /has not answered yet/);
  assert.ok(d.host.memory_total_bytes > 0);
  await until('a fresh reading', async () => (await lhd.call('daemon.devices')).time_ms > d.time_ms);
  assert.equal(children(lhd).length, 1); // no second one
  const asked = lhd.client.request('daemon.devices').catch(() => null);
  const { code } = await lhd.end('SIGTERM');
  assert.equal(code, 0, lhd.log());
  await asked;
});
