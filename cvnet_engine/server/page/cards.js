// Cards of photos: of the gallery, or of a ranking.

import { original, thumbnail } from "./api.js";

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/** Create an element with properties and children. */
export function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Format a count with its noun: "1 photo", "2,000 photos". */
export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const basename = (path) => path.slice(path.lastIndexOf("/") + 1);

function picture(id, path) {
  const image = el("img", { src: thumbnail(id), alt: basename(path), loading: "lazy", decoding: "async" });
  image.addEventListener("error", () =>
    image.replaceWith(el("span", { className: "missing", textContent: `${basename(path)}: cannot be shown; it was moved, changed or removed since it was indexed` })),
  );
  return image;
}

/** Card of a gallery photo; `find(id)` is called to search with it. */
export function photoCard({ id, path, taken }, find) {
  const button = el("button", { type: "button", className: "picture", title: path }, picture(id, path));
  button.setAttribute("aria-label", `Search with ${basename(path)}`);
  button.addEventListener("click", () => find(id));
  return el("li", { className: "hit" }, button, name(path), ...date(taken));
}

const name = (path) => el("p", { className: "name", title: path }, el("bdi", { textContent: path }));

/** Date of a photo by its camera's clock; empty if unknown. */
function date(taken) {
  if (!taken) return [];
  const day = new Date(taken).toLocaleDateString("en-GB", { dateStyle: "medium" });
  return [el("time", { className: "taken", dateTime: taken, title: taken.replace("T", " "), textContent: day })];
}

const figure = (value) => (value == null ? "–" : value.toFixed(3));

/** Cards of a ranking; with `fold`, near-duplicates are hidden behind the best result of their group. */
export function hitCards(hits, acts, fold) {
  if (!fold) return hits.map((hit) => hitCard(hit, acts));
  return hits.filter((hit) => !hit.same_as).flatMap((hit) => {
    const card = hitCard(hit, acts);
    const same = hits.filter((other) => other.same_as === hit.id).map((other) => hitCard(other, acts));
    if (same.length) card.querySelector(".place").after(unfolder(same));
    return [card, ...same];
  });
}

function unfolder(cards) {
  const button = el("button", { type: "button", className: "same", textContent: plural(cards.length, "near-duplicate"), ariaExpanded: "false" });
  const show = (shown) => {
    button.ariaExpanded = String(shown);
    for (const card of cards) card.hidden = !shown;
  };
  for (const card of cards) card.classList.add("folded");
  show(false);
  button.addEventListener("click", () => show(button.ariaExpanded === "false"));
  return button;
}

/** Card of a result; `acts` is { similar(id), copy(text, button) }. */
function hitCard(hit, acts) {
  const open = el("a", { className: "picture", href: original(hit.id), target: "_blank", rel: "noopener" }, picture(hit.id, hit.path));
  open.setAttribute("aria-label", `Open ${basename(hit.path)}`);
  const similar = el("button", { type: "button", textContent: "More like this" });
  similar.addEventListener("click", () => acts.similar(hit.id));
  const copy = el("button", { type: "button", textContent: "Copy path" });
  copy.addEventListener("click", () => acts.copy(hit.path, copy));
  const row = (term, value, key) => el("div", {}, el("dt", { textContent: term }), el("dd", { className: key, textContent: figure(value) }));
  const card = el(
    "li", { className: "hit" }, open,
    el("p", { className: "place" }, el("b", { textContent: hit.rank }), move(hit)),
    el("dl", {}, row("score", hit.score, "score"), row("similarity", hit.similarity, "similarity"), row("pair", hit.rerank_score, "pair")),
    name(hit.path), ...date(hit.taken), el("div", { className: "acts" }, similar, copy),
  );
  card.dataset.id = hit.id;
  return card;
}

function move({ rank, before }) {
  const places = before == null ? 0 : before - rank;
  if (!places) return el("span", { className: "move" });
  const [sign, word] = places > 0 ? ["▲", "up"] : ["▼", "down"];
  const mark = el("span", { className: `move ${word}`, textContent: `${sign} ${Math.abs(places)}`, title: `was ${before}` });
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", `${word} ${Math.abs(places)} from ${before}`);
  return mark;
}

/** Show new pair scores on their cards. */
export function showScores(list, scores) {
  for (const card of list.children) {
    const score = scores[card.dataset.id];
    if (score == null) continue;
    const cell = card.querySelector(".pair");
    cell.textContent = figure(score);
    cell.classList.add("fresh");
  }
}

/** Replace the cards of a list. Cards that were shown before move to their new places. */
export function arrange(list, cards) {
  const places = new Map([...list.children].filter((card) => !card.hidden).map((card) => [card.dataset.id, card.getBoundingClientRect()]));
  list.replaceChildren(...cards);
  if (STILL.matches) return;
  for (const card of cards.filter((card) => !card.hidden)) {
    const from = places.get(card.dataset.id);
    const to = card.getBoundingClientRect();
    const frames = from
      ? [{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }]
      : [{ opacity: 0 }, { opacity: 1 }];
    card.animate(frames, { duration: 450, easing: "cubic-bezier(.2, .7, .2, 1)" });
  }
}
