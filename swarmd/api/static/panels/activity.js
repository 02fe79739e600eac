// What happened, newest first: the short list of the overview.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";
import { levelOf } from "../toasts.js";

const SHOWN = 30;
const OLDER_MS = 10000; // relative times grow

export function activityPanel() {
  const list = h("ol", { class: "activity", tabindex: "0", "aria-label": "Activity, newest first" });
  watch(["activity"], () => {
    const entries = get("activity").slice(0, SHOWN);
    if (!entries.length) return list.replaceChildren(h("li", { class: "empty" }, "Nothing has happened yet. Peers, shards and requests will show up here."));
    return list.replaceChildren(...entries.map(entryRow));
  });
  ageing(list);
  return h("div", {}, list, h("p", { class: "more" }, h("a", { href: "#/activity" }, "All of it, with filters")));
}

/** Keeps "5 s ago" true. */
export function ageing(list) {
  setInterval(() => {
    if (!list.isConnected) return;
    for (const element of list.querySelectorAll("time")) setText(element, format.ago(new Date(element.dateTime)));
  }, OLDER_MS);
}

export function entryRow(entry) {
  const date = format.moment(entry.timestamp);
  return h("li", { class: "entry", title: entry.kind ?? "" },
    h("span", { class: `dot dot-${entry.toast_level ? levelOf(entry.toast_level) : "quiet"}`, "aria-hidden": "true" }),
    h("span", { class: "entry-text" }, entry.message ?? entry.kind ?? ""),
    date && h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, format.ago(date)));
}
