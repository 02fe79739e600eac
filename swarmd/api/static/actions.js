// What people do with models on more than one page. Each answers a sentence on what was done; null: the person thought
// better of it. Raises ApiError.

import { ApiError, modelPath, request } from "./api.js";
import { confirmDanger } from "./dialogs.js";
import { announce } from "./dom.js";
import * as format from "./format.js";
import { set } from "./store.js";
import { toast } from "./toasts.js";

const MOST_SHARDS = 256; // of one request; the contract's limit
const REPOSITORY = /^[\w.-]+\/[\w.-]+$/;

/** One thing at a time for a card or row: `busy`, and why the last one was refused. `redraw` after each change. */
export function oneAtATime(redraw) {
  const state = { busy: false, trouble: "" };
  state.run = async (what, work) => {
    if (state.busy) return;
    state.busy = true;
    state.trouble = "";
    const before = document.activeElement;
    redraw();
    try {
      const said = await work();
      if (said) announce(said);
    } catch (error) {
      state.trouble = `${what}: ${error.message}`;
    } finally {
      state.busy = false;
      redraw();
      if (document.activeElement === document.body) before?.focus?.(); // a button loses the focus when it is disabled
    }
  };
  return state;
}

/** The hub's page of a repository; null for a name that is none. */
export const hubPage = (repoId) => (REPOSITORY.test(repoId ?? "") ? `https://huggingface.co/${repoId}` : null);

/** `shards` null: all of them. */
export function fetchFromHub({ repo_id: repoId, filename }, { model = null, shards = null, share = false } = {}) {
  const wish = share ? { peer_fair_share: true } : shards && shards.length <= MOST_SHARDS ? { shards } : { all_shards: true };
  return request("/api/admin/hf/download-shards", {
    method: "POST", body: { repo_id: repoId, filename, ...wish, ...(model ? { model_id: model } : {}) },
  });
}

/** What is missing here, from peers; where they have not all of it, from the hub it came from. */
export async function fetchMissing(model) {
  try {
    const reply = await request(modelPath(model.id, "/add"), { method: "POST" });
    if (reply.status === "unavailable") throw new ApiError(reply.message ?? "No connected node has it.", { status: 503 });
  } catch (error) {
    if (error.status !== 503 || !model.hf_source) throw error;
    const missing = (model.shards ?? []).filter((shard) => !shard.local).map((shard) => shard.index);
    await fetchFromHub(model.hf_source, { model: model.id, shards: missing.length ? missing : null });
  }
  readDownloads();
  return `Fetching ${model.name}`;
}

export async function fetchShard(model, index) {
  const reply = await request(modelPath(model.id, `/shards/${index}/download`), { method: "POST" });
  if (reply.status === "use_hf") await fetchFromHub(reply, { model: model.id, shards: [index] });
  readDownloads();
  return reply.status === "already_local" ? `${model.name}: ${format.shard(index)} is here already` : `Fetching ${format.shard(index)} of ${model.name}`;
}

export function askToRemove(model) {
  const held = model.shards.filter((shard) => shard.local);
  const size = held.reduce((sum, shard) => sum + (shard.size_bytes ?? 0), 0);
  const alone = held.filter((shard) => (shard.holders ?? 1) <= 1).length;
  return confirmDanger({
    title: `Remove ${model.name}?`,
    text: `This deletes ${format.plural(held.length, "shard")} (${format.bytes(size)}) from this node's disk. ${alone
      ? `${alone === held.length ? "Nobody else connected holds them" : `${format.plural(alone, "shard")} of them no other connected node holds`}, so the swarm cannot run the model afterwards.`
      : "Other nodes hold the same shards, so the swarm keeps the model."}`,
    danger: "Remove",
  });
}

export async function removeModel(model) {
  await request(modelPath(model.id), { method: "DELETE" });
  toast(`${model.name} was removed from this node.`, "success");
  return `${model.name} was removed`;
}

export async function deleteShard(model, shard) {
  const alone = (shard.holders ?? 1) <= 1;
  const agreed = await confirmDanger({
    title: `${model.name}: delete ${format.shard(shard.index, model.shards?.length)}?`,
    text: `${shard.layer_end ? `It has ${format.layers([shard.layer_start, shard.layer_end])}. ` : ""}This frees ${format.bytes(shard.size_bytes)} on this node's disk. ${alone
      ? "No other connected node holds it, so the swarm cannot run the model until it is fetched again."
      : `${format.plural(shard.holders - 1, "other node")} ${shard.holders === 2 ? "holds" : "hold"} it, so the swarm keeps it.`}`,
    danger: "Delete",
  });
  if (!agreed) return null;
  await request(modelPath(model.id, `/shards/${shard.index}`), { method: "DELETE" });
  return `${model.name}: ${format.shard(shard.index, model.shards?.length)} was deleted`;
}

/** The list as it is now: after a change people should not wait for the next tick. A failure waits for that tick. */
export async function readDownloads() {
  try {
    set("acquisitions", (await request("/api/admin/downloads")).downloads ?? []);
  } catch {
    // the tick brings it
  }
}
