// What the network page knows beyond the overview: connections, members, regions. Read while the page is in view, and put
// together with the peers into one row for each node.

import { request } from "./api.js";
import * as format from "./format.js";
import { isUp, nodeName, shortId } from "./nodes.js";
import { get, set, watch } from "./store.js";

const LINKS_MS = 3000; // round trips and bytes have no event of their own
const SHORTEST_MS = 1000; // between two reads that a rate is told from
const SLOW_MS = 15000; // members and regions change by hand, or with a peer, which is an event
const QUIET_MS = 2000; // peers come and go in bursts: with the reads above, far under the 200 a minute that the node answers

async function read(path, name) {
  try {
    set(name, await request(path));
    set(`${name}Error`, null);
  } catch (error) {
    set(`${name}Error`, error.message);
  }
}

export const readMembers = () => read("/api/admin/members", "members");
const readRegions = () => read("/api/admin/network-map", "networkMap");

let before = null; // { at, bytes: Map of connections } at the last read

export async function readLinks() {
  await read("/api/admin/links", "links");
  const links = get("links");
  if (!links || get("linksError")) return;
  const at = performance.now();
  if (before && at - before.at < SHORTEST_MS) return; // two reads at once, at the start: no rate can be told from them
  const bytes = new Map(links.map((link) => [`${link.node_id} ${link.purpose} ${link.dialled}`, link]));
  const rates = new Map();
  if (before) {
    const seconds = (at - before.at) / 1000;
    for (const [key, link] of bytes) {
      const last = before.bytes.get(key);
      if (!last || last.up_seconds > link.up_seconds) continue; // another connection than then
      const id = shortId(link.node_id);
      const sum = rates.get(id) ?? { in: 0, out: 0 };
      sum.in += Math.max(0, link.bytes_in - last.bytes_in) / seconds;
      sum.out += Math.max(0, link.bytes_out - last.bytes_out) / seconds;
      rates.set(id, sum);
    }
  }
  set("linkRates", before ? rates : null);
  before = { at, bytes };
}

export const readNetwork = () => Promise.all([readLinks(), readMembers(), readRegions()]);

/** Keeps all of it fresh as long as `element` is on the page and somebody can see it. */
export function follow(element) {
  const seen = () => element.isConnected && !document.hidden && get("connection").phase === "open";
  setInterval(() => seen() && readLinks(), LINKS_MS);
  setInterval(() => seen() && Promise.all([readMembers(), readRegions()]), SLOW_MS);
  let phase = get("connection").phase;
  let known = "";
  let timer = 0;
  watch(["connection", "peers"], () => {
    const opened = phase !== "open" && get("connection").phase === "open";
    phase = get("connection").phase;
    const now = (get("peers") ?? []).map((peer) => `${peer.node_id}${peer.connected}`).join();
    if (!opened && now === known) return;
    known = now;
    clearTimeout(timer);
    timer = setTimeout(() => seen() && readNetwork(), opened ? 0 : QUIET_MS);
  });
}

/** This node and all others, one row each; the connections, both purposes, are summed. */
export function networkNodes() {
  const self = get("self");
  const stats = get("stats") ?? {};
  const links = get("links") ?? [];
  const rates = get("linkRates");
  const rows = (get("peers") ?? []).map((peer) => {
    const id = shortId(peer.node_id);
    const own = links.filter((link) => shortId(link.node_id) === id);
    const control = own.find((link) => link.purpose === "control");
    const up = isUp(peer);
    const sum = (name) => (own.length ? own.reduce((total, link) => total + link[name], 0) : null);
    const via = (up && (control ? control.via : peer.via)) || null;
    return {
      id, up, via, self: false, name: nodeName(id), region: peer.region ?? "??",
      rtt: up ? control?.rtt_ms ?? peer.predicted_rtt_ms ?? peer.latency_ms ?? null : null,
      least: up ? control?.min_rtt_ms ?? peer.measured_min_rtt_ms ?? peer.latency_ms ?? null : null,
      samples: up ? peer.rtt_samples ?? null : null,
      address: control?.address ?? (via ? null : peer.addresses?.[0] ?? null),
      dialled: control?.dialled ?? null, linkSeconds: control?.up_seconds ?? null,
      bytesIn: sum("bytes_in"), bytesOut: sum("bytes_out"), queued: sum("queued_bytes"), streams: sum("streams"),
      rateIn: rates?.get(id)?.in ?? null, rateOut: rates?.get(id)?.out ?? null,
      memory: peer.total_ram_mb ?? null, free: peer.free_ram_mb ?? null,
      shards: peer.hosted_shards ?? 0, models: peer.hosted_models ?? [], gpu: peer.gpu ?? null,
      trust: peer.trust_score ?? null, version: peer.version ?? null, seconds: peer.uptime_seconds ?? null,
      lastSeen: format.moment(peer.last_seen), lan: peer.is_lan_peer === true,
    };
  });
  const all = (name) => (links.length ? links.reduce((total, link) => total + link[name], 0) : null);
  const rate = (name) => (rates ? [...rates.values()].reduce((total, one) => total + one[name], 0) : null);
  const mine = {
    id: self?.id ?? "", up: true, via: null, self: true, name: "this node", region: stats.region ?? "??", rtt: null, least: null,
    bytesIn: all("bytes_in"), bytesOut: all("bytes_out"), rateIn: rate("in"), rateOut: rate("out"),
    memory: stats.hardware?.total_ram_mb ?? null, gpu: stats.hardware?.gpu_name ?? null, shards: stats.hosted_shards ?? 0,
    free: stats.hardware ? stats.hardware.total_ram_mb - stats.hardware.used_ram_mb : null,
    models: (get("models") ?? []).filter((model) => model.local).map((model) => model.id),
    trust: null, version: self?.version ?? null, seconds: stats.uptime_seconds ?? null, lan: false,
  };
  return { mine, peers: rows };
}

/** A round trip for a label: two figures where they matter. */
export function roundTrip(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 0.1) return "< 0.1\u202fms";
  return ms >= 1000 ? format.ms(Math.round(ms)) : `${ms >= 10 ? Math.round(ms) : ms.toFixed(ms >= 1 ? 1 : 2)}\u202fms`;
}

/** How the way to a node is called. */
export const pathOf = (node) => (!node.up ? "away" : node.via ? `through ${nodeName(node.via)}` : "direct");

export const perSecond = (bytes) => (bytes === null || bytes === undefined ? format.NONE : `${format.bytes(Math.round(bytes))}/s`);

/** Shards of all models together: what the rings of the map are parts of. */
export const shardsOfAll = () => (get("models") ?? []).reduce((total, model) => total + (model.shards?.length ?? 0), 0);
