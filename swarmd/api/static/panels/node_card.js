// What is known of one node: beside the map, or a sheet at the foot of a narrow screen. Kept up to date as long as it shows.

import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { nodeName, shortId, swatch } from "../nodes.js";
import { pathOf, perSecond, roundTrip } from "../network.js";
import { get } from "../store.js";
import { holdersOf } from "./strip.js";

const MOST_MODELS = 6;

/** @param close what the button of the sheet does */
export function nodeCard({ close }) {
  const mark = h("span", { class: "card-mark" });
  const name = h("h3", { class: "card-name" });
  const chip = h("span", { class: "chip" });
  const facts = h("dl", { class: "card-facts" });
  const hint = h("p", { class: "hint card-hint" }, "Point at a node, tap it or go there with the arrow keys: what is known of it shows here.");
  const button = h("button", { type: "button", class: "quiet icon card-close", "aria-label": "Close the details", on: { click: close } }, "×");
  const element = h("aside", { class: "card", "aria-label": "Details of the node" },
    h("div", { class: "card-head" }, mark, name, chip, button), facts, hint);
  const cells = new Map();
  let drawn = null;

  function cell(title) {
    if (!cells.has(title)) {
      const value = h("dd");
      cells.set(title, { value, row: h("div", {}, h("dt", {}, title), value) });
    }
    return cells.get(title);
  }

  return {
    element,
    /** `pinned`: a person chose it, so on a narrow screen the sheet comes up. */
    show(node, { pinned }) {
      if (drawn !== node.id) {
        drawn = node.id;
        mark.replaceChildren(swatch(node.id));
        facts.replaceChildren();
      }
      element.classList.toggle("card-pinned", pinned);
      setText(name, node.self ? "This node" : node.name);
      setText(chip, node.self ? "here" : node.up ? "connected" : "away");
      chip.className = `chip${node.up ? " chip-good" : ""}`;
      button.hidden = !pinned;
      hint.hidden = !node.self;
      const rows = factsOf(node).filter(([, text]) => text).map(([title, text]) => {
        const { row, value } = cell(title);
        value.className = title === "Id" || title === "Address" ? "code" : "";
        setText(value, text);
        return row;
      });
      const same = rows.length === facts.children.length && rows.every((row, at) => facts.children[at] === row);
      if (!same) facts.replaceChildren(...rows);
    },
  };
}

function factsOf(node) {
  const member = (get("members") ?? []).find((row) => shortId(row.node_id) === node.id);
  const both = (one, other) => [one, other].filter(Boolean).join(" · ");
  const moved = (bytes, rate, way) => (bytes === null ? "" : `${format.bytes(bytes)} ${way}${rate ? `, ${perSecond(rate)} now` : ""}`);
  return [
    ["Id", node.id],
    ["Region", node.region === "??" ? "not said" : node.region],
    ["Path", node.self ? "" : node.via ? `through ${nodeName(node.via)}, a relay` : node.up ? both("direct", node.lan ? "in this LAN" : "") : "no connection"],
    ["Round trip", node.rtt === null || node.rtt === undefined ? "" : both(roundTrip(node.rtt), both(`least ${roundTrip(node.least)}`, node.samples ? format.plural(node.samples, "sample") : ""))],
    ["Address", node.address],
    ["Connected", node.linkSeconds === null || node.linkSeconds === undefined ? "" : `for ${format.duration(node.linkSeconds)}, ${node.dialled ? "dialled by this node" : "it dialled"}`],
    ["Last seen", node.up || !node.lastSeen ? "" : format.ago(node.lastSeen)],
    ["Traffic", node.bytesIn === null ? "" : both(moved(node.bytesIn, node.rateIn, "in"), moved(node.bytesOut, node.rateOut, "out"))],
    ["Waiting", node.queued ? `${format.bytes(node.queued)} to be sent` : ""],
    ["Memory", node.memory ? `${format.megabytes(node.free)} free of ${format.megabytes(node.memory)}` : ""],
    ["GPU", node.gpu],
    ["Holds", holds(node)],
    ["Trust", node.trust === null ? "" : `${format.fixed(node.trust, 2)} of 1`],
    ["Software", both(node.version ? `swarmd ${node.version}` : "", node.seconds === null ? "" : `up ${format.duration(node.seconds)}`)],
    ["Member", member ? both(member.role === "inviter" ? "may invite" : member.role ?? "", member.expires_at ? `until ${day(member.expires_at)}` : "") : ""],
  ];
}

/** "mid-7b: shards 1–3 of 5", from the list of models; else what the node says of itself. */
function holds(node) {
  const known = (get("models") ?? []).map((model) => {
    const indices = (model.shards ?? []).filter((shard) => holdersOf(shard).includes(node.id)).map((shard) => shard.index);
    return indices.length && { id: model.id, text: `${model.name}: ${indices.length === model.shards.length ? "all of it" : `shards ${format.ranges(indices)} of ${model.shards.length}`}` };
  }).filter(Boolean);
  const told = node.models.filter((id) => !known.some((one) => one.id === id));
  const lines = [...known.map((one) => one.text), ...told];
  if (!lines.length) return node.shards ? format.plural(node.shards, "shard") : "nothing";
  return lines.slice(0, MOST_MODELS).join("\n") + (lines.length > MOST_MODELS ? `\nand ${lines.length - MOST_MODELS} more` : "");
}

export const day = (moment) => format.moment(moment)?.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" }) ?? format.NONE;
