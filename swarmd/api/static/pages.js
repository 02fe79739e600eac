// The pages of the dashboard and the navigation over them. A page is columns of panels, under those that take the whole
// width (`wide`); the address is its hash ("#/" + page id). A new page is one more entry here; a plugin's panel is one
// more section. `shown`: whether the node has what the section is about.

import { h } from "./dom.js";
import { downloads } from "./downloads.js";
import { activityPanel } from "./panels/activity.js";
import { autopilotPanel } from "./panels/autopilot.js";
import { chatPanel } from "./panels/chat.js";
import { downloadNumbers } from "./panels/download_numbers.js";
import { downloadsPanel } from "./panels/downloads.js";
import { joinPanel } from "./panels/join.js";
import { mapPanel } from "./panels/map.js";
import { membersPanel } from "./panels/members.js";
import { modelCards } from "./panels/model_cards.js";
import { modelsPanel } from "./panels/models.js";
import { networkNumbers } from "./panels/network_numbers.js";
import { numbersPanel } from "./panels/numbers.js";
import { regionsPanel } from "./panels/regions.js";
import { searchPanel } from "./panels/search.js";
import { swarmPanel } from "./panels/swarm.js";
import { get, watch } from "./store.js";

const PAGES = [
  {
    id: "",
    title: "Overview",
    top: numbersPanel,
    columns: [
      [{ id: "swarm", title: "Swarm", make: swarmPanel }, { id: "models", title: "Models", make: modelsPanel }],
      [{ id: "chat", title: "Chat", make: chatPanel }, { id: "join", title: "Invite & join", make: joinPanel },
        { id: "activity", title: "Activity", make: activityPanel }],
    ],
  },
  {
    id: "models",
    title: "Models",
    wide: [{ id: "cards", title: "Models", make: modelCards },
      { id: "autopilot", title: "Autopilot", make: autopilotPanel, shown: () => get("hasAutopilot") === true }],
  },
  {
    id: "downloads",
    title: "Downloads",
    note: () => downloads().going.length || "",
    top: downloadNumbers,
    wide: [{ id: "queue", title: "Downloads", make: downloadsPanel }],
  },
  { id: "search", title: "Search", wide: [{ id: "hub", title: "Search Hugging Face", make: searchPanel }] },
  {
    id: "network",
    title: "Network",
    top: networkNumbers,
    wide: [{ id: "map", title: "Map", make: mapPanel }],
    columns: [
      [{ id: "members", title: "Members", make: membersPanel }],
      [{ id: "join", title: "Invite & join", make: joinPanel }, { id: "regions", title: "Regions", make: regionsPanel }],
    ],
  },
];

const section = ({ id, title, make }) =>
  h("section", { id, class: `panel panel-${id}`, tabindex: "-1", "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title), make());

const made = new Map(); // pages stay when one leaves them: a chat goes on, and a panel subscribes once
const sectionsOf = (page) => [...(page.wide ?? []), ...(page.columns ?? []).flat()];

function make(page) {
  if (!made.has(page.id)) {
    made.set(page.id, [...(page.top ? [page.top()] : []), ...(page.wide ?? []).map(section), ...(page.columns ? [h("div", { class: "columns" },
      page.columns.map((column) => h("div", { class: "column" }, column.map(section))))] : [])]);
  }
  return made.get(page.id);
}

let drawn = ""; // the navigation as it is: drawn anew it would lose the focus

function drawNav(page, nav) {
  const sections = sectionsOf(page).filter(({ shown }) => shown?.() ?? true).map(({ id, title }) => ({ href: `#${id}`, title }));
  const pages = PAGES.map(({ id, title, note }) => ({ href: `#/${id}`, title, current: id === page.id, note: note?.() ?? "" }));
  const next = JSON.stringify([pages, sections]);
  if (next === drawn) return;
  drawn = next;
  const focused = nav.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const entry = (kind) => ({ href, title, current, note }) => h("li", { class: kind }, h("a", { href, "aria-current": current && "page" }, title,
    note && h("span", { class: "nav-note" }, note, h("span", { class: "unseen" }, " under way"))));
  nav.replaceChildren(h("ul", {}, pages.map(entry("nav-page")), sections.length > 1 && sections.map(entry("nav-section"))));
  if (focused) nav.querySelector(`a[href="${focused}"]`)?.focus({ preventScroll: true });
  const here = nav.querySelector("[aria-current]");
  const beyond = here.offsetLeft + here.offsetWidth - nav.offsetLeft - nav.clientWidth; // on a phone they do not all fit
  if (nav.scrollLeft < beyond) nav.scrollLeft = beyond;
}

const current = () => PAGES.find(({ id }) => `#/${id}` === location.hash.split("?")[0]) ?? PAGES[0];
let watching = false;

/** Draws the page that the address names, and the navigation: pages, then the sections of this one. */
export function showPage(main, nav) {
  const page = current();
  const elements = make(page);
  main.replaceChildren(...elements);
  const draw = () => {
    const now = current();
    for (const { id, shown } of sectionsOf(now)) if (shown) document.getElementById(id)?.toggleAttribute("hidden", !shown());
    drawNav(now, nav);
  };
  draw();
  if (watching) return;
  watching = true;
  watch(["hasAutopilot", "acquisitions"], draw);
}
