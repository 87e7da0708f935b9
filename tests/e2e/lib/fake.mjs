// fake.mjs: a control socket that answers as a test says, for what a real lhd
// does rarely or never: hostile names, silence, lost notifications.
import net from 'node:net';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { bin } from './lhd.mjs';

/** A job as job.get tells it; `over` replaces members. */
export const job = (over = {}) => ({ job: 1, name: 'one', state: 'RUNNING', reason: '', priority: 0, phase: 0,
  phase_name: 'first', step: 5, total_steps: 10, loss: 2.5, tokens_per_s: 100, eta_s: 3, attempt: 1, restarts: 0,
  submitted_ms: 1, started_ms: 2, ended_ms: null, ...over });

/** Listens on DIR/control.sock. `methods[name](params, peer)` gives the result,
 * throws {code, message, data} to refuse, or gives undefined to stay silent.
 * `peer.note(method, params)` pushes; `calls` lists what was asked. */
export async function fakeDaemon(t, dir, methods) {
  const sockets = new Set();
  const daemon = { state: dir, calls: [] };
  const server = net.createServer((socket) => {
    const send = (m) => socket.write(JSON.stringify({ jsonrpc: '2.0', ...m }) + '\n');
    const peer = { note: (method, params) => send({ method, params }), socket };
    let text = '';
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    socket.setEncoding('utf8').on('data', (chunk) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop();
      for (const line of lines) {
        const { id, method, params } = JSON.parse(line);
        daemon.calls.push({ method, params });
        try {
          const result = methods[method](params, peer);
          if (result !== undefined) send({ id, result });
        } catch (error) {
          if (error instanceof Error) throw error;
          send({ id, error });
        }
      }
    });
  });
  await new Promise((done) => { server.listen(join(dir, 'control.sock'), done); });
  daemon.close = () => { for (const s of sockets) s.destroy(); server.close(); };
  t.after(daemon.close);
  return daemon;
}

/** Runs lhctl; {code, out, err}. Killed after `limitMs`: code is then null. */
export function lhctl(state, args, { limitMs = 20_000, input = '', env = {} } = {}) {
  return new Promise((done) => {
    const p = spawn(bin('lhctl'), [...(state ? ['--state', state] : []), ...args], { env: { ...process.env, ...env } });
    const r = { out: '', err: '' };
    const timer = setTimeout(() => p.kill('SIGKILL'), limitMs);
    p.stdout.setEncoding('utf8').on('data', (d) => { r.out += d; });
    p.stderr.setEncoding('utf8').on('data', (d) => { r.err += d; });
    p.stdin.on('error', () => {}).end(input);
    p.once('close', (code) => { clearTimeout(timer); done({ ...r, code }); });
  });
}
