// Downloads at a glance.

import { h, setText } from "../dom.js";
import { downloads } from "../downloads.js";
import * as format from "../format.js";
import { get, watch } from "../store.js";

export function downloadNumbers() {
  const tile = (id, name) => {
    const value = h("dd", { class: "tile-value" }, format.NONE);
    const note = h("dd", { class: "tile-note" }, "\u00a0");
    return { element: h("div", { class: `tile tile-${id}` }, h("dt", {}, name), value, note), set: (text, more) => { setText(value, text); setText(note, more || "\u00a0"); } };
  };
  const [speed, left, running, disk] = [tile("rate", "Coming in"), tile("left", "Done in"), tile("running", "Running"), tile("room", "Disk free")];
  watch(["acquisitions", "stats"], () => {
    const { going } = downloads();
    const moving = going.filter((row) => row.state === "downloading");
    const rate = moving.reduce((sum, row) => sum + (row.speed_bytes_per_sec ?? 0), 0);
    const rest = going.filter((row) => row.state !== "paused").reduce((sum, row) => sum + Math.max(0, (row.total_bytes ?? 0) - (row.downloaded_bytes ?? 0)), 0);
    const hardware = get("stats")?.hardware;
    speed.set(rate ? `${format.bytes(rate)}/s` : format.NONE, moving.length ? "all downloads together" : "nothing is coming in");
    left.set(rate && rest ? format.duration(Math.ceil(rest / rate)) : format.NONE, rest ? `${format.bytes(rest)} to go` : "nothing to fetch");
    running.set(format.count(moving.length), [["queued", "waiting"], ["awaiting_manifest", "starting"], ["paused", "paused"]]
      .map(([state, word]) => [going.filter((row) => row.state === state).length, word]).filter(([number]) => number).map(([number, word]) => `${number} ${word}`).join(", "));
    disk.set(hardware ? format.megabytes(hardware.available_disk_mb) : format.NONE, hardware ? `of ${format.megabytes(hardware.total_disk_mb)}` : "");
  });
  return h("dl", { class: "numbers download-numbers", "aria-label": "Downloads in numbers" }, speed.element, left.element, running.element, disk.element);
}
