// lane.ts: the row of marks above a chart: a button each, or one for several that
// would lie over each other. What they mean shows on hover and on focus.
import { h, replace } from './dom';
import { when } from './format';
import { cluster, MARK_SIGNS, type Cluster, type Mark } from './marks';

const GAP_PX = 18;
const TOLD_MAX = 8;

export class Lane {
  private readonly tip = h('div', { class: 'tip', role: 'tooltip', id: 'mark-tip', hidden: true });
  private readonly row = h('div', { class: 'marks', role: 'group', 'aria-label': 'what happened' });
  readonly el = h('div', { class: 'lane' }, this.row, this.tip);
  private shown: Cluster[] = [];
  private told = -1; // index into shown of the mark whose tip is open

  /** Buttons are used again in order, so that a focused one stays. */
  place(marks: readonly Mark[], x: (m: Mark) => number, left: number, width: number): void {
    this.shown = cluster(marks, x, GAP_PX, width);
    this.row.style.left = `${left}px`;
    this.row.style.width = `${width}px`;
    while (this.row.children.length < this.shown.length)
      this.row.append(this.button(this.row.children.length));
    while (this.row.children.length > this.shown.length) this.row.lastElementChild!.remove();
    this.shown.forEach((c, i) => {
      const b = this.row.children[i] as HTMLElement;
      const text = MARK_SIGNS[c.kind].sign;
      const name =
        c.marks.length > 1
          ? `${c.marks.length} marks from step ${c.marks[0].step}: ${c.marks[0].title}`
          : `step ${c.marks[0].step}: ${c.marks[0].title}`;
      b.style.left = `${c.x}px`;
      b.dataset.kind = c.kind;
      if (b.textContent !== text) b.textContent = text;
      if (b.getAttribute('aria-label') !== name) b.setAttribute('aria-label', name);
    });
    // What is being read may have grown: a journal line comes after its event.
    if (this.told >= this.shown.length) this.hush();
    else if (this.told >= 0) this.tell(this.told);
  }

  private button(i: number): HTMLElement {
    return h('button', {
      type: 'button',
      class: 'mark',
      'aria-describedby': 'mark-tip',
      onmouseenter: () => this.tell(i),
      onfocus: () => this.tell(i),
      onmouseleave: () => this.hush(),
      onblur: () => this.hush(),
      onkeydown: (e: KeyboardEvent) => {
        if (e.key === 'Escape') this.hush();
      },
    });
  }

  private tell(i: number): void {
    const c = this.shown[i];
    if (!c) return;
    this.told = i;
    const rows = c.marks
      .slice(0, TOLD_MAX)
      .map((m) =>
        h(
          'div',
          { class: 'told' },
          h(
            'div',
            { class: 'what' },
            h('b', {}, MARK_SIGNS[m.kind].name),
            h('span', { class: 'num' }, ` step ${m.step} · ${when(m.time_ms)}`),
          ),
          h('div', {}, m.title),
          ...m.lines.map((l) => h('div', { class: 'journal' }, l)),
        ),
      );
    replace(
      this.tip,
      ...rows,
      c.marks.length > TOLD_MAX
        ? h('div', { class: 'more' }, `and ${c.marks.length - TOLD_MAX} more`)
        : null,
    );
    this.tip.hidden = false;
    const at = (this.row.offsetLeft || 0) + c.x;
    this.tip.style.left = `${Math.max(0, Math.min(at - 20, this.el.clientWidth - this.tip.offsetWidth))}px`;
  }

  private hush(): void {
    this.told = -1;
    this.tip.hidden = true;
  }
}
