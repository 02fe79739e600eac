// Where the shards of one model are: a column for each shard, a row for each node that holds any, this node first. Every
// cell can be reached by the arrow keys, says what it is, and opens the menu of its shard.

import { h, s, setText } from "../dom.js";
import * as format from "../format.js";
import { fillOf, look, nodeName, swatch } from "../nodes.js";
import { get } from "../store.js";
import { holdersOf } from "./strip.js";

const ROW = 22;
const AXIS = 18;
const GAP = 2;
const WIDEST = 46; // of a cell: three shards should not look like a bar chart
const NARROWEST = 10; // pixels: a hundred shards beside the names fit a view of 1280
const FINGER = 24; // pixels a finger hits
const onPhone = () => matchMedia("(max-width: 560px)").matches; // as models.css has it
const MOST_ROWS = 32; // the node names at most 32 holders of a shard
const DIGIT = 6.6;

const here = () => get("self")?.id ?? "";

/** `onShard(index, cell)`: a cell was clicked, or Enter pressed on it. Answers { element, update }:
 *  `update(model, text, bad)`, where `text` stands below while no cell is pointed at, in red when it is `bad`. */
export function shardMap(onShard) {
  const labels = h("div", { class: "shard-names", "aria-hidden": "true" });
  const scroller = h("div", { class: "shard-scroll" });
  const says = h("p", { class: "shard-says" });
  const words = h("ul", { class: "shard-words" });
  const more = h("details", { class: "as-table" }, h("summary", {}, "The same in words"), words);
  const element = h("div", { class: "shard-map" }, h("div", { class: "shard-body" }, labels, scroller), says, more);
  let model = null;
  let width = 0;
  let built = ""; // what the cells stand for; other shards or nodes need other cells
  let cells = []; // rows of cells
  let facts = []; // the same, as { label, state }
  let at = [0, 0]; // the one cell in the tab order
  let seen = false;

  let rest = { text: "", bad: false }; // what it says while no cell is pointed at
  const sayRest = () => {
    setText(says, rest.text);
    says.className = rest.bad ? "shard-says trouble" : "shard-says";
  };
  let told = null; // the cell that it speaks of
  const tell = (cell) => {
    told = cell;
    if (!cell) return sayRest();
    setText(says, facts[cell.dataset.row][cell.dataset.col].label);
    says.className = "shard-says";
    return undefined;
  };
  const stop = (row, col, { focus = true } = {}) => {
    const next = [Math.max(0, Math.min(row, cells.length - 1)), Math.max(0, Math.min(col, (cells[0]?.length ?? 1) - 1))];
    cells[at[0]]?.[at[1]]?.setAttribute("tabindex", "-1");
    at = next;
    const cell = cells[at[0]]?.[at[1]];
    cell?.setAttribute("tabindex", "0");
    if (focus) cell?.focus();
  };
  const choose = (cell) => {
    stop(Number(cell.dataset.row), Number(cell.dataset.col));
    onShard(Number(cell.dataset.index), cell);
  };
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e6], End: [0, 1e6] };
  for (const event of ["pointerover", "focusin"]) scroller.addEventListener(event, ({ target }) => tell(target.closest("[data-col]")));
  for (const event of ["pointerleave", "focusout"]) scroller.addEventListener(event, () => tell(null));
  scroller.addEventListener("click", ({ target }) => {
    const cell = target.closest("[data-col]");
    if (cell) choose(cell);
  });
  scroller.addEventListener("keydown", (event) => {
    const cell = event.target.closest("[data-col]");
    if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") choose(cell);
    else if (steps[event.key]) stop(at[0] + steps[event.key][0], at[1] + steps[event.key][1]);
    else return;
    event.preventDefault();
  });

  function draw() {
    if (!model || !seen || !width) return;
    const shards = [...(model.shards ?? [])].sort((a, b) => a.index - b.index);
    const nodes = nodesOf(shards).slice(0, MOST_ROWS);
    const shape = JSON.stringify([width, nodes.map((node) => [node, nodeName(node)]), shards.map((shard) => shard.index)]);
    facts = nodes.map((node) => shards.map((shard) => stateOf(shard, node)));
    if (shape !== built) {
      built = shape;
      const focused = element.contains(document.activeElement) && document.activeElement.closest("[data-col]");
      build(shards, nodes);
      stop(...at, { focus: Boolean(focused) });
    }
    nodes.forEach((node, row) => shards.forEach((shard, col) => paint(cells[row][col], facts[row][col], node)));
    const text = sentences(shards, nodes, facts);
    scroller.firstElementChild.setAttribute("aria-label", `Shards of ${model.name}, ${text.length ? text[0] : "none known"}`);
    words.replaceChildren(...text.map((line) => h("li", {}, line)));
    tell(told?.isConnected ? told : null);
  }

  function build(shards, nodes) {
    const narrow = onPhone();
    const named = narrow ? 84 : 128;
    const room = (width - named) / Math.max(1, shards.length);
    const cellWide = Math.max(narrow ? FINGER : NARROWEST, Math.min(WIDEST, room));
    const high = narrow ? FINGER + 2 : ROW;
    const size = { wide: Math.ceil(cellWide * shards.length), high: AXIS + nodes.length * high };
    const every = Math.ceil((String(shards.at(-1)?.index ?? 0).length * DIGIT + 7) / cellWide);
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((number) => number >= every) ?? every;
    const axis = s("g", { "aria-hidden": "true", class: "shard-axis" }, shards
      .filter((shard) => shard.index % step === 0)
      .map((shard) => s("text", { x: (shards.indexOf(shard) + 0.5) * cellWide, y: 12, class: "shard-number" }, shard.index)));
    cells = nodes.map((node, row) => shards.map((shard, col) => makeCell({
      x: col * cellWide + GAP / 2, y: AXIS + row * high + GAP / 2, wide: cellWide - GAP, high: high - GAP, row, col, index: shard.index, own: node === here(),
    })));
    scroller.replaceChildren(s("svg", { class: "shard-picture", width: size.wide, height: size.high, viewBox: `0 0 ${size.wide} ${size.high}`, role: "grid" },
      axis, cells.map((row) => s("g", { role: "row" }, row))));
    scroller.classList.toggle("shard-scrolls", size.wide > width - named + 1);
    labels.replaceChildren(...nodes.map((node) => h("div", { class: "lane-label", title: node }, swatch(node), h("span", {}, nodeName(node)))));
  }

  const update = (fresh, text, bad) => {
    model = fresh;
    rest = { text, bad };
    const narrow = onPhone();
    const rows = Math.min(MOST_ROWS, nodesOf(model.shards ?? []).length);
    if (!seen) element.style.minHeight = `${AXIS + rows * (narrow ? FINGER + 2 : ROW) + (narrow ? 92 : 52)}px`; // nothing moves when it is drawn
    draw();
  };
  new ResizeObserver(([entry]) => {
    const next = Math.floor(entry.contentRect.width);
    if (!next || next === width) return;
    width = next;
    draw();
  }).observe(element);
  // A swarm with many models has many thousand cells: only those that came into view are made.
  new IntersectionObserver((entries) => {
    if (seen || !entries.some((entry) => entry.isIntersecting)) return;
    seen = true;
    element.style.minHeight = "";
    draw();
  }, { rootMargin: "400px" }).observe(element);
  return { element, update };
}

/** This node first, whether it holds any or not; the others by their first shard. */
function nodesOf(shards) {
  const first = new Map();
  for (const shard of shards) for (const id of holdersOf(shard)) if (!first.has(id)) first.set(id, shard.index);
  first.delete(here());
  return [here(), ...[...first.keys()].sort((a, b) => first.get(a) - first.get(b) || (a < b ? -1 : 1))];
}

function stateOf(shard, node) {
  const own = node === here();
  const held = holdersOf(shard).includes(node);
  const arriving = own && !shard.local && shard.download ? shard.download : null;
  const nobody = !shard.local && (shard.holders ?? 0) === 0 && holdersOf(shard).length === 0;
  const done = arriving ? Math.min(1, (arriving.progress_pct ?? 0) / 100) : 0;
  const state = arriving ? "arriving" : held ? (own && shard.in_vram ? "loaded" : "held") : nobody ? "gap" : "none";
  const text = {
    arriving: `arriving, ${Math.floor(100 * done)} %${arriving?.state === "Queued" ? ", waits its turn" : arriving?.state === "Verifying" ? ", being checked" : ""}`,
    loaded: "in memory", held: own ? "on disk" : "holds it", gap: "no connected node holds it", none: own ? "not here" : "does not hold it",
  }[state];
  const range = shard.layer_end ? `, ${format.layers([shard.layer_start, shard.layer_end])}` : "";
  const label = `Shard ${shard.index}${range}, ${format.bytes(shard.size_bytes)}: ${nodeName(node)}, ${text}${own && shard.locked ? ", locked" : ""}`;
  return { state, done, locked: own && Boolean(shard.locked), label };
}

function makeCell({ x, y, wide, high, row, col, index, own }) {
  const cell = s("g", { class: "shard-cell", role: "gridcell", tabindex: "-1", "data-row": row, "data-col": col, "data-index": index },
    s("rect", { x, y, width: wide, height: high, rx: Math.min(3, wide / 4), class: "shard-ground" }));
  if (!own) return cell;
  const [cx, cy] = [x + wide / 2, y + high / 2];
  const lock = Math.min(9, wide - 1);
  cell.append(s("rect", { x: x + 1, y: y + high - 1, width: wide - 2, height: 0, class: "shard-done", "data-foot": y + high - 1, "data-room": high - 2 }),
    s("circle", { cx, cy, r: Math.min(4, wide / 3), class: "shard-loaded" }),
    s("g", { class: "shard-lock", transform: `translate(${x + wide - lock} ${y - 1}) scale(${lock / 9})` },
      s("rect", { x: -0.5, y: -0.5, width: 10, height: 11, rx: 2, class: "shard-lock-plate" }),
      s("path", { d: "M2.2 4.6 V3.4 a2.3 2.3 0 0 1 4.6 0 V4.6", class: "shard-lock-bow" }), s("rect", { x: 1, y: 4.4, width: 7, height: 5, rx: 1, class: "shard-lock-body" })));
  return cell;
}

function paint(cell, { state, done, locked, label }, node) {
  const kind = `shard-cell shard-is-${state}${locked ? " shard-is-locked" : ""} ${look(node).ink}`;
  if (cell.getAttribute("class") !== kind) cell.setAttribute("class", kind);
  if (cell.getAttribute("aria-label") !== label) cell.setAttribute("aria-label", label);
  const fill = state === "held" || state === "loaded" ? fillOf(node) : state === "gap" ? "url(#hatch-gap)" : "";
  if (fill) cell.firstElementChild.setAttribute("fill", fill);
  else cell.firstElementChild.removeAttribute("fill");
  const bar = cell.querySelector(".shard-done");
  if (!bar) return;
  const high = Number(bar.dataset.room) * (state === "arriving" ? done : 0);
  bar.setAttribute("y", Number(bar.dataset.foot) - high);
  bar.setAttribute("height", high);
}

/** The picture in words: how many, then one line for each node, then what is missing. */
function sentences(shards, nodes, facts) {
  if (!shards.length) return [];
  const list = (row, wanted) => shards.filter((_, col) => wanted(facts[row][col])).map((shard) => shard.index);
  const lines = nodes.map((node, row) => {
    const held = list(row, ({ state }) => state === "held" || state === "loaded");
    const parts = [`${node === here() ? "This node" : nodeName(node)} holds ${held.length ? format.ranges(held) : "none"}`];
    for (const [what, wanted] of [["in memory", (fact) => fact.state === "loaded"], ["arriving", (fact) => fact.state === "arriving"], ["locked", (fact) => fact.locked]]) {
      const found = list(row, wanted);
      if (found.length) parts.push(`${what}: ${format.ranges(found)}`);
    }
    return `${parts.join("; ")}.`;
  });
  const gaps = list(0, ({ state }) => state === "gap");
  return [`${format.plural(shards.length, "shard")} on ${format.plural(nodes.length, "node")}.`, ...lines,
    gaps.length ? `No connected node holds ${format.ranges(gaps)}.` : "Every shard has a holder."];
}

/** What the cells mean and are for, once for a page. */
export function shardLegend() {
  const sample = (state, fill, text, more = "") => {
    const cell = makeCell({ x: 1, y: 1, wide: 16, high: 16, row: 0, col: 0, index: 0, own: true });
    for (const name of ["role", "tabindex", "data-row", "data-col", "data-index"]) cell.removeAttribute(name);
    cell.setAttribute("class", `shard-cell shard-is-${state} ink-0 ${more}`);
    if (fill) cell.firstElementChild.setAttribute("fill", fill);
    if (state === "arriving") for (const [name, value] of [["y", 9], ["height", 7]]) cell.querySelector(".shard-done").setAttribute(name, value);
    return h("li", {}, s("svg", { width: 18, height: 18, viewBox: "0 0 18 18", "aria-hidden": "true" }, cell), text);
  };
  return h("div", {}, h("p", { class: "hint shard-hint" }, "Columns are shards, rows are nodes. Choose a cell to fetch, load, lock or delete its shard on this node."), h("ul", { class: "shard-legend", "aria-label": "What the cells mean" },
    sample("held", "url(#hatch-0-plain)", "held, in the node's own pattern"), sample("loaded", "url(#hatch-0-plain)", "in memory here"), sample("arriving", "", "arriving"),
    sample("none", "", "not on that node"), sample("gap", "url(#hatch-gap)", "on no connected node"), sample("held", "url(#hatch-0-plain)", "locked here", "shard-is-locked")));
}
