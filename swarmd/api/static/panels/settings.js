// Every setting: what it is, its range, where its value comes from, whether a change is live; and the change itself.

import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";
import { resource } from "../resource.js";
import { readSettings, saveSettings } from "../settings.js";
import { get, watch } from "../store.js";
import { toast } from "../toasts.js";
import { reopenWizard } from "./wizard.js";

const TITLES = {
  node: "Node", identity: "Identity", resources: "Resources", network: "Network", inference: "Replies", model: "Models",
  auto_manage: "Autopilot", downloads: "Downloads", api: "API", logging: "Logging", ui: "Dashboard", updates: "Updates",
  providers: "Providers", responses: "Responses", credits: "Credits",
};
const SOURCES = { default: "default", file: "settings file", environment: "environment", flag: "command line" };

export function settingsPanel() {
  const words = h("input", { type: "search", id: "settings-words", placeholder: "memory, port, autopilot…", autocomplete: "off", spellcheck: "false" });
  const changedOnly = h("input", { type: "checkbox", id: "settings-changed" });
  const body = h("div", { class: "settings-sections" });
  const where = h("p", { class: "hint" });
  const waiting = h("p", { class: "notice-line", hidden: true });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const count = h("span", { role: "status" });
  const save = h("button", { type: "submit", class: "primary" }, "Save");
  const drop = h("button", { type: "button", class: "quiet" }, "Discard");
  const bar = h("div", { class: "save-bar", hidden: true }, count, trouble, drop, save);
  const form = h("form", { class: "settings", novalidate: true, on: { submit: (event) => {
    event.preventDefault();
    store();
  } } }, h("div", { class: "row filters" },
    h("div", { class: "field" }, h("label", { for: words.id }, "Find"), words),
    h("label", { class: "check" }, changedOnly, h("span", {}, "Only what differs from the default")),
    h("button", { type: "button", class: "small", on: { click: reopenWizard } }, "Set this node up again")),
  where, waiting, body, bar);
  const rows = new Map(); // path -> row
  let busy = false;
  const edited = () => [...rows.values()].filter((row) => row.edited());

  const source = resource(form, { read: readSettings, draw: ({ data, error, missing }) => {
    if (data) return setText(where, `Stored in ${data.file}; only what differs from the defaults is written there.`);
    if (error) {
      body.replaceChildren(h("p", { class: "trouble" }, missing ? "This node does not describe its settings: it is of an older version." : error.message),
        h("p", {}, h("button", { type: "button", class: "small", on: { click: () => source.again() } }, "Try again")));
      return undefined;
    }
    return body.replaceChildren(...[1, 2, 3].map(() => h("div", { class: "waiting row-waiting" })));
  } });

  watch(["settings"], () => {
    const settings = get("settings");
    if (!settings) return;
    if (settings.length !== rows.size || settings.some(({ key }) => !rows.has(key))) build(settings);
    for (const setting of settings) rows.get(setting.key).update(setting);
    const later = settings.filter((setting) => setting.waiting !== null);
    waiting.hidden = !later.length;
    setText(waiting, later.length ? `${format.plural(later.length, "change")} of the settings wait${later.length === 1 ? "s" : ""} for a restart of the node: ${later.map(({ key }) => key).join(", ")}.` : "");
    filter();
    drawBar();
  });

  function build(settings) {
    rows.clear();
    for (const setting of settings) rows.set(setting.key, settingRow(setting, drawBar));
    const sections = [...new Set(settings.map(({ section }) => section))];
    body.replaceChildren(...sections.map((name) => h("section", { class: "settings-section", "aria-labelledby": `settings-${name}` },
      h("h3", { id: `settings-${name}` }, TITLES[name] ?? name),
      settings.filter(({ section }) => section === name).map(({ key }) => rows.get(key).element))));
  }

  function filter() {
    const wanted = words.value.trim().toLowerCase();
    for (const row of rows.values()) row.element.hidden = !row.fits(wanted, changedOnly.checked);
    for (const part of body.querySelectorAll(".settings-section")) part.hidden = !part.querySelector(".setting:not([hidden])");
    body.dataset.empty = String(rows.size > 0 && !body.querySelector(".setting:not([hidden])"));
  }
  words.addEventListener("input", filter);
  changedOnly.addEventListener("input", filter);

  function drawBar() {
    const number = edited().length;
    bar.hidden = !number && !busy;
    setText(count, `${format.plural(number, "change")}`);
    save.disabled = drop.disabled = busy;
    setText(save, busy ? "Saving…" : "Save");
  }
  drop.addEventListener("click", () => {
    for (const row of edited()) row.reset();
    setText(trouble, "");
    drawBar();
    announce("Discarded.");
  });

  async function store() {
    const changed = edited();
    if (!changed.length || busy) return;
    for (const row of changed) row.say("");
    setText(trouble, "");
    const broken = changed.find((row) => row.value() === undefined);
    if (broken) {
      broken.say(`It must be a whole number: ${broken.range}.`);
      broken.focus();
      return;
    }
    busy = true;
    drawBar();
    try {
      await saveSettings(Object.fromEntries(changed.map((row) => [row.key, row.value()])));
      for (const row of changed) row.reset();
      const later = changed.some((row) => !row.live);
      toast(later ? "Saved. What needs a restart takes effect when the node starts again." : "Saved.", "success");
    } catch (error) {
      const row = rows.get(error.param);
      if (row) {
        row.element.hidden = false;
        row.say(error.message);
        row.focus();
        setText(trouble, "Nothing was saved.");
      } else {
        setText(trouble, `Nothing was saved. ${error.message}`);
      }
    } finally {
      busy = false;
      drawBar();
    }
  }
  return form;
}

/** One setting. `value()`: as the node takes it; undefined where it cannot be read as such. */
function settingRow(first, changed) {
  let setting = first;
  const id = `setting-${setting.key.replace(".", "-")}`;
  const input = control(setting, id);
  const problem = h("p", { class: "trouble", id: `${id}-problem`, role: "alert" });
  const facts = h("p", { class: "hint setting-facts" });
  const mark = h("span", { class: `chip ${setting.live ? "chip-good" : "chip-plain"}` }, setting.live ? "live" : "after a restart");
  const back = h("button", { type: "button", class: "quiet small", "aria-label": `Default of ${setting.key}` }, "Default");
  const element = h("div", { class: "setting", "data-setting": setting.key },
    h("div", { class: "setting-words" },
      h("label", { for: id }, h("code", {}, setting.name)), mark, h("p", { id: `${id}-doc` }, setting.doc), facts),
    h("div", { class: "setting-control" }, input, back, problem));
  input.setAttribute("aria-describedby", `${id}-doc ${id}-problem`);
  const now = () => setting.waiting ?? setting.value;
  const show = (value) => {
    if (setting.type === "switch") input.checked = value === true;
    else input.value = value ?? "";
  };
  const value = () => {
    if (setting.type === "switch") return input.checked;
    if (setting.type === "text") return setting.choices.length ? input.value : input.value.trim();
    return /^-?\d{1,15}$/.test(input.value.trim()) ? Number(input.value) : undefined;
  };
  const edited = () => setting.writable && value() !== now();
  const say = (text) => {
    setText(problem, text);
    input.setAttribute("aria-invalid", text ? "true" : "false");
  };
  const redraw = () => {
    element.classList.toggle("setting-edited", edited());
    back.hidden = !setting.writable || value() === setting.default;
  };
  const touched = () => {
    say("");
    redraw();
    changed();
  };
  input.addEventListener("input", touched);
  back.addEventListener("click", () => {
    show(setting.default);
    touched();
    input.focus();
  });
  show(now());
  return {
    element, key: setting.key, live: setting.live, range: setting.range, value, edited, say,
    focus() {
      input.focus({ preventScroll: true });
      element.scrollIntoView({ block: "center" }); // not under the bar at the foot
    },
    reset() {
      show(now());
      say("");
      redraw();
    },
    update(fresh) {
      const kept = edited();
      setting = fresh;
      if (!kept) show(now());
      input.disabled = !setting.writable;
      setText(facts, [
        `${setting.range}`, `default ${shown(setting.default)}`, `now ${setting.secret ? "not shown" : shown(setting.value)}${setting.source === "default" ? "" : ` (${SOURCES[setting.source] ?? setting.source})`}`,
        setting.waiting === null ? "" : `after a restart ${shown(setting.waiting)}`, setting.why_not ?? "",
      ].filter(Boolean).join(" · "));
      redraw();
    },
    fits: (wanted, onlyChanged) => (!onlyChanged || setting.source !== "default" || setting.waiting !== null || edited())
      && (!wanted || `${setting.key} ${setting.doc} ${TITLES[setting.section] ?? ""}`.toLowerCase().includes(wanted)),
  };
}

const shown = (value) => (value === "" ? "empty" : value === true ? "on" : value === false ? "off" : String(value));

function control({ type, choices, low, high, secret }, id) {
  if (type === "switch") return h("input", { id, type: "checkbox", role: "switch", class: "toggle" });
  if (type === "number") return h("input", { id, type: "number", min: low, max: high, step: 1, inputmode: "numeric" });
  if (choices.length) return h("select", { id }, choices.map((choice) => h("option", { value: choice }, choice)));
  return h("input", { id, type: secret ? "password" : "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
}
