// Growing the swarm: a code to give away, and a field for one that was given.

import { request } from "../api.js";
import { h, setText } from "../dom.js";
import { inviteHalf } from "./invite.js";

export function joinPanel() {
  return h("div", { class: "join" }, inviteHalf(), joinHalf());
}

/** `id`: of the field; there may be two on a page. */
export function joinHalf(id = "join-code") {
  const place = id === "join-code" ? "join-said" : `${id}-said`;
  const field = h("input", { id, type: "text", placeholder: "swarm://… or 7-crossover-clockwork", autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 4096, "aria-describedby": place });
  const button = h("button", { type: "submit" }, "Join");
  const said = h("p", { id: place, class: "said", role: "status" });
  const say = (text, kind) => {
    said.className = `said ${kind}`;
    setText(said, text);
    field.setAttribute("aria-invalid", kind === "trouble" ? "true" : "false");
  };
  const form = h("form", { class: "row", on: { submit: async (event) => {
    event.preventDefault();
    const code = field.value.trim();
    if (!code.startsWith("swarm://") && !code.startsWith("/") && !/^[0-9]{1,4}[\s_-]/.test(code)) {
      say("Paste the whole code; it starts with swarm://. A short code starts with its number.", "trouble");
      field.focus();
      return;
    }
    button.disabled = true;
    say(code.startsWith("swarm://") || code.includes("@") ? "Dialling the inviter…" : "Looking for the inviter…", "hint");
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
    h("label", { for: id, class: "hint" }, "Somebody gave you a code? Join with it here."), form, said);
}
