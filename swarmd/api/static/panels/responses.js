// Responses that this node keeps for clients of the Responses API: which run, which are done, and for how long they stay.

import { oneAtATime } from "../actions.js";
import { request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { growing } from "../markdown.js";
import { resource } from "../resource.js";

const STATES = { queued: ["waiting", "plain"], in_progress: ["in progress", "warn"], completed: ["completed", "good"], cancelled: ["cancelled", "plain"], failed: ["failed", "bad"], incomplete: ["cut", "warn"] };
const STEP = 50;
const MOST = 500; // the contract's limit
const FRESH_MS = 5000; // no event says that one ended

export function responsesPanel() {
  const status = h("select", { id: "responses-status" }, h("option", { value: "" }, "All"), Object.entries(STATES).map(([key, [text]]) => h("option", { value: key }, text)));
  const said = h("p", { class: "hint", role: "status" });
  const list = h("div", { class: "rows" });
  const more = h("button", { type: "button", class: "small", hidden: true }, "Show more");
  const panel = h("div", {}, h("div", { class: "row filters" }, h("div", { class: "field" }, h("label", { for: status.id }, "State"), status)), said, list, more);
  const rows = new Map(); // id -> row: an open one stays open
  let limit = STEP;
  const source = resource(panel, { everyMs: FRESH_MS, draw, read: () =>
    request(`/api/admin/responses?limit=${limit}${status.value ? `&status=${status.value}` : ""}`) });
  status.addEventListener("input", () => {
    limit = STEP;
    source.again();
  });
  more.addEventListener("click", () => {
    limit = Math.min(MOST, limit + STEP);
    source.again();
  });

  function draw({ data, error, missing }) {
    if (missing) return list.replaceChildren(h("p", { class: "empty" }, "This node keeps no responses: it is of an older version."));
    if (error && !data) return list.replaceChildren(h("p", { class: "trouble" }, error.message));
    if (!data) return list.replaceChildren(h("div", { class: "waiting row-waiting" }));
    const found = data.data ?? [];
    setText(said, error ? `The list could not be read again. ${error.message}` : found.length ? `${format.count(found.length)} of ${format.plural(data.total ?? found.length, "response")}, newest first.` : "");
    more.hidden = found.length < limit || limit >= MOST;
    for (const id of rows.keys()) if (!found.some((one) => one.id === id)) rows.delete(id);
    if (!found.length) return list.replaceChildren(h("p", { class: "empty" }, status.value ? "None in this state." : "None yet. Clients make them with POST /v1/responses; they stay here for 30 days unless they say otherwise."));
    for (const one of found) {
      if (!rows.has(one.id)) rows.set(one.id, responseRow(one, () => source.again()));
      rows.get(one.id).update(one);
    }
    const wanted = found.map(({ id }) => rows.get(id).element);
    if (wanted.some((element, at) => list.children[at] !== element) || list.children.length !== wanted.length) list.replaceChildren(...wanted);
    return undefined;
  }
  return panel;
}

function responseRow(first, changed) {
  let row = first;
  const path = `/v1/responses/${encodeURIComponent(row.id)}`;
  const chip = h("span", { class: "chip" });
  const title = h("span", { class: "row-name" });
  const facts = h("p", { class: "hint" });
  const body = h("div", { class: "response-body" });
  const cancel = h("button", { type: "button", class: "small", "aria-label": `Cancel ${row.id}` }, "Cancel");
  const remove = h("button", { type: "button", class: "small", "aria-label": `Delete ${row.id}` }, "Delete…");
  const trouble = h("p", { class: "trouble", role: "alert" });
  const whole = h("details", { class: "fold", on: { toggle: () => whole.open && show() } }, h("summary", {}, "The whole of it"), body);
  const work = oneAtATime(() => {
    cancel.disabled = remove.disabled = work.busy;
    setText(trouble, work.trouble);
  });
  cancel.addEventListener("click", () => work.run("Not cancelled", async () => {
    await request(`${path}/cancel`, { method: "POST" });
    await changed();
    return "Cancelled";
  }));
  remove.addEventListener("click", async () => {
    if (!(await confirmDanger({ title: "Delete this response?", text: "Its client can read it no more, and no request can go on from it.", danger: "Delete" }))) return;
    await work.run("Not deleted", async () => {
      await request(path, { method: "DELETE" });
      await changed();
      return "Deleted";
    });
  });
  async function show() {
    body.replaceChildren(h("progress", { "aria-label": "Reading" }));
    try {
      const told = await request(path);
      body.replaceChildren(...(told.output ?? []).map(item), told.error ? h("p", { class: "trouble" }, told.error.message ?? "failed") : "");
      if (!body.textContent) body.replaceChildren(h("p", { class: "hint" }, "No output yet."));
    } catch (error) {
      body.replaceChildren(h("p", { class: "trouble" }, error.message));
    }
  }
  return {
    element: h("article", { class: "row-card", "data-response": row.id }, h("div", {}, h("p", {}, title, " ", chip), facts, whole), h("div", { class: "row-buttons" }, cancel, remove), trouble),
    update(fresh) {
      row = fresh;
      const [text, kind] = STATES[row.status] ?? [row.status, "plain"];
      setText(title, row.output_text_preview || row.input_preview || row.id);
      setText(chip, text);
      chip.className = `chip chip-${kind}`;
      const made = format.moment(row.created_at);
      const until = format.moment(row.expires_at);
      setText(facts, [row.model, made && format.ago(made), row.usage && `${format.count(row.usage.input_tokens)} tokens in, ${format.count(row.usage.output_tokens)} out`,
        row.background && "in the background", row.live && "being made now", until && `kept until ${until.toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" })}`, row.input_preview && row.output_text_preview && `asked: ${row.input_preview}`].filter(Boolean).join(" · "));
      cancel.hidden = row.status !== "queued" && row.status !== "in_progress";
    },
  };
}

/** An item of the output: text as it is meant, calls of tools as code. */
function item(one) {
  const place = h("div", { class: "said-text said-marked" });
  const text = one.type === "message" ? (one.content ?? []).map((part) => part.text ?? part.refusal ?? "").join("\n")
    : one.type === "function_call" ? `Called \`${one.name}\`:\n\n\`\`\`json\n${one.arguments}\n\`\`\`` : JSON.stringify(one, null, 2);
  growing(place)(text);
  return place;
}
