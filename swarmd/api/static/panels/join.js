// Growing the swarm: a code to give away, and a field for one that was given.

import { request } from "../api.js";
import { announce, h, setText } from "../dom.js";
import * as format from "../format.js";

export function joinPanel() {
  return h("div", { class: "join" }, inviteHalf(), joinHalf());
}

function inviteHalf() {
  const code = h("textarea", { class: "code", readonly: true, rows: 3, "aria-label": "Invite code", spellcheck: "false" });
  const note = h("p", { class: "hint" });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const copy = h("button", { type: "button", class: "small" }, "Copy the code");
  const shown = h("div", { class: "invite-shown", hidden: true }, code, h("div", { class: "row" }, copy, note));
  const button = h("button", { type: "button", class: "primary" }, "Invite a node");
  let expires = null;
  const drawExpiry = () => {
    if (!expires) return setText(note, "For one node. Give it only to its owner.");
    const left = (expires.getTime() - Date.now()) / 1000;
    return setText(note, left > 0 ? `For one node, for ${format.duration(left)} more.` : "This code has expired. Make a new one.");
  };
  setInterval(() => shown.hidden || drawExpiry(), 1000);

  button.addEventListener("click", async () => {
    button.disabled = true;
    trouble.hidden = true;
    try {
      const reply = await request("/api/admin/network-code");
      code.value = reply.code;
      expires = format.moment(reply.expires_at);
      drawExpiry();
      shown.hidden = false;
      setText(button, "Make another code");
      setText(copy, "Copy the code");
      announce("An invite code was made.");
      copy.focus();
    } catch (error) {
      setText(trouble, error.message);
      trouble.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
  copy.addEventListener("click", async () => {
    setText(copy, (await copyText(code)) ? "Copied" : "Press Ctrl+C to copy");
    setTimeout(() => setText(copy, "Copy the code"), 2500);
  });
  code.addEventListener("focus", () => code.select());
  return h("div", { class: "half" }, h("h3", {}, "Invite"),
    h("p", { class: "hint" }, "A code admits one machine to this swarm. It names no address anybody could read."), button, shown, trouble);
}

/** The clipboard needs a secure context; a page from another machine in the LAN has none and falls back to the selection. */
async function copyText(area) {
  try {
    await navigator.clipboard.writeText(area.value);
    return true;
  } catch {
    area.focus();
    area.select();
    return document.execCommand("copy");
  }
}

function joinHalf() {
  const field = h("input", { id: "join-code", type: "text", placeholder: "swarm://…", autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 4096, "aria-describedby": "join-said" });
  const button = h("button", { type: "submit" }, "Join");
  const said = h("p", { id: "join-said", class: "said", role: "status" });
  const say = (text, kind) => {
    said.className = `said ${kind}`;
    setText(said, text);
    field.setAttribute("aria-invalid", kind === "trouble" ? "true" : "false");
  };
  const form = h("form", { class: "row", on: { submit: async (event) => {
    event.preventDefault();
    const code = field.value.trim();
    if (!code.startsWith("swarm://") && !code.startsWith("/")) {
      say("Paste the whole code; it starts with swarm://", "trouble");
      field.focus();
      return;
    }
    button.disabled = true;
    say("Dialling the inviter…", "hint");
    try {
      const reply = await request("/api/admin/join-network", { method: "POST", body: { code } });
      field.value = "";
      say(reply.message || "Joined. The other nodes appear in the picture as they connect.", "well");
    } catch (error) {
      say(error.message, "trouble");
      field.focus();
    } finally {
      button.disabled = false;
    }
  } } }, field, button);
  return h("div", { class: "half" }, h("h3", {}, "Join"),
    h("label", { for: "join-code", class: "hint" }, "Somebody gave you a code? Join with it here."), form, said);
}
