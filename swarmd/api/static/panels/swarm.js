// The swarm as a picture: nodes on a ring, links to this node, the way of the last reply; under it the strata of every
// model; and the same facts as a table for who does not see pictures.

import { h, s, setText } from "../dom.js";
import * as format from "../format.js";
import { fillOf, isUp, look, nodeName, peersUp, shortId } from "../nodes.js";
import { readLinks } from "../network.js";
import { get, watch } from "../store.js";
import { hopLine, stageMs, timeBar } from "./hops.js";
import { gapsOf, holdersOf, modelStrip } from "./strip.js";

const MOST_PEERS = 15; // with this node 16 round the ring; the table has them all
const CROWDED = 8;
const LINKS_MS = 3000; // bytes of the links have no event of their own
const QUIET_BYTES = 4000; // a second: less is signs of life and gossip
const FLOWS_DRAWN = 6; // more ways at once nobody can tell apart

export function swarmPanel() {
  const ring = h("div", { class: "ring" });
  const path = h("div", { class: "last-path" });
  const strips = h("div", { class: "strips" });
  const rows = h("tbody");
  const table = h("details", { class: "as-table" }, h("summary", {}, "The same as a table"),
    h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": "Nodes of the swarm" },
      h("table", {}, h("thead", {}, h("tr", {}, ["Node", "Name", "Latency", "Trust", "Models", "State"].map((title) => h("th", { scope: "col" }, title)))), rows)));
  const flowing = h("p", { class: "flow-line", role: "status" });
  const panel = h("div", { class: "swarm" }, ring, flowing, path, strips, table);

  let width = 0;
  const drawRing = () => width && ring.replaceChildren(picture(width));
  const drawPath = () => width && path.replaceChildren(...lastReply(width));
  const drawStrips = () => width && strips.replaceChildren(...modelStrips(width));
  watch(["peers", "self", "run", "generation", "models", "flows", "linkRates"], drawRing);
  watch(["flows", "stats", "generation"], () => setText(flowing, flowSentence()));
  setInterval(() => panel.isConnected && !document.hidden && get("connection").phase === "open" && readLinks(), LINKS_MS);
  watch(["run", "peers", "self", "models"], drawPath);
  watch(["models", "modelsError", "peers", "self", "run"], drawStrips);
  watch(["peers", "self"], () => rows.replaceChildren(...tableRows()));
  new ResizeObserver(([entry]) => {
    const next = Math.floor(entry.contentRect.width);
    if (next === width) return;
    width = next;
    drawRing();
    drawPath();
    drawStrips();
  }).observe(panel);
  return panel;
}

// --- the ring --------------------------------------------------------------------------------------------------------

function firstShard(id) {
  let first = Infinity;
  for (const model of get("models") ?? []) {
    for (const shard of model.shards ?? []) if (shard.index < first && holdersOf(shard).includes(id)) first = shard.index;
  }
  return first;
}

/** Peers in the order of the layers they hold, so that a reply's way goes round the ring instead of across it. */
function peersInOrder() {
  return (get("peers") ?? [])
    .map((peer) => ({ ...peer, id: shortId(peer.node_id) }))
    .map((peer) => ({ ...peer, first: firstShard(peer.id) }))
    .sort((a, b) => (a.first === b.first ? (a.id < b.id ? -1 : 1) : a.first - b.first));
}

/** Where everything goes: sizes by the room there is, this node at the foot of the ring, peers clockwise from it. */
function layout(width, peers) {
  const wide = width >= 560;
  const crowded = peers.length > CROWDED || (!wide && peers.length > 4);
  const radius = crowded ? 15 : 21;
  const height = crowded ? 400 : peers.length > 2 ? 300 : peers.length === 2 ? 260 : 220;
  const centre = { x: width / 2, y: height / 2 };
  const rx = Math.max(60, Math.min(crowded ? 330 : 300, width / 2 - (wide ? 150 : 58)));
  const count = peers.length + 1;
  if (count === 1) return { wide, crowded, height, radius, centre, places: [{ ...centre, side: "below" }] };
  const around = Array.from({ length: count }, (_, at) => {
    const angle = count === 2 ? Math.PI * (1 - at) : Math.PI / 2 + (2 * Math.PI * at) / count;
    const [across, down] = [Math.cos(angle), count === 2 ? 0 : Math.sin(angle)];
    // Labels stand outside the ring, where no line runs.
    const beside = wide && Math.abs(across) > (crowded ? 0.4 : 0.8);
    return { across, down, side: beside ? (across < 0 ? "left" : "right") : down < -0.2 ? "above" : "below" };
  });
  // Stretched over the height that the labels leave: three nodes are not a whole circle's worth of it.
  const room = (side) => radius + (side === "above" || side === "below" ? 54 : 14);
  const top = Math.min(...around.map((node) => node.down));
  const bottom = Math.max(...around.map((node) => node.down));
  const from = Math.max(...around.filter((node) => node.down < top + 0.3).map((node) => room(node.side)));
  const to = height - Math.max(...around.filter((node) => node.down > bottom - 0.3).map((node) => room(node.side)));
  const y = (down) => (bottom - top < 0.01 ? centre.y : from + ((down - top) / (bottom - top)) * (to - from));
  centre.y = (from + to) / 2;
  return { wide, crowded, height, radius, centre, places: around.map(({ across, down, side }) => ({ x: centre.x + rx * across, y: y(down), side })) };
}

function picture(width) {
  const all = peersInOrder();
  const peers = all.slice(0, MOST_PEERS);
  const { wide, crowded, height, radius, centre, places } = layout(width, peers);
  const self = get("self")?.id ?? "";
  const nodes = [{ id: self, self: true }, ...peers].map((node, at) => ({ ...node, ...places[at] }));
  const links = nodes.slice(1).map((node) =>
    s("path", { d: `M${nodes[0].x} ${nodes[0].y}L${node.x} ${node.y}`, class: `link${isUp(node) ? "" : " link-weak"}` }));
  const run = get("run");
  const root = s("svg", { class: `ring-picture${get("generation") ? " busy" : ""}`, width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": ringSentence(all, run) },
    s("g", {}, links), s("g", { class: "traffic" }, traffic(nodes, radius)), s("g", { class: "flows" }, run?.planned || get("generation") ? null : flowWays(nodes, centre, radius)),
    s("g", { class: `way${run?.planned ? " way-planned" : ""}` }, run ? way(run, nodes, centre, radius) : null),
    nodes.map((node) => glyph(node, radius, run, { wide, crowded })));
  const middle = nodes.length === 1 ? 44 : centre.y;
  if (run && !run.planned) {
    root.append(s("text", { x: centre.x, y: middle - 2, class: "ring-rate" }, format.fixed(run.tokens_per_second)),
      s("text", { x: centre.x, y: middle + 15, class: "ring-note" }, wide ? "tokens/s, last reply" : "tokens/s"));
  }
  if (nodes.length === 1) {
    root.append(s("text", { x: centre.x, y: height - 22, class: "ring-note" }, get("peers") ? "Alone so far. Invite a node, or join one with its code." : "Looking for the swarm…"));
  }
  if (all.length > peers.length) root.append(s("text", { x: width - 4, y: height - 6, class: "ring-note end" }, `and ${all.length - peers.length} more`));
  return root;
}

/** Replies in the making that others asked for, on their way through the nodes. */
function flowWays(nodes, centre, radius) {
  const ways = new Map((get("flows") ?? []).map((flow) => [flow.nodes.join(), flow]));
  const rate = get("stats")?.tokens_now ?? 0;
  const pace = rate > 40 ? " flow-quick" : rate < 8 ? " flow-slow" : "";
  return [...ways.values()].slice(0, FLOWS_DRAWN).flatMap((flow) => {
    const steps = [way({ stages: flow.nodes.map((node) => ({ node })) }, nodes, centre, radius)].flat();
    for (const step of steps) step.setAttribute("class", `flow${pace}`);
    return steps;
  });
}

/** Bytes that links carry right now, as the node counts them: where replies of other heads run through this one, too. */
function traffic(nodes, radius) {
  const rates = get("linkRates");
  if (!rates || get("linksError")) return [];
  return nodes.slice(1).flatMap((node) => {
    const { in: from = 0, out: to = 0 } = rates.get(node.id) ?? {};
    if (!isUp(node) || from + to < QUIET_BYTES) return [];
    const [start, end] = from > to ? [node, nodes[0]] : [nodes[0], node];
    const [a, b] = [towards(start, end, radius + 4), towards(end, start, radius + 4)];
    return [s("path", { d: `M${a.x.toFixed(1)} ${a.y.toFixed(1)}L${b.x.toFixed(1)} ${b.y.toFixed(1)}`, class: `carried${from + to > 1e6 ? " flow-quick" : ""}` },
      s("title", {}, `${nodeName(node.id)}: ${format.bytes(Math.round(from))}/s in, ${format.bytes(Math.round(to))}/s out`))];
  });
}

function flowSentence() {
  const flows = get("flows") ?? [];
  const rate = get("stats")?.tokens_now;
  if (!flows.length) return "";
  return `${format.plural(flows.length, "reply", "replies")} in the making${rate ? `, ${format.fixed(rate)} tokens/s together` : ""}.`;
}

function glyph(node, radius, run, { wide, crowded }) {
  const stage = run?.stages?.find((each) => shortId(each.node) === node.id);
  const name = node.self ? node.id.slice(0, 8) || "…" : nodeName(node.id);
  const lines = [[clip(name, crowded ? 12 : 16), "node-name"], [node.self ? "this node" : linkNote(node), "node-note"]];
  if (stage && (wide || !crowded)) lines.push([stageNote(stage, wide), "node-stage"]);
  return s("g", { class: `node${node.self ? " node-self" : ""}${node.self || isUp(node) ? "" : " node-weak"}`, transform: `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})` },
    s("title", {}, `${node.id}${node.gpu ? `, ${node.gpu}` : ""}`),
    s("circle", { r: radius + (node.self ? 5 : 0), class: "node-ground" }),
    node.self && s("circle", { r: radius + 4, class: `node-halo ${look(node.id).ink}` }),
    s("circle", { r: radius, fill: fillOf(node.id), class: `edge ${look(node.id).ink}` }),
    s("g", { class: `label-${node.side}` }, labels(lines, node.side, radius)));
}

const LINE = 14; // pixels from one label line to the next

function labels(lines, side, radius) {
  const reach = radius + 11;
  const [x, first] = {
    below: [0, radius + 18],
    above: [0, -radius - 10 - LINE * (lines.length - 1)],
    left: [-reach, 4 - (LINE / 2) * (lines.length - 1)],
    right: [reach, 4 - (LINE / 2) * (lines.length - 1)],
  }[side];
  return lines.map(([text, kind], at) => s("text", { x, y: first + LINE * at, class: kind }, text));
}

/** On a narrow picture only the figure: the line under the picture has the layers. */
function stageNote(stage, wide) {
  const time = stageMs(stage) === null ? "" : format.ms(stageMs(stage));
  return wide || !time ? [format.layers(stage.layers), time].filter(Boolean).join(" · ") : time;
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
function linkNote(peer) {
  if (!isUp(peer)) return peer.connected === false ? "not connected" : "not answering";
  const exact = peer.measured_min_rtt_ms ?? peer.latency_ms;
  const time = peer.latency_ms >= 1 ? format.ms(peer.latency_ms) : exact === null || exact === undefined ? "" : exact >= 0.1 ? format.ms(exact) : "< 0.1\u202fms";
  return [time, peer.is_lan_peer ? "LAN" : ""].filter(Boolean).join(" · ") || "connected";
}

/** From this node through the stages and back, each step a curve that bends away from the middle. */
function way(run, nodes, centre, radius) {
  const ids = (run.stages ?? []).map((stage) => shortId(stage.node));
  const stops = [nodes[0], ...ids.map((id) => nodes.find((node) => node.id === id)), nodes[0]].filter(Boolean);
  const steps = [];
  for (let at = 1; at < stops.length; at += 1) {
    const [from, to] = [stops[at - 1], stops[at]];
    if (from === to) {
      if (stops.every((stop) => stop === from)) return [loop(from, radius)];
      continue;
    }
    const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
    const off = { x: middle.x - centre.x, y: middle.y - centre.y };
    // Between two nodes opposite each other the middle is the centre: there and back bend to different sides.
    const far = Math.hypot(off.x, off.y);
    const normal = { x: to.y - from.y, y: from.x - to.x };
    const length = Math.hypot(normal.x, normal.y) || 1;
    const bend = far > 24 ? { x: (off.x / far) * 34, y: (off.y / far) * 34 } : { x: (normal.x / length) * 46, y: (normal.y / length) * 46 };
    const control = { x: middle.x + bend.x, y: middle.y + bend.y };
    const start = towards(from, control, radius + 7);
    const end = towards(to, control, radius + 9);
    steps.push(s("path", { d: `M${start.x.toFixed(1)} ${start.y.toFixed(1)}Q${control.x.toFixed(1)} ${control.y.toFixed(1)} ${end.x.toFixed(1)} ${end.y.toFixed(1)}`,
      class: "way-step", "marker-end": "url(#arrow)" }));
  }
  return steps;
}

/** A reply that never left the node. */
function loop({ x, y }, radius) {
  const top = y - radius - 7;
  return s("path", { d: `M${x - 9} ${top}C${x - 44} ${top - 46} ${x + 44} ${top - 46} ${x + 9} ${top}`, class: "way-step", "marker-end": "url(#arrow)" });
}

function towards(from, to, distance) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  return { x: from.x + ((to.x - from.x) / length) * distance, y: from.y + ((to.y - from.y) / length) * distance };
}

function ringSentence(peers, run) {
  const list = peers.map((peer) => `${nodeName(peer.id)} ${linkNote(peer)}`).join(", ");
  const route = run?.stages?.length ? ` The last reply went through ${run.stages.map((stage) => nodeName(stage.node)).join(", then ")}.` : "";
  return `${peers.length ? `This node and ${format.plural(peersUp().length, "connected peer")}: ${list}.` : "This node, without peers."}${route}`;
}

// --- under the ring --------------------------------------------------------------------------------------------------

function lastReply(width) {
  const run = get("run");
  if (!run?.stages?.length) {
    if (!get("models")?.length) return [];
    return [h("h3", {}, "Way of the last reply"), h("div", { class: "time-bar-empty" }), h("p", { class: "hint" }, "Ask something: which nodes worked on the answer, and how long, shows here.")];
  }
  const title = run.planned ? "Way of this reply, as planned" : "Way of the last reply, time of one token";
  return [h("h3", {}, title), timeBar(run, width) ?? h("div", { class: "time-bar-empty" }), hopLine(run)];
}

function modelStrips(width) {
  const models = get("models");
  if (!models && get("modelsError")) return [h("p", { class: "trouble" }, get("modelsError"))];
  if (!models) return [h("div", { class: "strip-card waiting", "aria-hidden": "true" })];
  if (!models.length) {
    return [h("p", { class: "empty" }, "Under the nodes, every model shows as layers: who holds which. There is no model yet.")];
  }
  return models.map((model) => {
    const gaps = gapsOf(model);
    const head = h("h3", {}, h("span", { class: "strip-name" }, model.name),
      h("span", { class: "strip-facts" }, model.shards?.length ? `${format.plural(model.shards.length, "shard")} · ${format.bytes(model.total_size_bytes)}` : "layers not known yet"));
    return h("div", { class: "strip-card", "data-model": model.id }, head,
      model.shards?.length ? modelStrip(model, width) : h("p", { class: "hint" }, "A peer named this model; its shard list has not arrived."),
      gaps.length > 0 && h("p", { class: "gap-line" }, `No connected node holds shard ${format.ranges(gaps)}: connect a node that has ${gaps.length > 1 ? "them" : "it"}, or the model cannot run.`));
  });
}

function tableRows() {
  const self = get("self");
  const own = (get("models") ?? []).filter((model) => model.local).length;
  const cell = (text, kind) => h("td", { class: kind }, text);
  const mine = self && h("tr", {}, cell(self.id, "code"), cell("this node"), cell(format.NONE), cell(format.NONE), cell(String(own)), cell(`version ${self.version}`));
  const others = (get("peers") ?? []).map((peer) => h("tr", {}, cell(shortId(peer.node_id), "code"), cell(peer.nickname || format.NONE), cell(format.ms(peer.latency_ms), "number"),
    cell(format.fixed(peer.trust_score, 2), "number"), cell((peer.hosted_models ?? []).join(", ") || format.NONE), cell(!isUp(peer) ? linkNote(peer) : peer.is_lan_peer ? "on this LAN" : "connected")));
  return [mine, ...others].filter(Boolean);
}

