// Chat: a model, a conversation, and under every reply how it was made.

import { ApiError, modelPath, request, streamChat } from "../api.js";
import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";
import { get, set, watch } from "../store.js";
import { hopLine } from "./hops.js";

const EXAMPLES = ["What is a shard?", "How does a node join a swarm?", "What happens when a node goes away?"];
const WINDOW_MS = 3000; // the live figure is over the last seconds: a mean since the start hides a node that became slow
const REMEMBERED = "swarmd-model";
const NEAR_END = 40; // pixels from the bottom that still count as "reading along"

export function chatPanel() {
  const history = []; // { role, content } as the API takes them
  let stop = null; // AbortController of the reply in the making
  let asked = "";

  const picker = h("select", { id: "chat-model" });
  const fresh = h("button", { type: "button", class: "quiet small", title: "Forget this conversation" }, "New chat");
  const log = h("div", { class: "chat-log", role: "log", "aria-live": "polite", "aria-label": "Conversation", tabindex: "0" });
  const field = h("textarea", { id: "chat-field", rows: 1, placeholder: "Ask the swarm…", "aria-label": "Message", "aria-describedby": "chat-keys" });
  const send = h("button", { type: "submit", class: "primary" }, "Send");
  const form = h("form", { class: "composer" }, field, send);
  const live = h("span", { class: "chat-live" });
  const panel = h("div", { class: "chat" },
    h("div", { class: "chat-head" }, h("label", { for: "chat-model" }, "Model"), picker, fresh),
    log, form,
    h("div", { class: "chat-foot" }, h("span", { id: "chat-keys", class: "hint" }, "Enter sends, Shift+Enter is a new line, Escape stops"), live));

  const toEnd = (force) => {
    if (force || log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END) log.scrollTop = log.scrollHeight;
  };

  const drawEmpty = () => {
    if (history.length || log.querySelector(".message")) return;
    const usable = runnable();
    log.replaceChildren(h("div", { class: "chat-empty" },
      h("p", {}, usable.length ? "Nothing asked yet. For a start:" : emptySentence()),
      usable.length > 0 && h("ul", {}, EXAMPLES.map((example) => h("li", {},
        h("button", { type: "button", class: "example", on: { click: () => ask(example) } }, example))))));
  };

  // --- the model picker ---
  let options = "";
  watch(["models", "modelsError"], () => {
    const models = get("models") ?? [];
    const next = JSON.stringify(models.map(({ id, name, status }) => [id, name, status]));
    if (next !== options) {
      options = next;
      const before = picker.value || sessionStorage.getItem(REMEMBERED);
      picker.replaceChildren(...models.map((model) => {
        const can = canRun(model);
        return h("option", { value: model.id, disabled: !can }, can ? model.name : `${model.name} (incomplete)`);
      }));
      const usable = runnable();
      const chosen = usable.find(({ id }) => id === before) ?? usable.find(({ status }) => status === "loaded") ?? usable[0];
      if (chosen) picker.value = chosen.id;
      else picker.prepend(h("option", { value: "", selected: true }, "no model can answer yet"));
      picker.disabled = !usable.length;
    }
    send.disabled = !runnable().length && !stop;
    drawEmpty();
  });
  picker.addEventListener("change", () => sessionStorage.setItem(REMEMBERED, picker.value));

  // --- one question ---
  async function ask(text) {
    const question = text.trim();
    if (!question || stop || !picker.value) return;
    asked = question;
    log.querySelector(".chat-empty")?.remove();
    history.push({ role: "user", content: question });
    log.append(message("user", question));
    const reply = replyMessage();
    log.append(reply.element);
    toEnd(true);
    field.value = "";
    grow();
    stop = new AbortController();
    working(true);
    await answer(reply, picker.value, stop.signal);
    stop = null;
    working(false);
    toEnd(false);
  }

  async function answer(reply, model, signal) {
    const meter = new Meter();
    set("generation", { model, rate: null, tokens: 0 });
    let swarm = null;
    const before = get("run");
    request(modelPath(model, "/pipeline-plan")).then(({ stages }) => {
      if (!swarm && get("generation")) set("run", { model, stages, planned: true });
    }).catch(() => {}); // a picture only; the reply itself says what is wrong
    let content = "";
    const keep = () => content && history.push({ role: "assistant", content });
    try {
      const { finish, usage } = await streamChat({
        model, messages: [...history], signal,
        onText: (piece) => {
          content += piece;
          reply.add(piece);
          meter.count();
          set("generation", { model, rate: meter.rate(), tokens: meter.pieces });
          setText(live, meter.rate() ? `${format.fixed(meter.rate())} tokens/s` : "");
          toEnd(false);
        },
        onSwarm: (facts) => {
          swarm = { ...swarm, ...facts, model };
          set("run", swarm);
        },
      });
      keep();
      reply.finish(footer({ swarm, usage, meter, finish }));
      announce(`Reply finished${swarm?.tokens_per_second ? `, ${format.fixed(swarm.tokens_per_second)} tokens per second` : ""}.`);
    } catch (error) {
      if (signal.aborted) {
        keep();
        if (!content) history.pop();
        reply.finish([h("p", { class: "hint" }, content ? "Stopped here." : "Stopped before the first word.")]);
        announce("Stopped.");
      } else {
        history.pop(); // the question can be asked again as it was
        reply.fail(explain(error), () => retry(reply));
      }
    } finally {
      set("generation", null);
      if (get("run")?.planned) set("run", before);
      setText(live, "");
    }
  }

  function retry(reply) {
    if (stop) return;
    reply.element.previousElementSibling?.remove();
    reply.element.remove();
    ask(asked);
  }

  function working(on) {
    setText(send, on ? "Stop" : "Send");
    send.className = on ? "danger" : "primary";
    send.disabled = !on && !runnable().length;
    log.setAttribute("aria-busy", on ? "true" : "false"); // read out when complete, not syllable by syllable
  }

  const grow = () => { // the height is a property, not a style attribute: the page's policy forbids those
    field.rows = Math.min(6, Math.max(1, field.value.split("\n").length));
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask(field.value);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (stop) stop.abort();
    else ask(field.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && stop && !document.querySelector("dialog[open]")) stop.abort();
  });
  fresh.addEventListener("click", () => {
    stop?.abort();
    history.length = 0;
    log.replaceChildren();
    drawEmpty();
    field.focus();
  });
  return panel;
}

const canRun = (model) => (model.status === "loaded" || model.status === "ready") && model.architecture_supported !== false;
const runnable = () => (get("models") ?? []).filter(canRun);

function emptySentence() {
  if (get("modelsError") && !get("models")) return "The models of this node could not be read, so there is nobody to ask yet.";
  if (!get("models")) return "Looking for models…";
  return get("models").length
    ? "No model is complete: some layers have no connected holder. Fetch one under Models, or connect a node that holds the rest."
    : "This node knows no model yet. Join a swarm that has one, or add a GGUF file under Models.";
}

/** Counts pieces; one piece is one token nearly always (a character in several tokens is one piece). */
class Meter {
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

const message = (role, text) =>
  h("article", { class: `message message-${role}` }, h("p", { class: "who" }, role === "user" ? "You" : "Swarm"), h("div", { class: "said-text" }, text));

function replyMessage() {
  const element = message("assistant", "");
  const text = element.querySelector(".said-text");
  const node = document.createTextNode("");
  const caret = h("span", { class: "caret", "aria-hidden": "true" });
  text.append(node, caret);
  const settle = () => caret.remove();
  return {
    element,
    add: (piece) => node.appendData(piece),
    finish(children) {
      settle();
      element.append(h("div", { class: "reply-facts" }, children));
    },
    fail({ title, text: sentence, again }, retry) {
      settle();
      element.classList.add("message-failed");
      element.append(h("div", { class: "reply-trouble", role: "alert" }, h("strong", {}, title), h("p", {}, sentence),
        again && h("button", { type: "button", class: "small", on: { click: retry } }, "Ask again")));
    },
  };
}

function footer({ swarm, usage, meter, finish }) {
  const rate = swarm?.tokens_per_second || meter.rate();
  const facts = [
    rate ? `${format.fixed(rate)} tokens/s` : null,
    usage?.completion_tokens ? format.plural(usage.completion_tokens, "token") : null,
    swarm?.prefill_ms ? `prompt read in ${format.ms(swarm.prefill_ms)}` : meter.firstMs ? `first token after ${format.ms(meter.firstMs)}` : null,
    finish === "length" ? "cut at the token limit" : null,
  ].filter(Boolean);
  return [h("p", { class: "reply-rate" }, facts.join(" · ")), swarm?.stages?.length ? hopLine(swarm) : null].filter(Boolean);
}

/** What went wrong and what to do, from the node's own sentence where it has one. */
function explain(error) {
  if (!(error instanceof ApiError)) return { title: "The reply could not be read", text: `${error.message}. Ask again; if it happens twice, the node's log says more.`, again: true };
  switch (error.status) {
    case 0: return { title: "The node did not answer", text: error.message, again: true };
    case 401: case 403: return { title: "The node refused", text: error.message, again: true };
    case 404: return { title: "The model is not here any more", text: `${error.message} Pick another model above.`, again: false };
    case 429: return { title: "Too many requests", text: `${error.message} Wait a minute, then ask again.`, again: true };
    case 503: return { title: "The swarm cannot run this now", text: error.message, again: true };
    default: return { title: "No reply", text: error.message, again: true };
  }
}
