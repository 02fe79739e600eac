// What happened, newest first.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";
import { levelOf } from "../toasts.js";

const SHOWN = 60;
const OLDER_MS = 10000; // relative times grow

export function activityPanel() {
  const list = h("ol", { class: "activity", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Activity, newest first" });
  const times = () => {
    for (const element of list.querySelectorAll("time")) setText(element, format.ago(new Date(element.dateTime)));
  };
  watch(["activity"], () => {
    const entries = get("activity").slice(0, SHOWN);
    if (!entries.length) return list.replaceChildren(h("li", { class: "empty" }, "Nothing has happened yet. Peers, shards and requests will show up here."));
    return list.replaceChildren(...entries.map(entryRow));
  });
  setInterval(times, OLDER_MS);
  return list;
}

function entryRow(entry) {
  const date = format.moment(entry.timestamp);
  return h("li", { class: "entry", title: entry.kind ?? "" },
    h("span", { class: `dot dot-${entry.toast_level ? levelOf(entry.toast_level) : "quiet"}`, "aria-hidden": "true" }),
    h("span", { class: "entry-text" }, entry.message ?? entry.kind ?? ""),
    date && h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, format.ago(date)));
}
