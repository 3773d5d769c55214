// The search page: query form, results, and errors.

import * as api from "./api.js";
import { BoxDrawer } from "./box.js";
import { arrange, el, hitCards, photoCard, plural, showScores } from "./cards.js";

const PAGE_SIZE = 60; // photos of the gallery shown at once
const RESULTS = 50;
const RETRY_MS = 2000; // between checks if the server is back
const SETTLE_MS = 350; // from the last key in a field to the search
const FILTERS = { name: "", folder: "", taken_from: "", taken_to: "" }; // fields of the form and of the API; defaults
const CONTROLS = { ...FILTERS, rerank: "100", method: "cvnet" };
const WIDE = matchMedia("(min-width: 46.01rem)"); // as in search.css
const $ = (id) => document.getElementById(id);

/** The query: id of a gallery photo or a File, and a box on it. Without either the page shows the gallery. */
const query = { id: "", file: null, box: null };
let about = null;
let hits = []; // the ranking on the page
let search = null; // AbortController of the running search
const drawer = new BoxDrawer($("frame"), $("photo"), $("bbx"), (box) => setBox(box) || run());

// ---------------------------------------------------------------------------------------------- messages

const duration = (s) => (s < 0.1 ? `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)} ms` : `${s.toFixed(2)} s`);

function say(text) {
  $("status").textContent = text;
}

function complain(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
}

/** Report images that were not searched; null if there are none. */
function showMissing(missing) {
  $("partial").hidden = !missing;
  $("partial").textContent = missing
    ? `Not searched: ${plural(missing.images, "photo")}, because ${missing.workers} of ${plural(missing.of, "shard worker")} did not answer. Search again in a minute.`
    : "";
}

function described({ seconds, pairs, images, global: way }) {
  const search = way === "ann" ? "approximate search" : "search";
  const parts = [`features ${duration(seconds.features)}`, `${search} of ${plural(images, "image")} ${duration(seconds.global)}`];
  if (seconds.pooled) parts.push(`reranking at half resolution ${duration(seconds.pooled)}`);
  if (pairs) parts.push(`reranking of ${plural(pairs, "pair")} ${duration(seconds.rerank)}`);
  return parts.join(" · ");
}

// ------------------------------------------------------------------------------------------------ errors

/** Show an error. If the server does not answer, wait until it does. */
function failed(error) {
  $("progress").hidden = true;
  $("results").replaceChildren(); // they belong to an earlier query
  hits = [];
  say("");
  if (error.status === 401) return askForToken();
  complain(error.status === 0 ? `${error.message} Waiting for it…` : error.message || String(error));
  if (error.status === 0) setTimeout(waitForServer, RETRY_MS);
}

async function waitForServer() {
  if (await fetch("/healthz").then((response) => response.ok, () => false)) {
    complain("");
    start();
  } else {
    setTimeout(waitForServer, RETRY_MS);
  }
}

function askForToken() {
  $("login").hidden = false;
  $("search").hidden = true;
  $("about").textContent = "";
  $("token").focus();
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await api.login($("token").value);
    $("token").value = "";
    $("login").hidden = true;
    complain("");
    await start();
  } catch (error) {
    complain(error.message);
    $("token").select();
  }
});

// ------------------------------------------------------------------------------------------------- query

function setQuery({ id = "", file = null, box = null }) {
  if ($("photo").src.startsWith("blob:")) URL.revokeObjectURL($("photo").src);
  Object.assign(query, { id, file });
  $("query").hidden = $("box-field").hidden = $("fold-field").hidden = !(id || file);
  $("photo").removeAttribute("src");
  $("frame").classList.remove("plain");
  $("hint").textContent = "Draw a box on the photo to search for that part only.";
  if (file) $("photo").src = URL.createObjectURL(file);
  if (id) $("photo").src = api.original(id);
  $("photo").alt = file ? `The query, ${file.name || "a pasted picture"}` : "The query, a photo of the gallery";
  $("query-name").textContent = file ? file.name || "Pasted picture" : "A photo of the gallery";
  setBox(box);
}

function setBox(box) {
  query.box = box;
  $("box").value = box ? box.join(",") : "";
  drawer.show(box);
}

$("photo").addEventListener("load", () => drawer.show(query.box));
$("photo").addEventListener("error", () => {
  if (!$("photo").hasAttribute("src")) return;
  $("frame").classList.add("plain");
  $("hint").textContent = "This browser cannot show the photo.";
});

const values = (fields) => Object.fromEntries(Object.keys(fields).map((name) => [name, $(name).value.trim()]));

/** Keep query and controls in the page's address. */
function remember() {
  const fields = { id: query.id, box: query.box?.join(","), ...values(CONTROLS) };
  const kept = Object.entries(fields).filter(([name, value]) => value && value !== CONTROLS[name]);
  const hash = query.file ? "" : new URLSearchParams(kept).toString();
  const url = hash ? `#${hash}` : location.pathname;
  if (location.hash !== (hash && `#${hash}`)) history.pushState(null, "", url);
}

/** Restore query and controls from the page's address. */
function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(CONTROLS)) $(name).value = kept.get(name) ?? value;
  const box = kept.get("box")?.split(",").map(Number);
  setQuery({ id: kept.get("id") ?? "", box: box ?? null });
}

// ------------------------------------------------------------------------------------------------ search

/** Search with the query, or show the gallery if there is none. */
async function run() {
  search?.abort();
  search = new AbortController();
  const { signal } = search;
  complain("");
  showMissing(null);
  remember();
  const searching = Boolean(query.id || query.file);
  $("browse").hidden = !searching;
  $("link").hidden = !query.id;
  $("more").hidden = $("progress").hidden = true;
  $("heading").textContent = searching ? "Results" : "Photos of the gallery";
  try {
    $("results").ariaBusy = "true";
    await (searching ? find(signal) : browse(0, signal));
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
  if (!signal.aborted) $("results").ariaBusy = "false";
}

async function find(signal) {
  try {
    await follow(signal);
  } catch (error) {
    if (signal.aborted || !hits.length || !(error.status >= 500)) throw error;
    complain(error.message); // the ranking by similarity stays
    say("Ranked by similarity only: reranking did not finish");
  }
  if (!signal.aborted) $("progress").hidden = true;
}

/** Show a search's events as they arrive. */
async function follow(signal) {
  const list = $("results");
  hits = []; // results of an earlier query stay on the page until the first new ones
  say("Searching…");
  const request = { ...values(CONTROLS), top_k: RESULTS, image: query.file, id: query.id, box: query.box?.join(",") };
  for await (const [name, data] of api.search(request, signal)) {
    if (signal.aborted) return;
    if (name === "scores") {
      Object.assign($("progress"), { hidden: false, max: data.total, value: data.done });
      say(`Reranking: ${data.done} of ${plural(data.total, "pair")}`);
      for (const hit of hits) hit.rerank_score ??= data.scores[hit.id];
      showScores(list, data.scores);
    } else {
      list.ariaBusy = "false";
      hits = data.results;
      showMissing(data.missing);
      showHits();
      say(described(data));
      if (data.query) $("query-name").textContent = data.query.path;
      if (!hits.length) nothing();
    }
  }
}

const showHits = () => arrange($("results"), hitCards(hits, { similar, copy }, $("fold").checked));

async function browse(offset, signal) {
  const list = $("results");
  const shown = await api.images({ ...values(FILTERS), offset, limit: PAGE_SIZE });
  if (signal.aborted) return;
  if (!offset) list.replaceChildren();
  list.append(...shown.images.map((image) => photoCard(image, similar)));
  $("more").hidden = list.children.length >= shown.total;
  say(shown.total ? `${plural(shown.total, "photo")}; choose one to search with it` : "");
  if (!about.images) empty();
  else if (!shown.total) nothing();
}

function nothing() {
  $("results").replaceChildren(el("li", { className: "empty", textContent: "No photo matches: try another name, folder or date." }));
}

function empty() {
  const command = el("code", { textContent: "cvnet-engine index PHOTOS --bundle BUNDLE --gallery GALLERY" });
  $("results").replaceChildren(el("li", { className: "empty" }, "The gallery is empty. Add photos, then reload this page:", command));
}

function restore() {
  recall();
  run();
}

function searchWith(request) {
  setQuery(request);
  run();
}

function similar(id) {
  searchWith({ id });
  scrollTo({ top: 0 });
  $("results").focus({ preventScroll: true });
}

async function copy(text, button) {
  const words = (button.dataset.words ??= button.textContent);
  try {
    await navigator.clipboard.writeText(text); // missing if the page came over plain HTTP from another machine
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed to copy";
  }
  setTimeout(() => (button.textContent = words), 1500);
}

// ---------------------------------------------------------------------------------------------- controls

const take = (file) => file && searchWith({ file });

$("file").addEventListener("change", () => {
  take($("file").files[0]);
  $("file").value = "";
});
addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("over").hidden = false;
});
addEventListener("dragleave", (event) => ($("over").hidden = !event.relatedTarget));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("over").hidden = true;
  take(event.dataTransfer.files[0]);
});
$("options").open = WIDE.matches;
WIDE.addEventListener("change", () => ($("options").open = WIDE.matches));
let settling;
$("name").addEventListener("input", () => {
  clearTimeout(settling);
  settling = setTimeout(run, SETTLE_MS);
});
for (const id of Object.keys(CONTROLS)) if (id !== "name") $(id).addEventListener("change", run);
$("fold").addEventListener("change", () => hits.length && (query.id || query.file) && showHits());
$("box").addEventListener("change", () => {
  const box = $("box").value.split(",").map(Number);
  setBox(box.length === 4 && box.every(Number.isFinite) ? box : null);
  run();
});
$("query-form").addEventListener("submit", (event) => event.preventDefault());
$("browse").addEventListener("click", () => searchWith({}));
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  history.pushState(null, "", location.pathname);
  restore();
});
$("link").addEventListener("click", () => copy(location.href, $("link")));
$("more").addEventListener("click", () => browse($("results").children.length, search.signal).catch(failed));
addEventListener("popstate", restore);

// ------------------------------------------------------------------------------------------------- start

async function start() {
  try {
    about = await api.gallery();
  } catch (error) {
    return failed(error);
  }
  $("search").hidden = false;
  $("about").textContent = `${plural(about.images, "photo")}, searchable by image.`;
  $("banner").hidden = !about.notice;
  $("banner").querySelector("span").textContent = about.notice ?? "";
  $("footer").textContent = `cvnet-engine, ${about.model}`;
  const folders = Object.entries(about.folders).map(([path, count]) => el("option", { value: path, textContent: `${path} (${count})` }));
  $("folder").replaceChildren(el("option", { value: "", textContent: "all folders" }), ...folders);
  for (const field of document.querySelectorAll(".dated")) {
    field.hidden = !about.taken;
    if (about.taken) Object.assign(field.lastElementChild, { min: about.taken.first, max: about.taken.last });
  }
  if (!query.file) recall();
  await run();
}

start();
