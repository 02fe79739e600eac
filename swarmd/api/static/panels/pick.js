// A file of the hub was picked: read its header, ask how much of it this node should hold, and start.

import { fetchFromHub, readDownloads } from "../actions.js";
import { request } from "../api.js";
import { announce, h, setText } from "../dom.js";
import { VERDICTS } from "../fits.js";
import * as format from "../format.js";
import { peersUp } from "../nodes.js";
import { get } from "../store.js";
import { toast } from "../toasts.js";

const MOST_CHOSEN = 256; // shards of one request; the contract's limit
const SLOW_S = 5; // after that, people want to know that it still runs

export async function pickFile({ repo, variant, verdict }) {
  const before = document.activeElement;
  const body = h("div", { class: "pick-body" });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const start = h("button", { type: "submit", class: "primary", hidden: true }, "Fetch");
  const again = h("button", { type: "button", hidden: true, on: { click: () => probe() } }, "Try again");
  const { kind, icon, text, meaning } = VERDICTS[verdict];
  const gone = new AbortController();
  let wish = null; // () => what fetchFromHub wants, or a sentence on what is missing
  const form = h("form", { on: { submit: (event) => {
    event.preventDefault();
    fetchIt();
  } } },
  h("h2", { id: "pick-title" }, repo.repo_id.split("/").pop(), " ", h("span", { class: "pick-quant" }, variant.quant || variant.filename)),
  h("p", { class: `verdict verdict-${kind}` }, h("span", { class: "verdict-icon", "aria-hidden": "true" }, icon), h("span", {}, `${text}. `, h("span", { class: "hint" }, meaning))),
  body, trouble, h("div", { class: "dialog-buttons" }, h("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Close"), again, start));
  const dialog = h("dialog", { class: "dialog pick", "aria-labelledby": "pick-title" }, form);
  dialog.addEventListener("close", () => {
    gone.abort();
    dialog.remove();
    before?.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();

  const say = (message) => {
    setText(trouble, message);
    trouble.hidden = !message;
  };

  async function probe() {
    say("");
    again.hidden = true;
    const asked = Date.now();
    const note = h("p", { class: "hint", role: "status" }, "Reading the file's header on Hugging Face…");
    body.replaceChildren(h("progress", { "aria-label": "Reading the header" }), note);
    const timer = setInterval(() => {
      const seconds = Math.floor((Date.now() - asked) / 1000);
      const mine = get("probes").find((one) => one.repo_id === repo.repo_id && one.filename === variant.filename);
      const read = mine?.read_bytes ? ` ${format.bytes(mine.read_bytes)} have come.` : "";
      if (read || seconds >= SLOW_S) setText(note, `Reading the file's header on Hugging Face…${read} ${seconds} s. A slow line takes half a minute.`);
    }, 1000);
    try {
      const query = new URLSearchParams({ repo_id: repo.repo_id, filename: variant.filename });
      const facts = await request(`/api/admin/hf/probe?${query}`, { signal: gone.signal });
      choose(facts);
    } catch (error) {
      if (error.name === "AbortError") return;
      body.replaceChildren();
      say(`${error.message}${repo.gated ? " Its author asks people to accept terms: do so on the model's page at Hugging Face, and start this node with a token of that account (HF_TOKEN)." : error.status === 502 ? " Check that this node's machine can reach the internet." : ""}`);
      again.hidden = false;
      again.focus();
    } finally {
      clearInterval(timer);
    }
  }

  function choose(facts) {
    const list = h("dl", { class: "pick-facts" }, [
      ["Size", format.bytes(facts.total_size)], ["Architecture", facts.architecture || format.NONE],
      ["Shards", facts.shard_count ? `${format.count(facts.shard_count)}, about ${format.bytes(facts.total_size / facts.shard_count)} each` : format.NONE],
      ["In the swarm", facts.network_replicas ? `${format.plural(facts.network_replicas, "node")} ${facts.network_replicas === 1 ? "has" : "have"} some of it` : "nobody has it yet"],
      ...(facts.parts > 1 ? [["Files", `${facts.parts} parts, used as one`]] : [])]
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    body.replaceChildren(list);
    if (!facts.architecture_supported || !facts.shard_count) {
      say(format.sentence(facts.reason ?? `this node cannot run ${facts.architecture || "its architecture"}`));
      return;
    }
    const { element, chosen } = howMuch(facts, verdict);
    body.append(element);
    wish = chosen;
    start.hidden = false;
    element.querySelector("input:checked").focus();
    announce("The header was read. Choose how much of it this node should hold.");
  }

  async function fetchIt() {
    if (!wish || start.disabled) return;
    const wanted = wish();
    if (typeof wanted === "string") return say(wanted);
    say("");
    start.disabled = true;
    setText(start, "Starting…");
    try {
      await fetchFromHub({ repo_id: repo.repo_id, filename: variant.filename }, wanted);
      readDownloads();
      dialog.close();
      if (!get("acquisitions").length) toast(`Fetching ${variant.filename}.`, "info");
      location.hash = "#/downloads";
    } catch (error) {
      say(`Not started: ${error.message}`);
    } finally {
      start.disabled = false;
      setText(start, "Fetch");
    }
    return undefined;
  }
  await probe();
}

/** The three ways, as radio buttons; `chosen()` is what fetchFromHub wants. */
function howMuch(facts, verdict) {
  const count = facts.shard_count;
  const each = facts.total_size / count;
  const others = peersUp().length;
  const share = Math.ceil(count / (others + 1));
  const boxes = Array.from({ length: Math.min(count, MOST_CHOSEN) }, (_, index) => h("input", { type: "checkbox", value: index, "aria-label": `Shard ${index}` }));
  const picked = () => boxes.filter((box) => box.checked).map((box) => Number(box.value));
  const sum = h("p", { class: "hint", role: "status" });
  const tally = () => setText(sum, picked().length ? `${format.plural(picked().length, "shard")} (${format.ranges(picked())}), about ${format.bytes(picked().length * each)}` : "None chosen yet.");
  const setAll = (to) => {
    for (const box of boxes) box.checked = to;
    tally();
  };
  let anchor = null;
  const grid = h("div", { class: "pick-grid", role: "group", "aria-label": "Shards", on: {
    change: tally,
    click: (event) => { // with Shift: all from the last one
      const at = boxes.indexOf(event.target);
      if (at < 0) return;
      if (event.shiftKey && anchor !== null) for (let index = Math.min(at, anchor); index <= Math.max(at, anchor); index += 1) boxes[index].checked = event.target.checked;
      anchor = at;
      tally();
    },
  } }, boxes.map((box, index) => h("label", { class: "pick-shard" }, box, h("span", { "aria-hidden": "true" }, index))));
  const chooser = h("div", { class: "pick-chooser", hidden: true },
    h("div", { class: "row" }, h("button", { type: "button", class: "small", on: { click: () => setAll(true) } }, "All"), h("button", { type: "button", class: "small", on: { click: () => setAll(false) } }, "None"), sum), grid);
  const way = (value, title, note, { checked = false, disabled = false } = {}) => h("label", { class: "way-choice" },
    h("input", { type: "radio", name: "how-much", value, checked, disabled }), h("span", {}, h("strong", {}, title), h("span", { class: "hint" }, note)));
  const sharing = others > 0 && verdict !== "here";
  const element = h("fieldset", { class: "pick-ways", on: { change: () => { chooser.hidden = element.querySelector("input:checked").value !== "some"; } } },
    h("legend", {}, "How much of it should this node hold?"),
    way("all", "Whole model", `${format.plural(count, "shard")}, ${format.bytes(facts.total_size)} on this disk.`, { checked: !sharing }),
    way("share", "This node's fair share", others
      ? `About ${format.plural(share, "shard")} of ${count}, ${format.bytes(Math.min(facts.total_size, share * each))}; other nodes that manage their shards by themselves take the rest.`
      : "No other node is connected: its share is the whole model.", { checked: sharing, disabled: others === 0 }),
    way("some", "Choose shards", "Pick them yourself; others may fetch the rest."), chooser);
  tally();
  const chosen = () => {
    const which = element.querySelector("input[type=radio]:checked").value;
    if (which === "share") return { share: true };
    if (which === "all") return {};
    return picked().length ? { shards: picked() } : "Choose at least one shard, or take the whole model.";
  };
  return { element, chosen };
}
