// The browser's end of GET /api/admin/ws: envelopes {"type", "data"}, five events, reconnect for ever with backoff.
// Order on a fresh socket: peer_list, the recent activity again, then ticks; so what comes before the first
// stats_update is history.

const FIRST_DELAY_MS = 500;
const GROWTH = 1.7;
const LONGEST_DELAY_MS = 15000; // somebody who looks at the page should not wait longer for a node that is back
const SILENCE_MS = 10000; // ticks come every 2 s; five missing ones mean the connection is dead although nobody said so

export const EVENTS = ["activity_event", "stats_update", "peer_list", "models_changed", "update_available"];

export class Socket {
  #handlers;
  #onPhase;
  #ticket;
  #socket = null;
  #delay = FIRST_DELAY_MS;
  #retryTimer = 0;
  #silenceTimer = 0;
  #live = false;

  /**
   * @param handlers one function per event: (data, { replay }) => void
   * @param onPhase  called with { phase: "connecting" | "open" | "lost", retryAt }
   * @param ticket   async () => string | null: a one-time pass for a page that is not on the node's own machine
   */
  constructor({ handlers, onPhase, ticket }) {
    this.#handlers = handlers;
    this.#onPhase = onPhase;
    this.#ticket = ticket;
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  async connect() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#onPhase({ phase: "connecting", retryAt: null });
    const url = new URL("/api/admin/ws", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const ticket = await this.#ticket();
    if (ticket) url.searchParams.set("ticket", ticket);
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#live = false;
    socket.addEventListener("open", () => {
      this.#delay = FIRST_DELAY_MS;
      this.#onPhase({ phase: "open", retryAt: null });
      this.#heard();
    });
    socket.addEventListener("message", (message) => {
      this.#heard();
      this.#deliver(message.data);
    });
    socket.addEventListener("close", () => this.#lost(socket));
  }

  /** Tries at once when it is waiting; nothing when it is connected or connecting. */
  retryNow() {
    if (!this.#retryTimer) return;
    this.#delay = FIRST_DELAY_MS;
    this.connect();
  }

  #deliver(text) {
    let envelope;
    try {
      envelope = JSON.parse(text);
    } catch {
      return; // not ours: a proxy's greeting, say
    }
    if (!EVENTS.includes(envelope?.type)) return; // a newer server may know more events
    if (envelope.type === "stats_update") this.#live = true;
    this.#handlers[envelope.type]?.(envelope.data ?? {}, { replay: !this.#live });
  }

  #heard() {
    clearTimeout(this.#silenceTimer);
    const socket = this.#socket;
    this.#silenceTimer = setTimeout(() => {
      socket.close();
      this.#lost(socket); // the closing handshake of a dead connection takes its time
    }, SILENCE_MS);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#silenceTimer);
    const delay = this.#delay * (0.8 + 0.4 * Math.random()); // spread: many pages, one node that comes back
    this.#delay = Math.min(this.#delay * GROWTH, LONGEST_DELAY_MS);
    this.#retryTimer = setTimeout(() => this.connect(), delay);
    this.#onPhase({ phase: "lost", retryAt: Date.now() + delay });
  }
}
