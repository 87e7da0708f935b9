// main.ts: opens the session, then shows the page that the address names:
//   #/            all jobs
//   #/job/7       one
//   #/compare/3,7 up to eight over each other
import './style.css';
import {
  canSteer,
  closeSession,
  NoSession,
  openSession,
  RpcError,
  takeToken,
  Unreachable,
} from './api';
import { Compare } from './compare';
import { h, replace, toast } from './dom';
import { JobPage } from './job';
import { isStale, linkDown, linkUp, onLink } from './link';
import { Overview } from './overview';
import type { StreamListener } from './stream';
import type { JobEvent, Step } from './types';

export interface Page {
  root: HTMLElement;
  close(): void;
}

export interface Listening {
  up(again: boolean): void;
  event(e: JobEvent): void;
  step(s: Step): void;
  lost(): void;
}

/** What the frame does for a page. */
export interface Shell {
  /** Waits for a call; what goes wrong is shown where it belongs. */
  guard(call: Promise<unknown>): void;
  /** For openStream: tells the banner, hands on the rest. */
  listener(l: Listening): StreamListener;
}

const COMPARE_MAX = 8;

let page: Page | null = null;
let heardMs = Date.now();
let streaming = false; // a stream is open: only then is what is shown kept true

const shell: Shell = {
  guard(call) {
    call.then(() => {
      heardMs = Date.now();
      if (streaming) linkUp();
    }, failed);
  },
  listener: (l) => ({
    message(event, data) {
      heardMs = Date.now();
      if (event === 'step') l.step(data as Step);
      else if (event === 'event') l.event(data as JobEvent);
      else if (event === 'lost') l.lost();
    },
    up: (again) => {
      streaming = true;
      linkUp();
      l.up(again);
    },
    down: (ms) => {
      streaming = false;
      linkDown(ms);
    },
    denied: () => signIn('The session has ended.'),
  }),
};

function failed(e: unknown): void {
  if (e instanceof NoSession) signIn('The session has ended.');
  else if (e instanceof Unreachable) linkDown(heardMs);
  else if (e instanceof RpcError) toast(e.hint ? `${e.message} (${e.hint})` : e.message, 'bad');
  else throw e;
}

function show(next: Page | null, ...instead: Node[]): void {
  page?.close();
  page = next;
  replace(document.getElementById('main')!, ...(next ? [next.root] : instead));
  scrollTo(0, 0);
}

function route(): void {
  const [, kind, rest] = /^#\/(\w*)\/?([\d,]*)$/.exec(location.hash) ?? [];
  const ids = (rest ?? '')
    .split(',')
    .map(Number)
    .filter((n) => n > 0);

  if (kind === 'job' && ids.length) show(new JobPage(shell, ids[0]));
  else if (kind === 'compare' && ids.length) show(new Compare(shell, ids.slice(0, COMPARE_MAX)));
  else show(new Overview(shell));
}

/** A page for who has no key: what to do about it. */
function signIn(why: string): void {
  closeSession();
  linkUp();
  document.title = 'Lighthouse';
  frame(false);
  const address = h('input', {
    type: 'text',
    id: 'address',
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'http://127.0.0.1:PORT/#token=…',
  });
  const form = h(
    'form',
    {
      onsubmit: (e: Event) => {
        e.preventDefault();
        const token = /(?:#token=)?([\w.~-]+)$/.exec(address.value.trim())?.[1];
        if (token) void start(token);
      },
    },
    h('label', { for: 'address' }, 'Address'),
    h('div', { class: 'row' }, address, h('button', { type: 'submit', class: 'primary' }, 'Open')),
  );
  show(
    null,
    h(
      'section',
      { class: 'empty' },
      h('h1', {}, why),
      h('p', {}, 'On the machine where lhd runs, this prints an address that opens the page once:'),
      h('pre', {}, 'lhctl dashboard            # to look\nlhctl dashboard --steer    # to steer, too'),
      h('p', {}, 'Open it here, or paste it:'),
      form,
    ),
  );
}

function frame(open: boolean): void {
  const dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
  const said = h('span', {}, 'live');
  const role = h('span', { class: 'role' }, canSteer() ? 'steering' : 'read-only');
  const mark = h('img', {
    src: new URL('./icon.svg', import.meta.url).href,
    alt: '',
    width: 20,
    height: 20,
  });

  endLink();
  endLink = onLink((up) => {
    said.textContent = up ? 'live' : 'stale';
  });
  if (isStale()) said.textContent = 'stale';
  replace(
    document.getElementById('top')!,
    h('a', { class: 'brand', href: '#/' }, mark, h('span', {}, 'Lighthouse')),
    open ? h('span', { class: 'link' }, dot, said) : null,
    open ? role : null,
  );
}
let endLink = (): void => {};

async function start(token: string | null): Promise<void> {
  try {
    if (!(await openSession(token))) return signIn('This page needs an address of its own');
  } catch (e) {
    // An address that was opened before, in the tab that opened it: its key is here.
    if (e instanceof NoSession && !(await openSession(null)))
      return signIn(`Not opened: ${e.message}.`);
    if (e instanceof NoSession) return opened();
    if (!(e instanceof Unreachable)) throw e;
    return signIn('lhd does not answer.');
  }
  opened();
}

function opened(): void {
  frame(true);
  route();
}

addEventListener('hashchange', () => {
  const token = takeToken();
  if (token) void start(token);
  else if (page) route();
});
document.querySelector('.skip')!.addEventListener('click', (e) => {
  e.preventDefault();
  document.getElementById('main')!.focus();
});
void start(takeToken());
