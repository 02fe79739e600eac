// Live numbers: one tile each, and the speed over the session as a small line.

import { h, s, setText } from "../dom.js";
import * as format from "../format.js";
import { peersUp } from "../nodes.js";
import { get, set, watch } from "../store.js";

const SAMPLE_MS = 2000;
const SAMPLES = 180; // 6 minutes; beyond that neighbours are merged, so the line always spans the session
const WIDTH = 120;
const HEIGHT = 28;
const SLOTS = 30; // a young session fills the line from the right

const share = (used, total) => (used === undefined || used === null || !total ? null : Math.min(1, used / total));

const TILES = [
  { id: "peers", label: "Peers", value: (stats) => format.count(get("peers") ? peersUp().length : stats.peers),
    note: () => { const lan = peersUp().filter((peer) => peer.is_lan_peer).length; return lan ? `${lan} on this LAN` : ""; } },
  { id: "served", label: "Served", value: (stats) => format.count(stats.requests_served), note: (stats) =>
    stats.forwards_served ? `${format.plural(stats.forwards_served, "forward")}` : "requests for others" },
  { id: "made", label: "Made", value: (stats) => format.count(stats.requests_made), note: () => "own requests" },
  { id: "active", label: "Active", value: (stats) => format.count(stats.active_requests), note: () => "running now" },
  { id: "memory", label: "Memory", value: ({ hardware = {} }) => format.megabytes(hardware.used_ram_mb),
    note: ({ hardware = {} }) => (hardware.total_ram_mb ? `of ${format.megabytes(hardware.total_ram_mb)}` : ""),
    meter: ({ hardware = {} }) => share(hardware.used_ram_mb, hardware.total_ram_mb) },
  { id: "disk", label: "Disk", value: ({ hardware = {} }) => format.megabytes(hardware.used_disk_mb),
    note: ({ hardware = {} }) => (hardware.available_disk_mb ? `${format.megabytes(hardware.available_disk_mb)} free` : ""),
    meter: ({ hardware = {} }) => share(hardware.used_disk_mb, hardware.total_disk_mb) },
  { id: "uptime", label: "Uptime", value: (stats) => format.duration(stats.uptime_seconds), note: (stats) => (stats.version ? `version ${stats.version}` : "") },
];

export function numbersPanel() {
  const line = s("path", { class: "spark-line" });
  const area = s("path", { class: "spark-area" });
  const rate = h("dd", { class: "tile-value" });
  const rateNote = h("dd", { class: "tile-note" });
  const tiles = TILES.map((tile) => {
    const value = h("dd", { class: "tile-value" });
    const note = h("dd", { class: "tile-note" });
    const level = s("rect", { x: 0, y: 0, height: 3, width: 0, class: "meter-level" });
    const meter = tile.meter && h("dd", { class: "tile-meter", "aria-hidden": "true" },
      s("svg", { viewBox: "0 0 100 3", preserveAspectRatio: "none" }, s("rect", { width: 100, height: 3, class: "meter-ground" }), level));
    return { ...tile, valueElement: value, noteElement: note, level,
      element: h("div", { class: `tile tile-${tile.id}` }, h("dt", {}, tile.label), value, note, meter) };
  });
  const speed = h("div", { class: "tile tile-speed" },
    h("dt", {}, "Tokens per second"), rate, rateNote,
    h("dd", { class: "tile-spark", "aria-hidden": "true" },
      s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" }, area, line)));

  watch(["stats", "peers"], () => {
    const stats = get("stats") ?? {};
    for (const tile of tiles) {
      setText(tile.valueElement, tile.value(stats));
      setText(tile.noteElement, tile.note(stats) || "\u00a0");
      if (tile.meter) tile.level.setAttribute("width", 100 * (tile.meter(stats) ?? 0));
    }
  });
  watch(["generation", "run", "stats"], () => {
    const [now, note] = currentRate();
    setText(rate, format.fixed(now));
    setText(rateNote, note);
  });
  watch(["rates"], () => drawLine(line, area));
  setInterval(sample, SAMPLE_MS);
  return h("dl", { class: "numbers", "aria-label": "Live numbers" }, tiles[0].element, speed, tiles.slice(1).map((tile) => tile.element));
}

/** What the tile shows: the reply in the making, else the last one, else what the node reports. */
function currentRate() {
  const generation = get("generation");
  if (generation?.rate) return [generation.rate, "this reply"];
  if (generation) return [null, "waiting for the first token"];
  const run = get("run");
  if (run?.tokens_per_second) return [run.tokens_per_second, "last reply"];
  const { tokens_now: now, tokens_per_second: last } = get("stats") ?? {};
  if (now && get("flows").length) return [now, "all replies asked here"];
  return last ? [last, "last reply"] : [null, "no reply yet"];
}

let each = 1; // ticks that one sample stands for
let gathered = [];

function sample() {
  gathered.push(get("generation")?.rate ?? get("stats")?.tokens_now ?? 0);
  if (gathered.length < each) return;
  let rates = [...get("rates"), Math.max(...gathered)];
  gathered = [];
  if (rates.length > SAMPLES) {
    rates = rates.filter((_, at) => at % 2 === 0).map((value, at) => Math.max(value, rates[2 * at + 1] ?? 0));
    each *= 2;
  }
  set("rates", rates);
}

function drawLine(line, area) {
  const rates = get("rates");
  const top = Math.max(1, ...rates) * 1.1;
  if (rates.length < 2) return;
  const step = WIDTH / (Math.max(SLOTS, rates.length) - 1);
  const x = (at) => (WIDTH - step * (rates.length - 1 - at)).toFixed(1);
  const points = rates.map((rate, at) => `${x(at)} ${(HEIGHT - 1 - (rate / top) * (HEIGHT - 3)).toFixed(1)}`);
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M${x(0)} ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
}
