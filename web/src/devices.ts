// devices.ts: the machine that jobs run on: each GPU and the CPU with what they do, and
// what workers take of them. Asked for every few seconds while it is seen; an lhd that
// does not tell leaves it empty.
import { rpcIfKnown } from './api';
import { h, replace, setText } from './dom';
import * as fmt from './format';
import type { Devices, Gpu } from './types';

const EVERY_MS = 3_000;

/** A share as a bar, with its number in words beside it. */
class Meter {
  private readonly fill = h('i', {});
  private readonly said = h('b', { class: 'num' });
  readonly el: HTMLElement;

  constructor(name: string) {
    this.el = h(
      'div',
      { class: 'meter' },
      h('span', { class: 'name' }, name),
      this.said,
      h('span', { class: 'track', 'aria-hidden': 'true' }, this.fill),
    );
  }

  /** `share` null: there is no bar to draw. */
  set(share: number | null, text: string, title = ''): void {
    setText(this.said, text);
    this.fill.style.width = `${Math.max(0, Math.min(1, share ?? 0)) * 100}%`;
    this.el.classList.toggle('plain', share === null);
    this.el.title = title;
  }
}

const share = (used: number | null, total: number | null): number | null =>
  used === null || !total ? null : used / total;
const percent = (x: number | null): string => (x === null ? '–' : `${Math.round(x * 100)} %`);
const gib = (n: number): string => (n / 2 ** 30).toFixed(1);
const of = (used: number | null, total: number | null): string =>
  used === null || total === null ? '–' : `${gib(used)} of ${gib(total)} GiB`;

/** One device: its name and its meters. Filled anew, so that bars move smoothly. */
class Card {
  private readonly name = h('h3', {});
  private readonly meters = new Map<string, Meter>();
  private readonly list = h('div', { class: 'meters' });
  readonly el = h('li', { class: 'device' }, this.name, this.list);

  title(text: string): void {
    setText(this.name, text);
  }

  meter(name: string): Meter {
    let m = this.meters.get(name);
    if (!m) {
      m = new Meter(name);
      this.meters.set(name, m);
      this.list.append(m.el);
    }
    return m;
  }
}

function fillGpu(card: Card, g: Gpu): void {
  card.title(`GPU ${g.index} · ${g.name ?? 'NVIDIA'}`);
  card
    .meter('memory')
    .set(share(g.memory_used_bytes, g.memory_total_bytes), of(g.memory_used_bytes, g.memory_total_bytes));
  card
    .meter('busy')
    .set(g.utilisation, percent(g.utilisation), 'Share of the time in which any kernel ran');
  card
    .meter('power')
    .set(
      share(g.power_watts, g.power_limit_watts),
      g.power_watts === null
        ? '–'
        : `${Math.round(g.power_watts)}${g.power_limit_watts === null ? '' : ` of ${Math.round(g.power_limit_watts)}`} W`,
    );
  card
    .meter('temperature')
    .set(null, g.temperature_celsius === null ? '–' : `${g.temperature_celsius} °C`);
}

function fillHost(card: Card, { host }: Devices): void {
  const used =
    host.disk_total_bytes === null || host.disk_free_bytes === null
      ? null
      : host.disk_total_bytes - host.disk_free_bytes;

  card.title(`CPU · ${host.cpus} × ${host.cpu ?? 'unknown'}`);
  card
    .meter('memory')
    .set(
      share(host.memory_used_bytes, host.memory_total_bytes),
      of(host.memory_used_bytes, host.memory_total_bytes),
    );
  card
    .meter('busy')
    .set(host.utilisation, percent(host.utilisation), 'Share of the time of all CPUs');
  card.meter('disk').set(
    share(used, host.disk_total_bytes),
    host.disk_free_bytes === null ? '–' : `${fmt.bytes(host.disk_free_bytes)} free`,
    'The disk of the state directory',
  );
  card.meter('load').set(null, fmt.real(host.load), 'Load average of one minute');
}

export class DevicePanel {
  readonly el = h('div', { class: 'devicepanel', hidden: true });
  private readonly cards = new Map<string, Card>();
  private readonly list = h('ul', { class: 'devices' });
  private readonly notes = h('dl', { class: 'facts', hidden: true });
  private askedMs = 0;

  constructor() {
    this.el.append(this.list, this.notes);
  }

  /** Asks again if it is time to; whoever shows it calls this often. */
  async refresh(): Promise<void> {
    if (Date.now() - this.askedMs < EVERY_MS) return;
    this.askedMs = Date.now();
    const d = await rpcIfKnown<Devices>('daemon.devices', {});
    this.el.hidden = !d;
    if (d) this.fill(d);
  }

  private fill(d: Devices): void {
    const shown = new Set(['cpu', ...d.gpus.map((g) => g.uuid ?? String(g.index))]);

    for (const [key, card] of this.cards)
      if (!shown.has(key)) {
        card.el.remove();
        this.cards.delete(key);
      }
    for (const g of d.gpus) fillGpu(this.card(g.uuid ?? String(g.index)), g);
    fillHost(this.card('cpu'), d);
    const notes = [
      ...d.workers.map((w): [string, string] => [
        `Job ${w.job}`,
        [
          w.name,
          w.gpu_bytes === null ? '' : `${fmt.bytes(w.gpu_bytes)} of GPU memory`,
          w.host_bytes === null ? '' : `${fmt.bytes(w.host_bytes)} of RAM`,
          `process ${w.pid}`,
        ]
          .filter(Boolean)
          .join(' · '),
      ]),
      ...(d.why_no_gpus === null ? [] : [['GPUs', d.why_no_gpus] as [string, string]]),
    ];
    this.notes.hidden = !notes.length;
    replace(this.notes, ...notes.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v))));
  }

  private card(key: string): Card {
    let c = this.cards.get(key);
    if (!c) {
      c = new Card();
      this.cards.set(key, c);
      // The CPU stands last.
      if (key === 'cpu') this.list.append(c.el);
      else this.list.insertBefore(c.el, this.cards.get('cpu')?.el ?? null);
    }
    return c;
  }
}
