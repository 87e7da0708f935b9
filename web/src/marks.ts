// marks.ts: what happened to a job, as marks on its chart. Pure.
import type { Attempt, Checkpoint, Command, JobEvent } from './types';

export type MarkKind =
  'switch' | 'reverted' | 'restart' | 'rollback' | 'trouble' | 'rule' | 'note' | 'pause' | 'checkpoint';

export interface Mark {
  kind: MarkKind;
  step: number;
  time_ms: number;
  title: string;
  lines: string[];
}

/** The more telling first: it gives a cluster its sign. */
export const MARK_KINDS: readonly MarkKind[] = [
  'reverted',
  'rollback',
  'restart',
  'trouble',
  'switch',
  'rule',
  'note',
  'pause',
  'checkpoint',
];

export const MARK_SIGNS: Record<MarkKind, { sign: string; name: string }> = {
  reverted: { sign: '↶', name: 'switch taken back' },
  rollback: { sign: '↶', name: 'rollback' },
  restart: { sign: '↻', name: 'restart' },
  trouble: { sign: '!', name: 'instability' },
  switch: { sign: '⇄', name: 'switch' },
  rule: { sign: '⚑', name: 'rule' },
  note: { sign: '✎', name: 'annotation' },
  pause: { sign: '‖', name: 'pause' },
  checkpoint: { sign: '▪', name: 'checkpoint' },
};

const KIND_OF_EVENT: Record<string, MarkKind> = {
  'job.phase': 'switch',
  'switch.committed': 'switch',
  'switch.reverted': 'reverted',
  'job.rewind': 'rollback',
  'job.instability': 'trouble',
  'rule.fired': 'rule',
  'job.note': 'note',
  'attempt.lost': 'restart',
};
const KIND_OF_METHOD: Record<string, MarkKind> = {
  'job.pause': 'pause',
  'job.resume': 'pause',
  'job.set': 'note',
};

/** How the journal has a command: who, what, why, and what became of it. */
export function journalLine(c: Command): string {
  const who = `uid ${c.uid}${c.program ? ` (${c.program})` : ''}`;
  const args = Object.entries(c.args)
    .filter(([k]) => !['job', 'request_id', 'message', 'program'].includes(k))
    .map(([k, v]) => `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`)
    .join(' ');
  const outcome = c.outcome ? `: ${c.outcome}${c.text ? `, ${c.text}` : ''}` : ': pending';
  return `#${c.command} ${c.method}${args ? ` ${args}` : ''} by ${who}${c.message ? ` “${c.message}”` : ''}${outcome}`;
}

/** Ascending by step. */
export function marksOf(
  events: readonly JobEvent[],
  journal: readonly Command[],
  attempts: readonly Attempt[],
  checkpoints: readonly Checkpoint[],
): Mark[] {
  const marks: Mark[] = [];
  const told = new Set<number>(); // commands that an event's mark has
  const byId = new Map(journal.map((c) => [c.command, c]));
  // A switch by command says at its phase event only where; the journal says who and why.
  const switches = journal.filter(
    (c) =>
      c.method === 'job.switch' &&
      c.step !== null &&
      (c.outcome === 'applied' || c.outcome === 'reverted'),
  );

  for (const e of events) {
    const kind = KIND_OF_EVENT[e.kind];
    if (!kind || e.step === null || (e.kind === 'job.phase' && e.step === 0)) continue;
    const command =
      typeof e.data.command === 'number'
        ? byId.get(e.data.command)
        : e.kind === 'job.phase'
          ? switches.find((c) => c.step === e.step)
          : undefined;
    if (command) told.add(command.command);
    marks.push({
      kind,
      step: e.step,
      time_ms: e.time_ms,
      title: e.text,
      lines: command ? [journalLine(command)] : e.kind === 'job.note' ? [`by uid ${e.data.uid}`] : [],
    });
  }
  for (const c of journal) {
    const kind = KIND_OF_METHOD[c.method];
    if (!kind || told.has(c.command) || c.step === null || c.outcome !== 'applied') continue;
    marks.push({
      kind,
      step: c.step,
      time_ms: c.accepted_ms,
      title: c.method.replace('job.', ''),
      lines: [journalLine(c)],
    });
  }
  for (const a of attempts.slice(1)) {
    if (a.first_step === null) continue;
    marks.push({
      kind: 'restart',
      step: a.first_step,
      time_ms: a.started_ms,
      title: `attempt ${a.attempt} goes on from step ${a.first_step}`,
      lines: [],
    });
  }
  for (const c of checkpoints)
    marks.push({
      kind: 'checkpoint',
      step: c.step,
      time_ms: c.time_ms,
      title: `checkpoint of step ${c.step} (${c.reason})`,
      lines: c.removed ? ['made room for newer ones'] : [],
    });
  return marks.sort(
    (a, b) => a.step - b.step || MARK_KINDS.indexOf(a.kind) - MARK_KINDS.indexOf(b.kind),
  );
}

export interface Cluster {
  x: number;
  kind: MarkKind;
  marks: Mark[];
}

/** Marks that would lie over each other as one; `x` in pixels, ascending. */
export function cluster(
  marks: readonly Mark[],
  x: (m: Mark) => number,
  gapPx: number,
  widthPx: number,
): Cluster[] {
  const out: Cluster[] = [];
  const placed = marks
    .map((m) => ({ m, at: x(m) }))
    .filter(({ at }) => at >= -1 && at <= widthPx + 1)
    .sort((a, b) => a.at - b.at);
  for (const { m, at } of placed) {
    const last = out[out.length - 1];
    if (last && at - last.x < gapPx) {
      last.marks.push(m);
      if (MARK_KINDS.indexOf(m.kind) < MARK_KINDS.indexOf(last.kind)) last.kind = m.kind;
    } else out.push({ x: at, kind: m.kind, marks: [m] });
  }
  return out;
}
