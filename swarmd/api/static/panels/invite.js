// Codes to give away: made on chosen terms, shown once as text and as a QR code, or short and large to be typed in the same
// room; listed, cancelled. All in one dialog.

import { hasKey, request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { announce, h, s, setText } from "../dom.js";
import * as format from "../format.js";

const PATH = "/api/admin/invites";
const LIVES = [[3600, "1 hour"], [86400, "1 day"], [604800, "7 days"], [2592000, "30 days"], [31536000, "1 year"]];
const REFRESH_MS = 5000; // no event says that somebody joined with a code; only while the dialog is open
const MOST_SVG = 20000; // characters; the node's largest has 17,000

export function inviteHalf() {
  const dialog = inviteDialog();
  const button = h("button", { type: "button", class: "primary", "aria-haspopup": "dialog", on: { click: dialog.show } }, "Invite a node");
  return h("div", { class: "half" }, h("h3", {}, "Invite"),
    h("p", { class: "hint" }, "A code admits machines to this swarm. It names no address anybody could read."), button);
}

/** Kept in the page between two looks: its owner may want to copy the code once more. */
function inviteDialog() {
  const made = madePart();
  const list = listPart({ changed: made.follow });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const uses = h("input", { id: "invite-uses", type: "number", min: 1, max: 1000, step: 1, value: 1, required: true, inputmode: "numeric", autofocus: true });
  const life = h("select", { id: "invite-life" }, LIVES.map(([seconds, text]) => h("option", { value: seconds, selected: seconds === 86400 }, text)));
  const role = h("select", { id: "invite-role" }, [["member", "Member"], ["inviter", "Inviter"]].map(([value, text]) => h("option", { value, title: value === "inviter" ? "May invite others, and put those out again" : null }, text)));
  const button = h("button", { type: "submit", class: "primary" }, "Make a code");
  const short = h("button", { type: "button", class: "invite-short", on: { click: () => make({ short: true }) } }, "Short code, for a machine in this room");
  async function make(body) {
    button.disabled = short.disabled = true;
    trouble.hidden = true;
    try {
      made.show(await request(PATH, { method: "POST", body }));
      announce("An invite code was made.");
    } catch (error) {
      setText(trouble, error.message);
      trouble.hidden = false;
    } finally {
      button.disabled = short.disabled = false;
    }
    await list.refresh();
  }
  const form = h("form", { class: "invite-terms", on: { submit: (event) => {
    event.preventDefault();
    make({ uses: Number(uses.value), life_seconds: Number(life.value), role: role.value });
  } } },
    h("div", { class: "field" }, h("label", { for: "invite-uses" }, "How many machines"), uses),
    h("div", { class: "field" }, h("label", { for: "invite-life" }, "Valid for"), life),
    h("div", { class: "field" }, h("label", { for: "invite-role" }, "Joins as"), role), button, short);
  const close = h("button", { type: "button", class: "quiet icon", "aria-label": "Close", on: { click: () => dialog.close() } }, "×");
  const dialog = h("dialog", { class: "dialog invite-dialog", "aria-labelledby": "invite-title" },
    h("div", { class: "invite-head" }, h("h2", { id: "invite-title" }, "Invite nodes"), close), form, trouble, made.element, list.element);
  let timer = 0;
  dialog.addEventListener("close", () => {
    clearInterval(timer);
    dialog.remove(); // after this the browser has given the focus back to the button
  });
  return {
    show() {
      document.body.append(dialog);
      dialog.showModal();
      clearInterval(timer);
      timer = setInterval(() => hasKey() && !document.hidden && list.refresh(), REFRESH_MS);
      list.refresh();
    },
  };
}

/** The code that was just made: the node does not know it any more. */
function madePart() {
  const code = h("textarea", { class: "code", readonly: true, rows: 6, "aria-label": "Invite code", spellcheck: "false", on: { focus: () => code.select() } });
  const words = h("p", { class: "words", "aria-label": "Short code" });
  const plate = h("div", { class: "qr" });
  const note = h("p", { class: "hint" });
  const copy = h("button", { type: "button", class: "small" }, "Copy the code");
  const element = h("div", { class: "invite-shown", hidden: true }, plate, h("div", { class: "invite-text" }, code, words, copy, note));
  let invite = null;
  let uses = 1;
  let state = "live";
  const draw = () => {
    const left = ((format.moment(invite.expires_at)?.getTime() ?? Infinity) - Date.now()) / 1000;
    const end = Number.isFinite(left) ? `, for ${format.duration(left)} more` : "";
    if (left <= 0) setText(note, "This code has expired. Make a new one.");
    else if (state === "burnt") setText(note, "Somebody tried it with wrong words, so it is over. Make a new one.");
    else if (uses && invite.short) setText(note, `Type it on the other machine under Join, or as swarmd join${end}. It takes one try, right or wrong.`);
    else if (!uses) setText(note, "Every use of this code is spent.");
    else setText(note, `For ${format.plural(uses, "machine")}${end}. Copy it now: the list below does not show it again.`);
  };
  setInterval(() => invite && draw(), 1000);
  copy.addEventListener("click", async () => {
    setText(copy, (await copyText(invite.short ? words : code)) ? "Copied" : "Press Ctrl+C to copy");
    setTimeout(() => setText(copy, "Copy the code"), 2500);
  });
  return {
    element,
    show(reply) {
      invite = reply;
      uses = reply.uses;
      state = "live";
      code.hidden = reply.short;
      words.hidden = !reply.short;
      code.value = reply.short ? "" : reply.code;
      words.replaceChildren(...(reply.short ? breakable(reply.code) : []));
      element.classList.toggle("invite-large", reply.short);
      const picture = qrPicture(reply.qr_svg);
      plate.hidden = !picture;
      plate.replaceChildren(...(picture ? [picture] : []));
      draw();
      element.hidden = false;
      copy.focus();
    },
    /** What the list says of it. */
    follow(rows) {
      const row = invite && rows.find(({ id }) => id === invite.id);
      if (!row) return;
      uses = row.uses_left;
      state = row.state;
      draw();
      if (row.state !== "cancelled") return;
      invite = null;
      code.value = "";
      words.replaceChildren();
      plate.replaceChildren();
      element.hidden = true;
    },
  };
}

/** The SVG of the node, drawn again from its numbers: nothing else of it reaches the page. Null: there is none. */
function qrPicture(text) {
  if (typeof text !== "string" || text.length > MOST_SVG) return null;
  const given = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  const box = given.getAttribute("viewBox") ?? "";
  const pen = given.querySelector("path[stroke]")?.getAttribute("d") ?? "";
  if (!/^0 0 [0-9]{2,3} [0-9]{2,3}$/.test(box) || !/^[Mmh0-9. -]+$/.test(pen)) return null;
  return s("svg", { viewBox: box, role: "img", "aria-label": "The invite code as a QR code", "shape-rendering": "crispEdges" }, s("path", { d: pen }));
}

/** A short code may be broken after a dash, and nowhere else. */
function breakable(code) {
  return code.split(/(?<=-)/).flatMap((part, at) => (at ? [h("wbr"), part] : [part]));
}

/** The clipboard needs a secure context; a page from another machine in the LAN has none and falls back to the selection. */
async function copyText(area) {
  try {
    await navigator.clipboard.writeText(area.value ?? area.textContent);
    return true;
  } catch {
    area.focus();
    if (area.select) area.select();
    else getSelection().selectAllChildren(area);
    return document.execCommand("copy");
  }
}

function listPart({ changed }) {
  const rows = h("ul", { class: "invites", tabindex: "0", "aria-label": "Codes this node gave" });
  const empty = h("p", { class: "empty", hidden: true }, "None yet. Make one above and give it to the owner of the other machine.");
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const again = h("button", { type: "button", class: "small", hidden: true, on: { click: () => refresh() } }, "Try again");
  const heading = h("h3", { tabindex: "-1" }, "Codes this node gave");
  let drawn = "";

  async function refresh() {
    try {
      const found = await request(PATH);
      complain("");
      changed(found);
      draw(found);
    } catch (error) {
      complain(`The list could not be read. ${error.message}`);
    }
  }

  function complain(text) {
    if (text) setText(trouble, text);
    trouble.hidden = again.hidden = !text;
  }

  /** Drawn anew only where something differs, so that the focus stays where it is. */
  function draw(found) {
    const minute = Math.floor(Date.now() / 60000); // the times are relative
    const now = JSON.stringify([found, minute]);
    if (now === drawn) return;
    drawn = now;
    const at = document.activeElement?.dataset?.invite;
    empty.hidden = found.length > 0;
    rows.hidden = !found.length;
    const live = (row) => row.state === "live";
    rows.replaceChildren(...[...found.filter(live), ...found.filter((row) => !live(row))].map(line));
    if (at) (rows.querySelector(`[data-invite="${CSS.escape(at)}"]`) ?? heading).focus();
  }

  function line(row) {
    const cancel = row.state === "live" && h("button", { type: "button", class: "small", "data-invite": row.id, "aria-label": `Cancel the code ${row.id}`, on: { click: () => end(row) } }, "Cancel");
    return h("li", { class: "invite" },
      h("span", { class: `chip ${{ live: "chip-good", burnt: "chip-warn" }[row.state] ?? ""}` }, row.state),
      h("span", { class: "invite-facts" }, h("span", { class: "invite-said" }, said(row)), h("code", { class: "hint" }, row.id)), cancel);
  }

  async function end(row) {
    const text = `Nobody joins with it any more; ${format.plural(row.uses_left, "machine")} could. Who has joined already stays.`;
    if (!(await confirmDanger({ title: "Cancel this code?", text, danger: "Cancel the code" }))) return;
    try {
      await request(`${PATH}/${encodeURIComponent(row.id)}`, { method: "DELETE" });
      announce("The code was cancelled.");
      await refresh();
    } catch (error) {
      complain(error.message);
    }
    if (!rows.contains(document.activeElement)) heading.focus(); // its button is gone
  }

  return { element: h("div", { class: "invite-list" }, heading, empty, rows, h("div", { class: "row" }, trouble, again)), refresh };
}

function said(row) {
  const role = row.role === "inviter" ? " · inviter" : "";
  const made = format.moment(row.created_at);
  const since = made ? ` · made ${format.ago(made)}` : "";
  const left = ((format.moment(row.expires_at)?.getTime() ?? Infinity) - Date.now()) / 1000;
  if (row.short && row.state === "live") return `short code, ${format.duration(left)} left${since}`;
  if (row.state === "burnt") return `short code, tried with wrong words${since}`;
  if (row.state === "live") return `${format.plural(row.uses_left, "machine")}, ${format.duration(left)} left${role}${since}`;
  return `${row.state === "used" ? "every use is spent" : `${format.plural(row.uses_left, "use")} left over`}${role}${since}`;
}
