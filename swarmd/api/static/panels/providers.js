// Providers of models outside the swarm: which have a key, a key for one, whether they answer, and own ones by address.

import { oneAtATime } from "../actions.js";
import { request } from "../api.js";
import { confirmDanger } from "../dialogs.js";
import { h, setText } from "../dom.js";
import * as format from "../format.js";
import { field, problemBeside } from "../forms.js";
import { resource, reading } from "../resource.js";
import { get, set, watch } from "../store.js";

const NAMES = {
  anthropic: "Anthropic", openai: "OpenAI", deepseek: "DeepSeek", mistral: "Mistral", groq: "Groq", nvidia_nim: "NVIDIA NIM",
  cerebras: "Cerebras", sambanova: "SambaNova", fireworks: "Fireworks", together: "Together AI", deepinfra: "DeepInfra", moonshot: "Moonshot",
};
const SOURCES = { env: "key from the environment", environment: "key from the environment", config: "key stored here", dashboard: "key stored here", stored: "key stored here", none: "no key" };
export const STATES = {
  up: ["answers", "good"], rate_limited: ["limits requests", "warn"], overloaded: ["overloaded", "warn"], timeout: ["too slow", "bad"],
  unreachable: ["not reachable", "bad"], not_found: ["not found", "bad"], unavailable: ["not available", "bad"], error: ["refused", "bad"],
};
export const providerName = (name) => NAMES[name] ?? name;

/** [words, kind of chip] of a status; `error_401` and kin too. */
export const stateWords = (status) => STATES[status] ?? (/^error_\d+$/.test(status) ? [`refused with ${status.slice(6)}`, "bad"] : [status, "plain"]);

export function providersPanel() {
  const list = h("div", { class: "rows" });
  const probe = h("button", { type: "button" }, "Ask all whether they answer");
  const said = h("p", { class: "said", role: "status" });
  const bar = h("progress", { hidden: true, "aria-label": "Asking the providers" });
  const panel = h("div", { class: "providers" },
    h("p", { class: "hint" }, "A request for a model that one of these has goes there, by the model's name or as provider:model. Prompts leave the swarm then. Keys are sealed on this node and never shown again."),
    h("div", { class: "row" }, probe, bar), said, list, customForm(), sourceForm());
  let health = new Map();
  let rows = [];
  const source = resource(panel, { read: reading("/api/admin/providers"), draw: (state) => {
    if (state.data) set("providers", { keySource: state.data.key_source, chosen: state.data.claude_subscription_enabled });
    draw(state);
  } });
  const work = oneAtATime(() => {
    probe.disabled = work.busy;
    bar.hidden = !work.busy;
    said.className = `said ${work.trouble ? "trouble" : "hint"}`;
    setText(said, work.busy ? "Each is asked for one token…" : work.trouble);
  });
  probe.addEventListener("click", () => work.run("Not asked", async () => {
    const told = await request("/api/admin/provider-health");
    health = new Map((told.providers ?? []).map((one) => [one.provider, one]));
    for (const row of rows) row.health(health.get(row.name));
    return told.providers?.length ? "All have been asked" : "No provider has a key yet";
  }));

  function draw({ data, error, missing }) {
    panel.classList.toggle("missing", missing);
    if (missing) return list.replaceChildren(h("p", { class: "empty" }, "This node speaks to no providers: it is of an older version."));
    if (error && !data) return list.replaceChildren(h("p", { class: "trouble" }, error.message));
    if (!data) return list.replaceChildren(h("div", { class: "waiting row-waiting" }));
    rows = (data.providers ?? []).map((one) => providerRow(one, () => source.again()));
    for (const row of rows) row.health(health.get(row.name));
    return list.replaceChildren(h("div", { class: "provider-grid" }, rows.map(({ element }) => element)));
  }

  /** Which keys count, and the subscription where the node has that feature. */
  function sourceForm() {
    const select = h("select", { id: "key-source" }, [["auto", "stored here, else from the environment"], ["dashboard", "only those stored here"], ["env", "only those of the environment"]].map(([value, text]) => h("option", { value }, text)));
    const box = h("input", { type: "checkbox" });
    const told = h("p", { class: "hint" });
    const subscription = h("div", { hidden: true }, h("label", { class: "check" }, box, h("span", {}, "Answer claude-* models through the subscription of this machine's claude program")), told);
    const trouble = h("p", { class: "trouble", role: "alert" });
    const changing = oneAtATime(() => {
      select.disabled = box.disabled = changing.busy;
      setText(trouble, changing.trouble);
    });
    const put = (body, said) => changing.run("Not changed", async () => {
      const reply = await request("/api/admin/providers", { method: "PUT", body });
      if (reply.error) throw new Error(reply.error);
      await source.again();
      return said;
    });
    select.addEventListener("change", () => put({ key_source: select.value }, "Changed"));
    box.addEventListener("change", () => put({ claude_subscription_enabled: box.checked }, "Changed"));
    const element = h("details", { class: "fold" }, h("summary", {}, "Which keys count"), h("div", { class: "stack" }, field("Keys", select), subscription, trouble));
    resource(element, { read: reading("/api/admin/claude-subscription/status"), draw: ({ data }) => {
      subscription.hidden = !data || Boolean(data.error);
      if (data && !data.error) setText(told, data.cli_installed ? `${data.cli_version ?? "installed"}, ${data.authenticated ? `signed in (${data.subscription_type ?? "unknown plan"})` : "not signed in"}` : "the claude program is not installed on this machine");
    } });
    watch(["providers"], () => {
      const { keySource, chosen } = get("providers") ?? {};
      select.value = keySource ?? "auto";
      box.checked = chosen === true;
    });
    return element;
  }

  function customForm() {
    const name = h("input", { id: "custom-name", required: true, maxlength: 32, autocomplete: "off", spellcheck: "false", placeholder: "ray-cluster" });
    const url = h("input", { id: "custom-url", type: "url", required: true, maxlength: 512, autocomplete: "off", spellcheck: "false", placeholder: "https://vllm.example:8000/v1" });
    const key = h("input", { id: "custom-key", type: "password", maxlength: 512, autocomplete: "off" });
    const button = h("button", { type: "submit", class: "primary" }, "Add");
    const trouble = h("p", { class: "said", role: "status" });
    const adding = oneAtATime(() => {
      button.disabled = adding.busy;
      trouble.className = `said ${adding.trouble ? "trouble" : "well"}`;
      setText(trouble, adding.trouble);
    });
    const form = h("form", { class: "stack", on: { submit: (event) => {
      event.preventDefault();
      adding.run("Not added", async () => {
        const custom = { name: name.value.trim(), base_url: url.value.trim(), ...(key.value ? { key: key.value } : {}) };
        await problemBeside({ name, base_url: url, key }, () => request("/api/admin/providers", { method: "PUT", body: { custom: [custom] } }));
        form.reset();
        await source.again();
        return `${custom.name} was added`;
      });
    } } },
    h("div", { class: "field-grid" }, field("Name", name), field("Base address", url, "Of an OpenAI-compatible server: vLLM, SGLang, llama-server, Ray Serve. Addresses of the own network need a setting."), field("Key", key, "", true)),
    h("div", { class: "row" }, button, trouble));
    return h("details", { class: "fold" }, h("summary", {}, "Add a server of your own"), form);
  }
  return panel;
}

function providerRow(provider, changed) {
  const name = provider.name;
  const title = providerName(name);
  const open = provider.configured && provider.source === "none"; // an own server that asks for no key
  const id = `key-of-${name}`;
  const input = h("input", { id, type: "password", autocomplete: "off", maxlength: 512, placeholder: provider.configured && !open ? "another key" : "key", "aria-label": `Key for ${title}` });
  const save = h("button", { type: "submit", class: "small" }, "Save");
  const remove = h("button", { type: "button", class: "quiet small", "aria-label": `Remove ${provider.custom ? title : `the key for ${title}`}` }, "Remove…");
  const chip = h("span", { class: "chip chip-plain", hidden: true });
  const detail = h("p", { class: "hint" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const fromOutside = provider.source === "env" || provider.source === "environment";
  remove.hidden = !(provider.custom || (provider.configured && !fromOutside));
  const work = oneAtATime(() => {
    save.disabled = remove.disabled = work.busy;
    setText(trouble, work.trouble);
  });
  const put = (value) => request("/api/admin/providers", { method: "PUT", body: provider.custom && !value ? { remove_custom: [name] } : provider.custom ? { custom: [{ name, base_url: provider.base_url, key: value }] } : { [`${name}_key`]: value } });
  remove.addEventListener("click", async () => {
    const text = provider.custom ? "Requests for its models are refused from then on. It can be added again." : "Requests for its models are refused from then on. The key is deleted on this node; at the provider it stays valid.";
    if (!(await confirmDanger({ title: `Remove ${provider.custom ? title : `the key for ${title}`}?`, text, danger: "Remove" }))) return;
    await work.run("Not removed", async () => {
      await put("");
      await changed();
      return "Removed";
    });
  });
  const form = h("form", { class: "row", on: { submit: (event) => {
    event.preventDefault();
    if (!input.value.trim()) return input.focus();
    return work.run("Not saved", async () => {
      await put(input.value.trim());
      input.value = "";
      await changed();
      return `The key for ${title} is stored`;
    });
  } } }, input, save, remove);
  return {
    name,
    element: h("article", { class: `provider${provider.configured ? " provider-on" : ""}`, "data-provider": name },
      h("p", { class: "row-name" }, title, " ", h("span", { class: `chip ${provider.configured ? "chip-good" : "chip-plain"}` }, open ? "needs no key" : SOURCES[provider.source] ?? provider.source), " ", chip),
      provider.base_url && h("p", { class: "hint code" }, provider.base_url), detail, form, trouble),
    health(told) {
      chip.hidden = !told;
      if (!told) return;
      const [words, kind] = stateWords(told.status);
      setText(chip, `${words}${told.latency_ms === null || told.latency_ms === undefined ? "" : ` in ${format.ms(told.latency_ms)}`}`);
      chip.className = `chip chip-${kind}`;
      setText(detail, told.detail || "");
    },
  };
}
