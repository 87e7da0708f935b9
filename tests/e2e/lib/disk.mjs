// disk.mjs: a small disk of a test's own, to be filled or made read-only: a tmpfs in
// a mount namespace that only the programs of the test see.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { atEnd } from './lhd.mjs';

export class Disk {
  /** Mounts `bytes` at DIR (made if it is not there). Fails where that is not
   * permitted: these tests need root, or user namespaces. */
  static async mount(t, dir, bytes) {
    const script = `mkdir -p '${dir}' && mount -t tmpfs -o size=${bytes},mode=0700 tmpfs '${dir}' && echo mounted && exec sleep 1000000`;
    const holder = spawn('unshare', ['--user', '--map-root-user', '--mount', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    holder.stdout.on('data', (d) => { said += d; });
    holder.stderr.on('data', (d) => { said += d; });
    await Promise.race([once(holder.stdout, 'data'), once(holder, 'close')]);
    assert.match(said, /^mounted$/m, `a disk cannot be mounted here; run the tests as root or allow user namespaces: ${said}`);
    atEnd(t, () => { holder.kill('SIGKILL'); });
    return new Disk(dir, holder.pid);
  }

  /** Another one where this one is seen. */
  mountAt(dir, bytes) {
    const r = this.run('mount', '-t', 'tmpfs', '-o', `size=${bytes},mode=0700`, 'tmpfs', dir);
    assert.equal(r.status, 0, r.stderr);
    return new Disk(dir, this.pid);
  }

  constructor(dir, pid) {
    this.dir = dir;
    this.pid = pid;
    this.root = `/proc/${pid}/root`;
    /** What to put before a command so that it sees the disk. */
    this.within = ['nsenter', '--user', '--mount', '--preserve-credentials', `--target=${pid}`];
    this.filler = join(this.root, dir, 'filler');
  }

  /** A path of the disk, for us who do not see it. */
  path(p) { return join(this.root, p); }

  run(...command) {
    const [file, ...args] = [...this.within, ...command];
    return spawnSync(file, args, { encoding: 'utf8', timeout: 60_000 });
  }

  /** Leaves not one byte of room. */
  fill() {
    const fd = openSync(this.filler, 'a');
    try {
      for (const bytes of [1 << 16, 1 << 12, 1])
        try { for (;;) writeSync(fd, Buffer.alloc(bytes)); } catch (e) { assert.equal(e.code, 'ENOSPC'); }
    } finally { closeSync(fd); }
  }

  makeRoom() { rmSync(this.filler); }

  /** True once it is done: it is refused while somebody writes. */
  remount(mode) { return this.run('mount', '-o', `remount,${mode}`, this.dir).status === 0; }
}
