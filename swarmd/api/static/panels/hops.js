// The way of a reply through the swarm, as a line of stations, and where the time of one token went, as a bar.

import { h, s } from "../dom.js";
import * as format from "../format.js";
import { fillOf, look, nodeName, swatch } from "../nodes.js";

/** Milliseconds of one token on a stage; null where nobody measured, as in a plan. */
export const stageMs = (stage) => stage.node_ms ?? stage.compute_ms ?? null;

/** Nodes in order with layers and milliseconds per token; the last entry is the wire. */
export function hopLine(run) {
  const stages = run.stages ?? [];
  return h("ol", { class: "hops", "aria-label": "Way of the reply: nodes in order, time per token" },
    stages.map((stage) => h("li", { class: "hop" },
      swatch(stage.node),
      h("span", { class: "hop-node", title: String(stage.node ?? "") }, nodeName(stage.node)),
      h("span", { class: "hop-layers" }, format.layers(stage.layers)),
      stageMs(stage) !== null && h("span", { class: "hop-time" }, format.ms(stageMs(stage))))),
    stages.length > 1 && !run.planned && h("li", { class: "hop hop-wire" },
      h("span", { class: "hop-node" }, "links"), h("span", { class: "hop-time" }, format.ms(run.link_ms))));
}

/** One token's time as a bar: each stage in its hatching, the wire last. `width` in pixels. */
export function timeBar(run, width) {
  const parts = (run.stages ?? []).map((stage) => ({ node: stage.node, ms: stageMs(stage) ?? 0 }));
  if ((run.stages ?? []).length > 1) parts.push({ node: null, ms: run.link_ms ?? 0 });
  const total = parts.reduce((sum, part) => sum + part.ms, 0);
  if (!total || width < 40) return null;
  const height = 18;
  const picture = s("svg", { class: "time-bar", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `One token: ${parts.map((part) => `${part.node ? nodeName(part.node) : "links"} ${format.ms(part.ms)}`).join(", ")}` });
  let x = 0;
  for (const part of parts) {
    const wide = (part.ms / total) * width;
    picture.append(s("rect", { x: x + 0.5, y: 0.5, width: Math.max(1, wide - 1.5), height: height - 1, rx: 2,
      fill: part.node ? fillOf(part.node) : null, class: part.node ? `edge ${look(part.node).ink}` : "wire-part" },
      s("title", {}, `${part.node ? nodeName(part.node) : "links"}: ${format.ms(part.ms)} per token`)));
    x += wide;
  }
  return picture;
}
