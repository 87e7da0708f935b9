// dom.ts: elements from code. Every text goes in as a text node, never as markup:
// names, notes and log lines are whatever somebody wrote.

type Child = Node | string | number | null | undefined | false;
type Props = Record<string, unknown>;

/** An element. `on*` members are listeners, `class`, `aria-*` and the like are
 * attributes; null, undefined and false are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) el.addEventListener(name.slice(2), value as EventListener);
    else el.setAttribute(name, value === true ? '' : String(value));
  }
  append(el, children);
  return el;
}

export function append(el: Element, children: Child[]): void {
  for (const c of children) {
    if (c === null || c === undefined || c === false) continue;
    el.append(c instanceof Node ? c : String(c));
  }
}

export function replace(el: Element, ...children: Child[]): void {
  el.replaceChildren();
  append(el, children);
}

/** Sets a text only when it differs, so that unchanged numbers cost no layout. */
export function setText(el: Element, text: string): void {
  if (el.textContent !== text) el.textContent = text;
}

const toasts = () => document.getElementById('toasts')!;

/** A sentence at the foot of the page, for some seconds. */
export function toast(text: string, kind: 'ok' | 'bad' = 'ok'): void {
  const el = h('div', { class: `toast ${kind}` }, text);
  toasts().append(el);
  setTimeout(() => el.remove(), kind === 'bad' ? 12_000 : 6_000);
}

/** Calls `run` once, `ms` after the last of a burst of calls. */
export function debounce(ms: number, run: () => void): { (): void; cancel(): void } {
  let timer = 0;
  const call = () => {
    clearTimeout(timer);
    timer = window.setTimeout(run, ms);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

/** Calls `run` at most once in `ms`, the first time at once and the last for sure. */
export function throttle(ms: number, run: () => void): { (): void; cancel(): void } {
  let timer = 0;
  let last = -Infinity;
  const go = () => {
    timer = 0;
    last = performance.now();
    run();
  };
  const call = () => {
    if (timer) return;
    timer = window.setTimeout(go, Math.max(0, last + ms - performance.now()));
  };
  call.cancel = () => {
    clearTimeout(timer);
    timer = 0;
  };
  return call;
}
