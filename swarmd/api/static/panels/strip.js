// One model as strata: columns are shards in layer order, one lane per node that holds any of them. A column without a
// holder is a gap, red over all lanes, and says so.

import { h, s } from "../dom.js";
import * as format from "../format.js";
import { fillOf, look, nodeName, shortId, swatch } from "../nodes.js";
import { get } from "../store.js";

const LANE = 20;
const AXIS = 16;
const MOST_LANES = 8; // beyond that the picture is taller than it is telling; the rest is a sentence
const CHARACTER = 6.4; // pixels of one character of a block label, generously

/** Holders of a shard as 16-digit ids; this node first. `holder_ids` has at most 32. */
export function holdersOf(shard) {
  const self = get("self")?.id;
  const ids = (shard.holder_ids ?? []).map(shortId);
  if (shard.local && self && !ids.includes(self)) ids.unshift(self);
  return ids;
}

const covered = (shard) => shard.local || (shard.holders ?? 0) > 0 || holdersOf(shard).length > 0;

export const gapsOf = (model) => (model.shards ?? []).filter((shard) => !covered(shard)).map((shard) => shard.index);

/** The layer range of a shard, where the node tells it. */
const rangeOf = (shard) => (Array.isArray(shard.layers) ? shard.layers : shard.layer_end ? [shard.layer_start, shard.layer_end] : null);

/** Strip with its labels; `width` in pixels of everything. */
export function modelStrip(model, width) {
  const shards = [...(model.shards ?? [])].sort((a, b) => a.index - b.index);
  const labelWidth = width < 480 ? 84 : 128;
  const wide = Math.max(80, width - labelWidth);
  const xs = columns(shards, wide);
  const nodes = lanes(shards);
  const shown = nodes.slice(0, MOST_LANES);
  const height = Math.max(1, shown.length) * LANE + AXIS;
  const picture = s("svg", { class: "strip", width: wide, height, viewBox: `0 0 ${wide} ${height}`, role: "img", "aria-label": sentence(model, shards, nodes) });

  const run = get("run");
  const labelShapes = [];
  shown.forEach((node, row) => {
    picture.append(s("rect", { x: 0, y: row * LANE + 1, width: wide, height: LANE - 2, class: "lane" }));
    for (const block of blocks(shards, node)) {
      const { shape, label } = blockShape(block, node, row, xs, shards);
      picture.append(shape);
      labelShapes.push(label);
    }
  });
  drawArriving(picture, shards, xs, shown.indexOf(get("self")?.id));
  drawGaps(picture, shards, xs, Math.max(1, shown.length) * LANE);
  drawAxis(picture, shards, xs, wide, Math.max(1, shown.length) * LANE);
  if (run?.model === model.id) drawPath(picture, run, shards, xs, shown);
  picture.append(...labelShapes.filter(Boolean)); // last: neither borders nor the reply's way cross a label

  const labels = h("div", { class: "lane-labels", "aria-hidden": "true" },
    shown.map((node) => h("div", { class: "lane-label", title: node }, swatch(node), h("span", {}, nodeName(node)))));
  return h("div", { class: "strip-body" }, labels, picture,
    nodes.length > shown.length && h("p", { class: "hint strip-more" }, `and ${format.plural(nodes.length - shown.length, "more node")}`));
}

/** x positions of the shard borders: by layers where known, else all the same. */
function columns(shards, wide) {
  const weights = shards.map((shard) => { const range = rangeOf(shard); return range ? Math.max(1, range[1] - range[0]) : 1; });
  const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
  const xs = [0];
  for (const weight of weights) xs.push(xs.at(-1) + (weight / total) * wide);
  return xs;
}

/** Nodes that hold any shard: this one first, then by their first shard, so that the picture descends like stairs. */
function lanes(shards) {
  const first = new Map();
  for (const shard of shards) for (const id of holdersOf(shard)) if (!first.has(id)) first.set(id, shard.index);
  const self = get("self")?.id;
  if (self && shards.some((shard) => shard.download) && !first.has(self)) first.set(self, -1);
  return [...first.keys()].sort((a, b) => (b === self) - (a === self) || first.get(a) - first.get(b) || (a < b ? -1 : 1));
}

/** Neighbouring shards of one node as one block; a block is loaded or not, never half. */
function blocks(shards, node) {
  const self = get("self")?.id === node;
  const found = [];
  shards.forEach((shard, at) => {
    if (!holdersOf(shard).includes(node)) return;
    const loaded = self && Boolean(shard.in_vram);
    const last = found.at(-1);
    if (last && last.to === at && last.loaded === loaded) last.to = at + 1;
    else found.push({ from: at, to: at + 1, loaded });
  });
  return found;
}

function blockShape({ from, to, loaded }, node, row, xs, shards) {
  const [x, wide] = [xs[from], xs[to] - xs[from]];
  const y = row * LANE + 2;
  const high = LANE - 4;
  const named = `shard${to - from > 1 ? "s" : ""} ${format.ranges(shards.slice(from, to).map((shard) => shard.index))}`;
  const shape = s("g", {}, s("title", {}, `${nodeName(node)}: ${named}${loaded ? ", in memory" : ", on disk"}`),
    s("rect", { x: x + 1, y, width: Math.max(1, wide - 2), height: high, rx: 2, fill: fillOf(node), class: `edge ${look(node).ink}` }));
  for (let at = from + 1; at < to; at += 1) shape.append(s("path", { d: `M${xs[at]} ${y + 1}V${y + high - 1}`, class: "shard-border" }));
  const numbers = format.ranges(shards.slice(from, to).map((shard) => shard.index));
  const text = [`${loaded ? "● " : ""}${named}${loaded ? " in memory" : ""}`, `${loaded ? "● " : ""}${named}`, `${loaded ? "● " : ""}${numbers}`, loaded ? "●" : ""]
    .find((label) => label.length * CHARACTER + 10 < wide);
  if (!text) return { shape, label: null };
  const plate = text.length * CHARACTER + 6;
  return { shape, label: s("g", { class: "block-label" },
    s("rect", { x: x + wide / 2 - plate / 2, y: y + 2, width: plate, height: high - 4, rx: 2, class: "plate" }),
    s("text", { x: x + wide / 2, y: y + high / 2 + 3.6, class: "block-text" }, text)) };
}

/** Shards on their way here: the part that has arrived, in our lane. */
function drawArriving(picture, shards, xs, row) {
  if (row < 0) return;
  shards.forEach((shard, at) => {
    if (!shard.download || shard.local) return;
    const wide = xs[at + 1] - xs[at] - 2;
    const done = Math.min(1, (shard.download.progress_pct ?? 0) / 100);
    picture.append(s("g", {}, s("title", {}, `shard ${shard.index} is arriving: ${Math.round(100 * done)} %`),
      s("rect", { x: xs[at] + 1, y: row * LANE + 2, width: Math.max(1, wide), height: LANE - 4, rx: 2, class: "arriving" }),
      s("rect", { x: xs[at] + 1, y: row * LANE + 2, width: Math.max(0, wide * done), height: LANE - 4, rx: 2, class: "arrived" })));
  });
}

function drawGaps(picture, shards, xs, high) {
  for (let from = 0; from < shards.length; from += 1) {
    if (covered(shards[from])) continue;
    let to = from + 1;
    while (to < shards.length && !covered(shards[to])) to += 1;
    const wide = xs[to] - xs[from];
    picture.append(s("rect", { x: xs[from] + 1, y: 1, width: Math.max(2, wide - 2), height: high - 2, rx: 2, fill: "url(#hatch-gap)", class: "gap-edge" },
      s("title", {}, `No connected node holds shard ${format.ranges(shards.slice(from, to).map((shard) => shard.index))}`)));
    const text = ["no holder", "gap", "!"].find((label) => label.length * CHARACTER + 8 < wide);
    if (text) {
      const plate = text.length * CHARACTER + 8;
      picture.append(s("rect", { x: xs[from] + wide / 2 - plate / 2, y: high / 2 - 8, width: plate, height: 16, rx: 2, class: "plate" }),
        s("text", { x: xs[from] + wide / 2, y: high / 2 + 4, class: "block-text gap-text" }, text));
    }
    from = to - 1;
  }
}

function drawAxis(picture, shards, xs, wide, top) {
  const ranges = shards.map(rangeOf);
  let free = -Infinity; // where the next label may begin
  shards.forEach((shard, at) => {
    picture.append(s("path", { d: `M${Math.max(0.5, xs[at])} ${top}v3`, class: "tick" }));
    const label = ranges[at] ? String(ranges[at][0]) : String(shard.index);
    const needs = label.length * CHARACTER + 8;
    if (xs[at] < free || xs[at] + needs > wide - 26) return;
    picture.append(s("text", { x: xs[at] + 1, y: top + 13, class: "axis-text" }, label));
    free = xs[at] + needs;
  });
  picture.append(s("path", { d: `M${wide - 0.5} ${top}v3`, class: "tick" }),
    s("text", { x: wide, y: top + 13, class: "axis-text axis-end" }, ranges.every(Boolean) && shards.length ? "layer" : "shard"));
}

/** The last reply's way through the lanes: a line that steps from holder to holder. */
function drawPath(picture, run, shards, xs, shown) {
  const last = rangeOf(shards.at(-1) ?? {})?.[1];
  if (!last) return;
  const wide = xs.at(-1);
  const points = [];
  for (const stage of run.stages ?? []) {
    const row = shown.indexOf(shortId(stage.node));
    if (row < 0 || !Array.isArray(stage.layers)) return;
    const y = row * LANE + LANE - 2.5;
    points.push(`${((stage.layers[0] / last) * wide).toFixed(1)} ${y}`, `${((stage.layers[1] / last) * wide).toFixed(1)} ${y}`);
  }
  if (points.length) picture.append(s("path", { d: `M${points.join("L")}`, class: "strip-path" }));
}

function sentence(model, shards, nodes) {
  const parts = nodes.map((node) => {
    const held = shards.filter((shard) => holdersOf(shard).includes(node));
    const loaded = held.filter((shard) => node === get("self")?.id && shard.in_vram).map((shard) => shard.index);
    return `${nodeName(node)} holds ${held.length ? format.ranges(held.map((shard) => shard.index)) : "nothing yet"}${loaded.length ? ` (in memory: ${format.ranges(loaded)})` : ""}`;
  });
  const gaps = gapsOf(model);
  if (gaps.length) parts.push(`nobody holds ${format.ranges(gaps)}`);
  return `Shards of ${model.name}, ${shards.length} in all: ${parts.join("; ")}.`;
}
