// A badge with a sentence that appears when it is pointed at or has the focus.

import { h, setText } from "./dom.js";

let made = 0;

/** { element, set(text, kind, sentence) }: `kind` as the chips have it. Escape hides the sentence until the next time. */
export function badge() {
  made += 1;
  const chip = h("span", { class: "chip" });
  const words = h("span", { class: "tip-text", role: "tooltip", id: `tip-${made}` });
  const element = h("span", { class: "tip", tabindex: "0", "aria-describedby": words.id, on: {
    keydown: (event) => event.key === "Escape" && element.classList.add("tip-off"),
    focus: () => element.classList.remove("tip-off"),
    pointerenter: () => element.classList.remove("tip-off"),
  } }, chip, words);
  const set = (text, kind, sentence) => {
    element.hidden = !text;
    setText(chip, text ?? "");
    chip.className = `chip chip-${kind}`;
    setText(words, sentence);
  };
  return { element, set };
}
