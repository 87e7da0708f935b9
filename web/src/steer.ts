// steer.ts: commands to a job. Each is asked for twice: in a dialog that shows what a
// switch would meet before anything is sent. Who may only look gets none of it.
import { BAD_PARAMS, canSteer, knows, rpc, rpcIfKnown, RpcError } from './api';
import { h, replace, toast } from './dom';
import * as fmt from './format';
import type { Shell } from './main';
import type { Forecast, JobShow, Preflight } from './types';

interface Accepted {
  command: number | null;
  state: string;
  preflight?: Preflight;
}

const id = (): string => crypto.randomUUID();

export class Steering {
  readonly root = h('div', { class: 'steer', role: 'group', 'aria-label': 'steering' });
  private show: JobShow | null = null;
  private readonly buttons: Record<
    'switch' | 'pause' | 'resume' | 'checkpoint' | 'annotate',
    HTMLButtonElement
  >;

  constructor(
    private readonly shell: Shell,
    private readonly job: number,
  ) {
    const button = (text: string, run: () => void) =>
      h('button', { type: 'button', hidden: true, onclick: run }, text);
    this.buttons = {
      switch: button('Switch phase…', () => this.askSwitch()),
      pause: button('Pause…', () =>
        this.ask(
          'Pause',
          'It stops at the next step boundary and keeps everything in memory.',
          'job.pause',
        ),
      ),
      resume: button('Resume…', () =>
        this.ask('Resume', 'It goes on where it was paused.', 'job.resume'),
      ),
      checkpoint: button('Checkpoint…', () =>
        this.ask('Checkpoint', 'It is written at the next step boundary.', 'job.checkpoint'),
      ),
      annotate: button('Annotate…', () =>
        this.ask(
          'Annotate',
          'The note stands at the present step, in the journal and on the chart.',
          'job.annotate',
        ),
      ),
    };
    if (!canSteer()) return;
    this.root.append(...Object.values(this.buttons));
    shell.guard(
      knows('job.annotate').then((known) => {
        this.buttons.annotate.dataset.known = known ? '1' : '';
        this.offer();
      }),
    );
  }

  set(show: JobShow): void {
    this.show = show;
    this.offer();
  }

  /** Only what the state allows. */
  private offer(): void {
    const state = this.show?.summary.state ?? '';
    const runs = state === 'RUNNING';
    this.buttons.switch.hidden = !(runs || state === 'PAUSED') || (this.show?.phases.length ?? 0) < 2;
    this.buttons.pause.hidden = !runs;
    this.buttons.resume.hidden = state !== 'PAUSED';
    this.buttons.checkpoint.hidden = !runs && state !== 'PAUSED';
    this.buttons.annotate.hidden = !this.buttons.annotate.dataset.known || !state;
  }

  private async send(method: string, params: Record<string, unknown>): Promise<void> {
    const r = await rpc<Accepted>(method, { job: this.job, request_id: id(), ...params });
    toast(
      `${method.replace('job.', '')}: accepted as command ${r.command}; its outcome will be among the events`,
    );
  }

  private ask(title: string, text: string, method: string): void {
    const note = noteField(method === 'job.annotate');
    dialog(
      title,
      [h('p', {}, text), note.row],
      title,
      () =>
        this.send(
          method,
          note.value() ? { [method === 'job.annotate' ? 'text' : 'message']: note.value() } : {},
        ),
      this.shell,
    );
  }

  private askSwitch(): void {
    const show = this.show!;
    const s = show.summary;
    const target = h(
      'select',
      { id: 'switch-phase' },
      ...show.phases.map((p, i) =>
        i === s.phase
          ? null
          : h(
              'option',
              { value: i, selected: i === s.phase + 1 },
              `${p.name} (${p.attention} attention)`,
            ),
      ),
    );
    const facts = h('dl', { class: 'facts', 'aria-live': 'polite' });
    const note = noteField(false);
    const look = () => this.shell.guard(this.preflight(Number(target.value), facts, d.go));
    const d = dialog(
      `Switch from ‘${s.phase_name}’`,
      [
        h('div', { class: 'field' }, h('label', { for: 'switch-phase' }, 'To phase'), target),
        facts,
        note.row,
      ],
      'Switch',
      () =>
        this.send('job.switch', {
          phase: target.value,
          ...(note.value() ? { message: note.value() } : {}),
        }),
      this.shell,
    );
    target.addEventListener('change', look);
    look();
  }

  /** What the switch would meet, as lhd tells it. */
  private async preflight(phase: number, into: HTMLElement, go: HTMLButtonElement): Promise<void> {
    const fact = (k: string, v: string, tone = '') =>
      h('div', { 'data-tone': tone }, h('dt', {}, k), h('dd', {}, v));
    const p = this.show!.phases[phase];
    const rows = [
      fact('Attention', p.attention),
      fact('Planned', p.steps === null ? 'open end' : `${fmt.count(p.steps)} steps`),
    ];

    go.disabled = true;
    replace(into, ...rows, fact('Pre-flight', 'asking lhd …'));
    const [checked, forecast] = await Promise.allSettled([
      rpc<Accepted>('job.switch', { job: this.job, phase: String(phase), dry_run: true }),
      rpcIfKnown<Forecast>('job.forecast', { job: this.job }),
    ]);
    if (checked.status === 'fulfilled' && checked.value.preflight) {
      const f = checked.value.preflight;
      rows.push(
        fact(
          'Memory',
          `needs ${fmt.bytes(f.need_bytes)}, ${fmt.bytes(f.have_bytes)} there`,
          f.fits ? 'good' : 'bad',
        ),
      );
      if (f.step_s !== null)
        rows.push(
          fact(
            'A step',
            `about ${f.step_s < 1 ? `${fmt.real(f.step_s * 1000)} ms` : `${fmt.real(f.step_s)} s`}`,
          ),
        );
      if (!f.fits) rows.push(fact('Outcome', 'it would be refused: the phase does not fit', 'bad'));
      go.disabled = !f.fits;
    } else {
      const e = checked.status === 'rejected' ? checked.reason : null;
      const unknown = !e || (e instanceof RpcError && e.code === BAD_PARAMS);
      if (e && !(e instanceof RpcError)) throw e;
      rows.push(
        fact(
          'Pre-flight',
          unknown ? 'this lhd does not tell it before; it checks memory when it switches' : e.message,
          unknown ? '' : 'bad',
        ),
      );
      go.disabled = !unknown;
    }
    if (forecast.status === 'fulfilled' && forecast.value) {
      const f = forecast.value;
      if (f.as_planned.seconds !== null)
        rows.push(
          fact(
            'As planned',
            `${fmt.duration(f.as_planned.seconds)} left, ends ${fmt.when(f.as_planned.end_ms)}`,
          ),
        );
      if (f.switched_now && f.switched_now.seconds !== null && phase === this.show!.summary.phase + 1)
        rows.push(
          fact(
            'Switched now',
            `${fmt.duration(f.switched_now.seconds)} left, ends ${fmt.when(f.switched_now.end_ms)}`,
          ),
        );
    }
    const watch = (this.show!.spec.switch as { watch_steps?: number } | undefined)?.watch_steps;
    if (watch) rows.push(fact('Trial', `${watch} steps; taken back by itself if they go wrong`));
    replace(into, ...rows);
  }
}

function noteField(required: boolean): { row: HTMLElement; value: () => string } {
  const input = h('input', { type: 'text', id: 'note', maxlength: 900, autocomplete: 'off', required });
  return {
    row: h(
      'div',
      { class: 'field' },
      h('label', { for: 'note' }, required ? 'Note' : 'Why (for the journal)'),
      input,
    ),
    value: () => input.value.trim(),
  };
}

/** A modal question; its form is sent by Enter, Escape leaves it. */
function dialog(
  title: string,
  body: Node[],
  verb: string,
  run: () => Promise<void>,
  shell: Shell,
): { go: HTMLButtonElement } {
  const go = h('button', { type: 'submit', class: 'primary' }, verb);
  const box = h(
    'dialog',
    { 'aria-labelledby': 'dialog-title', onclose: () => box.remove() },
    h(
      'form',
      {
        onsubmit: (e: Event) => {
          e.preventDefault();
          go.disabled = true;
          shell.guard(run().finally(() => box.close()));
        },
      },
      h('h2', { id: 'dialog-title' }, title),
      ...body,
      h(
        'div',
        { class: 'row end' },
        h('button', { type: 'button', onclick: () => box.close() }, 'Cancel'),
        go,
      ),
    ),
  );
  document.body.append(box);
  box.showModal();
  return { go };
}
