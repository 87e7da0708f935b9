// access.test.mjs: other users at the control socket: what each role may, that the
// rest is refused and journalled, and that files stay private.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, readdirSync, readFileSync, statSync, writeFileSync, mkdirSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Lhd, bin, packText, scratch, submit, until } from './lib/lhd.mjs';

const NOBODY = 65534, STRANGER = 65533;
const ROOT = process.geteuid() === 0 ? {} : { skip: 'only root can be several users' };

async function fresh(t, args) {
  const dir = scratch(t);
  chmodSync(dir, 0o711);
  // Where other users can run it.
  copyFileSync(bin('lhctl'), join(dir, 'lhctl'));
  chmodSync(join(dir, 'lhctl'), 0o755);
  packText(dir);
  return Lhd.start(t, dir, args);
}

function as(lhd, uid, ...args) {
  return spawnSync(join(lhd.dir, 'lhctl'), ['--state', lhd.state, ...args], { encoding: 'utf8', uid, gid: uid, cwd: '/' });
}

const LONG = { phases: [{ name: 'lighthouse', attention: 'full', until: { steps: 100000 } }] };

test('a role may what its methods say, and no more', ROOT, async (t) => {
  const lhd = await fresh(t, ['--allow', `${NOBODY}=read`, '--allow', `@${STRANGER}=steer`]);
  const job = await submit(lhd, LONG);
  await lhd.jobUntil(job, 'some steps', (j) => j.step > 3);
  const methods = new Map(readdirSync('schema/rpc').map((f) => JSON.parse(readFileSync(join('schema/rpc', f)))).map((m) => [m.method, m.role]));
  assert.equal(methods.get('job.get'), 'read');
  assert.match(as(lhd, NOBODY, 'ls').stdout, /tiny/);
  assert.equal(as(lhd, STRANGER, 'ls').status, 0);
  const denied = as(lhd, NOBODY, 'pause', 'tiny');
  assert.equal(denied.status, 1);
  assert.match(denied.stderr, /may not call job\.pause: that takes the role 'steer', it has 'read'/);
  assert.match(denied.stderr, /hint: .*--allow/);
  assert.equal(as(lhd, STRANGER, 'pause', 'tiny').status, 0);
  writeFileSync(join(lhd.dir, 'job.yaml'), '{}', { mode: 0o644 });
  chmodSync(join(lhd.dir, 'job.yaml'), 0o644);
  for (const uid of [NOBODY, STRANGER]) {
    assert.match(as(lhd, uid, 'submit', join(lhd.dir, 'job.yaml')).stderr, /takes the role 'submit'/);
    assert.match(as(lhd, uid, 'rule', 'add', 'tiny', 'r', '--when', '1', '--do', 'cancel').stderr, /takes the role 'submit'/);
    assert.match(as(lhd, uid, 'stop').stderr, /takes the role 'submit'/);
  }
  const rows = await until('denials are journalled', () => {
    const r = lhd.sql("select uid, method, outcome from commands where outcome='denied' order by id");
    return r.length >= 2 && r;
  });
  assert.deepEqual(rows.map((r) => [r.uid, r.method]), [[NOBODY, 'job.pause'], [STRANGER, 'job.submit']], 'more than one a user in ten seconds');
  const listed = as(lhd, NOBODY, 'journal', '--outcome', 'denied').stdout.trim().split('\n').map((l) => l.split('\t'));
  assert.deepEqual(listed.map((l) => [l[3], l[4], l[6]]), [['job.pause', `${NOBODY}`, 'denied'], ['job.submit', `${STRANGER}`, 'denied']]);
  const [pause] = lhd.sql("select uid, outcome from commands where method='job.pause' and outcome <> 'denied'");
  assert.deepEqual(pause, { uid: STRANGER, outcome: 'applied' });
});

test('nobody else may connect, and an attempt is journalled', ROOT, async (t) => {
  const lhd = await fresh(t, ['--allow', `${NOBODY}=read`]);
  const r = as(lhd, STRANGER, 'ls');
  assert.notEqual(r.status, 0);
  assert.match(r.stderr, /uid 65533 may not control/);
  await until('it is journalled', () => lhd.sql("select uid, method from commands where outcome='denied'").length === 1);
  assert.equal(lhd.sql("select text from events where kind='access.denied'")[0].text, 'uid 65533 was denied connect');
});

test('without --allow the socket and everything beside it is private', async (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, 'state'), { mode: 0o755 });
  chmodSync(join(dir, 'state'), 0o777);
  const lhd = await Lhd.start(t, dir);
  assert.equal(statSync(lhd.state).mode & 0o777, 0o700);
  for (const f of readdirSync(lhd.state)) assert.equal(statSync(join(lhd.state, f)).mode & 0o077, 0, f);
});

test('with --allow only the socket is open', ROOT, async (t) => {
  const lhd = await fresh(t, ['--allow', `${NOBODY}=read`]);
  assert.equal(statSync(lhd.state).mode & 0o777, 0o711);
  for (const f of readdirSync(lhd.state))
    assert.equal(statSync(join(lhd.state, f)).mode & 0o077, f === 'control.sock' ? 0o66 : 0, f);
});

test('a state directory of somebody else is refused', ROOT, (t) => {
  const dir = scratch(t);
  const r = spawnSync('sh', ['-c', `mkdir ${dir}/s && chown ${NOBODY} ${dir}/s && exec ${bin('lhd')} --state ${dir}/s`], { encoding: 'utf8' });
  assert.equal(r.status, 1);
  assert.match(r.stderr, /belongs to uid 65534/);
});

test('a wrong --allow is said', () => {
  for (const value of ['x', 'root=submit', '@no-such-group=read']) {
    const r = spawnSync(bin('lhd'), ['--allow', value], { encoding: 'utf8' });
    assert.equal(r.status, 2, value);
    assert.match(r.stderr, /error: .*\nhint: /);
  }
});

test('a guest that calls without end is slowed down, not refused, and others are not', ROOT, async (t) => {
  const lhd = await fresh(t, ['--allow', `${NOBODY}=read`]);
  // 400 calls at once are four refills, the owner's all the while are answered.
  const script = `import net from 'node:net';
    const s = net.createConnection('${lhd.socket}');
    let n = 0, text = '';
    s.on('data', (d) => { text += d; n = text.split('\\n').length - 1; if (n === 400) { console.log('ok', text.includes('error')); s.destroy(); } });
    s.write(Array.from({ length: 400 }, (_, i) => JSON.stringify({ jsonrpc: '2.0', id: i, method: 'daemon.info' })).join('\\n') + '\\n');`;
  const r = spawnSync(process.execPath, ['--input-type=module', '-e', script.replaceAll('\\\\n', '\\n')], { encoding: 'utf8', uid: NOBODY, gid: NOBODY, cwd: '/', timeout: 30_000 });
  assert.equal(r.stdout, 'ok false\n', r.stderr);
  assert.ok((await lhd.call('daemon.info')).version);
});
