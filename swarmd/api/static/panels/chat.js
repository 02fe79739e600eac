// Chat: a model, a conversation, and under every reply how it was made. Conversations stay in this browser.

import { modelPath, request, streamChat } from "../api.js";
import { conversations, forgetConversation, keepConversation, newConversation, titleOf } from "../conversations.js";
import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";
import { nodeName } from "../nodes.js";
import { get, set } from "../store.js";
import { askable, emptySentence, modelPicker, providerOf } from "./picker.js";
import { providerName } from "./providers.js";
import { explain, footer, keptFacts, Meter, question, replyMessage } from "./reply.js";

const EXAMPLES = ["What is a shard?", "How does a node join a swarm?", "What happens when a node goes away?"];
const OPENED = "swarmd-chat-opened";
const NEAR_END = 40; // pixels from the bottom that still count as "reading along"

export function chatPanel() {
  let conversation = newConversation();
  const history = []; // { role, content } as the API takes them; with `facts` of a reply
  let stop = null; // AbortController of the reply in the making
  let asked = "";

  const fresh = h("button", { type: "button", class: "quiet small" }, "New chat");
  const earlier = h("select", { "aria-label": "Conversations kept in this browser", class: "chat-earlier" });
  const forget = h("button", { type: "button", class: "quiet small", "aria-label": "Forget this conversation" }, "Forget");
  const log = h("div", { class: "chat-log", role: "log", "aria-live": "polite", "aria-label": "Conversation", tabindex: "0" });
  const field = h("textarea", { id: "chat-field", rows: 1, placeholder: "Ask the swarm…", "aria-label": "Message", "aria-describedby": "chat-keys" });
  const send = h("button", { type: "submit", class: "primary" }, "Send");
  const form = h("form", { class: "composer" }, field, send);
  const live = h("span", { class: "chat-live" });
  const picker = modelPicker(() => queueMicrotask(() => { // after the panel is there
    send.disabled = !askable().length && !stop;
    drawEmpty();
  }));
  const panel = h("div", { class: "chat" },
    h("div", { class: "chat-head" }, h("label", { for: "chat-model" }, "Model"), picker, fresh, earlier, forget),
    log, form,
    h("div", { class: "chat-foot" }, h("span", { id: "chat-keys", class: "hint" }, "Enter sends, Shift+Enter is a new line, Escape stops"), live));

  const toEnd = (force) => {
    if (force || log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END) log.scrollTop = log.scrollHeight;
  };

  const drawEmpty = () => {
    if (history.length || log.querySelector(".message")) return;
    const usable = askable();
    log.replaceChildren(h("div", { class: "chat-empty" },
      h("p", {}, usable.length ? "Nothing asked yet. For a start:" : emptySentence()),
      usable.length > 0 && h("ul", {}, EXAMPLES.map((example) => h("li", {},
        h("button", { type: "button", class: "example", on: { click: () => ask(example) } }, example))))));
  };

  // --- one question ---
  async function ask(text) {
    const wish = text.trim();
    if (!wish || stop || !picker.value) return;
    asked = wish;
    log.querySelector(".chat-empty")?.remove();
    history.push({ role: "user", content: wish });
    keep();
    log.append(question(text.trim()));
    const provider = providerOf(picker.value);
    const reply = replyMessage("", provider && providerName(provider));
    log.append(reply.element);
    toEnd(true);
    field.value = "";
    grow();
    stop = new AbortController();
    working(true);
    await answer(reply, picker.value, stop.signal, provider);
    stop = null;
    working(false);
    toEnd(false);
  }

  async function answer(reply, model, signal, provider) {
    const meter = new Meter();
    set("generation", { model, rate: null, tokens: 0 });
    let swarm = null;
    const mine = conversation.id; // another conversation may be opened meanwhile
    const here = () => conversation.id === mine;
    const takeBack = () => {
      if (!here()) return;
      history.pop();
      if (history.length) keep();
      else forgetConversation(mine);
    };
    const before = get("run");
    if (!provider) request(modelPath(model, "/pipeline-plan")).then(({ stages }) => {
      if (!swarm && get("generation")) set("run", { model, stages, planned: true });
    }).catch(() => {}); // a picture only; the reply itself says what is wrong
    let content = "";
    const note = () => {
      if (!content || !here()) return;
      const facts = { rate: swarm?.tokens_per_second ?? meter.rate(), nodes: [...new Set((swarm?.stages ?? []).map((stage) => nodeName(stage.node)))], ...(provider && { provider }) };
      history.push({ role: "assistant", content, facts });
      keep();
    };
    try {
      const { finish, usage } = await streamChat({
        model, messages: history.map(({ role, content: said }) => ({ role, content: said })), signal,
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
      note();
      reply.finish(footer({ swarm, usage, meter, finish }));
      announce(`Reply finished${swarm?.tokens_per_second ? `, ${format.fixed(swarm.tokens_per_second)} tokens per second` : ""}.`);
    } catch (error) {
      if (signal.aborted) {
        note();
        if (!content) takeBack();
        reply.finish([h("p", { class: "hint" }, content ? "Stopped here." : "Stopped before the first word.")]);
        announce("Stopped.");
      } else {
        takeBack(); // the question can be asked again as it was
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
    send.disabled = !on && !askable().length;
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
  // --- conversations ---
  const keep = () => {
    conversation = { ...conversation, at: Date.now(), model: picker.value, messages: [...history] };
    keepConversation(conversation);
    drawEarlier();
  };
  function drawEarlier() {
    const all = conversations();
    const known = all.some(({ id }) => id === conversation.id);
    earlier.replaceChildren(...(known ? [] : [h("option", { value: "" }, "New chat")]), ...all.map((one) => h("option", { value: one.id }, titleOf(one))));
    earlier.value = known ? conversation.id : "";
    earlier.hidden = !all.length;
    forget.hidden = !known;
  }
  function open(next) {
    stop?.abort();
    conversation = next;
    history.length = 0;
    history.push(...next.messages);
    log.replaceChildren(...next.messages.map(({ role, content, facts }) => {
      if (role === "user") return question(content);
      const reply = replyMessage(content, facts?.provider && providerName(facts.provider));
      reply.finish(facts ? keptFacts(facts) : []);
      return reply.element;
    }));
    if ([...picker.options].some(({ value, disabled }) => value === next.model && !disabled)) {
      picker.value = next.model;
      picker.dispatchEvent(new Event("change"));
    }
    drawEmpty();
    drawEarlier();
    toEnd(true);
  }
  fresh.addEventListener("click", () => {
    open(newConversation());
    field.focus();
  });
  earlier.addEventListener("change", () => {
    const next = conversations().find(({ id }) => id === earlier.value);
    if (next) open(next);
  });
  forget.addEventListener("click", () => {
    forgetConversation(conversation.id);
    open(newConversation());
    announce("Forgotten.");
  });
  const last = conversations()[0];
  if (last?.messages.length && sessionStorage.getItem(OPENED)) open(last); // the same tab, loaded again
  else drawEarlier();
  sessionStorage.setItem(OPENED, "yes");
  queueMicrotask(() => panel.closest("section")?.addEventListener("shown", () => toEnd(true)));
  return panel;
}
