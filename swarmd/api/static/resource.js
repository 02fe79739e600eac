// A read of the node that a panel shows: asked when the panel comes into view, then every so often, and again when the
// connection is back. A panel that nobody sees asks nothing.

import { request } from "./api.js";
import { get, watch } from "./store.js";

/**
 * `read`: async () => data; `draw`: ({ data, error, missing }) => void, after each read and once before the first.
 * `missing`: the node has no such thing (404). Answers { again() }, which reads at once and may be awaited.
 */
export function resource(element, { read, draw, everyMs = 0 }) {
  let state = { data: null, error: null, missing: false };
  let running = null;
  const visible = () => element.isConnected && !document.hidden;
  const once = async () => {
    try {
      state = { data: await read(), error: null, missing: false };
    } catch (error) {
      state = { ...state, error, missing: error.status === 404 };
    }
    draw(state);
  };
  const again = () => {
    running ??= once().finally(() => {
      running = null;
    });
    return running;
  };
  const soon = () => visible() && get("connection").phase === "open" && again();
  // The section's event: panels are put into the page before they are filled.
  queueMicrotask(() => element.closest("section")?.addEventListener("shown", soon));
  let phase = "";
  watch(["connection"], () => {
    const now = get("connection").phase;
    if (now === "open" && phase !== "open") queueMicrotask(soon);
    phase = now;
  });
  if (everyMs) setInterval(soon, everyMs);
  draw(state);
  return { again };
}

/** GET a path as `read`. */
export const reading = (path) => () => request(path);
