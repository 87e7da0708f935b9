// theme.ts: the colours of style.css, for canvases. Read again when the scheme changes.

const names = [
  'text',
  'muted',
  'line',
  'grid',
  'surface',
  'train',
  'raw',
  'full',
  'lighthouse',
  'bad',
  'c1',
  'c2',
  'c3',
  'c4',
  'c5',
  'c6',
  'c7',
  'c8',
  'band-full',
  'band-lighthouse',
] as const;
export type Colour = (typeof names)[number];

let colours: Record<string, string> = {};

function read(): void {
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
}

export function colour(name: Colour): string {
  if (!colours.text) read();
  return colours[name];
}

/** Calls back on every change of the scheme; the answer ends that. */
export function onScheme(run: () => void): () => void {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const changed = () => {
    read();
    run();
  };
  query.addEventListener('change', changed);
  return () => query.removeEventListener('change', changed);
}

export const reducedMotion = (): boolean => matchMedia('(prefers-reduced-motion: reduce)').matches;
