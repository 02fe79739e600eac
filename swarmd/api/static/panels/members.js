// Who belongs to the network, and putting somebody out of it.

import { request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";
import { nodeName, shortId, swatch } from "../nodes.js";
import { readMembers } from "../network.js";
import { get, watch } from "../store.js";
import { toast } from "../toasts.js";
import { day } from "./node_card.js";
import { holdersOf } from "./strip.js";

const ROLES = { inviter: "may invite", member: "member" };
const SOON_S = 7 * 86400; // a certificate renews itself long before; one that has a week left cannot reach an inviter

export function membersPanel() {
  const list = h("ul", { class: "members", tabindex: "0", "aria-label": "Members of the network" });
  const empty = h("p", { class: "empty", hidden: true }, "This node belongs to no network yet. Inviting a node founds one; a code from somebody else enters theirs.");
  const waiting = h("div", { class: "waiting members-waiting", "aria-hidden": "true" });
  const note = h("p", { class: "hint", hidden: true }, "Only the founder of the network and inviters can put a node out, inviters those they let in: do it on their dashboards.");
  const trouble = h("p", { class: "trouble", role: "alert" });
  const again = h("button", { type: "button", class: "small", on: { click: () => readMembers() } }, "Try again");
  const problem = h("div", { class: "row", hidden: true }, trouble, again);
  const leaving = new Set(); // ids that are being put out
  const rowTrouble = new Map(); // id -> sentence
  let drawn = "";

  watch(["members", "membersError", "self", "peers"], draw);

  function draw() {
    const rows = get("members");
    const error = get("membersError");
    problem.hidden = !error;
    if (error) setText(trouble, `The list could not be read. ${error}`);
    waiting.hidden = rows !== null || Boolean(error);
    empty.hidden = !rows || rows.length > 0;
    list.hidden = !rows?.length;
    if (!rows) return;
    const own = rows.find((row) => row.is_self);
    const may = own?.role !== "member"; // of the others the node decides, and says why not
    note.hidden = may || rows.length < 2;
    const minute = Math.floor(Date.now() / 60000); // times are relative
    const now = JSON.stringify([rows, minute, [...leaving], [...rowTrouble], get("self"), (get("peers") ?? []).map((peer) => peer.nickname)]);
    if (now === drawn) return;
    drawn = now;
    const at = document.activeElement?.dataset?.member;
    list.replaceChildren(...[...rows].sort(bySeat).map((row) => line(row, may)));
    if (at) (list.querySelector(`[data-member="${CSS.escape(at)}"]`) ?? list).focus();
  }

  function line(row, may) {
    const id = shortId(row.node_id);
    const out = row.revoked_at !== null && row.revoked_at !== undefined;
    const busy = leaving.has(row.node_id);
    const revoke = may && !row.is_self && !out && h("button", { type: "button", class: "small", disabled: busy, "data-member": row.node_id,
      "aria-label": `Revoke ${nodeName(id)}`, on: { click: () => revokeAfterAsking(row) } }, busy ? "Revoking…" : "Revoke");
    return h("li", { class: `member${out ? " member-out" : ""}` },
      swatch(id),
      h("div", { class: "member-who" },
        h("div", { class: "member-name" }, h("span", { class: "code", title: row.node_id }, nodeName(id)), chip(row, out),
          row.role && h("span", { class: "chip" }, ROLES[row.role] ?? row.role)),
        h("div", { class: "hint" }, facts(row, out))),
      revoke, rowTrouble.has(row.node_id) && h("p", { class: "trouble", role: "alert" }, rowTrouble.get(row.node_id)));
  }

  async function revokeAfterAsking(row) {
    const id = shortId(row.node_id);
    const alone = onlyThere(id);
    const text = `Every node stops accepting ${nodeName(id)} as soon as it hears of it: connections to it are closed, its certificate is void, and it comes back only with a new invite code.`
      + (row.members_below ? ` ${format.plural(row.members_below, "member")} it invited ${row.members_below === 1 ? "goes" : "go"} with it.` : "")
      + (alone.length ? ` Shards of ${alone.join(", ")} are on that node alone: without it they cannot run.` : "");
    if (!(await confirmDanger({ title: `Put ${nodeName(id)} out of the network?`, text, danger: "Revoke" }))) return;
    rowTrouble.delete(row.node_id);
    leaving.add(row.node_id);
    draw();
    try {
      const answer = await request(`/api/admin/members/${encodeURIComponent(row.node_id)}/revoke`, { method: "POST" });
      const said = `${nodeName(id)} was put out of the network${answer?.members_below ? `, and ${format.plural(answer.members_below, "member")} with it` : ""}.`;
      announce(said);
      toast(said, "success");
    } catch (error) {
      rowTrouble.set(row.node_id, error.message);
    }
    await readMembers();
    leaving.delete(row.node_id);
    draw();
    if (!list.contains(document.activeElement)) (list.querySelector(`[data-member="${CSS.escape(row.node_id)}"]`) ?? list).focus(); // it could not keep it
  }

  return h("div", { class: "members-panel" }, waiting, empty, list, note, problem);
}

/** This node, then who is connected, then who is away, and who was put out last. */
function bySeat(a, b) {
  const seat = (row) => (row.is_self ? 0 : row.revoked_at ? 3 : row.connected ? 1 : 2);
  return seat(a) - seat(b) || (a.node_id < b.node_id ? -1 : 1);
}

function chip(row, out) {
  if (out) return h("span", { class: "chip chip-bad" }, "revoked");
  if (row.is_self) return null;
  return row.connected ? h("span", { class: "chip chip-good" }, "connected") : h("span", { class: "chip" }, "away");
}

function facts(row, out) {
  const seen = format.moment(row.last_seen);
  const end = format.moment(row.expires_at);
  const left = end ? (end.getTime() - Date.now()) / 1000 : null;
  const parts = [
    row.issued_at && `joined ${day(row.issued_at)}`,
    row.admitted_by && !out && `admitted by ${row.admitted_by === "founder" ? "the founder" : nodeName(shortId(row.admitted_by))}`,
    out ? `out since ${day(row.revoked_at)}` : left !== null && (left <= 0 ? `expired ${day(row.expires_at)}` : `${left < SOON_S ? "expires in " : "until "}${left < SOON_S ? format.duration(left) : day(row.expires_at)}`),
    !row.connected && !row.is_self && seen && `last seen ${format.ago(seen)}`,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** Names of the models of which this node alone holds a shard. */
function onlyThere(id) {
  return (get("models") ?? []).filter((model) => (model.shards ?? []).some((shard) => {
    const holders = holdersOf(shard);
    return holders.length === 1 && holders[0] === id && (shard.holders ?? 1) <= 1;
  })).map((model) => model.name);
}
