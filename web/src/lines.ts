// lines.ts: what the panels of a job draw. Columns of their data stand in this order.
import type { Line, PanelOptions } from './chart';
import { colour } from './theme';

/** Smallest and largest of each group; only the room between them is drawn. */
const edges = (name: string): Line[] =>
  ['smallest', 'largest'].map((end) => ({
    label: `${name}, ${end}`,
    stroke: colour('train'),
    hidden: true,
  }));

/** Between the first two lines. */
export const soft = () => ({ upper: 2, lower: 1, colour: colour('raw') });

export function lossLines(): Line[] {
  return [
    ...edges('train'),
    { label: 'train', stroke: colour('raw'), width: 1 },
    { label: 'train, smoothed', stroke: colour('train'), width: 1.75 },
    { label: 'validation, full attention', stroke: colour('full'), points: true },
    { label: 'validation, Lighthouse', stroke: colour('lighthouse'), points: true, dash: [4, 3] },
  ];
}

/** A mean with the room between smallest and largest. */
export function spread(name: string): Pick<PanelOptions, 'lines' | 'fill'> {
  return {
    lines: [...edges(name), { label: name, stroke: colour('train'), width: 1.25 }],
    fill: soft(),
  };
}

export function gapLine(): Pick<PanelOptions, 'lines' | 'fill'> {
  return { lines: [{ label: 'gap', stroke: colour('full'), points: true }], fill: undefined };
}
