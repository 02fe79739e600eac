// Which version runs, whether there is a newer one, and the step to it.

import { oneAtATime } from "../actions.js";
import { request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { growing } from "../markdown.js";
import { resource } from "../resource.js";
import { get, set, watch } from "../store.js";

const CHANNELS = { disabled: "Does not look for updates by itself", stable: "Looks for stable versions", all: "Looks for all versions, trials too" };

export function versionPanel() {
  const line = h("p", { class: "version-line" });
  const facts = h("p", { class: "hint" });
  const failed = h("p", { class: "trouble" });
  const changes = h("div", { class: "said-text said-marked changelog" });
  const said = h("p", { class: "said", role: "status" });
  const check = h("button", { type: "button" }, "Look for an update");
  const apply = h("button", { type: "button", class: "primary" }, "Update and restart…");
  const bar = h("progress", { hidden: true, "aria-label": "Update" });
  const show = growing(changes);
  const details = h("details", { class: "fold" }, h("summary", {}, "What is new in it"), changes);
  const panel = h("div", { class: "version stack" }, line, facts, failed, details, h("div", { class: "row" }, check, apply, bar), said);
  const work = oneAtATime(() => {
    check.disabled = apply.disabled = work.busy;
    bar.hidden = !work.busy;
    if (work.trouble) say(work.trouble, "trouble");
  });
  const say = (text, kind = "well") => {
    said.className = `said ${kind}`;
    setText(said, text);
  };
  const source = resource(panel, { read: () => request("/api/admin/version"), everyMs: 60000, draw: ({ data, error }) => {
    if (data) set("update", { ...get("update"), ...data }); // the news and a look say more of the newer one
    else if (error) say(error.message, "trouble");
  } });
  watch(["update", "self"], () => {
    const update = get("update") ?? {};
    const version = update.current_version ?? get("self")?.version ?? format.NONE;
    const newer = update.update_available && update.latest_version;
    setText(line, newer ? `swarmd ${version} runs here. Version ${update.latest_version} is available.` : `swarmd ${version} runs here.`);
    const looked = format.moment(update.last_checked);
    const published = newer && format.moment(update.published_at);
    setText(facts, [CHANNELS[update.channel], looked ? `looked ${format.ago(looked)}` : "not looked yet", published && `published ${format.ago(published)}`, newer && update.size_bytes && format.bytes(update.size_bytes), newer && update.downloaded && "downloaded"].filter(Boolean).join(" · "));
    setText(failed, update.last_error ? format.sentence(update.last_error) : "");
    if (update.restart_required) say("The node is about to restart in another version. This page comes back by itself.", "hint");
    apply.hidden = !newer || update.restart_required === true;
    check.hidden = update.restart_required === true;
    details.hidden = !update.changelog;
    if (update.changelog) show(String(update.changelog));
  });
  check.addEventListener("click", () => work.run("Not checked", async () => {
    say("Looking…", "hint");
    const told = await request("/api/admin/update/check", { method: "POST" });
    if (told.info) set("update", { ...get("update"), ...told.info, update_available: true });
    await source.again();
    say(told.status === "up_to_date" ? "This is the newest version." : `Version ${told.info.latest_version} is available.`);
  }));
  apply.addEventListener("click", async () => {
    const { latest_version: next } = get("update");
    const agreed = await confirmDanger({ title: `Update to ${next}?`, text: "The node finishes the replies that run, restarts in the new version, and goes back to this one by itself if that does not become ready.", danger: "Update", keep: "Not now" });
    if (agreed) await work.run("Not updated", async () => {
      say("Updating…", "hint");
      const told = await request("/api/admin/update/apply", { method: "POST" });
      set("update", { ...get("update"), restart_required: true });
      say(`${format.sentence(told.message)} This page comes back by itself.`);
    });
  });
  return panel;
}
