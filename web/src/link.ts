// link.ts: whether what is shown is true now. One banner for all pages: up, or stale
// since the moment something was last heard.
import { h, replace } from './dom';
import { clock } from './format';

type Change = (up: boolean) => void;

let staleSince: number | null = null;
const listeners = new Set<Change>();

export const isStale = (): boolean => staleSince !== null;

export function linkUp(): void {
  if (staleSince === null) return;
  staleSince = null;
  show();
}

export function linkDown(lastHeardMs: number): void {
  if (staleSince !== null) return;
  staleSince = lastHeardMs;
  show();
}

export function onLink(run: Change): () => void {
  listeners.add(run);
  return () => listeners.delete(run);
}

function show(): void {
  const banner = document.getElementById('stale')!;
  const stale = staleSince !== null;

  banner.hidden = !stale;
  document.body.classList.toggle('is-stale', stale);
  if (stale)
    replace(
      banner,
      h('strong', {}, `Stale since ${clock(staleSince!)}`),
      ' lhd does not answer; its workers train on without it. Trying again.',
    );
  for (const run of listeners) run(!stale);
}
