// What can be done with one shard on this node: a menu at its cell. Arrow keys, Enter, Escape; the focus goes back.

import { h } from "../dom.js";

const EDGE = 8; // pixels that stay free at the border of the view

let openMenu = null;

/** `entries`: [{ text, note, danger, disabled, run }]; `anchor`: where it opens, and where the focus goes back to. */
export function showMenu(title, entries, anchor) {
  openMenu?.hidePopover();
  const items = entries.map(({ text, note, danger, run }) => h("button", {
    type: "button", role: "menuitem", tabindex: "-1", class: danger ? "menu-item menu-danger" : "menu-item",
    on: { click: () => { menu.hidePopover(); run(); } },
  }, h("span", {}, text), note && h("span", { class: "menu-note" }, note)));
  const menu = h("div", { class: "menu", popover: "auto", role: "menu", "aria-label": title },
    h("p", { class: "menu-title", "aria-hidden": "true" }, title), items);
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState !== "closed") return;
    openMenu = null;
    const inside = menu.contains(document.activeElement) || document.activeElement === document.body;
    menu.remove();
    if (inside) anchor.focus();
  });
  menu.addEventListener("keydown", (event) => {
    const now = items.indexOf(document.activeElement);
    const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === "Tab") return menu.hidePopover();
    if (next === undefined) return undefined;
    event.preventDefault();
    return items[(next + items.length) % items.length].focus();
  });
  document.body.append(menu);
  menu.showPopover();
  openMenu = menu;
  const place = anchor.getBoundingClientRect();
  const { offsetWidth: wide, offsetHeight: high } = menu;
  const below = place.bottom + 4 + high <= innerHeight - EDGE;
  menu.style.left = `${Math.max(EDGE, Math.min(place.left, innerWidth - wide - EDGE))}px`;
  menu.style.top = `${below ? place.bottom + 4 : Math.max(EDGE, place.top - high - 4)}px`;
  addEventListener("scroll", () => menu.isConnected && menu.hidePopover(), { once: true, passive: true });
  items[0]?.focus({ preventScroll: true });
}
