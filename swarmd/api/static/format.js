// Numbers, sizes and times as people read them. Every function takes null or undefined and answers "–".

export const NONE = "–";
const NARROW = "\u202f"; // narrow no-break space: a figure and its unit stay on one line

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export function count(value) {
  return missing(value) ? NONE : Math.round(value).toLocaleString("en");
}

export function fixed(value, digits = 1) {
  return missing(value) ? NONE : Number(value).toFixed(digits);
}

/** Milliseconds with about three significant figures. */
export function ms(value) {
  if (missing(value)) return NONE;
  if (value >= 10000) return `${(value / 1000).toFixed(1)}${NARROW}s`;
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2; // a whole number was rounded already
  return `${value.toFixed(digits)}${NARROW}ms`;
}

/** Bytes in powers of 1000, as disks and downloads are labelled. */
export function bytes(value) {
  if (missing(value)) return NONE;
  let size = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 999.5) return `${unit === "B" ? size : size < 99.95 ? size.toFixed(1) : size.toFixed(0)}${NARROW}${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(2)}${NARROW}TB`;
}

/** A shard as messages count it, from 1, and as maps, refusals and the API do, from 0. */
export const shard = (index, of) => `${of ? `shard ${index + 1} of ${of}` : `shard ${index + 1}`} (index ${index})`;

export const megabytes = (value) => (missing(value) ? NONE : bytes(value * 1e6));

export function duration(seconds) {
  if (missing(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  const unit = (value, letter) => `${value}${NARROW}${letter}`;
  if (days) return `${unit(days, "d")} ${unit(hours, "h")}`;
  if (hours) return `${unit(hours, "h")} ${unit(minutes, "min")}`;
  if (minutes) return `${unit(minutes, "min")} ${unit(whole % 60, "s")}`;
  return unit(whole, "s");
}

/** A moment from the API, RFC 3339 text or unix seconds, as a Date; null when it is neither. */
export function moment(value) {
  if (missing(value) || value === "") return null;
  const date = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

export function ago(date, now = Date.now()) {
  const seconds = (now - date.getTime()) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)}${NARROW}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${NARROW}min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}${NARROW}h ago`;
  return `${Math.floor(seconds / 86400)}${NARROW}d ago`;
}

/** Sorted whole numbers as ranges: [0,1,2,5] -> "0–2, 5". */
export function ranges(indices) {
  const parts = [];
  for (const index of indices) {
    const last = parts.at(-1);
    if (last && last[1] === index - 1) last[1] = index;
    else parts.push([index, index]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

/** A half-open layer range [a, b) as people say it: "layers 0–7". */
export function layers(range) {
  if (!Array.isArray(range) || range.length !== 2) return "";
  const [from, to] = range;
  return to - from <= 1 ? `layer ${from}` : `layers ${from}–${to - 1}`;
}

/** A refusal of the node as a sentence of its own: a capital at the start, a full stop at the end. */
export function sentence(text) {
  const plain = String(text ?? "").trim();
  if (!plain) return "";
  return `${plain[0].toUpperCase()}${plain.slice(1)}${/[.!?]$/.test(plain) ? "" : "."}`;
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
