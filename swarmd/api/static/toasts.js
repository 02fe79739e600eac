// Short notices at the edge. They never take the focus and stay while pointed at; errors stay until they are dismissed.
// The same words again are one notice that counts.

import { h, setText } from "./dom.js";

const MOST = 4; // more would cover a phone; errors are the last to give way
const SHOWN_MS = { info: 5000, success: 5000, warning: 8000 };
const SHORTEST_MS = 1500;
const LONGEST_MS = 30000; // what the node asks for, within reason

export const levelOf = (level) => (level === "warn" ? "warning" : level === "error" || level in SHOWN_MS ? level : "info");

/** `link`: { href, text } of a page that shows more. `ms`: how long it stays, as the node wishes; errors stay in any case. */
export function toast(text, level = "info", link = null, ms = null) {
  const kind = levelOf(level);
  const parent = document.getElementById("toasts");
  const same = [...parent.querySelectorAll(".toast")].find((one) => one.dataset.text === text && one.dataset.kind === kind);
  if (same) {
    same.dataset.times = String(Number(same.dataset.times) + 1);
    setText(same.querySelector(".toast-times"), `×${same.dataset.times}`);
    return;
  }
  makeRoom(parent);
  const clear = () => {
    note.remove();
    drawClear(parent);
  };
  const note = h("div", { class: `toast toast-${kind}`, role: kind === "error" ? "alert" : "status" },
    h("span", { class: `dot dot-${kind}`, "aria-hidden": "true" }),
    h("span", { class: "toast-text" }, text, link && " ", link && h("a", { href: link.href, on: { click: clear } }, link.text)),
    h("span", { class: "toast-times" }),
    h("button", { class: "quiet icon", type: "button", "aria-label": "Dismiss", on: { click: clear } }, "×"));
  Object.assign(note.dataset, { text, kind, times: "1" });
  parent.append(note);
  drawClear(parent);
  if (kind === "error") return;
  let timer = 0;
  const start = () => {
    clearTimeout(timer);
    timer = setTimeout(clear, Math.min(LONGEST_MS, Math.max(SHORTEST_MS, ms ?? SHOWN_MS[kind])));
  };
  const hold = () => clearTimeout(timer);
  for (const event of ["pointerenter", "focusin"]) note.addEventListener(event, hold);
  for (const event of ["pointerleave", "focusout"]) note.addEventListener(event, start);
  start();
}

function makeRoom(parent) {
  const notes = [...parent.querySelectorAll(".toast")];
  if (notes.length >= MOST) (notes.find((one) => one.dataset.kind !== "error") ?? notes[0]).remove();
}

/** Several errors that stay can be dismissed together. */
function drawClear(parent) {
  parent.querySelector(".toasts-clear")?.remove();
  if (parent.querySelectorAll(".toast-error").length < 2) return;
  parent.prepend(h("button", { type: "button", class: "small toasts-clear", on: { click: () => parent.replaceChildren() } }, "Dismiss all"));
}
