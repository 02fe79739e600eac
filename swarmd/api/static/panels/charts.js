// Speed, round trips and memory over the last hour. Drawn by uPlot (vendor/uplot), which is fetched when charts come into view.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { backfill } from "../samples.js";
import { get, watch } from "../store.js";

const SCRIPT = "/static/vendor/uplot/uPlot.iife.min.js";
const STYLE = "/static/vendor/uplot/uPlot.min.css";
const RANGES = [["5 min", 300], ["15 min", 900], ["1 hour", 3600]];
const HEIGHT = 132;
const REMEMBERED = "swarmd-chart-range";

const CHARTS = [
  { id: "tokens", title: "Tokens per second", unit: (value) => format.fixed(value), lines: [["tokens", "all replies asked here", "way", true]] },
  { id: "rtt", title: "Round trip", unit: (value) => format.ms(value), lines: [["rtt", "median of the links", "accent", false], ["slowest", "slowest", "info", false]] },
  { id: "memory", title: "Memory", unit: (value) => format.megabytes(value), lines: [["used", "whole machine", "soft", true], ["rss", "swarmd and its models", "accent", false]] },
];

let loading = null;

/** The library, once. Raises where the file cannot be had. */
function library() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(h("link", { rel: "stylesheet", href: STYLE }));
    document.head.append(h("script", { src: SCRIPT, on: {
      load: () => resolve(globalThis.uPlot),
      error: () => {
        loading = null;
        reject(new Error("The charts could not be loaded."));
      },
    } }));
  });
  return loading;
}

export function chartsPanel() {
  const picked = h("div", { class: "ranges", role: "group", "aria-label": "How far back" }, RANGES.map(([text, seconds]) =>
    h("button", { type: "button", class: "small", "data-seconds": seconds, on: { click: () => choose(seconds) } }, text)));
  const charts = CHARTS.map(frame);
  const trouble = h("p", { class: "trouble", hidden: true });
  const panel = h("div", { class: "charts" }, picked, trouble, charts.map(({ element }) => element));
  let seconds = Number(sessionStorage.getItem(REMEMBERED)) || 900;
  const choose = (next) => {
    seconds = next;
    sessionStorage.setItem(REMEMBERED, String(next));
    draw();
  };
  const draw = () => {
    for (const button of picked.children) button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === seconds));
    if (!panel.isConnected) return;
    const samples = get("samples");
    for (const chart of charts) chart.draw(samples, seconds);
  };
  let begun = false;
  const begin = async () => {
    if (begun || !panel.isConnected) return;
    begun = true;
    try {
      const [uPlot] = await Promise.all([library(), backfill().catch(() => {})]); // an older node keeps no history: charts begin now
      for (const chart of charts) chart.use(uPlot);
      trouble.hidden = true;
    } catch (error) {
      begun = false;
      setText(trouble, error.message);
      trouble.hidden = false;
    }
    draw();
  };
  let phase = "";
  watch(["samples"], draw);
  watch(["connection"], () => {
    const now = get("connection").phase;
    if (now === "open" && phase === "lost") backfill().catch(() => {}); // what happened meanwhile
    phase = now;
    if (now === "open") queueMicrotask(begin);
  });
  queueMicrotask(() => panel.closest("section")?.addEventListener("shown", () => {
    begin();
    draw();
  }));
  new ResizeObserver(draw).observe(panel);
  new MutationObserver(() => charts.forEach((chart) => chart.recolour())).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.recolour()));
  return panel;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** One chart with its title, the figures of now, and a sentence for who sees no pictures. */
function frame({ id, title, unit, lines }) {
  const now = h("p", { class: "chart-now" });
  const place = h("div", { class: "chart-picture", role: "img", "aria-label": `${title}: nothing measured yet` });
  const probes = Object.fromEntries(["soft", "line", ...lines.map(([, , colour]) => colour)].map((name) => [name, h("span", { class: `probe probe-${name}` })]));
  const element = h("figure", { class: `chart chart-${id}` }, h("figcaption", {}, h("h3", {}, title), now), place, Object.values(probes));
  const ink = (name) => getComputedStyle(probes[name]).color;
  let uPlot = null;
  let plot = null;

  const axis = { stroke: () => ink("soft"), grid: { stroke: () => ink("line"), width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
  const options = (width) => ({
    width, height: HEIGHT, padding: [8, 6, 0, 0], legend: { show: false }, cursor: { show: false },
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, (high || 1) * 1.12] } },
    axes: [{ ...axis, size: 24, space: 60, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 58, space: 28, values: (_, ticks) => ticks.map(unit) }],
    series: [{}, ...lines.map(([, label, colour, filled]) => ({
      label, stroke: () => ink(colour), width: 1.6, spanGaps: false, points: { show: false },
      fill: filled ? () => ink(colour).replace("rgb(", "rgba(").replace(")", ", 0.12)") : undefined,
    }))],
  });

  return {
    element,
    use(given) {
      uPlot = given;
    },
    recolour: () => plot?.redraw(false),
    draw(samples, seconds) {
      const from = samples ? Math.max(0, samples.at.findIndex((at) => at >= Date.now() / 1000 - seconds)) : 0;
      const columns = samples ? lines.map(([name]) => samples[name].slice(from)) : lines.map(() => []);
      describe(columns);
      const width = Math.floor(place.clientWidth);
      if (!uPlot || !samples || width < 80) return;
      const data = [samples.at.slice(from), ...columns];
      const until = Date.now() / 1000;
      if (!plot) plot = new uPlot(options(width), data, place);
      if (plot.width !== width) plot.setSize({ width, height: HEIGHT });
      plot.setData(data, false);
      plot.setScale("x", { min: until - seconds, max: until });
    },
  };

  function describe(columns) {
    const parts = lines.map(([, label, colour], at) => {
      const known = columns[at].filter((value) => value !== null && value !== undefined);
      return { label, colour, last: known.at(-1) ?? null, top: known.length ? Math.max(...known) : null };
    });
    now.replaceChildren(...parts.map(({ label, colour, last }) => h("span", {}, h("span", { class: `key key-${colour}`, "aria-hidden": "true" }), `${label} `, h("strong", {}, last === null ? format.NONE : unit(last)))));
    place.setAttribute("aria-label", `${title}: ${parts.map(({ label, last, top }) => (last === null ? `${label} not measured yet` : `${label} ${unit(last)} now, ${unit(top)} at most`)).join("; ")}`);
  }
}
