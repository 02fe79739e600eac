// What the autopilot would do, did, and may do. An older node has none: the first 404 says so, and nothing more is asked.

import { modelPath, request } from "./api.js";
import { get, set, watch } from "./store.js";

const PLAN_MS = 10000; // it looks every few minutes, and after news; the plan is made anew for each read

export async function readAutopilot() {
  try {
    set("plan", await request("/api/admin/auto-manage/plan"));
    set("planError", null);
    set("hasAutopilot", true);
  } catch (error) {
    if (error.status === 404) set("hasAutopilot", false);
    else set("planError", error.message);
    return;
  }
  await Promise.allSettled([
    request("/api/admin/prune-history").then((reply) => set("pruned", reply.events ?? [])),
    request("/api/admin/schedule").then((reply) => set("schedule", reply)),
  ]);
}

/** Keeps it fresh as long as `element` is on the page, in a tab that is looked at. */
export function followAutopilot(element) {
  const look = () => {
    if (element.isConnected && !document.hidden && get("connection").phase === "open" && get("hasAutopilot") !== false) readAutopilot();
  };
  setInterval(look, PLAN_MS);
  addEventListener("hashchange", () => setTimeout(look)); // its page is drawn by then
  watch(["connection"], look);
  setTimeout(look);
}

const asked = new Set();

/** The policy of a model, once: it changes here, or rarely. */
export async function readPolicy(id) {
  if (asked.has(id) || !get("hasAutopilot")) return;
  asked.add(id);
  try {
    keepPolicy(await request(modelPath(id, "/auto-manage")));
  } catch {
    asked.delete(id); // the next look asks again
  }
}

const keepPolicy = (policy) => set("policies", new Map(get("policies")).set(policy.model_id, policy));

export async function setPolicy(id, { enabled, max_shards, prune_enabled }) {
  keepPolicy(await request(modelPath(id, "/auto-manage"), { method: "PUT", body: { enabled, max_shards, prune_enabled } }));
  readAutopilot();
}

export async function setSchedule(schedule) {
  set("schedule", await request("/api/admin/schedule", { method: "PUT", body: schedule }));
  readAutopilot();
}

/** The switch for all models: the setting `auto_manage.enabled`. */
export async function setAutopilot(enabled) {
  await request("/api/admin/config", { method: "PUT", body: { auto_manage_shards: enabled } });
  await readAutopilot();
}

export const setLock = (id, index, locked) => request(modelPath(id, `/shards/${index}/lock`), { method: "PUT", body: { locked } });
