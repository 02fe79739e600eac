// The page of models: each with where its shards are, what the autopilot may do with it, and what people can.

import { askToRemove, deleteShard, fetchMissing, fetchShard, hubPage, oneAtATime, removeModel } from "../actions.js";
import { modelPath, request } from "../api.js";
import { readPolicy, setLock } from "../autopilot.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";
import { badge } from "../tips.js";
import { addFileForm } from "./add_file.js";
import { policyForm } from "./policy.js";
import { shardLegend, shardMap } from "./shard_map.js";
import { showMenu } from "./shard_menu.js";
import { gapsOf } from "./strip.js";

const STATUS = {
  loaded: ["in memory", "good", "Loaded in this node's memory: replies start at once."],
  ready: ["ready", "good", "Every layer has a connected holder: the swarm can answer with it."],
  partial: ["incomplete", "warn", "This node holds some of it, but some layers have no connected holder, so it cannot answer."],
  available: ["known", "plain", "Other nodes told of it; not every layer has a connected holder."],
};
const TRUST = {
  Discovered: ["discovered", "plain", "Found on another node. This node does not fetch it by itself until somebody pins it here or the swarm keeps asking for it."],
  Pinned: ["pinned", "good", "Somebody added or fetched it on this node, so the node may keep fetching it by itself."],
  DemandVerified: ["asked for", "good", "It was asked for often enough that this node may fetch it by itself."],
  NetworkPopular: ["popular", "good", "Many nodes of the swarm hold it, so this node may fetch it by itself."],
};

export function modelCards() {
  const list = h("ul", { class: "cards" });
  const legend = shardLegend();
  const rows = new Map();
  const adding = addFileForm();
  const draw = () => {
    const models = get("models");
    legend.hidden = Boolean(models) && !models.some((model) => model.shards?.length);
    if (!models) {
      return list.replaceChildren(get("modelsError") ? h("li", { class: "trouble" }, get("modelsError")) : h("li", { class: "waiting model-card", "aria-hidden": "true" }));
    }
    for (const id of rows.keys()) if (!models.some((model) => model.id === id)) rows.delete(id);
    if (!models.length) {
      return list.replaceChildren(h("li", { class: "empty" }, "No model yet. ", h("a", { href: "#/search" }, "Search Hugging Face"), " for one, add a GGUF file of this machine below, or join a swarm that has one."));
    }
    const elements = models.map((model) => {
      if (!rows.has(model.id)) rows.set(model.id, modelCard(model.id, draw));
      const row = rows.get(model.id);
      row.update(model);
      return row.element;
    });
    if (elements.length !== list.children.length || elements.some((element, at) => list.children[at] !== element)) list.replaceChildren(...elements);
    return undefined;
  };
  watch(["models", "modelsError", "acquisitions", "policies", "hasAutopilot", "peers", "self"], draw);
  return h("div", {}, legend, list, adding);
}

function modelCard(id, redraw) {
  let model = null;
  const work = oneAtATime(redraw);
  const name = h("h3", { class: "model-name" });
  const [status, trust, quant] = [badge(), badge(), badge()];
  const facts = h("p", { class: "model-facts" });
  const bar = h("progress", { max: 100 });
  const barText = h("span", { class: "model-progress-text" });
  const progress = h("div", { class: "model-progress" }, bar, barText, h("a", { href: "#/downloads" }, "Downloads"));
  const trouble = h("p", { class: "trouble", role: "alert" });
  const map = shardMap((index, cell) => openShard(index, cell));
  const policy = policyForm(id);
  const link = h("a", { class: "hub-link", target: "_blank", rel: "noopener noreferrer" });
  const button = (text, kind, what, action) => h("button", { type: "button", class: `small ${kind}`, on: { click: () => work.run(what, action) } }, text);
  const each = async (shards, path) => {
    for (const shard of shards) await request(modelPath(id, `/shards/${shard.index}/${path}`), { method: "POST" });
  };

  const fetchRest = button("Fetch what is missing", "primary", "Not fetched", () => fetchMissing(model));
  const load = button("Load into memory", "", "Not loaded", async () => {
    await each(model.shards.filter((shard) => shard.local && !shard.in_vram), "load");
    return `${model.name} is in memory`;
  });
  const unload = button("Unload", "", "Not unloaded", async () => {
    const reply = await request(modelPath(id, "/unload"), { method: "POST" });
    return `${model.name} left memory, about ${format.megabytes(reply.estimated_freed_mb)} are free`;
  });
  const remove = button("Remove…", "quiet", "Not removed", async () => (await askToRemove(model) ? removeModel(model) : null));
  const buttons = h("div", { class: "card-buttons" }, fetchRest, load, unload, remove, link);

  function openShard(index, cell) {
    const shard = model.shards.find((one) => one.index === index);
    if (!shard) return;
    const [named, whole] = [format.shard(index), format.shard(index, model.shards.length)];
    const called = named[0].toUpperCase() + named.slice(1);
    const entry = (text, what, action, more = {}) => ({ text, ...more, run: () => work.run(what, action) });
    const post = (path, said) => async () => {
      await request(modelPath(id, `/shards/${index}/${path}`), { method: "POST" });
      return said;
    };
    const lock = (locked) => async () => {
      await setLock(id, index, locked);
      return `${called} is ${locked ? "locked" : "unlocked"}`;
    };
    const entries = [];
    if (!shard.local && shard.download) entries.push({ text: "Show the download", run: () => { location.hash = "#/downloads"; } });
    else if (!shard.local) {
      const note = shard.holders ? `${format.bytes(shard.size_bytes)} from ${format.plural(shard.holders, "node")}` : model.hf_source ? `${format.bytes(shard.size_bytes)} from Hugging Face` : "no connected node holds it";
      entries.push(entry("Download to this node", `${called} not fetched`, () => fetchShard(model, index), { note }));
    } else {
      entries.push(shard.in_vram
        ? entry("Unload from memory", `${called} not unloaded`, post("unload", `${called} left memory`), { note: "its file stays" })
        : entry("Load into memory", `${called} not loaded`, post("load", `${called} is in memory`)));
      if (get("hasAutopilot")) {
        entries.push(shard.locked ? entry("Unlock", `${called} not unlocked`, lock(false), { note: "the autopilot may drop it" })
          : entry("Lock", `${called} not locked`, lock(true), { note: "the autopilot never drops it" }));
      }
      entries.push(entry("Delete from disk…", `${called} not deleted`, () => deleteShard(model, shard), { danger: true }));
    }
    showMenu(`${model.name}: ${whole}`, entries, cell);
  }

  const element = h("li", { class: "model-card", "data-card": id },
    h("div", { class: "card-top" }, h("div", { class: "card-title" }, name, status.element, trust.element, quant.element), facts),
    progress, map.element, buttons, trouble, policy.element);
  new IntersectionObserver(([entry]) => entry.isIntersecting && readPolicy(id)).observe(element);

  const update = (fresh) => {
    model = { shards: [], ...fresh };
    setText(name, model.name);
    name.title = model.id;
    status.set(...(STATUS[model.status] ?? [String(model.status ?? ""), "plain", "A state that this page does not know."]));
    trust.set(...(TRUST[model.trust_level] ?? [String(model.trust_level ?? ""), "plain", "A trust level that this page does not know."]));
    quant.set(model.quantization ?? "", "plain", "How its weights are stored: fewer bits for each take less memory and lose some quality.");
    setText(facts, factsOf(model));
    const gaps = gapsOf(model);
    const row = get("acquisitions").find((one) => one.model_id === id);
    const going = row && ["downloading", "awaiting_manifest", "queued", "paused"].includes(row.state);
    progress.hidden = !going;
    if (going) {
      bar.value = row.overall_pct ?? 0;
      bar.setAttribute("aria-label", `Fetching ${model.name}`);
      setText(barText, row.state === "paused" ? `paused at ${Math.floor(row.overall_pct ?? 0)} %` : row.state === "awaiting_manifest" ? "reading the list of its shards" : [
        `${Math.floor(row.overall_pct ?? 0)} %`, row.speed_bytes_per_sec ? `${format.bytes(row.speed_bytes_per_sec)}/s` : "waiting its turn",
        row.eta_secs ? `${format.duration(row.eta_secs)} left` : null].filter(Boolean).join(" · "));
    }
    map.element.hidden = !model.shards.length;
    map.update(model, coverage(model, gaps), gaps.length > 0);
    const local = model.shards.filter((shard) => shard.local);
    const show = (control, wanted) => {
      control.hidden = !wanted;
      control.disabled = work.busy;
      control.setAttribute("aria-label", `${control.textContent.replace("…", "")}: ${model.name}`);
    };
    show(fetchRest, !(model.shard_count > 0 && local.length >= model.shard_count) && !going && model.architecture_supported !== false);
    show(load, local.some((shard) => !shard.in_vram) && model.architecture_supported !== false);
    show(unload, local.some((shard) => shard.in_vram));
    show(remove, local.length > 0);
    const page = hubPage(model.hf_source?.repo_id);
    link.hidden = !page;
    if (page) {
      link.href = page;
      setText(link, `${model.hf_source.repo_id} on Hugging Face ↗`);
    }
    setText(trouble, work.trouble || (row?.state === "failed" ? `Fetching failed: ${row.reason ?? "see the activity list"}` : ""));
    trouble.hidden = !trouble.textContent;
    policy.update(get("policies").get(id) ?? null, get("hasAutopilot") !== false);
    if (element.isConnected && inView(element)) readPolicy(id);
  };
  return { element, update };
}

const inView = (element) => ((place) => place.bottom > 0 && place.top < innerHeight)(element.getBoundingClientRect());

function factsOf(model) {
  const held = model.hosted_shards ?? model.shards.filter((shard) => shard.local).length;
  const parts = [];
  if (model.total_size_bytes) parts.push(format.bytes(model.total_size_bytes));
  parts.push(model.shard_count ? `${held} of ${format.plural(model.shard_count, "shard")} here` : "its shards are not known yet");
  if (model.estimated_vram_mb) parts.push(`about ${format.megabytes(model.estimated_vram_mb)} of memory to run all of it`);
  if (model.layer_count) parts.push(format.plural(model.layer_count, "layer"));
  if (model.context_length) parts.push(`reads ${format.count(model.context_length)} tokens`);
  if (model.architecture_supported === false) parts.push(`cannot run here: ${model.architecture || "its architecture"} is not supported`);
  return parts.join(" · ");
}

/** How safe it is, in one sentence. */
function coverage(model, gaps) {
  const shards = model.shards ?? [];
  if (!shards.length) return "";
  if (gaps.length) return `No connected node holds ${gaps.length === 1 ? "shard" : "shards"} ${format.ranges(gaps)}: the swarm cannot answer with it until a node that has ${gaps.length === 1 ? "it" : "them"} connects or fetches ${gaps.length === 1 ? "it" : "them"}.`;
  const fewest = Math.min(...shards.map((shard) => shard.holders ?? 0));
  if (fewest > 1) return `Every shard is on at least ${format.plural(fewest, "connected node")}.`;
  const thin = shards.filter((shard) => (shard.holders ?? 0) <= 1).map((shard) => shard.index);
  if (thin.length === shards.length) return "Each shard is on one connected node only: without that node, nobody can answer with this model.";
  return `Every shard has a holder, ${thin.length === 1 ? "shard" : "shards"} ${format.ranges(thin)} only one: without that node, nobody can answer with this model.`;
}
