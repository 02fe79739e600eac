// Where the nodes are, what is held and asked for there, and what is missing.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";

const NAMED = 3; // models in a cell; the rest is a number

export function regionsPanel() {
  const rows = h("ul", { class: "regions" });
  const waiting = h("div", { class: "waiting regions-waiting", "aria-hidden": "true" });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  let drawn = "";

  watch(["networkMap", "networkMapError", "stats"], () => {
    const map = get("networkMap");
    const error = get("networkMapError");
    trouble.hidden = !error;
    if (error) setText(trouble, `The regions could not be read. ${error}`);
    waiting.hidden = map !== null || Boolean(error);
    if (!map) return;
    const live = get("stats") ?? {};
    const found = Object.entries(map.regions ?? {}).map(([name, region]) => ({
      name, ...region,
      demand: live.region_demand?.[name] ?? (live.region_demand ? {} : region.demand), // the tick is newer
      gaps: live.region_coverage_gaps?.[name] ?? (live.region_coverage_gaps ? [] : region.coverage_gaps),
    }));
    const now = JSON.stringify([found, live.region]);
    if (now === drawn) return;
    drawn = now;
    rows.replaceChildren(...found.sort((a, b) => b.total - a.total || (a.name < b.name ? -1 : 1)).map((region) => line(region, live.region)));
  });
  return h("div", {}, waiting, rows, trouble);
}

function line(region, here) {
  const asked = Object.entries(region.demand ?? {}).sort((a, b) => b[1] - a[1]);
  const thin = Object.entries(region.replication_target ?? {}).filter(([model, target]) => (region.models?.[model] ?? 0) < target);
  return h("li", { class: "region" },
    h("div", { class: "region-head" }, h("strong", {}, region.name === "??" ? "Region unknown" : region.name),
      h("span", { class: "hint" }, `${format.plural(region.total, "node")}${region.name === here && here !== "??" ? ", this one among them" : ""}`)),
    h("dl", { class: "region-facts" },
      fact("Held", names(Object.entries(region.models ?? {}).map(([model, holders]) => `${model} (${holders})`)) || "nothing"),
      asked.length > 0 && fact("Asked, 10 min", names(asked.map(([model, count]) => `${model} (${format.count(count)})`))),
      thin.length > 0 && fact("Should be on more", names(thin.map(([model, target]) => `${model} (${region.models?.[model] ?? 0} of ${target})`)), "region-thin"),
      region.gaps?.length > 0 && fact("Nobody here holds", names(region.gaps), "region-gap")));
}

const fact = (title, text, kind) => h("div", { class: kind }, h("dt", {}, title), h("dd", {}, text));

const names = (list) => list.slice(0, NAMED).join(", ") + (list.length > NAMED ? ` and ${list.length - NAMED} more` : "");
