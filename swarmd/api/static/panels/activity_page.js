// Everything that happened since the page was opened, and what the node remembers from before, with filters.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { nodeName, shortId } from "../nodes.js";
import { get, watch } from "../store.js";
import { levelOf } from "../toasts.js";
import { ageing } from "./activity.js";

const CATEGORIES = {
  network: "Network", security: "Members and keys", model: "Models", download: "Downloads", inference: "Replies",
  auto_manage: "Autopilot", provider: "Providers", credit: "Credits", system: "Node",
};
const LEVELS = { all: "Everything", loud: "What came as a notice", trouble: "Warnings and errors" };
const STORED = "swarmd-activity-filters";

export function activityPage() {
  const kept = readFilters();
  const words = h("input", { type: "search", id: "activity-words", placeholder: "Words, a model, a node…", value: kept.words ?? "", autocomplete: "off", spellcheck: "false" });
  const category = choice("activity-category", { "": "All subjects", ...CATEGORIES }, kept.category);
  const level = choice("activity-level", LEVELS, kept.level ?? "all");
  const hold = h("button", { type: "button", class: "small", "aria-pressed": "false" }, "Hold");
  const list = h("ol", { class: "activity activity-all", tabindex: "0", "aria-label": "Activity, newest first" });
  const said = h("p", { class: "hint", role: "status" });
  let held = null; // the list as it was when somebody wanted to read in peace

  const draw = () => {
    const all = held ?? get("activity");
    const found = all.filter((entry) => fits(entry, { words: words.value.trim().toLowerCase(), category: category.value, level: level.value }));
    const waiting = held ? get("activity").length - held.length : 0;
    setText(said, `${found.length === all.length ? format.plural(all.length, "entry", "entries") : `${format.count(found.length)} of ${format.plural(all.length, "entry", "entries")}`}${waiting > 0 ? `, ${format.count(waiting)} more since it is held` : ""}.`);
    if (found.length) list.replaceChildren(...found.map(row));
    else list.replaceChildren(h("li", { class: "empty" }, all.length ? "Nothing fits these filters." : "Nothing has happened yet. Peers, shards and requests will show up here."));
  };
  const changed = () => {
    sessionStorage.setItem(STORED, JSON.stringify({ words: words.value, category: category.value, level: level.value }));
    draw();
  };
  for (const element of [words, category, level]) element.addEventListener("input", changed);
  hold.addEventListener("click", () => {
    held = held ? null : [...get("activity")];
    hold.setAttribute("aria-pressed", String(Boolean(held)));
    setText(hold, held ? "Go on" : "Hold");
    draw();
  });
  watch(["activity", "peers"], draw);
  ageing(list);
  return h("div", { class: "activity-page" },
    h("div", { class: "row filters" },
      field("Words", words), field("Subject", category), field("How loud", level), hold),
    said, list);
}

const field = (text, input) => h("div", { class: "field" }, h("label", { for: input.id }, text), input);

const choice = (id, options, value) => {
  const element = h("select", { id }, Object.entries(options).map(([key, text]) => h("option", { value: key }, text)));
  element.value = value && value in options ? value : Object.keys(options)[0];
  return element;
};

function readFilters() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED) ?? "{}") ?? {};
  } catch {
    return {};
  }
}

function fits(entry, { words, category, level }) {
  if (category && entry.category !== category) return false;
  const loud = entry.toast_level ? levelOf(entry.toast_level) : null;
  if (level === "loud" && !loud) return false;
  if (level === "trouble" && loud !== "warning" && loud !== "error") return false;
  if (!words) return true;
  return [entry.message, entry.kind, entry.model_id, entry.node_id, entry.node_id && nodeName(entry.node_id), entry.detail_str]
    .some((text) => String(text ?? "").toLowerCase().includes(words));
}

function row(entry) {
  const date = format.moment(entry.timestamp);
  const level = entry.toast_level ? levelOf(entry.toast_level) : "quiet";
  return h("li", { class: "entry" },
    h("span", { class: `dot dot-${level}`, role: level === "quiet" ? null : "img", "aria-label": level === "quiet" ? null : level }),
    h("span", { class: "entry-text" }, entry.message ?? entry.kind ?? "",
      h("span", { class: "entry-more hint" }, [CATEGORIES[entry.category] ?? entry.category, entry.node_id && `node ${nodeName(shortId(entry.node_id))}`, entry.freed_bytes && `${format.bytes(entry.freed_bytes)} freed`].filter(Boolean).join(" · "))),
    date && h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, format.ago(date)));
}
