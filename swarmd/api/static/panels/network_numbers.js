// The network in a line: who is there, how far, by which ways, how much is moving.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { networkNodes, perSecond, roundTrip } from "../network.js";
import { get, watch } from "../store.js";

const TILES = [
  { label: "Connected", value: ({ up }) => format.count(up.length), note: ({ peers }) => (peers.length ? `of ${format.plural(peers.length, "other node")}` : "no other node yet") },
  { label: "Round trip", value: ({ trips }) => (trips.length ? roundTrip(trips[Math.floor((trips.length - 1) / 2)]) : format.NONE),
    note: ({ trips }) => (trips.length > 1 ? `median; slowest ${roundTrip(trips.at(-1))}` : trips.length ? "to the only one" : "nobody to measure") },
  { label: "Direct", value: ({ up }) => (up.length ? format.count(up.filter((node) => !node.via).length) : format.NONE),
    note: ({ up }) => { const relayed = up.filter((node) => node.via).length; return relayed ? `${relayed} through a relay` : up.length ? "none through a relay" : "\u00a0"; } },
  { label: "Traffic now", value: ({ mine }) => (mine.rateIn === null ? format.NONE : perSecond(mine.rateIn + mine.rateOut)),
    note: ({ mine }) => (mine.rateIn === null ? "measuring" : `${perSecond(mine.rateIn)} in, ${perSecond(mine.rateOut)} out`) },
  { label: "Memory together", value: ({ all }) => format.megabytes(all.reduce((sum, node) => sum + (node.memory ?? 0), 0) || null),
    note: ({ all }) => `on ${format.plural(all.length, "node")}` },
  { label: "Regions", value: ({ regions }) => format.count(regions.length || null), note: ({ regions }) => regions.slice(0, 5).join(", ") || "not said" },
];

export function networkNumbers() {
  const tiles = TILES.map((tile) => {
    const value = h("dd", { class: "tile-value" });
    const note = h("dd", { class: "tile-note" });
    return { ...tile, valueElement: value, noteElement: note, element: h("div", { class: "tile" }, h("dt", {}, tile.label), value, note) };
  });
  watch(["peers", "links", "linkRates", "stats", "self"], () => {
    if (!get("peers")) return;
    const { mine, peers } = networkNodes();
    const up = peers.filter((node) => node.up);
    const all = [mine, ...up];
    const facts = { mine, peers, up, all, trips: up.map((node) => node.rtt).filter((ms) => ms !== null).sort((a, b) => a - b),
      regions: [...new Set(all.map((node) => node.region))].filter((region) => region !== "??").sort() };
    for (const tile of tiles) {
      setText(tile.valueElement, tile.value(facts));
      setText(tile.noteElement, tile.note(facts) || "\u00a0");
    }
  });
  return h("dl", { class: "numbers network-numbers", "aria-label": "The network in numbers" }, tiles.map((tile) => tile.element));
}
