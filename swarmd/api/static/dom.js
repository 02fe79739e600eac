// Making elements. Text always becomes a text node: nothing that came over the network is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `props`: attributes; `on` holds listeners, `class` the classes; false, null and undefined leave one out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text only where it differs, so that a screen reader hears no repetition and a selection survives. */
export function setText(element, text) {
  const next = String(text);
  if (element.textContent !== next) element.textContent = next;
}

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

let announceTimer = 0;

/** Says a sentence to screen readers, politely; only the newest within a quarter of a second. */
export function announce(text) {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => {
    document.getElementById("announcer").textContent = text;
  }, 250);
}
