// What the page knows, by name, and who wants to hear of it. Panels read and watch; only main.js, the modules beside it, the chat and the wizard write.

const state = {
  connection: { phase: "connecting", retryAt: null, refused: false }, // phase: connecting, open, lost
  self: null, //        { id, version }: this node, 16 hex digits as the rest of the API names it
  stats: null, //       GET /api/admin/stats, kept fresh by stats_update
  peers: null, //       rows of peer_list
  models: null, //      rows of GET /api/admin/models
  modelsError: null, // sentence, when they could not be read
  links: null, //       rows of GET /api/admin/links; with linksError, linkRates (16 digits -> { in, out }, bytes per second)
  linksError: null,
  linkRates: null,
  members: null, //     rows of GET /api/admin/members
  membersError: null,
  networkMap: null, //  GET /api/admin/network-map
  networkMapError: null,
  acquisitions: [], //  rows of stats_update.acquisitions, or of GET /api/admin/downloads
  probes: [], //        rows of stats_update.hub_probes: headers that are being read at the hub
  hasAutopilot: null, // whether the node has one; null until it was asked
  plan: null, //        GET /api/admin/auto-manage/plan
  planError: null,
  pruned: null, //      events of GET /api/admin/prune-history
  schedule: null, //    GET /api/admin/schedule
  policies: new Map(), // model id -> GET /api/admin/models/{id}/auto-manage, of those that were in view
  flows: [], //         replies in the making on this node, of stats_update: { model, nodes, seconds }
  samples: null, //     columns of readings for the charts, see samples.js
  settings: null, //    rows of GET /api/admin/config/schema
  adapters: null, //    rows of GET /api/admin/adapters
  providerModels: null, // rows of GET /api/admin/provider-models
  providers: null, //   { keySource, chosen } of GET /api/admin/providers
  update: null, //      GET /api/admin/version, and what update_available says
  wizard: null, //      the first-run questions: { open, step }
  generation: null, //  the chat reply in the making: { model, rate, tokens }
  run: null, //         the last reply's `swarm` object, with its model
  rates: [], //         tokens per second over the session, oldest first
  activity: [], //      newest first
};
const watchers = [];
let scheduled = false;

export const get = (name) => state[name];

export function set(name, value) {
  state[name] = value;
  for (const watcher of watchers) if (watcher.names.includes(name)) watcher.due = true;
  if (scheduled) return;
  scheduled = true;
  if (document.hidden) setTimeout(redrawDue); // frames stand still in a hidden tab
  else requestAnimationFrame(redrawDue);
}

function redrawDue() {
  scheduled = false;
  for (const watcher of watchers) {
    if (!watcher.due) continue;
    watcher.due = false;
    watcher.redraw();
  }
}

/** Calls `redraw` now and after every change of one of the named values; several changes within a frame are one call. */
export function watch(names, redraw) {
  watchers.push({ names, redraw, due: false });
  redraw();
}
