// pty.mjs: a program on a pseudo terminal, by util-linux's script.
import { spawn } from 'node:child_process';
import { bin, until } from './lhd.mjs';

const LEAVE = '\x1b[?1049l';

/** Runs a shell command on a terminal of rows x columns. `t.type(text)` presses
 * keys; `t.said` is all it printed; `await t.ended` its exit code. */
export function onTerminal(command, { rows = 24, columns = 80, env = {} } = {}) {
  // Not exec: script stops itself when its own child is stopped.
  const p = spawn('script', ['-qefc', `stty rows ${rows} cols ${columns}; ${command}; exit $?`, '/dev/null'],
    { env: { ...process.env, TERM: 'xterm', LC_ALL: 'C.UTF-8', ...env }, stdio: ['pipe', 'pipe', 'inherit'] });
  const t = { said: '', process: p, type: (text) => p.stdin.write(text), rows, columns };
  const timer = setTimeout(() => p.kill('SIGKILL'), 60_000);
  p.stdin.on('error', () => {});
  p.stdout.setEncoding('utf8').on('data', (d) => { t.said += d; });
  t.ended = new Promise((done) => p.once('close', (code) => { clearTimeout(timer); done(code); }));
  return t;
}

export const lhctlOnTerminal = (state, args, options) => onTerminal(`${bin('lhctl')} --state ${state} ${args}`, options);

/** The pages that were drawn whole, each as lines without their sequences. */
export function pages(t) {
  const whole = t.said.split('\x1b[H').slice(1);
  if (!t.said.includes(LEAVE)) whole.pop(); // it may still be coming
  return whole.map((page) => page.split(LEAVE)[0].replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '').split(/\r+\n/));
}

/** The newest page, once `test` holds for it. */
export const pageUntil = (t, what, test) => until(what, () => {
  const page = pages(t).at(-1);
  return page && test(page.join('\n')) && page;
});

/** Whether the terminal got its own page and cursor back, last. */
export const restored = (t) => t.said.lastIndexOf(LEAVE) > t.said.lastIndexOf('\x1b[H') &&
  t.said.lastIndexOf('\x1b[?25h') > t.said.lastIndexOf('\x1b[?25l');
