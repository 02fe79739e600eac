// The autopilot: what it would do now and why, what it dropped, and the hours in which the machine gives less.

import { oneAtATime } from "../actions.js";
import { followAutopilot, setAutopilot, setSchedule } from "../autopilot.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";

const CONTRIBUTIONS = [["minimal", "as little as possible"], ["moderate", "a moderate part"], ["maximum", "all it may"]];
const DROPPING = [["conservative", "late"], ["normal", "as usual"], ["aggressive", "early"]];
const MOST_ROWS = 200; // of a list; the plan of a large swarm has thousands

export function autopilotPanel() {
  const onOff = h("button", { type: "button", role: "switch", class: "switch", on: { click: () => work.run("Not changed", async () => {
    const next = !get("plan").enabled;
    await setAutopilot(next);
    return next ? "The autopilot is on" : "The autopilot is off";
  }) } }, h("span", { class: "switch-knob", "aria-hidden": "true" }), h("span", { class: "switch-text" }));
  const work = oneAtATime(() => draw());
  const trouble = h("p", { class: "trouble", role: "alert" });
  const numbers = h("dl", { class: "pilot-numbers" });
  const moves = tableOf(["Would", "Model", "Shard", "Size", "Score", "Why"]);
  const nothing = h("p", { class: "empty" });
  const rest = more(["What", "Model", "Shards", "Why"]);
  const history = more(["When", "Model", "Shard", "Freed", "Copies", "Why"]);
  const element = h("div", { class: "pilot" },
    h("div", { class: "pilot-head" }, onOff, h("p", { class: "hint" }, "Fetches shards that have too few copies in the swarm, and drops those that have too many when the disk gets full. This is what it would do now; nothing here has happened yet.")),
    trouble, numbers, h("h3", {}, "Next moves"), nothing, moves.element, rest.element, history.element, scheduleForm());

  function draw() {
    const plan = get("plan");
    setText(trouble, work.trouble || (get("planError") ? `The plan could not be read. ${get("planError")}` : ""));
    trouble.hidden = !trouble.textContent;
    onOff.disabled = work.busy || !plan;
    if (!plan) return;
    onOff.setAttribute("aria-checked", String(plan.enabled));
    setText(onOff.lastElementChild, plan.enabled ? "Autopilot is on" : "Autopilot is off");
    drawNumbers(numbers, plan);
    const names = new Map((get("models") ?? []).map((model) => [model.id, model.name]));
    const named = (id) => names.get(id) ?? id;
    const rows = [...plan.fetch.map((move) => ["fetch", move]), ...plan.drop.map((move) => ["drop", move])];
    setText(nothing, plan.enabled ? "Nothing to do: every model has the copies it should have, as far as this node may help." : "It is off, and would have nothing to do either.");
    nothing.hidden = rows.length > 0;
    moves.element.hidden = rows.length === 0;
    moves.fill(rows.slice(0, MOST_ROWS).map(([what, move]) => [
      h("span", { class: `chip ${what === "fetch" ? "chip-good" : "chip-warn"}` }, what === "fetch" ? "↓ fetch" : "× drop"),
      named(move.model_id), move.shard_index, format.bytes(move.size_bytes), format.fixed(move.score, 2), move.reason]));
    const others = grouped([...plan.not_fetched.map((row) => ["stays away", row]), ...plan.kept.map((row) => ["stays", row])]);
    rest.set(`What stays as it is (${format.count(plan.not_fetched.length + plan.kept.length)})`, others.map(({ what, row, indices }) => [
      h("span", { class: "chip" }, what), named(row.model_id), indices.length ? format.ranges(indices) : "all", h("span", { title: row.code }, row.reason)]));
    const pruned = get("pruned") ?? [];
    history.set(`What it dropped (${format.count(pruned.length)})`, pruned.map((event) => {
      const date = format.moment(event.timestamp);
      return [date ? h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, format.ago(date)) : format.NONE,
        event.model_name || named(event.model_id), event.shard_index, format.bytes(event.freed_bytes), `${event.holder_count_before} → ${event.holder_count_after}`, event.reason];
    }));
  }
  watch(["plan", "planError", "pruned", "models"], draw);
  followAutopilot(element);
  return element;
}

function drawNumbers(list, plan) {
  const percent = Math.min(100, Math.round(100 * (plan.pressure ?? 0)));
  const rows = [
    ["Disk it may use", plan.budget_bytes ? `${format.bytes(plan.used_bytes)} of ${format.bytes(plan.budget_bytes)}` : format.bytes(plan.used_bytes)],
    ["How full", `${percent} %`], ["Moves left this hour", format.count(plan.moves_left)],
    ["Nodes", format.count(plan.pool)], ["Gives", `${plan.contribution}${plan.reduced_hours ? ", reduced hours" : ""}`],
  ];
  if (list.children.length !== rows.length) list.replaceChildren(...rows.map(([name]) => h("div", {}, h("dt", {}, name), h("dd", {}))));
  rows.forEach(([, value], at) => setText(list.children[at].lastElementChild, value));
}

/** Equal reasons of one model are one row. */
function grouped(rows) {
  const found = new Map();
  for (const [what, row] of rows) {
    const key = `${what} ${row.model_id} ${row.code} ${row.reason}`;
    if (!found.has(key)) found.set(key, { what, row, indices: [] });
    if (row.shard_index !== null && row.shard_index !== undefined) found.get(key).indices.push(row.shard_index);
  }
  const groups = [...found.values()].slice(0, MOST_ROWS);
  for (const group of groups) group.indices.sort((a, b) => a - b);
  return groups;
}

function tableOf(heads) {
  const body = h("tbody");
  const element = h("div", { class: "scroll-x pilot-table", tabindex: "0", role: "group", "aria-label": "Table" },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), body));
  let shown = "";
  const fill = (rows) => {
    const next = JSON.stringify(rows.map((row) => row.map((cell) => cell?.outerHTML ?? cell)));
    if (next === shown) return; // a selection in it survives
    shown = next;
    body.replaceChildren(...rows.map((row) => h("tr", {}, row.map((cell, at) => h("td", { "data-head": heads[at], class: heads[at] === "Why" ? "why" : null }, cell)))));
  };
  return { element, fill };
}

function more(heads) {
  const summary = h("summary");
  const table = tableOf(heads);
  const element = h("details", { class: "as-table" }, summary, table.element);
  const set = (text, rows) => {
    element.hidden = rows.length === 0;
    setText(summary, text);
    table.fill(rows);
  };
  return { element, set };
}

function scheduleForm() {
  let shown = "";
  const hours = () => Array.from({ length: 24 }, (_, hour) => h("option", { value: hour }, `${String(hour).padStart(2, "0")}:00`));
  const options = (pairs) => pairs.map(([value, text]) => h("option", { value }, text));
  const enabled = h("input", { type: "checkbox", id: "schedule-on" });
  const start = h("select", { id: "schedule-start" }, hours());
  const end = h("select", { id: "schedule-end" }, hours());
  const gives = h("select", { id: "schedule-gives" }, options(CONTRIBUTIONS));
  const drops = h("select", { id: "schedule-drops" }, options(DROPPING));
  const save = h("button", { type: "submit", class: "small" }, "Save");
  const said = h("span", { role: "status" });
  const work = oneAtATime(() => {
    save.disabled = work.busy;
    said.className = work.trouble ? "trouble" : "well";
    setText(said, work.trouble);
  });
  const field = (control, text) => h("div", { class: "field" }, h("label", { for: control.id }, text), control);
  const form = h("form", { class: "schedule", on: { submit: (event) => {
    event.preventDefault();
    work.run("Not saved", async () => {
      await setSchedule({
        enabled: enabled.checked, reduced_hours_start: Number(start.value), reduced_hours_end: Number(end.value),
        reduced_contribution: gives.value, prune_aggressiveness: drops.value,
      });
      return "The hours are saved";
    }).then(() => work.trouble || setText(said, "Saved."));
  } } }, h("h3", {}, "Hours in which this machine gives less"),
  h("label", { class: "check" }, enabled, h("span", {}, "Give less at these hours", h("span", { class: "hint" }, " by the clock of the node's machine"))),
  h("div", { class: "schedule-fields" }, field(start, "From"), field(end, "Until"), field(gives, "It gives"), field(drops, "Drops shards")),
  h("div", { class: "row" }, save, said));
  watch(["schedule"], () => {
    const schedule = get("schedule");
    form.hidden = !schedule;
    const text = JSON.stringify(schedule);
    if (!schedule || text === shown) return; // what somebody is choosing stays until the node says something new
    shown = text;
    enabled.checked = schedule.enabled;
    start.value = schedule.reduced_hours_start;
    end.value = schedule.reduced_hours_end;
    gives.value = schedule.reduced_contribution;
    drops.value = schedule.prune_aggressiveness;
  });
  return form;
}
