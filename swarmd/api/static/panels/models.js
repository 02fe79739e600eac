// Models: what there is, how much of it is here, and what can be done about it.

import { askToRemove, removeModel } from "../actions.js";
import { modelPath, request } from "../api.js";
import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";
import { addFileForm } from "./add_file.js";

const STATUS = {
  loaded: ["in memory", "good", "Loaded in memory here; replies start at once."],
  ready: ["ready", "good", "Every layer has a holder; it can answer."],
  partial: ["incomplete", "warn", "Some layers have no connected holder."],
  available: ["known", "plain", "Named by peers; not every layer has a connected holder."],
};

const problems = new Map(); // model id -> sentence of the last refused action
const running = new Set(); // model ids with an action on its way

export function modelsPanel() {
  const list = h("ul", { class: "models" });
  const rows = new Map();
  const adding = addFileForm();
  const draw = () => {
    const models = get("models");
    if (!models) {
      list.replaceChildren(get("modelsError") ? h("li", { class: "trouble" }, get("modelsError")) : h("li", { class: "waiting model", "aria-hidden": "true" }));
      return;
    }
    if (!models.length) {
      list.replaceChildren(h("li", { class: "empty" }, "No model yet. Add a GGUF file of this machine below, or join a swarm that has one: its models appear here by themselves."));
      rows.clear();
      adding.open = true;
      return;
    }
    for (const id of rows.keys()) if (!models.some((model) => model.id === id)) rows.delete(id);
    const elements = models.map((model) => {
      if (!rows.has(model.id)) rows.set(model.id, modelRow(model.id, draw));
      const row = rows.get(model.id);
      row.update(model);
      return row.element;
    });
    // Only when rows came or went: moving an element takes the focus from the button in it.
    if (elements.length !== list.children.length || elements.some((element, at) => list.children[at] !== element)) list.replaceChildren(...elements);
  };
  watch(["models", "modelsError", "acquisitions"], draw);
  return h("div", {}, list, adding);
}

function modelRow(id, redraw) {
  let model = null;
  const name = h("span", { class: "model-name" });
  const facts = h("span", { class: "model-facts" });
  const status = h("span", { class: "chip" });
  const bar = h("progress", { max: 100, value: 0 });
  const barText = h("span", { class: "model-progress-text" });
  const progress = h("div", { class: "model-progress" }, bar, barText);
  const trouble = h("p", { class: "trouble", role: "alert" });
  const button = (text, kind, action) => h("button", { type: "button", class: `small ${kind}`, on: { click: action } }, text);
  const act = async (what, work) => {
    if (running.has(id)) return;
    running.add(id);
    problems.delete(id);
    redraw();
    try {
      const said = await work();
      announce(said);
    } catch (error) {
      problems.set(id, `${what}: ${error.message}`);
    } finally {
      running.delete(id);
      redraw();
    }
  };

  const fetchHere = button("Fetch here", "", () => act("Not fetched", async () => {
    const reply = await request(modelPath(id, "/add"), { method: "POST" });
    if (reply.status === "unavailable") throw new Error(reply.message ?? "no connected node has it");
    return `Fetching ${model.name}`;
  }));
  const cancel = button("Cancel", "quiet", () => act("Not cancelled", async () => {
    await request(`/api/admin/downloads/${encodeURIComponent(id)}/cancel`, { method: "POST" });
    return `Stopped fetching ${model.name}`;
  }));
  const load = button("Load", "", () => act("Not loaded", async () => {
    for (const shard of model.shards.filter((each) => each.local && !each.in_vram)) {
      await request(modelPath(id, `/shards/${shard.index}/load`), { method: "POST" });
    }
    return `${model.name} is in memory`;
  }));
  const unload = button("Unload", "", () => act("Not unloaded", async () => {
    const reply = await request(modelPath(id, "/unload"), { method: "POST" });
    return `${model.name} left memory, about ${format.megabytes(reply.estimated_freed_mb)} are free`;
  }));
  const remove = button("Remove", "quiet", async () => {
    if (await askToRemove(model)) await act("Not removed", () => removeModel(model));
  });
  const buttons = h("div", { class: "model-buttons" }, fetchHere, cancel, load, unload, remove);
  const element = h("li", { class: "model", "data-model": id },
    h("div", { class: "model-head" }, name, status), facts, progress, buttons, trouble);

  const update = (fresh) => {
    model = { shards: [], ...fresh };
    const [text, kind, meaning] = STATUS[model.status] ?? [String(model.status ?? ""), "plain", ""];
    setText(name, model.name);
    name.title = model.id;
    setText(status, text);
    status.className = `chip chip-${kind}`;
    status.title = meaning;
    setText(facts, factsOf(model));
    const arriving = arrival(model);
    progress.hidden = !arriving;
    if (arriving) {
      if (arriving.percent === null) bar.removeAttribute("value");
      else bar.value = arriving.percent;
      bar.setAttribute("aria-label", `Fetching ${model.name}`);
      setText(barText, arriving.text);
    }
    const local = model.shards.filter((shard) => shard.local);
    const complete = model.shard_count > 0 && local.length >= model.shard_count;
    const busy = running.has(id);
    show(fetchHere, !complete && !arriving?.going, busy);
    show(cancel, Boolean(arriving?.cancellable), busy);
    show(load, local.some((shard) => !shard.in_vram), busy);
    show(unload, local.some((shard) => shard.in_vram), busy);
    show(remove, local.length > 0, busy);
    for (const each of buttons.children) each.setAttribute("aria-label", `${each.textContent} ${model.name}`);
    setText(trouble, problems.get(id) ?? arriving?.failure ?? "");
    trouble.hidden = !trouble.textContent;
  };
  return { element, update };
}

function show(button, wanted, busy) {
  button.hidden = !wanted;
  button.disabled = busy;
}

function factsOf(model) {
  const held = model.hosted_shards ?? model.shards.filter((shard) => shard.local).length;
  const parts = [];
  if (model.total_size_bytes) parts.push(format.bytes(model.total_size_bytes));
  parts.push(model.shard_count ? `${held} of ${format.plural(model.shard_count, "shard")} here` : "shards not known yet");
  if (model.architecture_supported === false) parts.push(`cannot run here: ${model.architecture || "its architecture"} is not supported`);
  if (model.peers_hosting) parts.push(`${format.plural(model.peers_hosting, "other node")} ${model.peers_hosting === 1 ? "holds" : "hold"} some`);
  return parts.join(" · ");
}

/** Progress of a fetch as { going, percent, text, cancellable, failure }; null when there is none. */
function arrival(model) {
  const row = get("acquisitions").find((each) => each.model_id === model.id);
  const own = model.acquisition_progress;
  const state = row ? row.state : model.acquisition;
  const failure = typeof state === "object" && state?.failed ? state.failed.reason : null;
  if (failure || state === "failed") {
    return { going: false, percent: 0, text: "", cancellable: false, failure: `Fetching failed: ${failure ?? "see the activity list"}. "Fetch here" goes on where it stopped.` };
  }
  if (state !== "downloading" && state !== "awaiting_manifest") return null;
  const facts = row ?? own ?? {};
  const percent = row?.overall_pct ?? (facts.total_bytes ? (100 * facts.downloaded_bytes) / facts.total_bytes : null);
  const text = percent === null ? "waiting for the shard list" : [
    `${Math.floor(percent)} %`, `${format.bytes(facts.downloaded_bytes)} of ${format.bytes(facts.total_bytes)}`,
    facts.speed_bytes_per_sec ? `${format.bytes(facts.speed_bytes_per_sec)}/s` : null, row?.eta_secs ? `${format.duration(row.eta_secs)} left` : null,
  ].filter(Boolean).join(" · ");
  return { going: true, percent, text, cancellable: Boolean(row?.cancellable), failure: null };
}
