// Start-up: session key, socket, the reads that no event carries, and the frame around the panels.

import { ApiError, enterKey, hasKey, request, socketTicket, startSession } from "./api.js";
import { h, setText } from "./dom.js";
import { moment } from "./format.js";
import { mountHatches, peersUp, shortId } from "./nodes.js";
import { showPage } from "./pages.js";
import { decideWizard } from "./panels/wizard.js";
import { Socket } from "./socket.js";
import { keepSample } from "./samples.js";
import { get, set, watch } from "./store.js";
import { toast } from "./toasts.js";

const ACTIVITY_KEPT = 500; // the node tells its last 256 again
const REFRESH_MS = 15000; // latencies and the hardware figures have no event of their own
const MODELS_QUIET_MS = 300; // shards arrive in bursts; one read after a burst is enough

// --- what the node tells ---------------------------------------------------------------------------------------------

function keepStats(fresh) {
  set("stats", { ...get("stats"), ...fresh });
}

async function readStats() {
  const stats = await request("/api/admin/stats");
  // After an update these modules are of the version before; a chat is kept in this browser.
  if (get("self")?.version && stats.version && stats.version !== get("self").version) location.reload();
  set("self", { id: shortId(stats.node_id), version: stats.version ?? "" });
  keepStats(stats);
}

async function readPeers() {
  const rows = await request("/api/admin/peers");
  set("peers", Array.isArray(rows) ? rows : rows.peers ?? []);
}

async function readModels() {
  try {
    set("models", await request("/api/admin/models"));
    set("modelsError", null);
  } catch (error) {
    set("modelsError", error.message);
    throw error;
  }
}

async function readAll() {
  const outcomes = await Promise.allSettled([readStats(), readPeers(), readModels()]);
  const refused = outcomes.some(({ reason }) => reason instanceof ApiError && reason.status === 401);
  set("connection", { ...get("connection"), refused });
}

let modelsTimer = 0;
function modelsSoon() {
  clearTimeout(modelsTimer);
  modelsTimer = setTimeout(() => readModels().catch(() => {}), MODELS_QUIET_MS); // shown by the panel
}

/** `shard_registry` of a tick: patch what it says, and read the rows again where holders changed (it names none). */
function keepRegistry(registry) {
  let stale = false;
  const models = (get("models") ?? []).map((model) => {
    const rows = registry[model.id];
    if (!rows) return model;
    const byIndex = new Map(rows.map((row) => [row.index, row]));
    const shards = (model.shards ?? []).map((shard) => {
      const row = byIndex.get(shard.index);
      if (!row) return shard;
      stale ||= row.holders !== shard.holders || row.local !== shard.local || row.in_vram !== shard.in_vram;
      return { ...shard, local: row.local, in_vram: row.in_vram };
    });
    return { ...model, shards };
  });
  if (get("models")) set("models", models);
  if (stale || Object.keys(registry).some((id) => !models.some((model) => model.id === id))) modelsSoon();
}

/** Who holds how much: the rows of models name holders, so they are read again when this changes. */
const holdings = () => JSON.stringify((get("peers") ?? []).map((peer) => [peer.node_id, peer.connected, peer.hosted_shards, peer.hosted_models]));

/** What the event's rows go without: it changes rarely, and the next read has it again. */
const rarely = (peer) => (peer ? { addresses: peer.addresses, last_seen: peer.last_seen } : {});

const activityKey = (entry) => `${entry.timestamp} ${entry.kind} ${entry.message}`;

const handlers = {
  peer_list(data) {
    const before = holdings();
    const known = new Map((get("peers") ?? []).map((peer) => [peer.node_id, peer]));
    set("peers", (data.peers ?? []).map((peer) => ({ ...rarely(known.get(peer.node_id)), ...peer })));
    if (holdings() !== before) modelsSoon();
  },
  stats_update(data) {
    const { acquisitions, shard_registry: registry, hub_probes: probes, flows, ...stats } = data;
    keepStats(stats);
    keepSample(data);
    if (flows?.length || get("flows").length) set("flows", flows ?? []);
    set("probes", probes ?? []);
    set("acquisitions", acquisitions ?? []);
    if (registry) keepRegistry(registry);
  },
  activity_event(data, { replay }) {
    const known = new Set(get("activity").map(activityKey));
    if (known.has(activityKey(data))) return; // the same history again, after a reconnect
    const list = [data, ...get("activity")].sort((a, b) => (moment(b.timestamp) ?? 0) - (moment(a.timestamp) ?? 0));
    set("activity", list.slice(0, ACTIVITY_KEPT));
    const more = data.category === "download" && location.hash !== "#/downloads" ? { href: "#/downloads", text: "Downloads" } : null;
    if (!replay && data.toast_level) toast(data.message, data.toast_level, more, data.toast_duration_ms ?? null);
  },
  models_changed: modelsSoon,
  update_available(data) {
    if (!data.latest_version) return;
    const news = get("update")?.latest_version !== data.latest_version;
    set("update", { ...get("update"), ...data, update_available: true });
    if (news) toast(`Version ${data.latest_version} is available; this node runs ${data.current_version}.`, "info", { href: "#/settings", text: "Update" });
  },
};

// --- the frame -------------------------------------------------------------------------------------------------------

function frame(socket) {
  const state = document.getElementById("link-state");
  const banner = document.getElementById("banner");
  const text = h("span");
  const action = h("button", { type: "button", class: "small", on: { click: () => actionWanted() } });
  let actionWanted = () => {};
  banner.append(text, action);

  let down = false; // from the loss until it is open again, through all attempts between
  const draw = () => {
    const { phase, retryAt, refused } = get("connection");
    const peers = peersUp().length;
    down = phase === "lost" || (down && phase !== "open");
    document.documentElement.dataset.link = down ? "lost" : phase;
    setText(state, phase === "open" ? (get("self") ? `${get("self").id.slice(0, 8)} · live` : "live") : down ? "offline" : "connecting");
    document.title = peers ? `swarmd · ${peers + 1} nodes` : "swarmd";
    banner.hidden = !(down || refused);
    if (refused) {
      setText(text, "This page was opened from another machine. The node shows its state to who has its API key.");
      setText(action, "Enter the API key");
      actionWanted = async () => {
        if (await enterKey("Every request from this tab will carry it.")) await readAll().then(() => socket.retryNow());
      };
    } else if (down) {
      const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
      setText(text, `No connection to this node: you see its last state. ${phase === "lost" && seconds ? `Trying again in ${seconds} s.` : "Trying again…"}`);
      setText(action, "Try now");
      actionWanted = () => socket.retryNow();
    }
  };
  watch(["connection", "peers", "self"], draw);
  setInterval(() => get("connection").phase === "lost" && draw(), 1000);
}

function themeButton() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const current = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const draw = () => {
    button.setAttribute("aria-label", current() === "dark" ? "Switch to the light theme" : "Switch to the dark theme");
    button.title = button.getAttribute("aria-label");
    button.textContent = current() === "dark" ? "☀" : "☾";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    localStorage.setItem("swarmd-theme", root.dataset.theme);
    draw();
  });
  dark.addEventListener("change", draw);
  draw();
}

/** On a phone the pages are behind a button. */
function menuButton(nav) {
  const button = document.getElementById("menu");
  const root = document.documentElement;
  const open = (on) => {
    root.dataset.menu = on ? "open" : "closed";
    button.setAttribute("aria-expanded", String(on));
  };
  button.addEventListener("click", () => open(root.dataset.menu !== "open"));
  addEventListener("hashchange", () => open(false));
  nav.addEventListener("click", (event) => event.target.closest("a") && open(false));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || root.dataset.menu !== "open") return;
    open(false);
    button.focus();
  });
}

/** Section links move the focus as well as the view, so that the keyboard goes on from there. */
function followSections(nav) {
  nav.addEventListener("click", (event) => {
    const href = event.target.closest("a")?.getAttribute("href") ?? "";
    if (!href.startsWith("#") || href.startsWith("#/")) return;
    event.preventDefault();
    const target = document.getElementById(href.slice(1));
    target?.scrollIntoView({ block: "start" });
    target?.focus({ preventScroll: true });
  });
}

async function start() {
  const main = document.getElementById("content");
  const nav = document.getElementById("nav");
  mountHatches(document.body);
  themeButton();
  followSections(nav);
  menuButton(nav);
  showPage(main, nav);
  addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#/")) return;
    showPage(main, nav);
    scrollTo({ top: 0, behavior: "instant" });
    main.focus({ preventScroll: true });
  });
  await startSession();
  const socket = new Socket({
    handlers,
    ticket: socketTicket,
    onPhase: (change) => {
      set("connection", { ...get("connection"), ...change });
      if (change.phase === "open") readAll().then(decideWizard);
    },
  });
  frame(socket);
  await readStats().catch(() => {}); // who we are comes first: colours go by it; the socket tells when the node is away
  await socket.connect();
  if (!hasKey()) await readAll(); // from another machine the socket does not open; this says why
  setInterval(() => {
    if (!document.hidden && get("connection").phase === "open") Promise.allSettled([readStats(), readPeers()]);
  }, REFRESH_MS);
}

start();
