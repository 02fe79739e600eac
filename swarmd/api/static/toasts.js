// Short notices at the edge. They never take the focus, stay while pointed at, and errors stay longest.

import { h } from "./dom.js";

const MOST = 4; // more would cover a phone
const SHOWN_MS = { info: 5000, success: 5000, warning: 8000, error: 12000 };

export const levelOf = (level) => (level === "warn" ? "warning" : level in SHOWN_MS ? level : "info");

/** `link`: { href, text } of a page that shows more. */
export function toast(text, level = "info", link = null) {
  const kind = levelOf(level);
  const parent = document.getElementById("toasts");
  while (parent.children.length >= MOST) parent.firstElementChild.remove();
  const note = h("div", { class: `toast toast-${kind}`, role: kind === "error" ? "alert" : "status" },
    h("span", { class: `dot dot-${kind}`, "aria-hidden": "true" }),
    h("span", { class: "toast-text" }, text, link && " ", link && h("a", { href: link.href, on: { click: () => note.remove() } }, link.text)),
    h("button", { class: "quiet icon", type: "button", "aria-label": "Dismiss", on: { click: () => note.remove() } }, "×"));
  parent.append(note);
  let timer = 0;
  const start = () => {
    timer = setTimeout(() => note.remove(), SHOWN_MS[kind]);
  };
  const hold = () => clearTimeout(timer);
  for (const event of ["pointerenter", "focusin"]) note.addEventListener(event, hold);
  for (const event of ["pointerleave", "focusout"]) note.addEventListener(event, start);
  start();
}
