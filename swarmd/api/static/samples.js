// Readings over time for the charts: begun with what the node remembers of its last hour, then one for each tick. Bounded.

import { request } from "./api.js";
import { get, set } from "./store.js";

const KEPT_S = 3600;
const MOST = 2400; // an hour of ticks every 2 s, and the node's own readings before them
const NAMES = ["at", "tokens", "rtt", "slowest", "used", "rss"];
const GAP_S = 30; // silence that a line must not bridge

const empty = () => Object.fromEntries(NAMES.map((name) => [name, []]));

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function put(samples, row) {
  const last = samples.at.at(-1) ?? 0;
  if (row.at <= last) return samples; // a clock set back, or the same again
  const rows = last && row.at - last > GAP_S ? [{ at: last + 0.001 }, row] : [row];
  const from = Math.max(samples.at.findIndex((at) => at >= row.at - KEPT_S), samples.at.length + rows.length - MOST, 0);
  return Object.fromEntries(NAMES.map((name) => [name, [...samples[name].slice(from), ...rows.map((one) => one[name] ?? null)]]));
}

/** A tick of the socket. */
export function keepSample({ hardware = {}, tokens_now: tokens }) {
  const trips = (get("peers") ?? []).filter((peer) => peer.connected).map((peer) => peer.predicted_rtt_ms ?? peer.latency_ms).filter((ms) => ms !== null && ms !== undefined);
  set("samples", put(get("samples") ?? empty(), {
    at: Date.now() / 1000, tokens: tokens ?? get("generation")?.rate ?? null, rtt: trips.length ? median(trips) : null,
    slowest: trips.length ? Math.max(...trips) : null, used: hardware.used_ram_mb ?? null, rss: hardware.process_rss_mb ?? null,
  }));
}

/** What the node remembers goes before what was seen here; an older node remembers nothing. */
export async function backfill() {
  const told = await request("/api/admin/history");
  const seen = get("samples") ?? empty();
  const offset = told.at.length ? Math.max(0, told.at.at(-1) - Date.now() / 1000) : 0; // the node's clock may go before ours
  let samples = empty();
  told.at.forEach((at, index) => {
    samples = put(samples, {
      at: at - offset, tokens: told.tokens_per_second[index], rtt: told.rtt_ms[index], slowest: told.slowest_rtt_ms[index],
      used: told.used_ram_mb[index], rss: told.process_rss_mb[index],
    });
  });
  seen.at.forEach((at, index) => {
    samples = put(samples, Object.fromEntries(NAMES.map((name) => [name, seen[name][index]])));
  });
  set("samples", samples);
}
