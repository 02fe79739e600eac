// What all nodes together have, which models the swarm can run now, and which it could with some shards more.

import { h } from "../dom.js";
import * as format from "../format.js";
import { peersUp } from "../nodes.js";
import { get, watch } from "../store.js";

const SHOWN = 8;

export function capacityPanel() {
  const panel = h("div", { class: "capacity" });
  watch(["models", "modelsError", "peers", "stats"], () => panel.replaceChildren(...content()));
  return panel;
}

function content() {
  const { hardware = {} } = get("stats") ?? {};
  const up = peersUp();
  const sum = (mine, theirs) => up.reduce((total, peer) => total + (peer[theirs] ?? 0), mine ?? 0);
  const total = sum(hardware.total_ram_mb, "total_ram_mb");
  const free = sum(hardware.total_ram_mb === undefined ? 0 : hardware.total_ram_mb - hardware.used_ram_mb, "free_ram_mb");
  const models = get("models");
  const able = (models ?? []).filter((model) => model.healthy ?? (model.status === "ready" || model.status === "loaded"));
  const partly = (models ?? []).filter((model) => !able.includes(model) && model.shard_count && model.global_available);
  const largest = [...able].sort((a, b) => b.total_size_bytes - a.total_size_bytes)[0];
  const facts = [
    ["Nodes", format.count(up.length + 1)],
    ["Memory together", format.megabytes(total || null)],
    ["Free of it", format.megabytes(total ? free : null)],
    ["Models it can run", models ? format.count(able.length) : format.NONE],
    ["Largest", largest ? `${largest.name}, ${format.bytes(largest.total_size_bytes)}` : format.NONE],
  ];
  return [
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    ...(!models || !(able.length || partly.length) ? [h("p", { class: "empty" }, models ? "No model is held in this swarm yet. Fetch one under Search, and every node can take a part of it." : get("modelsError") ?? "Looking for models…")] : [
      h("ul", { class: "able" }, able.slice(0, SHOWN).map((model) => line(model, "chip-good", redundancy(model))),
        partly.slice(0, SHOWN).map((model) => line(model, "chip-warn", `${model.global_available} of ${format.plural(model.shard_count, "shard")} held`))),
      able.length + partly.length > 2 * SHOWN ? h("p", { class: "hint" }, h("a", { href: "#/models" }, "All models")) : null]),
  ].filter(Boolean);
}

const line = (model, kind, words) => h("li", {}, h("span", { class: "able-name" }, model.name), h("span", { class: "hint" }, format.bytes(model.total_size_bytes)), h("span", { class: `chip ${kind}` }, words));

/** On how many nodes the rarest shard is. */
function redundancy(model) {
  const rarest = Math.min(...(model.shards ?? []).map((shard) => shard.holders ?? 0));
  if (!Number.isFinite(rarest)) return "can answer";
  return rarest > 1 ? `can lose ${format.plural(rarest - 1, "node")}` : "needs all its nodes";
}
