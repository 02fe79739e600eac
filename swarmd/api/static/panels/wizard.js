// The first questions to a node that nobody has set up yet: name, share of the machine, network, a model that fits. Each may
// be skipped; closed in the middle, it goes on there the next time.

import { hasKey, onOwnMachine, request } from "../api.js";
import { announce, h, setText } from "../dom.js";
import { judge, VERDICTS } from "../fits.js";
import * as format from "../format.js";
import { field, problemBeside } from "../forms.js";
import { peersUp } from "../nodes.js";
import { readSettings, saveSettings } from "../settings.js";
import { get, set, watch } from "../store.js";
import { toast } from "../toasts.js";
import { inviteHalf } from "./invite.js";
import { joinHalf } from "./join.js";
import { pickFile } from "./pick.js";

const STORED = "swarmd-setup"; // { step, done } of this node, in this browser
const STEPS = [["Name", nameStep], ["Share", shareStep], ["Network", networkStep], ["Model", modelStep]];
const SHARES = [["minimal", "A little", 0.5, "Half of the memory and half of the processor: you notice nothing."],
  ["moderate", "Much", 0.65, "Two thirds of the memory, three quarters of the processor: for a machine with time to spare."],
  ["maximum", "All that is sensible", 0.8, "For a machine that does nothing else; a fifth of the memory stays free."]];
const SUGGESTED = 4;
const QUERY = "instruct"; // what answers questions, by how the field names its files

export const wizardWanted = () => get("wizard")?.open === true;

const key = () => `${STORED}-${get("self")?.id ?? ""}`;
const kept = () => {
  try {
    return JSON.parse(localStorage.getItem(key()) ?? "{}") ?? {};
  } catch {
    return {};
  }
};

function goTo(step, done = false) {
  localStorage.setItem(key(), JSON.stringify({ step, done }));
  set("wizard", { open: !done, step });
}

/** At the start of the page: whether there is anything to ask. Asks nothing where this page could not save it. */
export async function decideWizard() {
  const { step = 0, done = false } = kept();
  if (done || get("wizard") || !(onOwnMachine() || hasKey())) return;
  try {
    const { settings } = await readSettings();
    const untouched = (path) => settings.find((setting) => setting.key === path)?.source === "default";
    if (step > 0 || (untouched("identity.nickname") && untouched("node.contribution") && !(get("peers") ?? []).length)) set("wizard", { open: true, step });
  } catch {
    // an older node, or one that is away: there is nothing to set up from here
  }
}

export function reopenWizard() {
  goTo(0);
  location.hash = "#/";
}

export function wizardPanel() {
  const steps = h("ol", { class: "wizard-steps", "aria-label": "Steps" });
  const body = h("div", { class: "wizard-body" });
  const panel = h("div", { class: "wizard" }, steps, body);
  let shown = -1;
  watch(["wizard", "settings"], () => {
    const { open, step } = get("wizard") ?? {};
    if (!open) {
      shown = -1;
      return body.replaceChildren();
    }
    if (step === shown || !get("settings")) {
      if (!get("settings")) readSettings().catch(() => {});
      return undefined;
    }
    const moved = shown >= 0;
    shown = step;
    steps.replaceChildren(...STEPS.map(([title], at) => h("li", { "aria-current": at === step && "step", class: at < step ? "wizard-past" : null }, `${at + 1}. ${title}`)));
    body.replaceChildren(STEPS[step][1]());
    if (moved) body.querySelector("input, select, button")?.focus();
    return undefined;
  });
  return panel;
}

/** The frame of a step. `save`: async () => void, before the next one; raises ApiError. */
function stepForm(title, text, children, { save = null, last = false } = {}) {
  const step = get("wizard").step;
  const trouble = h("p", { class: "trouble", role: "alert" });
  const next = h("button", { type: "submit", class: "primary" }, last ? "Done" : "Next");
  const on = () => {
    if (last) {
      goTo(0, true);
      toast("This node is set up. Everything can be changed under Settings.", "success");
    } else {
      goTo(step + 1);
      announce(`Step ${step + 2} of ${STEPS.length}: ${STEPS[step + 1][0]}`);
    }
  };
  return h("form", { class: "stack", on: { submit: async (event) => {
    event.preventDefault();
    next.disabled = true;
    setText(trouble, "");
    try {
      await save?.();
      on();
    } catch (error) {
      setText(trouble, error.message);
    } finally {
      next.disabled = false;
    }
  } } }, h("h3", {}, title), h("p", { class: "hint" }, text), children, trouble,
  h("div", { class: "row" },
    step > 0 && h("button", { type: "button", on: { click: () => goTo(step - 1) } }, "Back"), next,
    !last && h("button", { type: "button", class: "quiet", on: { click: on } }, "Skip this"),
    h("button", { type: "button", class: "quiet", on: { click: () => goTo(step, true) } }, "Not now, and do not ask again")));
}

const settingOf = (path) => get("settings").find((setting) => setting.key === path);

function nameStep() {
  const setting = settingOf("identity.nickname");
  const name = h("input", { id: "wizard-name", maxlength: 32, autocomplete: "off", spellcheck: "false", placeholder: "kitchen, workstation-2, …", value: setting?.value ?? "", disabled: !setting?.writable });
  return stepForm("What should this node be called?", `Others in your swarm see this name instead of ${get("self")?.id.slice(0, 8) ?? "an id"}.`,
    field("Name", name, setting?.range ?? "", true), { save: async () => {
      const value = name.value.trim();
      if (setting && value !== setting.value) await problemBeside({ "identity.nickname": name }, () => saveSettings({ "identity.nickname": value }));
    } });
}

function shareStep() {
  const setting = settingOf("node.contribution");
  const disk = settingOf("resources.max_disk_mb");
  const total = get("stats")?.hardware?.total_ram_mb;
  const choices = SHARES.map(([value, title, share, text]) => {
    const box = h("input", { type: "radio", name: "wizard-share", value, checked: setting?.value === value, disabled: !setting?.writable });
    return { box, line: h("label", { class: "way-choice" }, box, h("span", {}, h("strong", {}, title), h("span", { class: "hint" }, `${text}${total ? ` Up to ${format.megabytes(total * share)} for models.` : ""}`))) };
  });
  const room = h("input", { id: "wizard-disk", type: "number", min: Math.ceil((disk?.low ?? 100) / 1000), max: Math.floor((disk?.high ?? 1e7) / 1000), step: 1, inputmode: "numeric", value: Math.round((disk?.value ?? 50000) / 1000), disabled: !disk?.writable });
  const free = get("stats")?.hardware?.available_disk_mb;
  return stepForm("How much of this machine may the swarm use?", "It is used for replies of the whole swarm, and given back when nobody asks.", [
    h("fieldset", { class: "pick-ways" }, h("legend", {}, "Memory and processor"), choices.map(({ line }) => line)),
    field("Disk space for models, in GB", room, free ? `${format.megabytes(free)} are free.` : "")], { save: async () => {
    const changes = {};
    const share = choices.find(({ box }) => box.checked)?.box.value;
    if (setting?.writable && share && share !== setting.value) changes["node.contribution"] = share;
    const megabytes = Math.round(Number(room.value) * 1000);
    if (disk?.writable && room.value && Math.round(disk.value / 1000) !== Number(room.value)) changes["resources.max_disk_mb"] = megabytes;
    if (Object.keys(changes).length) await problemBeside({ "resources.max_disk_mb": room }, () => saveSettings(changes));
  } });
}

function networkStep() {
  const count = h("p", { class: "well", role: "status" });
  const draw = () => setText(count, peersUp().length ? `Connected to ${format.plural(peersUp().length, "node")}.` : "");
  watch(["peers"], draw);
  return stepForm("Which swarm does it belong to?", "Join one with a code that somebody gave you, or found your own: the first invite does that. A node alone works, too.",
    [h("div", { class: "join" }, joinHalf("wizard-join"), inviteHalf()), count]);
}

function modelStep() {
  const list = h("div", { class: "rows" });
  const bar = h("progress", { "aria-label": "Looking for models" });
  const said = h("p", { class: "hint", role: "status" }, "Looking for models that fit…");
  const look = async () => {
    bar.hidden = false;
    setText(said, "Looking for models that fit…");
    list.replaceChildren();
    try {
      const repos = (await request(`/api/admin/hf/search?query=${QUERY}`)).filter((repo) => repo.variants?.length && !repo.gated);
      const verdict = judge(repos);
      const fitting = repos.map((repo) => ({ repo, variant: repo.variants.find((one) => one.filename === repo.recommended_filename) ?? repo.variants[0] }))
        .map((one) => ({ ...one, fits: verdict(one.variant.size_bytes) })).filter(({ fits }) => fits !== "no")
        .sort((a, b) => (a.fits === b.fits ? b.variant.size_bytes - a.variant.size_bytes : a.fits === "here" ? -1 : 1)).slice(0, SUGGESTED);
      setText(said, fitting.length ? "The largest that fit, of those asked for most:" : "Nothing that was found fits this machine. Search for smaller ones, or join a swarm.");
      list.replaceChildren(...fitting.map(({ repo, variant, fits }) => h("article", { class: "row-card" },
        h("div", {}, h("p", { class: "row-name" }, repo.repo_id), h("p", { class: "hint" }, `${variant.quant || "GGUF"} · ${format.bytes(variant.size_bytes)} · `, h("span", { class: `verdict-${VERDICTS[fits].kind}` }, VERDICTS[fits].text))),
        h("div", { class: "row-buttons" }, h("button", { type: "button", on: { click: () => pickFile({ repo, variant, verdict: fits }) } }, "Fetch…")))));
    } catch (error) {
      setText(said, `No suggestions: ${error.message} The built-in model answers questions about swarmd without any download.`);
      list.replaceChildren(h("p", {}, h("button", { type: "button", class: "small", on: { click: look } }, "Try again")));
    } finally {
      bar.hidden = true;
    }
  };
  look();
  const here = (get("models") ?? []).filter((model) => model.status === "ready" || model.status === "loaded");
  return stepForm("Which model should answer?", here.length ? `Ready now: ${here.map(({ name }) => name).join(", ")}. More can be fetched at any time.` : "It comes from Hugging Face, or from other nodes of the swarm.",
    [said, bar, list, h("p", { class: "hint" }, h("a", { href: "#/search" }, "Search for others"), ", or ", h("a", { href: "#/models" }, "add a file of this machine"), ".")], { last: true });
}
