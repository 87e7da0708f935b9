// hosts.mjs: two hosts on one machine: network namespaces with a cable between them, each
// with a name of its own. The second does not see the first one's state directory.
import { spawnSync } from 'node:child_process';
import { atEnd } from './lhd.mjs';

const run = (...command) => {
  const r = spawnSync(command[0], command.slice(1), { encoding: 'utf8' });
  return r.error ? r.error.message : r.status ? r.stderr.trim() || `${command[0]} ended with ${r.status}` : '';
};

export class Hosts {
  /** Null, and the reason in `t.skip`, where this is not permitted. */
  static make(t) {
    const id = `lh${process.pid}`, ns = [`${id}-0`, `${id}-1`], cable = [`${id}a`, `${id}b`];
    const steps = [
      ...ns.map((n) => ['ip', 'netns', 'add', n]),
      ['ip', 'link', 'add', cable[0], 'type', 'veth', 'peer', 'name', cable[1]],
      ...ns.flatMap((n, i) => [
        ['ip', 'link', 'set', cable[i], 'netns', n], ['ip', '-n', n, 'addr', 'add', `10.199.7.${i + 1}/24`, 'dev', cable[i]],
        ['ip', '-n', n, 'link', 'set', 'lo', 'up'], ['ip', '-n', n, 'link', 'set', cable[i], 'up']]),
    ];
    atEnd(t, () => { ns.forEach((n) => run('ip', 'netns', 'del', n)); run('ip', 'link', 'del', cable[0]); });
    for (const step of steps) {
      const why = run(...step);
      if (!why) continue;
      t.skip(`network namespaces cannot be had here: ${step.join(' ')}: ${why}`);
      return null;
    }
    return new Hosts(ns, cable);
  }

  constructor(ns, cable) {
    Object.assign(this, { ns, cable });
    this.address = '10.199.7.1';
    /** What to put before a command so that it runs on the first one. */
    this.within = ['ip', 'netns', 'exec', ns[0]];
  }

  /** As a `disk` of lib/lhd.mjs: lhd runs there, and its files are where we see them. */
  get first() { return { within: this.within, path: (p) => p }; }

  /** Before a command on the second one, which has an empty directory in place of `hidden`. */
  second(hidden) {
    return ['ip', 'netns', 'exec', this.ns[1], 'unshare', '--mount', '--uts', 'sh', '-c',
      `hostname second && mount -t tmpfs none '${hidden}' && exec "$@"`, 'sh'];
  }

  /** The cable is cut: nobody is told. */
  cut() { run('ip', '-n', this.ns[1], 'link', 'set', this.cable[1], 'down'); }
}
