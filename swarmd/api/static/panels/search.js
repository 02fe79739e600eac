// Search Hugging Face for models: a repository is a card, each of its files a smaller one with a verdict.

import { hubPage } from "../actions.js";
import { request } from "../api.js";
import { announce, h, setText } from "../dom.js";
import { judge, VERDICTS } from "../fits.js";
import * as format from "../format.js";
import { watch } from "../store.js";
import { pickFile } from "./pick.js";

const QUIET_MS = 600; // after the last letter: a search goes over the internet
const SHORTEST = 3; // letters before it searches by itself
const LONGEST = 256;
const FIRST_FILES = 8; // of a repository; some have forty
const FIRST_TAGS = 4;
const EXAMPLES = ["qwen3 8b", "llama 3.2 3b instruct", "gemma 3 4b"];
const CALLS = {
  be_first_host: ["no node has it yet", "plain"],
  needs_more_hosts: ["few nodes have it", "warn"],
  well_replicated: ["well spread in the swarm", "good"],
  swarm_serveable: ["the swarm can run it", "good"],
  unreachable: ["too large for the swarm", "bad"],
};

export function searchPanel() {
  const field = h("input", { id: "hub-search", type: "search", placeholder: "name of a model or its author", autocomplete: "off", spellcheck: "false", maxlength: LONGEST, "aria-describedby": "hub-said" });
  const button = h("button", { type: "submit", class: "primary" }, "Search");
  const said = h("p", { id: "hub-said", class: "hint", role: "status" });
  const busy = h("progress", { class: "search-busy", "aria-label": "Searching Hugging Face" });
  const results = h("ul", { class: "repos" });
  let timer = 0;
  let running = null; // the AbortController of the search under way
  let last = "";
  let found = [];
  let update = () => {};

  const start = () => {
    results.replaceChildren(h("li", { class: "search-start" },
      h("p", {}, "GGUF models on Hugging Face, each with what it needs and whether this node, or the swarm together, can run it."),
      h("p", { class: "row" }, h("span", { class: "hint" }, "For example:"), EXAMPLES.map((text) => h("button", { type: "button", class: "small example", on: { click: () => {
        field.value = text;
        search();
      } } }, text)))));
    setText(said, "");
  };

  async function search() {
    clearTimeout(timer);
    const query = field.value.trim();
    running?.abort();
    if (!query) {
      last = "";
      found = [];
      busy.classList.remove("on");
      return start();
    }
    last = query;
    running = new AbortController();
    const mine = running;
    busy.classList.add("on");
    results.setAttribute("aria-busy", "true");
    setText(said, `Searching for “${query}”…`);
    if (!found.length) results.replaceChildren(...[1, 2, 3].map(() => h("li", { class: "repo waiting", "aria-hidden": "true" })));
    try {
      const repos = await request(`/api/admin/hf/search?query=${encodeURIComponent(query)}`, { signal: mine.signal });
      if (mine !== running) return undefined;
      found = repos.filter((repo) => repo.variants?.length);
      show(query);
    } catch (error) {
      if (error.name === "AbortError" || mine !== running) return undefined;
      found = [];
      setText(said, "");
      results.replaceChildren(trouble(error, search));
      announce(`The search failed. ${error.message}`);
    } finally {
      if (mine === running) {
        busy.classList.remove("on");
        results.removeAttribute("aria-busy");
      }
    }
    return undefined;
  }

  function show(query) {
    const verdict = judge(found);
    update = () => {};
    if (!found.length) {
      setText(said, "");
      results.replaceChildren(h("li", { class: "empty" }, h("p", {}, `Nothing found for “${query}”.`),
        h("p", {}, "Only repositories with GGUF files are listed. Try fewer words, the name of the model without its size, or the author's name.")));
      return;
    }
    setText(said, `${format.plural(found.length, "repository", "repositories")}, best for this swarm first`);
    const cards = found.map((repo) => repoCard(repo, verdict));
    results.replaceChildren(...cards.map((card) => card.element));
    update = () => {
      const now = judge(found);
      for (const card of cards) card.update(now);
    };
  }

  watch(["peers", "stats"], () => update()); // a node that joins may make a model fit
  field.addEventListener("input", () => {
    clearTimeout(timer);
    const text = field.value.trim();
    if (!text) search();
    else if (text.length >= SHORTEST && text !== last) timer = setTimeout(search, QUIET_MS);
  });
  start();
  return h("div", { class: "search" },
    h("form", { class: "search-form", role: "search", on: { submit: (event) => {
      event.preventDefault();
      search();
    } } }, h("label", { for: "hub-search", class: "unseen" }, "Search models on Hugging Face"), field, button),
    busy, said, results);
}

function trouble(error, again) {
  const advice = error.status === 502 || error.status === 504
    ? "Check that this node's machine can reach the internet, and that no firewall or proxy stands between it and Hugging Face. Models of other nodes can be fetched without it, on the page Models."
    : error.status === 404 ? "This node searches no hub. Update swarmd, or add a GGUF file of this machine on the page Models."
      : error.status === 429 ? "Too many searches in a short time: wait a minute." : "";
  return h("li", { class: "search-trouble" }, h("h3", {}, "The search did not work"), h("p", {}, error.message), advice && h("p", { class: "hint" }, advice),
    h("button", { type: "button", class: "small", on: { click: again } }, "Try again"));
}

function repoCard(repo, verdict) {
  const page = hubPage(repo.repo_id);
  const [owner, name] = String(repo.repo_id).split(/\/(.*)/s);
  const [call, kind] = CALLS[repo.swarm_cta_status] ?? [null, "plain"];
  const files = repo.variants.map((variant) => fileCard(repo, variant));
  const hidden = files.slice(FIRST_FILES).filter((file) => !file.recommended);
  const list = h("ul", { class: "files" }, files.filter((file) => !hidden.includes(file)).map((file) => file.element));
  const rest = hidden.length > 0 && h("button", { type: "button", class: "small quiet", on: { click: () => {
    list.replaceChildren(...files.map((file) => file.element)); // by size again
    hidden[0].button.focus();
    rest.remove();
  } } }, `Show ${format.plural(hidden.length, "more file")}`);
  const count = (number, what) => h("span", {}, h("strong", {}, compact(number)), ` ${what}`);
  const element = h("li", { class: "repo" },
    h("div", { class: "repo-head" },
      h("h3", { class: "repo-name" }, h("span", { class: "repo-owner" }, `${owner} / `), name ?? ""),
      repo.gated && h("span", { class: "chip chip-warn" }, "terms to accept first"),
      call && h("span", { class: `chip chip-${kind}` }, call)),
    h("p", { class: "repo-facts" }, count(repo.downloads, "downloads"), count(repo.likes, repo.likes === 1 ? "like" : "likes"),
      count(repo.network_replicas, repo.network_replicas === 1 ? "node of the swarm has it" : "nodes of the swarm have it"),
      repo.task_tags?.length > 0 && h("span", { class: "repo-tags" }, repo.task_tags.slice(0, FIRST_TAGS).map((tag) => h("span", { class: "repo-tag" }, tag))),
      page && h("a", { class: "hub-link", href: page, target: "_blank", rel: "noopener noreferrer" }, "Hugging Face ↗")),
    list, rest);
  const update = (now) => files.forEach((file) => file.update(now));
  update(verdict);
  return { element, update };
}

/** 12,300 as 12.3k: nobody compares popularity to the last digit. */
const compact = (number) => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number ?? 0);

function fileCard(repo, variant) {
  const recommended = variant.filename === repo.recommended_filename;
  const icon = h("span", { class: "verdict-icon", "aria-hidden": "true" });
  const text = h("span");
  const verdictLine = h("span", { class: "verdict" }, icon, text);
  let verdict = "no";
  const button = h("button", { type: "button", class: "file", on: { click: () => pickFile({ repo, variant, verdict }) } },
    h("span", { class: "file-quant" }, variant.quant || "GGUF", recommended && h("span", { class: "file-best" }, "★ recommended")),
    h("span", { class: "file-size" }, format.bytes(variant.size_bytes), variant.parts > 1 && h("span", { class: "hint" }, ` in ${variant.parts} parts`)),
    verdictLine, !variant.quant && h("span", { class: "file-name hint" }, variant.filename));
  button.title = variant.filename;
  const update = (judged) => {
    verdict = judged(variant.size_bytes);
    const { icon: sign, kind, text: words } = VERDICTS[verdict];
    setText(icon, sign);
    setText(text, words);
    verdictLine.className = `verdict verdict-${kind}`;
  };
  return { element: h("li", { class: recommended ? "file-recommended" : null }, button), button, recommended, update };
}
