// The settings as the node describes them, and the one way in which panels change them.

import { request } from "./api.js";
import { set } from "./store.js";

export async function readSettings() {
  const told = await request("/api/admin/config/schema");
  if (!Array.isArray(told.settings)) throw new Error("The node does not describe its settings.");
  set("settings", told.settings);
  return told;
}

/** `changes`: values by dotted path. Raises ApiError, whose `param` is the path that was refused. */
export async function saveSettings(changes) {
  await request("/api/admin/config", { method: "PUT", body: changes });
  return readSettings();
}
