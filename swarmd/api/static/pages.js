// The pages of the dashboard and the navigation over them. A page is columns of panels, under those that take the whole
// width (`wide`); the address is its hash ("#/" + page id). A new page is one more entry here; a plugin's panel is one
// more section.

import { h } from "./dom.js";
import { activityPanel } from "./panels/activity.js";
import { chatPanel } from "./panels/chat.js";
import { joinPanel } from "./panels/join.js";
import { mapPanel } from "./panels/map.js";
import { membersPanel } from "./panels/members.js";
import { modelsPanel } from "./panels/models.js";
import { networkNumbers } from "./panels/network_numbers.js";
import { numbersPanel } from "./panels/numbers.js";
import { regionsPanel } from "./panels/regions.js";
import { swarmPanel } from "./panels/swarm.js";

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

function make(page) {
  if (!made.has(page.id)) {
    made.set(page.id, [page.top(), ...(page.wide ?? []).map(section), h("div", { class: "columns" },
      page.columns.map((column) => h("div", { class: "column" }, column.map(section))))]);
  }
  return made.get(page.id);
}

/** Draws the page that the address names, and the navigation: pages (once there are several), then its sections. */
export function showPage(main, nav) {
  const page = PAGES.find(({ id }) => `#/${id}` === location.hash) ?? PAGES[0];
  main.replaceChildren(...make(page));
  const entry = (kind) => ({ href, title, current }) => h("li", { class: kind }, h("a", { href, "aria-current": current && "page" }, title));
  const pages = PAGES.map(({ id, title }) => ({ href: `#/${id}`, title, current: id === page.id }));
  const sections = [...(page.wide ?? []), ...page.columns.flat()].map(({ id, title }) => ({ href: `#${id}`, title }));
  nav.replaceChildren(h("ul", {}, pages.map(entry("nav-page")), sections.map(entry("nav-section"))));
}
