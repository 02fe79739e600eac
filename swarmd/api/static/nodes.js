// How a node looks everywhere: one colour and one hatching for as long as the page is open, and its short name.
// Hatchings differ as well as colours, as on a geological map, so that nobody has to tell nodes apart by hue.

import { get } from "./store.js";
import { s } from "./dom.js";

const COLOURS = 8;
const HATCHES = ["plain", "rise", "dots", "fall", "lines", "posts", "grid"]; // 7 and 8 have no common divisor: 56 looks
const SIZE = 8; // pixels of one pattern tile
const slots = new Map();

/** 16 hex digits: `stats.node_id` has 64, everything else 16. */
export const shortId = (id) => String(id ?? "").slice(0, 16);

function slot(id) {
  const short = shortId(id);
  if (!short || get("self")?.id === short) return 0; // before the first answer we are nameless
  if (!slots.has(short)) slots.set(short, slots.size + 1);
  return slots.get(short);
}

export function look(id) {
  const number = slot(id);
  return { colour: number % COLOURS, hatch: HATCHES[number % HATCHES.length], ink: `ink-${number % COLOURS}` };
}

/** The `fill` of a shape that stands for this node. */
export const fillOf = (id) => `url(#hatch-${look(id).colour}-${look(id).hatch})`;

/** What people call the node: "this node", its nickname, or the first 8 digits. */
export function nodeName(id) {
  const short = shortId(id);
  if (get("self")?.id === short) return "this node";
  const peer = (get("peers") ?? []).find((row) => shortId(row.node_id) === short);
  return peer?.nickname || short.slice(0, 8) || "unknown";
}

/** Whether the link to a peer is up; a peer can also be one that we only remember. */
export const isUp = (peer) => peer.connected ?? peer.healthy !== false;

export const peersUp = () => (get("peers") ?? []).filter(isUp);

/** A small swatch for text lines. */
export function swatch(id) {
  return s("svg", { class: "swatch", viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" },
    s("rect", { x: 0.5, y: 0.5, width: 13, height: 13, rx: 3, fill: fillOf(id), class: `edge ${look(id).ink}` }));
}

/** Every pattern, once, in a picture without size (not display:none: some browsers then drop the patterns). */
export function mountHatches(parent) {
  const defs = s("defs");
  for (let colour = 0; colour < COLOURS; colour += 1) {
    for (const hatch of HATCHES) {
      defs.append(s("pattern", { id: `hatch-${colour}-${hatch}`, width: SIZE, height: SIZE, patternUnits: "userSpaceOnUse" },
        s("rect", { width: SIZE, height: SIZE, class: `hatch-ground ink-${colour}` }), strokes(hatch)));
    }
  }
  defs.append(s("pattern", { id: "hatch-gap", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
    s("rect", { width: 6, height: 6, class: "gap-ground" }), s("path", { d: "M-1 7 L7 -1", class: "gap-stroke" })));
  defs.append(s("marker", { id: "arrow", viewBox: "0 0 10 10", refX: 8, refY: 5, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
    s("path", { d: "M0 1 L9 5 L0 9 z", class: "arrow-head" })));
  parent.append(s("svg", { width: 0, height: 0, class: "patterns", "aria-hidden": "true", focusable: "false" }, defs));
}

function strokes(hatch) {
  const line = (d) => s("path", { d, class: "hatch-stroke" });
  switch (hatch) {
    case "rise": return line("M-2 2 L2 -2 M0 8 L8 0 M6 10 L10 6");
    case "fall": return line("M6 -2 L10 2 M0 0 L8 8 M-2 6 L2 10");
    case "lines": return line("M0 2 H8 M0 6 H8");
    case "posts": return line("M2 0 V8 M6 0 V8");
    case "grid": return line("M0 4 H8 M4 0 V8");
    case "dots": return s("g", { class: "hatch-dot" }, s("circle", { cx: 2, cy: 2, r: 1.1 }), s("circle", { cx: 6, cy: 6, r: 1.1 }));
    default: return s("g");
  }
}
