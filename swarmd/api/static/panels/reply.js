// One message of a conversation: what was said, and under a reply how it was made or why there is none.

import { ApiError } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { copyText, growing } from "../markdown.js";
import { hopLine } from "./hops.js";

const WINDOW_MS = 3000; // the live figure is over the last seconds: a mean since the start hides a node that became slow

/** Counts pieces; one piece is one token nearly always (a character in several tokens is one piece). */
export class Meter {
  pieces = 0;
  #began = performance.now();
  #first = null;
  #recent = [];

  count() {
    const now = performance.now();
    this.#first ??= now;
    this.pieces += 1;
    this.#recent.push(now);
    while (this.#recent[0] < now - WINDOW_MS) this.#recent.shift();
  }

  /** Tokens per second lately; null before the second token. */
  rate() {
    const span = this.#recent.at(-1) - this.#recent[0];
    return this.#recent.length > 1 && span > 0 ? ((this.#recent.length - 1) * 1000) / span : null;
  }

  get firstMs() {
    return this.#first === null ? null : this.#first - this.#began;
  }
}

const frame = (role, who, body) => h("article", { class: `message message-${role}` }, h("p", { class: "who" }, who), body);

export const question = (text) => frame("user", "You", h("div", { class: "said-text" }, text));

/** A reply: `add(piece)` while it comes, then `finish(children)` or `fail(why, retry)`. `text`: of one that is over; `who` answers. */
export function replyMessage(text = "", who = "") {
  const caret = h("span", { class: "caret", "aria-hidden": "true" });
  const body = h("div", { class: "said-text said-marked" }, !text && caret);
  const element = frame("assistant", who || "Swarm", body);
  const show = growing(body);
  let whole = text;
  let scheduled = false;
  const draw = () => {
    scheduled = false;
    show(whole);
  };
  if (text) draw();
  const settle = () => {
    caret.remove();
    draw();
  };
  return {
    element,
    add(piece) {
      whole += piece;
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(draw); // fast models write many pieces within a frame
    },
    finish(children) {
      settle();
      const copy = h("button", { type: "button", class: "quiet small", on: { click: () => copyText(whole, copy) } }, "Copy the reply");
      element.append(h("div", { class: "reply-facts" }, children), whole && copy);
    },
    fail({ title, text: sentence, again }, retry) {
      settle();
      element.classList.add("message-failed");
      element.append(h("div", { class: "reply-trouble", role: "alert" }, h("strong", {}, title), h("p", {}, sentence),
        again && h("button", { type: "button", class: "small", on: { click: retry } }, "Ask again")));
    },
  };
}

/** Under a reply: speed, length, and which nodes answered, each with its time. */
export function footer({ swarm, usage, meter, finish }) {
  const rate = swarm?.tokens_per_second || meter.rate();
  const facts = [
    rate ? `${format.fixed(rate)} tokens/s` : null,
    usage?.completion_tokens ? format.plural(usage.completion_tokens, "token") : null,
    swarm?.prefill_ms ? `prompt read in ${format.ms(swarm.prefill_ms)}` : meter.firstMs ? `first token after ${format.ms(meter.firstMs)}` : null,
    swarm?.resumes ? `${format.plural(swarm.resumes, "node")} lost on the way` : null,
    finish === "length" ? "cut at the token limit" : null,
  ].filter(Boolean);
  return [h("p", { class: "reply-rate" }, facts.join(" · ")), swarm?.stages?.length ? hopLine(swarm) : null].filter(Boolean);
}

/** The same of a reply that was kept: one line. */
export const keptFacts = ({ rate, nodes }) => [h("p", { class: "reply-rate" },
  [rate ? `${format.fixed(rate)} tokens/s` : null, nodes?.length ? `on ${nodes.join(", ")}` : null].filter(Boolean).join(" · "))];

/** What went wrong and what to do, from the node's own sentence where it has one. */
export function explain(error) {
  if (!(error instanceof ApiError)) return { title: "The reply could not be read", text: `${error.message}. Ask again; if it happens twice, the node's log says more.`, again: true };
  if (error.fromProvider) return { title: "The provider did not answer", text: error.message, again: true };
  switch (error.status) {
    case 0: return { title: "The node did not answer", text: error.message, again: true };
    case 401: case 403: return { title: "The node refused", text: error.message, again: true };
    case 404: return { title: "The model is not here any more", text: `${error.message} Pick another model above.`, again: false };
    case 429: return { title: "Too many requests", text: `${error.message} Wait a minute, then ask again.`, again: true };
    case 503: return { title: "The swarm cannot run this now", text: error.message, again: true };
    default: return { title: "No reply", text: error.message, again: true };
  }
}
