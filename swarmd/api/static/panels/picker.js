// Which model the chat asks: those of the swarm, those with an adapter, and those of providers.

import { request } from "../api.js";
import { h } from "../dom.js";
import { resource } from "../resource.js";
import { get, set, watch } from "../store.js";
import { providerName } from "./providers.js";

const REMEMBERED = "swarmd-model";
const MOST = 200; // of each group; some providers have hundreds, and the page of providers finds the rest
const REFRESH_MS = 60000; // as long as the node keeps a provider's list

const canRun = (model) => (model.status === "loaded" || model.status === "ready") && model.architecture_supported !== false;

/** Names that can be asked for now, the swarm's own first: { name, label, group, provider }. */
export function askable() {
  const own = (get("models") ?? []).filter(canRun);
  const adapters = (get("adapters") ?? []).filter(({ base_model: base }) => own.some(({ id }) => id === base));
  return [
    ...own.map(({ id, name }) => ({ name: id, label: name, group: "This swarm" })),
    ...adapters.map(({ id, name, base_model: base }) => ({ name: `${base}:${id}`, label: `${name} (${base})`, group: "With an adapter" })),
    ...(get("providerModels") ?? []).map(({ id, name, provider }) => ({ name: `${provider}:${id}`, label: name || id, group: providerName(provider), provider })),
  ];
}

/** Provider that answers for this name, or null where the swarm does. */
export const providerOf = (name) => askable().find((one) => one.name === name)?.provider ?? null;

/** `changed`: () => void, after what can be asked changed. Answers the element; its value is the name, or "". */
export function modelPicker(changed) {
  const select = h("select", { id: "chat-model" });
  resource(select, { read: readOthers, everyMs: REFRESH_MS, draw: () => {} });
  let drawn = "";
  watch(["models", "modelsError", "adapters", "providerModels"], () => {
    const all = askable();
    const waiting = (get("models") ?? []).filter((model) => !canRun(model));
    const next = JSON.stringify([all, waiting.map(({ id, name }) => [id, name])]);
    if (next !== drawn) {
      drawn = next;
      const before = [sessionStorage.getItem(REMEMBERED), select.value]; // providers are heard of after the swarm
      const groups = new Map();
      for (const one of all) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
      const own = groups.get("This swarm") ?? [];
      const options = (list) => list.slice(0, MOST).map(({ name, label }) => h("option", { value: name }, label));
      const ours = [...options(own), ...waiting.map(({ id, name }) => h("option", { value: id, disabled: true }, `${name} (incomplete)`))];
      groups.delete("This swarm");
      const others = [...groups].map(([label, list]) => h("optgroup", { label }, options(list)));
      select.replaceChildren(...(others.length && ours.length ? [h("optgroup", { label: "This swarm" }, ours)] : ours), ...others);
      const loaded = (get("models") ?? []).find(({ id, status }) => status === "loaded" && own.some(({ name }) => name === id));
      const chosen = before.find((wish) => all.some(({ name }) => name === wish)) ?? loaded?.id ?? all[0]?.name;
      if (chosen) select.value = chosen;
      else select.prepend(h("option", { value: "", selected: true }, "no model can answer yet"));
      select.disabled = !all.length;
    }
    changed();
  });
  watch(["providers"], () => get("providers") && readOthers().catch(() => {})); // a key was stored, or a server added
  select.addEventListener("change", () => sessionStorage.setItem(REMEMBERED, select.value));
  return select;
}

/** What an older node has not, it does not offer. */
async function readOthers() {
  const [adapters, models] = await Promise.allSettled([request("/api/admin/adapters"), request("/api/admin/provider-models")]);
  if (adapters.value) set("adapters", adapters.value.adapters);
  if (models.value) set("providerModels", models.value.models);
}

/** Says why nothing can be asked. */
export function emptySentence() {
  if (get("modelsError") && !get("models")) return "The models of this node could not be read, so there is nobody to ask yet.";
  if (!get("models")) return "Looking for models…";
  return get("models").length
    ? "No model is complete: some layers have no connected holder. Fetch one under Models, or connect a node that holds the rest."
    : "This node knows no model yet. Join a swarm that has one, add a GGUF file under Models, or store the key of a provider.";
}
