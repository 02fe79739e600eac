// What models write, as elements: paragraphs, headings, lists, quotes, tables, code. Every character of the text ends in a
// text node; nothing is ever read as HTML, and a link goes nowhere but to http and https.

import { h } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.+?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 6; // lists and quotes within each other: more is no text that somebody wants to read

/** Blocks of a text: [{ source, render() }]. While a reply grows, only the last one or two of them change. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const end = blockEnd(lines, at);
    const part = lines.slice(at, end);
    found.push({ source: part.join("\n"), render: (depth = 0) => block(part, depth) });
    at = end;
  }
  return found;
}

function blockEnd(lines, at) {
  const fence = FENCE.exec(lines[at]);
  if (fence) {
    const close = new RegExp(`^ {0,3}\\${fence[1][0]}{${fence[1].length},}\\s*$`);
    for (let end = at + 1; end < lines.length; end += 1) if (close.test(lines[end])) return end + 1;
    return lines.length; // still being written
  }
  if (HEADING.test(lines[at]) || RULE.test(lines[at])) return at + 1;
  let end = at + 1;
  if (ITEM.test(lines[at])) {
    while (end < lines.length && (ITEM.test(lines[end]) || /^\s+\S/.test(lines[end]) || (!lines[end].trim() && /^(\s+\S|\s*([-*+]|\d{1,9}[.)])\s)/.test(lines[end + 1] ?? "")))) end += 1;
    return end;
  }
  const quote = QUOTE.test(lines[at]);
  while (end < lines.length && lines[end].trim() && (quote ? QUOTE.test(lines[end]) : !startsOther(lines[end]))) end += 1;
  return end;
}

const startsOther = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || ITEM.test(line);

function block(lines, depth) {
  if (FENCE.test(lines[0])) return code(lines);
  const heading = HEADING.exec(lines[0]);
  if (heading && lines.length === 1) return h("p", { class: `said-heading said-heading-${Math.min(3, heading[1].length)}` }, inline(heading[2]));
  if (RULE.test(lines[0])) return h("hr");
  if (ITEM.test(lines[0])) return list(lines, depth);
  if (QUOTE.test(lines[0])) {
    const inside = lines.map((line) => QUOTE.exec(line)?.[1] ?? line).join("\n");
    return h("blockquote", {}, depth < DEEPEST ? blocks(inside).map((one) => one.render(depth + 1)) : inside);
  }
  if (lines.length > 1 && lines[0].includes("|") && TABLE_LINE.test(lines[1]) && lines[1].includes("-")) return table(lines);
  return h("p", {}, lines.flatMap((line, at) => [...(at ? ["\n"] : []), ...inline(line)]));
}

function list(lines, depth) {
  const base = ITEM.exec(lines[0])[1].length;
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= base + 1) items.push([item[3]]);
    else items.at(-1).push(line);
  }
  const numbered = /\d/.test(ITEM.exec(lines[0])[2]);
  const first = numbered ? Number.parseInt(ITEM.exec(lines[0])[2], 10) : null;
  return h(numbered ? "ol" : "ul", { start: numbered && first !== 1 && first }, items.map(([head, ...rest]) => {
    const indent = Math.min(...rest.filter((line) => line.trim()).map((line) => line.length - line.trimStart().length), 99);
    const inner = rest.map((line) => line.slice(Math.min(indent, line.length))).join("\n");
    return h("li", {}, inline(head), inner.trim() && (depth < DEEPEST ? blocks(inner).map((one) => one.render(depth + 1)) : inner));
  }));
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines;
  return h("div", { class: "scroll-x", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", {},
    h("thead", {}, h("tr", {}, cells(head).map((cell) => h("th", { scope: "col" }, inline(cell))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, cells(row).map((cell) => h("td", {}, inline(cell))))))));
}

function code(lines) {
  const [, , language] = FENCE.exec(lines[0]);
  const closed = lines.length > 1 && /^ {0,3}(`{3,}|~{3,})\s*$/.test(lines.at(-1));
  const text = lines.slice(1, closed ? -1 : undefined).join("\n");
  const copy = h("button", { type: "button", class: "quiet small", on: { click: () => copyText(text, copy) } }, "Copy");
  return h("figure", { class: "code-block" },
    h("figcaption", {}, h("span", {}, language || "code"), copy),
    h("pre", { tabindex: "0", role: "region", "aria-label": `Code${language ? ` in ${language}` : ""}` }, h("code", {}, text)));
}

/** To the clipboard, and says so on the button. Where the browser forbids it, the button says how to do it by hand. */
export async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const block = button.closest("figure, .message")?.querySelector("pre, .said-text");
    if (block) getSelection().selectAllChildren(block);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => {
    button.textContent = before;
  }, 2000);
}

// Code first: nothing within it counts. Then links, bold, italic, struck.
const INLINE = /(`+)([^`](?:.*?[^`])?)\1(?!`)|\[([^\][]{1,300})\]\((https?:\/\/[^\s()<>]{1,2000})\)|(https?:\/\/[^\s<>()[\]"']{1,2000}[^\s<>()[\]"'.,;:!?])|(\*\*|__)(?=\S)(.{1,2000}?\S)\6|(?<![\w*])([*_])(?=\S)([^*_]{1,2000}?)(?<=\S)\8(?!\w)|~~(?=\S)(.{1,2000}?)(?<=\S)~~/;

/** Text with emphasis, code and links, as nodes. */
export function inline(text, depth = 0) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const found = depth < DEEPEST ? INLINE.exec(rest) : null;
    if (!found) {
      nodes.push(rest);
      break;
    }
    if (found.index) nodes.push(rest.slice(0, found.index));
    const [whole, , coded, label, target, bare, , bold, , italic, struck] = found;
    if (coded !== undefined) nodes.push(h("code", {}, coded.trim() || coded));
    else if (target) nodes.push(link(target, label));
    else if (bare) nodes.push(link(bare, bare));
    else if (bold !== undefined) nodes.push(h("strong", {}, inline(bold, depth + 1)));
    else if (italic !== undefined) nodes.push(h("em", {}, inline(italic, depth + 1)));
    else nodes.push(h("s", {}, inline(struck, depth + 1)));
    rest = rest.slice(found.index + whole.length);
  }
  return nodes;
}

const link = (target, label) => h("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, label);

/** Shows a growing text in `element`: blocks that did not change keep their elements, and with them a selection. */
export function growing(element) {
  let shown = [];
  return (text) => {
    const next = blocks(text);
    let same = 0;
    while (same < shown.length && same < next.length && shown[same].source === next[same].source) same += 1;
    for (const gone of shown.slice(same)) gone.element.remove();
    const added = next.slice(same).map(({ source, render }) => ({ source, element: render() }));
    const before = shown[same - 1]?.element ?? null;
    if (before) before.after(...added.map((one) => one.element));
    else element.prepend(...added.map((one) => one.element));
    shown = [...shown.slice(0, same), ...added];
  };
}
