// What is on its way here, in the order in which it comes, and what came or failed. Rows are patched in place: a tick
// moves no button away under somebody's pointer.

import { fetchFromHub, oneAtATime, readDownloads } from "../actions.js";
import { modelPath, request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { announce, h, setText } from "../dom.js";
import { downloads, factsOf, isOver, SHARD_STATES, shardSource, stateOf } from "../downloads.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";

const path = (id, what) => `/api/admin/downloads/${encodeURIComponent(id)}/${what}`;

export function downloadsPanel() {
  const going = h("ol", { class: "downloads", "aria-label": "Downloads in their order" });
  const over = h("ul", { class: "downloads", "aria-label": "Finished and failed downloads" });
  const nothing = h("p", { class: "empty" }, "Nothing is being fetched. ", h("a", { href: "#/search" }, "Search Hugging Face"), " for a model, or fetch one of the swarm on the page ", h("a", { href: "#/models" }, "Models"), ".");
  const waiting = h("div", { class: "waiting downloads-waiting", "aria-hidden": "true" });
  const overTitle = h("h3", { class: "downloads-over" }, "Finished and failed");
  const rows = new Map();
  const draw = () => {
    const found = downloads();
    const all = [...found.going, ...found.over];
    for (const id of rows.keys()) if (!all.some((row) => row.model_id === id)) rows.delete(id);
    const elements = (list) => list.map((row, place) => {
      if (!rows.has(row.model_id)) rows.set(row.model_id, downloadRow(row.model_id, draw));
      const made = rows.get(row.model_id);
      made.update(row, { place, last: list.length - 1 });
      return made.element;
    });
    const focused = document.activeElement;
    place(going, elements(found.going));
    place(over, elements(found.over));
    if (document.activeElement !== focused && focused?.isConnected) focused.focus({ preventScroll: true }); // it moved with its row
    const unheard = get("connection").phase === "connecting" && !get("stats")?.acquisitions && !all.length;
    waiting.hidden = !unheard;
    nothing.hidden = unheard || found.going.length > 0;
    overTitle.hidden = over.hidden = found.over.length === 0;
  };
  watch(["acquisitions", "connection", "peers"], draw);
  return h("div", { class: "downloads-panel" }, waiting, nothing, going,
    overTitle, over);
}

/** The wanted children in the wanted order, with as few moves as possible. */
function place(list, wanted) {
  for (const child of [...list.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((element, at) => {
    if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
  });
}

function downloadRow(id, redraw) {
  let row = null;
  let spot = { place: 0, last: 0 };
  const work = oneAtATime(redraw);
  const name = h("h3", { class: "model-name" });
  const state = h("span", { class: "chip" });
  const order = h("span", { class: "download-place", "aria-hidden": "true" });
  const bar = h("progress", { max: 100 });
  const facts = h("p", { class: "download-facts" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const shards = h("ul", { class: "download-shards" });
  const log = h("ol", { class: "download-log" });
  const logTitle = h("h4", {}, "Log, newest first");
  const summary = h("summary");
  const more = h("details", { class: "as-table download-more", on: { toggle: () => drawMore() } }, summary, shards, logTitle, log);
  const button = (text, kind, what, action, props = {}) => h("button", { type: "button", class: `small ${kind}`, ...props, on: { click: () => work.run(what, action) } }, text);
  const change = (what, said) => async () => {
    await request(path(id, what), { method: "POST" });
    await readDownloads();
    return said();
  };
  const moveTo = async (next) => {
    const wanted = Math.max(0, Math.min(next, spot.last));
    if (wanted === spot.place) return null;
    await request(path(id, "place"), { method: "PUT", body: { place: wanted } });
    await readDownloads();
    return `${row.model_name} is number ${wanted + 1} of ${spot.last + 1}`;
  };

  const first = button("⤒", "icon", "Not moved", () => moveTo(0), { title: "Move to the front (Alt+Home)" });
  const up = button("↑", "icon", "Not moved", () => moveTo(spot.place - 1), { title: "Move up (Alt+Arrow up)" });
  const down = button("↓", "icon", "Not moved", () => moveTo(spot.place + 1), { title: "Move down (Alt+Arrow down)" });
  const pause = button("Pause", "", "Not paused", change("pause", () => `${row.model_name} is paused`));
  const resume = button("Resume", "primary", "Not resumed", change("resume", () => `${row.model_name} goes on`));
  const cancel = button("Cancel…", "quiet", "Not cancelled", async () => {
    const agreed = await confirmDanger({
      title: `Cancel fetching ${row.model_name}?`,
      text: `${row.verified_shards ? `The ${format.plural(row.verified_shards, "shard")} that ${row.verified_shards === 1 ? "is" : "are"} here ${row.verified_shards === 1 ? "stays" : "stay"}. ` : ""}What has arrived of the others (at most ${format.bytes(row.downloaded_bytes)}) may be thrown away. To go on later, pause it instead.`,
      danger: "Cancel the download",
    });
    return agreed ? change("cancel", () => `${row.model_name} was cancelled`)() : null;
  });
  const again = button("Try again", "", "Not started again", async () => {
    await tryAgain(row);
    await readDownloads();
    return `Fetching ${row.model_name} again`;
  });
  const where = h("a", { href: "#/models", class: "download-link" }, "Show its shards");
  const names = new Map([[first, "Move to the front"], [up, "Move up"], [down, "Move down"], [pause, "Pause"], [resume, "Resume"], [cancel, "Cancel"], [again, "Try again"]]);

  const element = h("li", { class: "download", "data-download": id, "aria-keyshortcuts": "Alt+ArrowUp Alt+ArrowDown Alt+Home", on: { keydown: (event) => {
    const next = event.altKey && { ArrowUp: spot.place - 1, ArrowDown: spot.place + 1, Home: 0, End: spot.last }[event.key];
    if (next === false || next === undefined || isOver(row)) return;
    event.preventDefault();
    work.run("Not moved", () => moveTo(next));
  } } },
  h("div", { class: "download-head" }, order, name, state, h("div", { class: "download-buttons" }, first, up, down, pause, resume, again, cancel, where)),
  bar, facts, trouble, more);

  function drawMore() {
    if (!more.open || !row) return;
    const details = row.shard_details ?? [];
    while (shards.children.length > details.length) shards.lastElementChild.remove();
    while (shards.children.length < details.length) shards.append(shardLine());
    details.forEach((shard, at) => drawShard(shards.children[at], shard));
    const lines = row.log ?? [];
    const old = [...log.children].map((line) => line.textContent);
    if (lines.length !== old.length || lines.some((line, at) => line !== old[at])) log.replaceChildren(...lines.map((line) => h("li", {}, line)));
    logTitle.hidden = !lines.length;
  }

  const update = (fresh, where_) => {
    const before = row?.state;
    row = { model_name: id, shard_details: [], log: [], ...fresh };
    spot = where_;
    const [text, kind] = stateOf(row);
    setText(name, row.model_name);
    name.title = id;
    setText(state, text);
    state.className = `chip chip-${kind}`;
    const ended = isOver(row);
    element.className = `download download-${row.state}`;
    setText(order, ended ? "" : `${spot.place + 1}`);
    order.hidden = ended;
    bar.hidden = ended && row.state !== "failed";
    if (row.state === "awaiting_manifest" && !row.total_bytes) bar.removeAttribute("value");
    else bar.value = row.overall_pct ?? 0;
    bar.setAttribute("aria-label", `${row.model_name}, ${text}`);
    setText(facts, factsOf(row));
    const show = (control, wanted) => {
      control.hidden = !wanted;
      control.disabled = work.busy;
      control.setAttribute("aria-label", `${names.get(control)}: ${row.model_name}`);
    };
    const several = !ended && spot.last > 0;
    for (const [control, wanted] of [[first, spot.last > 1], [up, true], [down, true]]) show(control, several && wanted);
    first.disabled ||= spot.place === 0;
    up.disabled ||= spot.place === 0;
    down.disabled ||= spot.place === spot.last;
    show(pause, !ended && !row.paused && row.state !== "paused");
    show(resume, !ended && (row.paused || row.state === "paused"));
    show(cancel, !ended && row.cancellable !== false);
    show(again, row.state === "failed" || row.state === "cancelled");
    where.hidden = row.state !== "complete";
    setText(trouble, work.trouble || (row.state === "failed" ? `${format.sentence(row.reason ?? "The reason is in its log")} What has arrived is kept: trying again goes on from there.` : ""));
    trouble.hidden = !trouble.textContent;
    more.hidden = !row.shard_details.length && !row.log.length;
    setText(summary, row.shard_details.length ? `${format.plural(row.shard_details.length, "shard")} and the log` : "Log");
    drawMore();
    if (before && before !== row.state && element.isConnected) announce(`${row.model_name}: ${text}`);
  };
  return { element, update };
}

function shardLine() {
  return h("li", { class: "download-shard" }, h("span", { class: "download-shard-name" }), h("progress", { max: 100 }), h("span", { class: "hint" }));
}

function drawShard(line, shard) {
  const [name, bar, facts] = line.children;
  setText(name, `shard ${shard.index}`);
  bar.value = shard.progress_pct ?? 0;
  bar.setAttribute("aria-label", `Shard ${shard.index}`);
  line.className = `download-shard download-shard-${shard.state}`;
  setText(facts, [
    shard.state === "downloading" ? `${Math.floor(shard.progress_pct ?? 0)} %` : SHARD_STATES[shard.state] ?? shard.state,
    shard.state === "downloading" && shard.speed_bytes_per_sec ? `${format.bytes(shard.speed_bytes_per_sec)}/s` : null,
    shard.state === "complete" ? format.bytes(shard.total_bytes) : null, shardSource(shard.source)].filter(Boolean).join(" · "));
  line.title = (shard.log ?? []).join("\n");
}

/** From where it came before; the shards that are here are not asked for again. */
async function tryAgain(row) {
  if (row.source !== "huggingface") {
    const reply = await request(modelPath(row.model_id, "/add"), { method: "POST" });
    if (reply.status === "unavailable") throw new Error(reply.message ?? "No connected node has it.");
    return;
  }
  const origin = await request(`/api/admin/hf/source/${encodeURIComponent(row.model_id)}`);
  const missing = row.shard_details.filter((shard) => shard.state !== "complete").map((shard) => shard.index);
  await fetchFromHub(origin, { model: row.model_id, shards: missing.length ? missing : null });
}
