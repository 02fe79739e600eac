// The account of this node with the others: what it gave and took. It gates nothing unless the settings say so.

import { request } from "../api.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { nodeName } from "../nodes.js";
import { resource, reading } from "../resource.js";

const KINDS = {
  served: "layers computed for others", hosted: "shards held for the swarm", seeded: "shards sent to others", relayed: "links relayed",
  reserved: "own requests, set aside", spent: "own requests", penalty: "failures", refunded: "given back",
};
const STEP = 50;

export function creditsPanel() {
  const numbers = h("dl", { class: "facts" });
  const said = h("p", { class: "hint" });
  const panel = h("div", { class: "credits" }, said, numbers);
  resource(panel, { read: reading("/api/admin/credits"), everyMs: 10000, draw: ({ data, error, missing }) => {
    if (missing) return setText(said, "This node keeps no books: it is of an older version.");
    if (error && !data) {
      said.className = "trouble";
      return setText(said, error.message);
    }
    if (!data) return numbers.replaceChildren(h("div", { class: "waiting row-waiting" }));
    said.className = "hint";
    setText(said, "Work for others earns, own requests spend. It is bookkeeping between members: nobody pays, and nothing is refused for want of it unless the settings say so.");
    const rows = [
      ["Balance", data.balance], ["Earned", data.lifetime_earned], ["Spent", data.lifetime_spent], ["Given back", data.lifetime_refunded],
      ["Set aside now", data.escrow_held], ["For requests that run", data.escrow_pending_count],
    ].filter(([, value]) => value !== undefined && value !== null);
    const tier = String(data.tier ?? "");
    const updated = format.moment(data.last_updated);
    return numbers.replaceChildren(...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, format.count(value)))),
      tier && h("div", {}, h("dt", {}, "Tier"), h("dd", {}, h("span", { class: `tier tier-${/^[a-z]+$/.test(tier) ? tier : "none"}` }, tier))),
      data.books_balance !== undefined && h("div", {}, h("dt", {}, "Books"), h("dd", {}, data.books_balance ? "add up" : "do not add up")),
      updated && h("div", {}, h("dt", {}, "Last entry"), h("dd", {}, format.ago(updated))));
  } });
  return panel;
}

/** The entries of the account, and the books on each node. */
export function creditEntries() {
  const list = h("div", {});
  const peers = h("div", {});
  const more = h("button", { type: "button", class: "small", hidden: true }, "Older ones");
  const trouble = h("p", { class: "trouble", role: "alert" });
  const panel = h("div", { class: "stack" }, peers, list, more, trouble);
  let entries = [];
  let before = null;
  resource(panel, { read: reading("/api/admin/credits/transactions?limit=50"), everyMs: 15000, draw: ({ data, error, missing }) => {
    if (missing) return list.replaceChildren(h("p", { class: "empty" }, "This node tells no single entries."));
    if (error && !data) return list.replaceChildren(h("p", { class: "trouble" }, error.message));
    if (!data) return list.replaceChildren(h("div", { class: "waiting row-waiting" }));
    const fresh = data.transactions ?? [];
    const known = new Set(fresh.map(({ id }) => id));
    if (entries.length <= fresh.length) before = data.next_before ?? null;
    entries = [...fresh, ...entries.filter(({ id }) => !known.has(id))];
    return draw();
  } });
  resource(panel, { read: reading("/api/admin/credits/peers"), everyMs: 15000, draw: ({ data }) => {
    const rows = Array.isArray(data) ? data : data?.peers ?? [];
    if (!rows.length) return peers.replaceChildren();
    return peers.replaceChildren(h("h3", {}, "By node"), table("Books by node", ["Node", "It did for us", "We did for it", "Balance", "Tier"], rows.map((row) =>
      [nodeName(row.node_id), format.count(row.given), format.count(row.taken), format.count(row.balance), row.tier ?? format.NONE])));
  } });
  function draw() {
    more.hidden = before === null;
    if (!entries.length) return list.replaceChildren(h("p", { class: "empty" }, "No entry yet. Run layers for others, or ask something that others compute."));
    return list.replaceChildren(h("h3", {}, "Entries"), table("Entries of the account", ["When", "What", "Amount", "Node", "Model"], entries.map((row) => {
      const at = format.moment(row.timestamp);
      const quantity = row.quantity ? `, ${format.count(row.quantity)} ${(row.unit ?? "").replace("_", "-")}` : "";
      return [at ? format.ago(at) : format.NONE, `${KINDS[row.kind] ?? String(row.kind).replaceAll("_", " ")}${quantity}`, `${row.amount > 0 ? "+" : ""}${format.count(row.amount)}`, row.node_id ? nodeName(row.node_id) : format.NONE, row.model_id ?? format.NONE];
    })));
  }
  more.addEventListener("click", async () => {
    more.disabled = true;
    setText(trouble, "");
    try {
      const told = await request(`/api/admin/credits/transactions?limit=${STEP}&before=${before}`);
      const known = new Set(entries.map(({ id }) => id));
      entries = [...entries, ...(told.transactions ?? []).filter(({ id }) => !known.has(id))];
      before = told.next_before ?? null;
      draw();
    } catch (error) {
      setText(trouble, error.message);
    } finally {
      more.disabled = false;
    }
  });
  return panel;
}

const table = (label, heads, rows) => h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": label }, h("table", {},
  h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
  h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
