// export.ts: what is seen, as files.
import { rpc } from './api';
import type { Panel } from './chart';
import { colour } from './theme';
import type { Point, Step } from './types';

const STEPS_A_CALL = 10_000;

export function save(name: string, blob: Blob): void {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(blob);
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}

/** Rows with their column names; no cell is text of somebody's, so none is quoted. */
export function csv(rows: readonly object[]): string {
  if (!rows.length) return '';
  const names = Object.keys(rows[0]);
  return `${names.join(',')}\n${rows.map((r) => names.map((n) => (r as Record<string, unknown>)[n] ?? '').join(',')).join('\n')}\n`;
}

export const saveGroups = (name: string, points: readonly Point[]): void =>
  save(name, new Blob([csv(points)], { type: 'text/csv' }));

/** Every step from..to, a piece at a time. */
export async function saveSteps(name: string, job: number, from: number, to: number): Promise<void> {
  const parts: string[] = [];
  for (let next = Math.max(0, Math.floor(from)); next <= to;) {
    const { steps } = await rpc<{ steps: Step[] }>('job.steps', {
      job,
      from_step: next,
      to_step: Math.ceil(to),
      limit: STEPS_A_CALL,
    });
    if (!steps.length) break;
    const text = csv(steps);
    parts.push(parts.length ? text.slice(text.indexOf('\n') + 1) : text);
    next = steps[steps.length - 1].step + 1;
  }
  save(name, new Blob(parts, { type: 'text/csv' }));
}

/** All panels below each other in one picture. */
export function savePicture(name: string, title: string, panels: readonly Panel[]): void {
  const px = devicePixelRatio;
  const head = 30 * px;
  const label = 22 * px;
  for (const p of panels) p.draw();
  const canvases = panels.map((p) => p.plot.querySelector('canvas')!);
  const out = document.createElement('canvas');
  const c = out.getContext('2d')!;
  let y = head;

  out.width = Math.max(...canvases.map((k) => k.width));
  out.height = head + canvases.reduce((n, k) => n + k.height + label, 0);
  c.fillStyle = colour('surface');
  c.fillRect(0, 0, out.width, out.height);
  c.fillStyle = colour('text');
  c.font = `600 ${14 * px}px ui-sans-serif, system-ui, sans-serif`;
  c.fillText(title, 10 * px, 20 * px);
  c.font = `${12 * px}px ui-sans-serif, system-ui, sans-serif`;
  panels.forEach((p, i) => {
    c.fillText(p.root.querySelector('h3')!.textContent!, 10 * px, y + 15 * px);
    c.drawImage(canvases[i], 0, y + label);
    y += canvases[i].height + label;
  });
  out.toBlob((blob) => {
    if (blob) save(name, blob);
  });
}
