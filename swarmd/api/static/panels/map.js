// The network as a picture: this node in the middle, the others round it, nearer the shorter their round trip is. Elements
// are kept from one drawing to the next, so that the focus stays and what moves can be seen moving. Beside it the card of
// one node, and under it all of them as a table.

import { h, reducedMotion, s, setText } from "../dom.js";
import * as format from "../format.js";
import { swatch } from "../nodes.js";
import { follow, networkNodes, pathOf, perSecond, readNetwork, roundTrip, shardsOfAll } from "../network.js";
import { get, watch } from "../store.js";
import { arc, arrange, detour, frameOf, modeOf } from "./map_layout.js";
import { nodeCard } from "./node_card.js";

const MOST = 80; // more do not fit round a phone's picture; the table has them all
const USUAL_MB = 16000; // of memory: a node that has it is drawn in the usual size
const HIT = 26; // pixels round a pointer in which the nearest node is meant: a fingertip
const MOVE_MS = 450;
const LINE = 14; // pixels from one line of a label to the next

export function mapPanel() {
  const rings = s("g", { class: "map-rings", "aria-hidden": "true" });
  const lines = s("g", { class: "map-lines", "aria-hidden": "true" });
  const self = selfShape();
  const others = s("g", { role: "presentation" });
  const options = s("g", { role: "listbox", "aria-label": "Nodes of the network; arrow keys go from one to the next" }, self.element, others);
  const picture = s("svg", { class: "map-picture", role: "group", "aria-label": "Map of the network" }, rings, lines, options);
  const state = h("p", { class: "map-state hint", role: "status" });
  const alone = aloneNote();
  const stage = h("div", { class: "map-stage" }, picture, alone);
  const card = nodeCard({ close: () => choose(null) });
  const rows = h("tbody");
  const table = h("details", { class: "as-table" }, h("summary", {}, "The same as a table"),
    h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": "Nodes and connections" },
      h("table", {}, h("thead", {}, h("tr", {}, COLUMNS.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title)))), rows)));
  const panel = h("div", { class: "map" }, h("div", { class: "map-body" }, h("div", { class: "map-main" }, stage, legend()), card.element), state, table);

  const leasts = new Map(); // id -> least round trip, milliseconds; of a node that went away the last one
  const shapes = new Map(); // id -> what is drawn of it
  let width = 0;
  let frame = null;
  let order = []; // ids as the arrow keys go: this node, then round the picture
  let chosen = null;
  let pointed = null;
  let moving = 0;

  // --- drawing ---

  function draw() {
    if (!width) return;
    const { mine, peers } = networkNodes();
    const known = get("peers") !== null;
    const shown = [...peers].sort((a, b) => b.up - a.up).slice(0, MOST);
    const mode = modeOf(width, shown.length);
    frame = frameOf(width, shown.length, mode);
    for (const node of shown) if (node.least !== null) leasts.set(node.id, node.least);
    const { places, rings: circles, sectors } = arrange(shown.map((node) => ({ ...node, least: leasts.get(node.id) ?? null })), frame);
    picture.setAttribute("width", width);
    picture.setAttribute("height", frame.height);
    picture.setAttribute("viewBox", `0 0 ${width} ${frame.height}`);
    picture.setAttribute("class", `map-picture map-${mode}${width < 620 ? " map-narrow" : ""}`);
    rings.replaceChildren(...(shown.length ? background(frame, circles, sectors) : halos(frame)));
    self.place(frame, mode);
    self.tell(mine, chosen ?? mine.id);
    order = [mine.id, ...shown.filter((node) => places.has(node.id)).sort((a, b) => clockwise(places.get(a.id).angle) - clockwise(places.get(b.id).angle)).map((node) => node.id)];
    if (chosen && !order.includes(chosen)) chosen = null;
    for (const [id, shape] of shapes) {
      if (places.has(id)) continue;
      shape.element.remove();
      shape.line.remove();
      shapes.delete(id);
      leasts.delete(id);
    }
    const all = shardsOfAll();
    let moves = false;
    for (const node of shown) {
      const shape = shapes.get(node.id) ?? addShape(node.id);
      const place = places.get(node.id);
      shape.from = shape.at ?? place;
      shape.to = place;
      shape.at = shape.from;
      moves ||= Math.hypot(shape.to.x - shape.from.x, shape.to.y - shape.from.y) > 0.5;
      dress(shape, node, mode, frame.radius, all);
    }
    arrangeOptions();
    move(moves);
    picture.setAttribute("aria-busy", String(!known));
    mark();
    alone.hidden = shown.length > 0 || !known;
    setText(state, sentence(peers, known));
    state.classList.toggle("trouble", Boolean(get("linksError")) && get("connection").phase === "open");
    card.show(cardOf(mine, peers), { pinned: chosen !== null });
  }

  function addShape(id) {
    const shape = nodeShape(id);
    shapes.set(id, shape);
    lines.append(shape.line);
    return shape;
  }

  /** In the order of the arrow keys; moved only where that changed, since an element that moves loses the focus. */
  function arrangeOptions() {
    const wanted = order.slice(1).map((id) => shapes.get(id).element);
    if (wanted.length === others.children.length && wanted.every((element, at) => others.children[at] === element)) return;
    const focused = others.contains(document.activeElement) ? document.activeElement : null;
    others.replaceChildren(...wanted);
    focused?.focus({ preventScroll: true });
  }

  /** Everything to its place: at once, or gliding there. */
  function move(glide) {
    cancelAnimationFrame(moving);
    const start = performance.now();
    const step = (now) => {
      const share = glide ? Math.min(1, (now - start) / MOVE_MS) : 1;
      const eased = 1 - (1 - share) ** 3;
      for (const shape of shapes.values()) {
        const { from, to } = shape;
        shape.at = share === 1 ? to : { ...to, x: from.x + (to.x - from.x) * eased, y: from.y + (to.y - from.y) * eased };
        shape.element.setAttribute("transform", `translate(${shape.at.x.toFixed(1)} ${shape.at.y.toFixed(1)})`);
      }
      for (const shape of shapes.values()) shape.line.setAttribute("d", way(shape));
      if (share < 1) moving = requestAnimationFrame(step);
    };
    if (glide && !reducedMotion()) moving = requestAnimationFrame(step);
    else {
      glide = false;
      step(start);
    }
  }

  function way(shape) {
    if (!shape.node.up) return "";
    const relay = shape.node.via && shapes.get(shape.node.via);
    const { centre } = frame;
    return relay ? detour(centre, relay.at, shape.at) : `M${centre.x} ${centre.y}L${shape.at.x.toFixed(1)} ${shape.at.y.toFixed(1)}`;
  }

  /** What is chosen or pointed at, and its way here, stand out. */
  function mark() {
    const lit = pointed ?? chosen;
    const via = shapes.get(lit)?.node.via;
    picture.classList.toggle("map-lit", Boolean(lit));
    for (const [id, shape] of shapes) {
      shape.element.classList.toggle("lit", id === lit);
      shape.element.setAttribute("aria-selected", String(id === chosen));
      shape.element.setAttribute("tabindex", id === chosen ? "0" : "-1");
      shape.line.classList.toggle("lit", id === lit || id === via);
    }
    self.element.setAttribute("aria-selected", String(chosen === order[0]));
    self.element.setAttribute("tabindex", chosen && chosen !== order[0] ? "-1" : "0");
    self.element.classList.toggle("lit", lit === order[0]);
  }

  // --- pointing and choosing ---

  const cardOf = (mine, peers) => peers.find((node) => node.id === (pointed ?? chosen)) ?? mine;

  function refresh() {
    const { mine, peers } = networkNodes();
    mark();
    card.show(cardOf(mine, peers), { pinned: chosen !== null });
  }

  function choose(id) {
    chosen = id;
    pointed = null;
    refresh();
    if (id === null || getComputedStyle(card.element).position !== "fixed") return;
    const bottom = card.element.getBoundingClientRect().top; // the sheet must not cover what was chosen
    const y = stage.getBoundingClientRect().top + (elementOf(id) === self.element ? frame.centre.y : shapes.get(id).to.y);
    if (y > bottom - 40 || y < 80) scrollBy({ top: y - bottom / 2, behavior: reducedMotion() ? "instant" : "smooth" });
  }

  function nearest(event) {
    const box = picture.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const far = (place) => Math.hypot(place.x - x, place.y - y);
    let best = far(frame.centre) < frame.selfRadius + 6 ? { id: order[0], distance: 0 } : { id: null, distance: HIT };
    for (const [id, shape] of shapes) if (far(shape.at) < best.distance) best = { id, distance: far(shape.at) };
    return best.id;
  }

  picture.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const id = nearest(event);
    picture.classList.toggle("map-hit", id !== null);
    if (id === pointed) return;
    pointed = id;
    refresh();
  });
  picture.addEventListener("pointerleave", () => {
    if (pointed === null) return;
    pointed = null;
    refresh();
  });
  picture.addEventListener("mousedown", (event) => event.preventDefault()); // the focus goes to the nearest node, below
  picture.addEventListener("click", (event) => {
    const id = nearest(event);
    choose(id);
    if (id !== null) elementOf(id)?.focus({ preventScroll: true });
  });

  const elementOf = (id) => (id === order[0] ? self.element : shapes.get(id)?.element);
  stage.addEventListener("focusin", (event) => { // not on the picture: an SVG that listens for focus takes it, in Chromium
    const id = event.target.dataset.node;
    if (id !== undefined && id !== chosen) choose(id);
  });
  picture.addEventListener("keydown", (event) => {
    const at = order.indexOf(event.target.dataset.node);
    const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (event.key === "Escape") choose(null);
    else if (at < 0 || next === undefined) return;
    else elementOf(order[(next + order.length) % order.length]).focus();
    event.preventDefault();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && chosen !== null && panel.isConnected && !document.querySelector("dialog[open]") && choose(null));

  // --- when ---

  watch(["peers", "self", "links", "linkRates", "stats", "models", "connection", "members"], draw);
  const drawRows = () => table.open && fillRows(rows);
  table.addEventListener("toggle", drawRows);
  watch(["peers", "self", "links", "linkRates", "stats"], drawRows);
  new ResizeObserver(([entry]) => {
    const next = Math.floor(entry.contentRect.width);
    if (next && !width) readNetwork(); // just opened
    if (next === width) return;
    width = next;
    for (const shape of shapes.values()) shape.at = null; // another size is no movement
    draw();
  }).observe(stage);
  follow(panel);
  return panel;
}

const clockwise = (angle) => (angle + Math.PI / 2 + 4 * Math.PI) % (2 * Math.PI);

// --- shapes ----------------------------------------------------------------------------------------------------------

function nodeShape(id) {
  const body = s("circle", { class: "map-body-of-node" });
  const track = s("circle", { class: "map-track" });
  const held = s("circle", { class: "map-held", pathLength: 100, transform: "rotate(-90)" });
  const focus = s("circle", { class: "map-focus" });
  const name = s("text", { class: "map-name" });
  const note = s("text", { class: "map-note" });
  const label = s("g", { class: "map-label", "aria-hidden": "true" }, name, note);
  const element = s("g", { class: "map-node", role: "option", tabindex: "-1", "data-node": id }, focus, body, track, held, label);
  return { element, body, track, held, focus, name, note, label, line: s("path", { class: "map-line" }), at: null, from: null, to: null, node: null };
}

function dress(shape, node, mode, usual, shardsThere) {
  shape.node = node;
  const scale = node.memory ? Math.min(1.45, Math.max(0.7, Math.sqrt(node.memory / USUAL_MB))) : 0.85;
  const radius = usual * (mode === "dense" ? Math.min(1.15, scale) : scale);
  const gap = mode === "dense" ? 2 : 4;
  const share = shardsThere ? Math.min(1, node.shards / shardsThere) : 0;
  shape.body.setAttribute("r", radius.toFixed(1));
  shape.focus.setAttribute("r", (radius + gap + 5).toFixed(1));
  for (const ring of [shape.track, shape.held]) ring.setAttribute("r", (radius + gap).toFixed(1));
  shape.held.setAttribute("stroke-dasharray", `${(100 * share).toFixed(1)} 200`);
  shape.track.classList.toggle("none", !node.up || !share);
  shape.held.classList.toggle("none", !node.up || !share);
  shape.element.setAttribute("class", `map-node ${node.up ? "up" : "away"}${node.via ? " relayed" : ""}${shape.element.classList.contains("lit") ? " lit" : ""}`);
  shape.element.setAttribute("aria-label", spoken(node));
  const busy = Math.log10(1 + ((node.rateIn ?? 0) + (node.rateOut ?? 0)) / 1000);
  shape.line.setAttribute("class", `map-line ${node.via ? "relay" : "direct"}${shape.line.classList.contains("lit") ? " lit" : ""}`);
  shape.line.setAttribute("stroke-width", ((mode === "dense" ? 1 : 1.4) + Math.min(3, (mode === "dense" ? 0.4 : 0.8) * busy)).toFixed(1));
  label(shape, node, mode, radius + gap);
}

function label(shape, node, mode, reach) {
  setText(shape.name, mode === "dense" ? "" : clip(node.name, 14));
  setText(shape.note, node.up ? roundTrip(node.rtt) : mode === "dense" ? "" : "away");
  const { angle } = shape.to;
  if (mode === "dense") {
    const left = Math.cos(angle) < 0;
    shape.label.setAttribute("transform", `rotate(${((angle * 180) / Math.PI + (left ? 180 : 0)).toFixed(1)})`);
    shape.label.setAttribute("text-anchor", left ? "end" : "start");
    shape.note.setAttribute("x", left ? -reach - 5 : reach + 5);
    shape.note.setAttribute("y", 3.5);
    return;
  }
  shape.label.removeAttribute("transform");
  const across = Math.cos(angle);
  const beside = mode === "roomy" && Math.abs(across) > 0.55;
  const [x, y, anchor] = beside
    ? [Math.sign(across) * (reach + 9), -2, across < 0 ? "end" : "start"]
    : [0, Math.sin(angle) < 0 && mode === "roomy" ? -reach - 8 - LINE : reach + 16, "middle"];
  shape.label.setAttribute("text-anchor", anchor);
  for (const [text, line] of [[shape.name, 0], [shape.note, 1]]) {
    text.setAttribute("x", x);
    text.setAttribute("y", y + LINE * line);
  }
}

function selfShape() {
  const mark = s("g", { class: "map-mark" },
    s("rect", { class: "mark-a", x: -13, y: -10, width: 20, height: 5.4, rx: 1.4 }),
    s("rect", { class: "mark-b", x: -10, y: -2.7, width: 20, height: 5.4, rx: 1.4 }),
    s("rect", { class: "mark-c", x: -7, y: 4.6, width: 20, height: 5.4, rx: 1.4 }));
  const name = s("text", { class: "map-name", "text-anchor": "middle", "aria-hidden": "true" }, "this node");
  const focus = s("circle", { class: "map-focus" });
  const ground = s("circle", { class: "map-self-ground" });
  const element = s("g", { class: "map-node map-self", role: "option", tabindex: "0" }, focus, ground, mark, name);
  return {
    element,
    place({ centre, selfRadius }, mode) {
      element.setAttribute("transform", `translate(${centre.x.toFixed(1)} ${centre.y.toFixed(1)})`);
      focus.setAttribute("r", selfRadius + 6);
      ground.setAttribute("r", selfRadius);
      mark.setAttribute("transform", `scale(${(selfRadius / 24).toFixed(2)})`); // it was drawn for a radius of 24
      name.setAttribute("y", selfRadius + 18);
      name.classList.toggle("none", mode === "dense");
    },
    tell(node) {
      element.dataset.node = node.id;
      element.setAttribute("aria-label", `this node${node.region === "??" ? "" : `, region ${node.region}`}`);
    },
  };
}

/** Round a node that is alone: no scale, there is nothing to measure. */
const halos = ({ centre }) => [46, 62, 80].map((r) => s("circle", { class: "map-ring", cx: centre.x, cy: centre.y, r }));

function background(frame, rings, sectors) {
  const { centre, rx, ry, outer } = frame;
  const circles = rings.map((ring) => s("ellipse", { class: "map-ring", cx: centre.x, cy: centre.y, rx: ring.rx.toFixed(1), ry: ring.ry.toFixed(1) }));
  const scale = rings.map((ring) => s("text", { class: "map-scale", x: centre.x, y: (centre.y - ring.ry + 3.5).toFixed(1) }, ring.ms < 1000 ? `${Number(ring.ms.toPrecision(2))}\u202fms` : `${ring.ms / 1000}\u202fs`));
  const [ox, oy] = [rx + outer.x, ry + outer.y];
  const arcs = sectors.map((sector) => s("path", { class: "map-arc", d: arc(centre, ox, oy, sector.from, sector.to) }));
  const names = sectors.map((sector) => {
    const text = `${sector.region === "??" ? (frame.width < 620 ? "unknown" : "region unknown") : clip(sector.region, 12)} · ${sector.count}`;
    const across = Math.cos(sector.middle);
    const upright = frame.width < 620 && Math.abs(across) > 0.6; // along the side of a narrow picture: no room across
    const half = upright ? 9 : text.length * 3.8 + 4; // pixels, generously: it stays inside the picture
    const x = Math.min(frame.width - half, Math.max(half, centre.x + ox * across)).toFixed(1);
    const y = (centre.y + oy * Math.sin(sector.middle)).toFixed(1);
    return s("text", { class: "map-region", y: 4.5, transform: `translate(${x} ${y}) rotate(${upright ? 90 * Math.sign(across) : 0})` }, text);
  });
  return [...circles, ...arcs, ...scale, ...names];
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// --- words -----------------------------------------------------------------------------------------------------------

/** The node in a sentence, for who cannot see the picture. */
function spoken(node) {
  const parts = [node.name, node.up ? "connected" : "away", node.up && pathOf(node), roundTrip(node.rtt) && `round trip ${roundTrip(node.rtt)}`,
    node.region !== "??" && `region ${node.region}`, node.shards && format.plural(node.shards, "shard")];
  return parts.filter(Boolean).join(", ");
}

function sentence(peers, known) {
  if (get("linksError") && get("connection").phase === "open") return `The connections could not be read. ${get("linksError")}`;
  if (!known) return "Looking for the network…";
  const up = peers.filter((node) => node.up).length;
  if (!peers.length) return "";
  const more = peers.length > MOST ? ` The picture shows ${MOST} of them, the table all.` : "";
  if (!up) return `None of the ${format.plural(peers.length, "node")} known here is connected; this one keeps trying.${more}`;
  return more.trim();
}

function aloneNote() {
  return h("div", { class: "map-alone", hidden: true },
    h("h3", {}, "This node is alone so far"),
    h("p", {}, "A network grows by invitation: make a code here and give it to whoever runs the next machine. There it is one command, ", h("code", {}, "swarmd join CODE"), "."),
    h("p", {}, h("a", { class: "button primary", href: "#join", on: { click: toJoin } }, "Invite a node")),
    h("p", { class: "hint" }, "You were given a code? ", h("a", { href: "#join", on: { click: toJoin } }, "Join with it"), "."));
}

/** As the links of the header do: view and focus. */
function toJoin(event) {
  event.preventDefault();
  const target = document.getElementById("join");
  target?.scrollIntoView({ block: "center" });
  target?.querySelector("button, input")?.focus({ preventScroll: true });
}

function legend() {
  const sample = (shape) => s("svg", { width: 26, height: 14, viewBox: "0 0 26 14", "aria-hidden": "true" }, shape);
  const dot = (kind) => s("g", { class: `map-node ${kind}`, transform: "translate(13 7)" }, s("circle", { class: "map-body-of-node", r: 5 }));
  return h("ul", { class: "map-legend", "aria-label": "How to read the map" },
    h("li", {}, sample(dot("up")), "connected"), h("li", {}, sample(dot("away")), "away"),
    h("li", {}, sample(s("path", { class: "map-line direct", d: "M2 7H24", "stroke-width": 2 })), "direct"),
    h("li", {}, sample(s("path", { class: "map-line relay", d: "M2 7H24", "stroke-width": 2 })), "through a relay"),
    h("li", {}, sample([s("circle", { class: "map-track", r: 5.5, cx: 13, cy: 7 }), s("circle", { class: "map-held", r: 5.5, pathLength: 100, "stroke-dasharray": "40 200", transform: "translate(13 7) rotate(-90)" })]), "share of all shards"),
    h("li", { class: "map-legend-words" }, "Further out: longer round trip. Larger: more memory. Thicker line: more traffic now."));
}

// --- the same in words -------------------------------------------------------------------------------------------------

const COLUMNS = [
  ["Node", (node) => node.id, "code"],
  ["Name", (node) => (node.name === node.id.slice(0, 8) ? format.NONE : node.name)],
  ["Region", (node) => node.region],
  ["State", (node) => (node.self ? "this node" : node.up ? "connected" : "away")],
  ["Path", (node) => (node.self ? format.NONE : pathOf(node))],
  ["Round trip", (node) => roundTrip(node.rtt) || format.NONE, "number"],
  ["Least", (node) => roundTrip(node.least) || format.NONE, "number"],
  ["Received", (node) => format.bytes(node.bytesIn), "number"],
  ["Sent", (node) => format.bytes(node.bytesOut), "number"],
  ["Now", (node) => (node.rateIn === null ? format.NONE : perSecond(node.rateIn + node.rateOut)), "number"],
  ["Memory", (node) => format.megabytes(node.memory), "number"],
  ["Shards", (node) => format.count(node.shards), "number"],
  ["Trust", (node) => format.fixed(node.trust, 2), "number"],
  ["Version", (node) => node.version ?? format.NONE],
];

/** Rows stay as long as the nodes do, so that a reader in the middle of the table keeps its place. */
function fillRows(body) {
  const { mine, peers } = networkNodes();
  const nodes = mine.id ? [mine, ...peers] : [];
  if (nodes.length !== body.children.length || nodes.some((node, at) => body.children[at].dataset.node !== node.id)) {
    body.replaceChildren(...nodes.map((node) => h("tr", { "data-node": node.id },
      COLUMNS.map(([, , kind], at) => (at ? h("td", { class: kind }) : h("th", { scope: "row", class: kind }, swatch(node.id), " ", h("span")))))));
  }
  nodes.forEach((node, row) => COLUMNS.forEach(([, text], at) => {
    const cell = body.children[row].children[at];
    setText(at ? cell : cell.lastElementChild, text(node));
  }));
}
