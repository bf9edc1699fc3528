// Numbers for people, and elements for text. Nothing here reads text as HTML.

const numbers = new Intl.NumberFormat("en");

/** A whole number with its thousands apart. */
export const count = (n) => numbers.format(Math.round(n));

/** "1 room", "2 rooms". */
export const plural = (n, word, many = `${word}s`) => `${count(n)} ${n === 1 ? word : many}`;

/** Bytes with three digits at most. */
export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = Math.abs(n), unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit++; }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${n < 0 ? "−" : ""}${value.toFixed(digits)}\u00a0${units[unit]}`;
}

/** A number that may be large, with a letter. */
export function short(n) {
  const units = ["", "k", "M", "G", "T"];
  let value = Math.abs(n), unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit++; }
  const digits = unit === 0 && Number.isInteger(value) || value >= 99.95 ? 0 : value >= 9.95 ? 1 : 2;
  return `${n < 0 ? "−" : ""}${value.toFixed(digits)}${units[unit] && "\u00a0" + units[unit]}`;
}

/** What part of the whole was saved, or nothing. */
export function share(saved, whole) {
  if (whole <= 0 || saved <= 0) return "";
  return `${Math.min(99.9, saved / whole * 100).toFixed(saved / whole > 0.99 ? 1 : 0)}\u00a0%`;
}

/** Seconds in the largest units. */
export function duration(s) {
  if (s < 90) return `${s}\u00a0s`;
  if (s < 5400) return `${Math.round(s / 60)}\u00a0min`;
  if (s < 129600) return `${Math.round(s / 3600)}\u00a0h`;
  return `${Math.round(s / 86400)}\u00a0days`;
}

/** Milliseconds of a round trip. */
export const trip = (ms) => ms < 10000 ? `${count(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`;

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** An element; children that are strings become text. */
export const html = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

/** The same of SVG. */
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** Sets a text if it is another one; the whole of it as a tooltip if it may be cut. */
export function text(node, value, cut = false) {
  if (node.textContent !== value) node.textContent = value;
  if (cut && node.title !== value) node.title = value;
}

/** The same of an address, which breaks behind its dots where it has to. */
export function address(node, value) {
  if (node.textContent !== value) {
    const parts = value.split(/(?<=[.@])/).flatMap((part) => [part, document.createElement("wbr")]);
    node.replaceChildren(...parts.slice(0, -1));
  }
  if (node.title !== value) node.title = value;
}

/** Makes the children of a node those of a list, and keeps the elements of keys that stay. */
export function sync(parent, list, key, make, update) {
  const old = new Map();
  for (const child of parent.children) old.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  for (const item of list) {
    const name = key(item);
    let child = old.get(name);
    if (child) old.delete(name);
    else { child = make(item); child.dataset.key = name; }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}
