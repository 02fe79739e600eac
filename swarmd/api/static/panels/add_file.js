// A GGUF file that lies on the node's own machine, cut into shards. Only shown there: a path means nothing elsewhere.

import { onOwnMachine, request } from "../api.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { watch } from "../store.js";

export function addFileForm() {
  const field = h("input", { id: "file-path", type: "text", placeholder: "/path/to/model.gguf", autocomplete: "off", spellcheck: "false", maxlength: 4096, "aria-describedby": "file-said" });
  const button = h("button", { type: "submit" }, "Add");
  const said = h("p", { id: "file-said", class: "said", role: "status" });
  const say = (text, kind) => {
    said.className = `said ${kind}`;
    setText(said, text);
  };
  const form = h("form", { class: "row", on: { submit: async (event) => {
    event.preventDefault();
    const path = field.value.trim();
    if (!path) {
      say("Type where the file lies, from the root of the disk on.", "trouble");
      field.focus();
      return;
    }
    button.disabled = true;
    say("Reading and cutting the file. A large one takes minutes; you can go on using the page.", "hint");
    try {
      const reply = await request("/api/admin/models", { method: "POST", body: { path } });
      field.value = "";
      say(`Added as ${reply.model_id}, in ${format.plural(reply.shard_count, "shard")}.`, "well");
    } catch (error) {
      say(error.message, "trouble");
    } finally {
      button.disabled = false;
    }
  } } }, field, button);
  const element = h("details", { class: "add-file" }, h("summary", {}, "Add a GGUF file"),
    h("label", { for: "file-path", class: "hint" }, "Its path on this machine. The file stays as it is; the shards are copies."), form, said);
  watch(["self"], () => { // known once the session has begun
    element.hidden = !onOwnMachine();
  });
  return element;
}
