// Questions that stop the page: the API key, and "are you sure". Native <dialog>: focus stays inside, Escape is "no".

import { h } from "./dom.js";

function open(dialog) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(dialog.returnValue);
    });
    dialog.showModal();
  });
}

/** True when the person agreed. `danger` names what the button does, such as "Remove". */
export async function confirmDanger({ title, text, danger, keep = "Keep it" }) {
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      h("div", { class: "dialog-buttons" },
        h("button", { value: "no", class: "quiet", autofocus: true }, keep),
        h("button", { value: "yes", class: "danger" }, danger))));
  return (await open(dialog)) === "yes";
}

let asking = null;

/** The key a person typed, or null. Asked twice at once, it is one dialog. */
export function askKey(reason) {
  asking ??= askOnce(reason).finally(() => {
    asking = null;
  });
  return asking;
}

async function askOnce(reason) {
  const field = h("input", { id: "key-field", type: "password", autocomplete: "off", spellcheck: "false", required: true, autofocus: true });
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, "Enter the API key"),
      h("p", {}, reason),
      h("p", { class: "hint" }, "Opened on the node's own machine, this page needs no key. The key stays in this tab and is forgotten when you close it."),
      h("label", { for: "key-field" }, "API key"),
      field,
      h("div", { class: "dialog-buttons" },
        h("button", { value: "no", class: "quiet", formnovalidate: true }, "Not now"),
        h("button", { value: "yes", class: "primary" }, "Use this key"))));
  // The first button of a form takes Enter; the key field means "use it".
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    if (field.value.trim()) dialog.close("yes");
  });
  return (await open(dialog)) === "yes" ? field.value.trim() : null;
}
