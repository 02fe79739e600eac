// What the autopilot may do with one model.

import { oneAtATime } from "../actions.js";
import { setPolicy } from "../autopilot.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";

const MOST = 100000; // shards of one model: more than any has

/** { element, update(policy, wanted) }: keeps its place free while the policy is not known yet. What is typed stays until it is saved or the policy changes. */
export function policyForm(id) {
  let policy = null;
  let shown = "";
  const summary = h("summary", {});
  const check = (text, hint) => {
    const box = h("input", { type: "checkbox" });
    return { box, line: h("label", { class: "check" }, box, h("span", {}, text, h("span", { class: "hint" }, ` ${hint}`))) };
  };
  const manage = check("Fetch its shards by itself", "when the swarm needs more copies");
  const prune = check("Drop its shards by itself", "when there are more copies than needed and the disk is short");
  const most = h("input", { type: "number", min: 0, max: MOST, step: 1, inputmode: "numeric", class: "short" });
  const said = h("span", { class: "hint", role: "status" });
  const save = h("button", { type: "submit", class: "small" }, "Save");
  const work = oneAtATime(() => {
    save.disabled = work.busy;
    said.className = work.trouble ? "trouble" : "well";
    setText(said, work.trouble);
  });
  const form = h("form", { class: "policy-form", on: { submit: (event) => {
    event.preventDefault();
    work.run("Not saved", async () => {
      await setPolicy(id, { enabled: manage.box.checked, max_shards: Math.min(MOST, Math.max(0, Math.round(Number(most.value) || 0))), prune_enabled: prune.box.checked });
      return "The policy is saved";
    }).then(() => work.trouble || setText(said, "Saved."));
  } } }, manage.line, prune.line,
  h("label", { class: "check" }, most, h("span", {}, "shards of it at most on this node", h("span", { class: "hint" }, " 0: no limit"))),
  h("div", { class: "row" }, save, said));
  const element = h("details", { class: "policy" }, summary, form);

  const update = (fresh, wanted) => {
    element.hidden = !wanted;
    element.classList.toggle("none", !fresh);
    if (!fresh) return setText(summary, "Autopilot");
    const text = JSON.stringify(fresh);
    policy = fresh;
    setText(summary, `Autopilot: ${policy.enabled ? "fetches" : "does not fetch"}${policy.enabled && policy.max_shards ? ` up to ${format.plural(policy.max_shards, "shard")}` : ""}, ${policy.prune_enabled ? "may drop" : "never drops"}`);
    if (text === shown) return undefined;
    shown = text;
    manage.box.checked = policy.enabled;
    prune.box.checked = policy.prune_enabled;
    most.value = policy.max_shards;
    return undefined;
  };
  return { element, update };
}
