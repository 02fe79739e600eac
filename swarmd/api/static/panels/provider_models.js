// Models that providers have, by provider, and whether one answers.

import { oneAtATime } from "../actions.js";
import { request } from "../api.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { copyText } from "../markdown.js";
import { resource, reading } from "../resource.js";
import { get, set, watch } from "../store.js";
import { providerName, stateWords } from "./providers.js";

const SHOWN = 60; // some providers have hundreds
const MOST = 20; // of one question; the contract's limit

export function providerModels() {
  const words = h("input", { type: "search", id: "provider-words", autocomplete: "off", spellcheck: "false", placeholder: "gpt, claude, llama…" });
  const list = h("div", { class: "rows" });
  const ask = h("button", { type: "button", class: "small" }, "Ask whether these answer");
  const said = h("span", { class: "hint", role: "status" });
  const panel = h("div", {}, h("div", { class: "row filters" }, h("div", { class: "field" }, h("label", { for: words.id }, "Find"), words), ask, said), list);
  const states = new Map();
  let models = null;
  const source = resource(panel, { read: reading("/api/admin/provider-models"), everyMs: 60000, draw: ({ data, error, missing }) => {
    models = data?.models ?? models;
    if (data) set("providerModels", data.models);
    ask.hidden = !models?.length;
    if (missing) return list.replaceChildren(h("p", { class: "empty" }, "This node speaks to no providers."));
    if (error && !models) return list.replaceChildren(h("p", { class: "trouble" }, error.message));
    if (!models) return list.replaceChildren(h("div", { class: "waiting row-waiting" }));
    return draw();
  } });
  watch(["providers"], () => get("providers") && source.again()); // a key was stored, or a server added
  const found = () => (models ?? []).filter((model) => `${model.id} ${model.name} ${model.provider}`.toLowerCase().includes(words.value.trim().toLowerCase()));
  function draw() {
    const fitting = found();
    ask.hidden = !fitting.length;
    if (!fitting.length) return list.replaceChildren(h("p", { class: "empty" }, models.length ? "Nothing fits these words." : "No models yet: store a key above, or add a server."));
    return list.replaceChildren(h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": "Models of providers" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Model", "Provider", "Ask for", "State"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, fitting.slice(0, SHOWN).map(row)))), fitting.length > SHOWN && h("p", { class: "hint" }, `and ${format.count(fitting.length - SHOWN)} more: type to find one`) || "");
  }
  function row(model) {
    const name = `${model.provider}:${model.id}`;
    const state = states.get(model.id);
    const [text, kind] = state ? stateWords(state.status) : ["", "plain"];
    const copy = h("button", { type: "button", class: "quiet small", "aria-label": `Copy ${name}`, on: { click: () => copyText(name, copy) } }, "Copy");
    return h("tr", {}, h("td", {}, model.name || model.id), h("td", {}, providerName(model.provider)), h("td", {}, h("code", {}, name), " ", copy),
      h("td", {}, state ? h("span", { class: `chip chip-${kind}` }, `${text}${state.latency_ms ? `, ${format.ms(state.latency_ms)}` : ""}`) : format.NONE));
  }
  words.addEventListener("input", () => models && draw());
  const work = oneAtATime(() => {
    ask.disabled = work.busy;
    said.className = work.trouble ? "trouble" : "hint";
    setText(said, work.busy ? "Each is asked for one token…" : work.trouble);
  });
  ask.addEventListener("click", () => work.run("Not asked", async () => {
    const asked = found().slice(0, MOST).map(({ id }) => id);
    const told = await request("/api/admin/provider-model-status", { method: "POST", body: { models: asked } });
    for (const one of told.models ?? []) states.set(one.model, one);
    draw();
    return `${format.plural(told.models?.length ?? 0, "model")} asked`;
  }));
  return panel;
}
