// Building elements. Text always goes in as text: nothing a server or a user wrote is ever read as HTML.

/**
 * Makes an element.
 * @param {string} tag with classes, e.g. `div.card`
 * @param {Record<string, unknown>} attributes `onclick` and the like take functions
 * @param {...(Node | string | undefined | false)} children
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : String(value));
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** @param {string} id */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Shows new content, unless it is what is shown already or somebody is just selecting text in it.
 * @param {HTMLElement} target
 * @param {Node[]} children
 */
export function show(target, children) {
  const fresh = document.createElement('div');
  fresh.append(...children);
  if (fresh.innerHTML === target.innerHTML) return;
  const selection = document.getSelection();
  if (selection !== null && !selection.isCollapsed && target.contains(selection.anchorNode)) return;
  const focused = document.activeElement?.getAttribute('data-focus');
  target.replaceChildren(...fresh.childNodes);
  if (focused) target.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

const signs = { ok: '●', warn: '▲', bad: '✖' };

/**
 * A state: sign, word and colour say the same thing.
 * @param {'ok' | 'warn' | 'bad'} level
 * @param {string} word
 */
export function state(level, word) {
  return el(`span.state.${level}`, {}, el('span', { 'aria-hidden': 'true' }, signs[level]), word);
}
