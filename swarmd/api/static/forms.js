// Fields with their labels, hints, and what the node said about them beside them.

import { h, setText } from "./dom.js";

/** A label over an input, a hint under it, and a place for what is wrong with it. The input has an id. */
export function field(text, input, hint = "", optional = false) {
  const problem = h("p", { class: "trouble", id: `${input.id}-problem`, role: "alert" });
  const words = hint && h("p", { class: "hint", id: `${input.id}-hint` }, hint);
  input.setAttribute("aria-describedby", [hint && `${input.id}-hint`, problem.id].filter(Boolean).join(" "));
  input.addEventListener("input", () => mark(input, ""));
  return h("div", { class: "field-tall" }, h("label", { for: input.id }, text, optional && h("span", { class: "hint" }, " (optional)")), input, words, problem);
}

/** Says beside the field what is wrong with it; "" takes it back. */
export function mark(input, sentence) {
  input.setAttribute("aria-invalid", sentence ? "true" : "false");
  const place = document.getElementById(`${input.id}-problem`);
  if (place) setText(place, sentence);
}

/** Does the work; a refusal that names one of the fields is shown there too, and the field gets the focus. Raises ApiError. */
export async function problemBeside(fields, work) {
  for (const input of Object.values(fields)) mark(input, "");
  try {
    return await work();
  } catch (error) {
    const input = fields[error.param];
    if (input) {
      mark(input, error.message);
      input.closest("details:not([open])")?.setAttribute("open", "");
      input.focus();
    }
    throw error;
  }
}
