// LoRA adapters of this node: registered from a file on it, used as `model:adapter`.

import { oneAtATime } from "../actions.js";
import { request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { field, problemBeside } from "../forms.js";
import { copyText } from "../markdown.js";
import { resource, reading } from "../resource.js";
import { get, watch } from "../store.js";

export function adaptersPanel() {
  const list = h("div", { class: "rows" });
  const panel = h("div", { class: "adapters" }, h("p", { class: "hint" }, "An adapter changes how a model answers without another copy of it. The file stays where it is on this node; other nodes of a reply fetch their parts by themselves."), list, form());
  const source = resource(panel, { read: reading("/api/admin/adapters"), draw, everyMs: 15000 });

  function draw({ data, error, missing }) {
    if (missing) return list.replaceChildren(h("p", { class: "empty" }, "This node keeps no adapters."));
    if (error && !data) return list.replaceChildren(h("p", { class: "trouble" }, error.message));
    if (!data) return list.replaceChildren(h("div", { class: "waiting row-waiting" }));
    if (!data.adapters.length) return list.replaceChildren(h("p", { class: "empty" }, "No adapter yet. Put a LoRA in safetensors format into the folder of adapters, then register it below."));
    return list.replaceChildren(...data.adapters.map((adapter) => row(adapter)));
  }

  function row(adapter) {
    const said = h("p", { class: "trouble", role: "status" });
    const remove = h("button", { type: "button", class: "small", "aria-label": `Remove the adapter ${adapter.name}` }, "Remove…");
    const name = `${adapter.base_model}:${adapter.id}`;
    const copy = h("button", { type: "button", class: "quiet small", "aria-label": `Copy ${name}`, on: { click: () => copyText(name, copy) } }, "Copy");
    const work = oneAtATime(() => {
      remove.disabled = work.busy;
      setText(said, work.trouble);
    });
    remove.addEventListener("click", async () => {
      if (!(await confirmDanger({ title: `Remove the adapter ${adapter.name}?`, text: "Requests that name it are refused from then on. Its file stays on the disk.", danger: "Remove" }))) return;
      await work.run("Not removed", async () => {
        const { message } = await request(`/api/admin/adapters/${encodeURIComponent(adapter.id)}`, { method: "DELETE" });
        await source.again();
        return message;
      });
    });
    return h("article", { class: "row-card", "data-adapter": adapter.id },
      h("div", {}, h("p", { class: "row-name" }, adapter.name),
        h("p", { class: "hint" }, `for ${adapter.base_model} · rank ${adapter.rank} · alpha ${format.fixed(adapter.alpha, Number.isInteger(adapter.alpha) ? 0 : 2)}`),
        h("p", { class: "hint" }, "ask for ", h("code", {}, name), copy), h("p", { class: "hint code" }, adapter.path)),
      h("div", { class: "row-buttons" }, remove), said);
  }

  function form() {
    const base = h("select", { id: "adapter-base", required: true });
    const name = h("input", { id: "adapter-name", required: true, maxlength: 256, autocomplete: "off" });
    const path = h("input", { id: "adapter-path", required: true, maxlength: 4096, autocomplete: "off", spellcheck: "false", placeholder: "my-adapter.safetensors" });
    const id = h("input", { id: "adapter-id", maxlength: 64, autocomplete: "off", spellcheck: "false" });
    const rank = h("input", { id: "adapter-rank", type: "number", min: 1, step: 1, inputmode: "numeric" });
    const alpha = h("input", { id: "adapter-alpha", type: "number", step: "any", inputmode: "decimal" });
    watch(["models"], () => {
      const before = base.value;
      base.replaceChildren(...(get("models") ?? []).map((model) => h("option", { value: model.id }, model.name)));
      if (before) base.value = before;
    });
    const button = h("button", { type: "submit", class: "primary" }, "Register");
    const said = h("p", { class: "said", role: "status" });
    const bar = h("progress", { hidden: true, "aria-label": "Registering" });
    const fields = { base_model: base, name, path, id, rank, alpha };
    const work = oneAtATime(() => {
      button.disabled = work.busy;
      bar.hidden = !work.busy;
      said.className = `said ${work.trouble ? "trouble" : "well"}`;
      setText(said, work.busy ? "Checking and converting the file…" : work.trouble);
    });
    const element = h("form", { class: "stack", on: { submit: (event) => {
      event.preventDefault();
      work.run("Not registered", async () => {
        const body = { name: name.value.trim(), base_model: base.value, path: path.value.trim() };
        if (id.value.trim()) body.id = id.value.trim();
        if (rank.value) body.rank = Number(rank.value);
        if (alpha.value) body.alpha = Number(alpha.value);
        await problemBeside(fields, () => request("/api/admin/adapters", { method: "POST", body }));
        element.reset();
        await source.again();
        return `${body.name} is registered`;
      });
    } } },
    h("div", { class: "field-grid" },
      field("Base model", base), field("Name", name), field("File", path, "In the folder of adapters, or a whole path within the allowed folders."),
      field("Id", id, "Stands behind the colon; left empty, one is made up.", true), field("Rank", rank, "Left empty: as the file says.", true), field("Alpha", alpha, "Left empty: as the file says.", true)),
    h("div", { class: "row" }, button, bar, said));
    return h("details", { class: "fold" }, h("summary", {}, "Register an adapter"), element);
  }
  return panel;
}
