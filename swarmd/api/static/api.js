// Requests to the node, and the key they carry. The key lives in this tab: memory and sessionStorage, nowhere else.

import { askKey } from "./dialogs.js";
import { sentence } from "./format.js";

const STORED = "swarmd-api-key";
let key = sessionStorage.getItem(STORED);
let readsRefused = false; // the person said "not now": reads do not ask again by themselves

/** A request that did not succeed, with a sentence for people. `status` 0: the node did not answer. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, type = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param; // the field that it is about
    this.fromProvider = type === "provider_error"; // its status is the provider's, and says nothing of the node's key
  }
}

let own = false;
/** Whether the node takes this page for one on its own machine: only those get a nonce. */
export const onOwnMachine = () => own;

export const hasKey = () => Boolean(key);

function remember(value) {
  key = value || null;
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

/** Changes the one-time nonce of the page against the key; on a page that has none, a key kept by this tab stays. */
export async function startSession() {
  const meta = document.querySelector('meta[name="swarmd-nonce"]');
  const nonce = meta?.content ?? "";
  meta?.remove();
  own = Boolean(nonce) && !nonce.startsWith("{{");
  if (!own) return;
  try {
    const reply = await fetch("/api/admin/session", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ nonce }), cache: "no-store",
    });
    if (reply.ok) remember((await reply.json()).api_key);
  } catch {
    // The node is away; the socket's banner says so, and the first write asks for the key.
  }
}

/** A person asked for it, so reads may ask for the key again. */
export async function enterKey(reason) {
  const typed = await askKey(reason);
  if (typed) {
    remember(typed);
    readsRefused = false;
  }
  return Boolean(typed);
}

function headers(extra) {
  return key ? { ...extra, authorization: `Bearer ${key}` } : extra;
}

/** fetch() with the key: asks for one when it is missing or refused. Answers only replies that succeeded. */
async function send(path, { method = "GET", body, signal } = {}) {
  const write = method !== "GET";
  if (write && !key && !(await enterKey("Changing something on the node needs its API key."))) {
    throw new ApiError("This needs the API key of the node. Try again and enter it.", { status: 401 });
  }
  for (;;) {
    const used = key;
    const reply = await attempt(path, { method, body, signal });
    if (reply.ok) return reply;
    const problem = await describe(reply);
    if (problem.status !== 401 || problem.fromProvider || (!write && readsRefused)) throw problem;
    if (key && key !== used) continue; // another request asked for the key meanwhile
    remember(null);
    if (await enterKey(used ? "The node refused the key. Was it changed?" : "From another machine, the node shows its state only to who has its API key.")) continue;
    if (!write) readsRefused = true;
    throw problem;
  }
}

async function attempt(path, { method, body, signal }) {
  try {
    return await fetch(path, {
      method, signal, cache: "no-store",
      headers: headers(body === undefined ? {} : { "content-type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The node did not answer. Check that swarmd is still running, then try again.");
  }
}

async function describe(reply) {
  let error = null;
  try {
    error = (await reply.json()).error;
  } catch {
    // not JSON: a proxy's page; the status has to do
  }
  const said = sentence(typeof error === "string" ? error : error?.message);
  return new ApiError(said || `The node answered with status ${reply.status}.`, { status: reply.status, code: error?.code ?? null, param: error?.param ?? null, type: error?.type ?? null });
}

export async function request(path, options) {
  const reply = await send(path, options);
  try {
    return await reply.json();
  } catch {
    throw new ApiError("The node answered with something that is not JSON.", { status: reply.status });
  }
}

export const modelPath = (id, rest = "") => `/api/admin/models/${encodeURIComponent(id)}${rest}`;

/** A one-time pass for the WebSocket, which cannot carry a header. Null without a key, or where the node gives none out. */
export async function socketTicket() {
  if (own || !key) return null;
  try {
    const reply = await fetch("/api/admin/ws-ticket", { method: "POST", headers: headers({}), cache: "no-store" });
    return reply.ok ? (await reply.json()).ticket ?? null : null;
  } catch {
    return null;
  }
}

/**
 * One streamed chat reply: calls `onText` for every piece and `onSwarm` for every `swarm` object; answers { finish, usage }.
 * Raises ApiError for a refusal, before or in the middle of the reply, and when the stream breaks off.
 */
export async function streamChat({ model, messages, signal, onText, onSwarm }) {
  const reply = await send("/v1/chat/completions", {
    method: "POST", signal, body: { model, messages, stream: true, stream_options: { include_usage: true } },
  });
  const outcome = { finish: null, usage: null };
  for await (const data of events(reply.body)) {
    if (data === "[DONE]") return outcome;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(sentence(chunk.error.message ?? chunk.error), { status: reply.status, code: chunk.error.code ?? null, type: chunk.error.type ?? null });
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) onText(choice.delta.content);
    if (choice?.finish_reason) outcome.finish = choice.finish_reason;
    if (chunk.usage) outcome.usage = chunk.usage;
    if (chunk.swarm) onSwarm(chunk.swarm);
  }
  if (outcome.finish) return outcome;
  throw new ApiError("The reply broke off before its end: the connection to the node was lost. Ask again.");
}

/** The data of server-sent events, one string each. */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      pending += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const blocks = pending.split(/\r?\n\r?\n/);
      pending = blocks.pop();
      for (const block of blocks) {
        const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
      if (done) return;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The reply broke off before its end: the connection to the node was lost. Ask again.");
  } finally {
    reader.cancel().catch(() => {}); // when the consumer stops early; nothing to do about a stream that is already dead
  }
}
