// What the connected nodes can do together, as the node reckons it (`swarm_capacity`).

import { h } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";

const SHOWN = 8;

export function capacityPanel() {
  const panel = h("div", { class: "capacity" });
  let drawn = "";
  watch(["stats"], () => {
    const { computed_at: _, ...capacity } = get("stats")?.swarm_capacity ?? {};
    const next = JSON.stringify(capacity);
    if (next === drawn) return; // every tick tells it again
    drawn = next;
    panel.replaceChildren(...(capacity.serveable_models ? content(capacity) : [h("p", { class: "empty" }, "Looking for models…")]));
  });
  return panel;
}

function content({ online_nodes: nodes, gpu_nodes: gpus, min_redundancy: copies, serveable_models: able, aspirational_models: partly, headline_model: largest }) {
  const facts = [
    ["Nodes", format.count(nodes)],
    ["With a GPU", format.count(gpus)],
    ["Models it can run", format.count(able.length)],
    ["Nodes it can lose", able.length ? format.count(copies - 1) : format.NONE],
    ["Largest", largest ? `${largest.display_name}, ${format.megabytes(largest.size_mb)}` : format.NONE],
  ];
  const empty = "No model is held in this swarm yet. Fetch one under Search, and every node can take a part of it.";
  return [
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    able.length || partly.length
      ? h("ul", { class: "able" }, able.slice(0, SHOWN).map((model) => line(model, "chip-good", `on ${format.plural(model.holders, "node")}`)),
        partly.slice(0, SHOWN).map((model) => line(model, "chip-warn", `${model.shards_covered} of ${format.plural(model.total_shards, "shard")} held`)))
      : h("p", { class: "empty" }, empty),
    able.length > SHOWN || partly.length > SHOWN ? h("p", { class: "hint" }, h("a", { href: "#/models" }, "All models")) : "",
  ];
}

const line = (model, kind, words) => h("li", {}, h("span", { class: "able-name" }, model.display_name), h("span", { class: "hint" }, format.megabytes(model.size_mb)), h("span", { class: `chip ${kind}` }, words));
