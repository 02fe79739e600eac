// What a row of the downloads says to people: its state, where the bytes come from, how long it takes.

import * as format from "./format.js";
import { nodeName } from "./nodes.js";
import { get } from "./store.js";

const STATES = {
  downloading: ["downloading", "info"],
  awaiting_manifest: ["reading the shard list", "info"],
  queued: ["waiting its turn", "plain"],
  paused: ["paused", "warn"],
  complete: ["here", "good"],
  failed: ["failed", "bad"],
  cancelled: ["cancelled", "plain"],
};
export const SHARD_STATES = { pending: "waiting", downloading: "arriving", verifying: "being checked", complete: "here", failed: "failed" };

export const stateOf = (row) => STATES[row.state] ?? [String(row.state ?? ""), "plain"];
export const isOver = (row) => ["complete", "failed", "cancelled"].includes(row.state);

/** Those that run or wait, in the order in which they run; then the others, as the node orders them. */
export function downloads() {
  const rows = get("acquisitions") ?? [];
  const going = rows.filter((row) => !isOver(row)).sort((a, b) => (a.place ?? 0) - (b.place ?? 0));
  return { going, over: rows.filter(isOver) };
}

/** Peers, Hugging Face or both, by what the shards came from; null where nobody sent any yet. */
export function sourceOf(row) {
  const from = new Set((row.shard_details ?? []).map((shard) => shard.source).filter(Boolean));
  const hub = from.delete("huggingface") || row.source === "huggingface";
  const nodes = from.size === 1 ? nodeName([...from][0]) : format.plural(from.size, "node");
  if (hub) return from.size ? `Hugging Face and ${nodes}` : "Hugging Face";
  return from.size ? nodes : null;
}

export const shardSource = (source) => (!source ? null : source === "huggingface" ? "from Hugging Face" : `from ${nodeName(source)}`);

export function factsOf(row) {
  const shards = row.total_shards ? `${row.verified_shards ?? row.downloaded_shards ?? 0} of ${format.plural(row.total_shards, "shard")}` : null;
  const source = sourceOf(row);
  const from = source && `from ${source}`;
  if (row.state === "complete") return [format.bytes(row.total_bytes), shards, from].filter(Boolean).join(" · ");
  const parts = row.total_bytes ? [`${Math.floor(row.overall_pct ?? 0)} %`, `${format.bytes(row.downloaded_bytes)} of ${format.bytes(row.total_bytes)}`] : [];
  parts.push(shards);
  if (row.state === "awaiting_manifest") parts.push(row.log?.[0] ?? "asking for the list of its shards");
  if (row.state === "downloading") {
    parts.push(row.speed_bytes_per_sec ? `${format.bytes(row.speed_bytes_per_sec)}/s` : "no bytes right now");
    if (row.eta_secs !== null && row.eta_secs !== undefined) parts.push(`${format.duration(row.eta_secs)} left`);
    parts.push(from);
  }
  return parts.filter(Boolean).join(" · ");
}
