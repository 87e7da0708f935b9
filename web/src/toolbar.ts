// toolbar.ts: the controls above charts, the same on every page that has them.
import { h, setText } from './dom';
import type { XMode } from './series';

export function toolbar(...parts: Node[]): HTMLElement {
  return h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': 'charts' }, ...parts);
}

/** What the x axis counts; the first is chosen. */
export function axisChoice(modes: readonly [XMode, string][], choose: (m: XMode) => void): HTMLElement {
  const option = ([value, text]: [XMode, string], i: number) =>
    h(
      'label',
      {},
      h('input', { type: 'radio', name: 'axis', value, checked: !i, onchange: () => choose(value) }),
      h('span', {}, text),
    );

  return h(
    'div',
    { class: 'segmented', role: 'radiogroup', 'aria-label': 'x axis' },
    ...modes.map(option),
  );
}

/** A slider of 0 to 100, with room for what it comes to. */
export class Smoothing {
  private readonly told = h('span', { class: 'num tau' });
  readonly el: HTMLElement;

  constructor(value: number, set: (v: number) => void) {
    const input = h('input', {
      type: 'range',
      id: 'smoothing',
      min: 0,
      max: 100,
      value,
      oninput: () => set(Number(input.value)),
    });
    this.el = h('label', { class: 'inline', for: 'smoothing' }, 'Smoothing', input, this.told);
  }

  tell(text: string): void {
    setText(this.told, text);
  }
}

export function check(
  text: string,
  checked: boolean,
  set: (on: boolean) => void,
  title = '',
): HTMLElement {
  const box = h('input', { type: 'checkbox', checked, onchange: () => set(box.checked) });
  return h('label', { class: 'inline', title: title || null }, box, text);
}

export function button(text: string, run: () => void, title = ''): HTMLElement {
  return h('button', { type: 'button', title: title || null, onclick: run }, text);
}

/** A button that is a sign, with a name for who cannot see it. */
export function signButton(sign: string, name: string, run: () => void): HTMLElement {
  return h(
    'button',
    { type: 'button', class: 'icon', 'aria-label': name, title: name, onclick: run },
    sign,
  );
}

export function buttons(label: string, ...parts: Node[]): HTMLElement {
  return h('div', { class: 'buttons' }, label ? h('span', { class: 'label' }, label) : null, ...parts);
}
