// The pages of the dashboard and the navigation over them. A page is columns of panels, under those that take the whole
// width (`wide`); the address is its hash ("#/" + page id). A new page is one more entry here; a plugin's panel is one
// more section. `shown`: whether the node has what the section is about.

import { h } from "./dom.js";
import { downloads } from "./downloads.js";
import { activityPage } from "./panels/activity_page.js";
import { activityPanel } from "./panels/activity.js";
import { adaptersPanel } from "./panels/adapters.js";
import { autopilotPanel } from "./panels/autopilot.js";
import { capacityPanel } from "./panels/capacity.js";
import { chartsPanel } from "./panels/charts.js";
import { chatPanel } from "./panels/chat.js";
import { creditEntries, creditsPanel } from "./panels/credits.js";
import { downloadNumbers } from "./panels/download_numbers.js";
import { downloadsPanel } from "./panels/downloads.js";
import { joinPanel } from "./panels/join.js";
import { mapPanel } from "./panels/map.js";
import { membersPanel } from "./panels/members.js";
import { modelCards } from "./panels/model_cards.js";
import { modelsPanel } from "./panels/models.js";
import { networkNumbers } from "./panels/network_numbers.js";
import { numbersPanel } from "./panels/numbers.js";
import { providerModels } from "./panels/provider_models.js";
import { providersPanel } from "./panels/providers.js";
import { regionsPanel } from "./panels/regions.js";
import { responsesPanel } from "./panels/responses.js";
import { searchPanel } from "./panels/search.js";
import { settingsPanel } from "./panels/settings.js";
import { swarmPanel } from "./panels/swarm.js";
import { versionPanel } from "./panels/version.js";
import { wizardPanel, wizardWanted } from "./panels/wizard.js";
import { get, watch } from "./store.js";

const CHAT = { id: "chat", title: "Chat", make: chatPanel };
const JOIN = { id: "join", title: "Invite & join", make: joinPanel };

const PAGES = [
  {
    id: "",
    title: "Overview",
    group: "Swarm",
    top: numbersPanel,
    wide: [{ id: "wizard", title: "Set this node up", make: wizardPanel, shown: wizardWanted }],
    columns: [
      [{ id: "swarm", title: "Swarm", make: swarmPanel }, { id: "charts", title: "Last hour", make: chartsPanel },
        { id: "models", title: "Models", make: modelsPanel }],
      [CHAT, { id: "capacity", title: "What the swarm can do", make: capacityPanel }, JOIN,
        { id: "activity", title: "Activity", make: activityPanel }],
    ],
  },
  { id: "chat", title: "Chat", group: "Swarm", wide: [CHAT] },
  {
    id: "network",
    title: "Network",
    group: "Swarm",
    top: networkNumbers,
    wide: [{ id: "map", title: "Map", make: mapPanel }],
    columns: [
      [{ id: "members", title: "Members", make: membersPanel }],
      [JOIN, { id: "regions", title: "Regions", make: regionsPanel }],
    ],
  },
  { id: "activity", title: "Activity", group: "Swarm", wide: [{ id: "events", title: "Activity", make: activityPage }] },
  {
    id: "models",
    title: "Models",
    group: "Models",
    wide: [{ id: "cards", title: "Models", make: modelCards },
      { id: "autopilot", title: "Autopilot", make: autopilotPanel, shown: () => get("hasAutopilot") === true }],
  },
  {
    id: "downloads",
    title: "Downloads",
    group: "Models",
    note: () => downloads().going.length || "",
    top: downloadNumbers,
    wide: [{ id: "queue", title: "Downloads", make: downloadsPanel }],
  },
  { id: "search", title: "Search", group: "Models", wide: [{ id: "hub", title: "Search Hugging Face", make: searchPanel }] },
  { id: "adapters", title: "Adapters", group: "Models", wide: [{ id: "lora", title: "LoRA adapters", make: adaptersPanel }] },
  {
    id: "providers",
    title: "Providers",
    group: "Services",
    wide: [{ id: "keys", title: "Providers", make: providersPanel }, { id: "cloud-models", title: "Their models", make: providerModels }],
  },
  { id: "responses", title: "Responses", group: "Services", wide: [{ id: "stored", title: "Stored responses", make: responsesPanel }] },
  {
    id: "credits",
    title: "Credits",
    group: "Services",
    wide: [{ id: "account", title: "Credits", make: creditsPanel }, { id: "entries", title: "What it is made of", make: creditEntries }],
  },
  {
    id: "settings",
    title: "Settings",
    group: "Node",
    wide: [{ id: "version", title: "Version", make: versionPanel }, { id: "all-settings", title: "Settings", make: settingsPanel }],
  },
];

const built = new Map(); // section id and page id -> element: they stay when one leaves a page, so a chat goes on

function section({ id, title, make }) {
  if (!built.has(id)) {
    built.set(id, h("section", { id, class: `panel panel-${id}`, tabindex: "-1", "aria-labelledby": `${id}-title` },
      h("h2", { id: `${id}-title` }, title), make()));
  }
  return built.get(id);
}

function topOf(page) {
  const key = `top of ${page.id}`;
  if (!built.has(key)) built.set(key, page.top());
  return built.get(key);
}

const sectionsOf = (page) => [...(page.wide ?? []), ...(page.columns ?? []).flat()];

/** Some sections are on two pages, one element for both: it moves to the page that is looked at. */
const elementsOf = (page) => [
  ...(page.top ? [topOf(page)] : []),
  ...(page.wide ?? []).map(section),
  ...(page.columns ? [h("div", { class: "columns" }, page.columns.map((column) => h("div", { class: "column" }, column.map(section))))] : []),
];

let drawn = ""; // the navigation as it is: drawn anew it would lose the focus

function drawNav(page, nav) {
  const sections = sectionsOf(page).filter(({ shown }) => shown?.() ?? true).map(({ id, title }) => ({ href: `#${id}`, title }));
  const pages = PAGES.map(({ id, title, group, note }) => ({ href: `#/${id}`, title, group, current: id === page.id, note: note?.() ?? "" }));
  const next = JSON.stringify([pages, sections]);
  if (next === drawn) return;
  drawn = next;
  const focused = nav.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const entry = (kind, { href, title, current, note }) => h("li", { class: kind }, h("a", { href, "aria-current": current && "page" }, title,
    note && h("span", { class: "nav-note" }, note, h("span", { class: "unseen" }, " under way"))));
  const items = pages.flatMap((one, at) => [
    pages[at - 1]?.group !== one.group && h("li", { class: "nav-group" }, one.group),
    entry("nav-page", one),
    ...(one.current && sections.length > 1 ? sections.map((each) => entry("nav-section", each)) : []),
  ]);
  nav.replaceChildren(h("ul", {}, items));
  if (focused) nav.querySelector(`a[href="${focused}"]`)?.focus({ preventScroll: true });
}

const current = () => PAGES.find(({ id }) => `#/${id}` === location.hash.split("?")[0]) ?? PAGES[0];
let watching = false;

/** Draws the page that the address names, and the navigation: pages, and the sections of this one. */
export function showPage(main, nav) {
  const page = current();
  main.replaceChildren(...elementsOf(page));
  main.dataset.page = page.id || "overview";
  const draw = () => {
    const now = current();
    for (const { id, shown } of sectionsOf(now)) if (shown) document.getElementById(id)?.toggleAttribute("hidden", !shown());
    drawNav(now, nav);
  };
  draw();
  for (const { id } of sectionsOf(page)) built.get(id).dispatchEvent(new Event("shown"));
  if (watching) return;
  watching = true;
  watch(["hasAutopilot", "acquisitions", "wizard"], draw);
}
