/* The list of films: what each is called, what became of it, and which one is shown. */

import { displayName, percent } from "./names.js";
import { part } from "./part.js";

const element = (id) => document.getElementById(id);
const list = element("films");
const filters = element("strip-filters");
const STATES = {
  waiting: "Waiting",
  running: "Reading…",
  stopped: "Not read",
  refused: "Refused",
  failed: "Failed",
};
const SIGNS = { waiting: "…", running: "…", stopped: "…", uncertain: "?", refused: "×", failed: "!" };
const MOVES = { ArrowRight: 1, ArrowLeft: -1, PageDown: 5, PageUp: -5 };
const ROWS = { ArrowDown: 1, ArrowUp: -1 };

/** Keep the list as the session is; `queue` can be stopped and go on. */
export function watchStrip(session, queue) {
  session.addEventListener("list", () => {
    list.replaceChildren(...session.films.map(makeRow));
    session.films.forEach((film) => fillRow(session, film));
    summarise(session);
  });
  session.addEventListener("change", ({ detail: film }) => {
    fillRow(session, film);
    summarise(session);
  });
  session.addEventListener("select", () => mark(session.current));

  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    session.select(session.films.find((film) => rowId(film) === row?.id));
  });
  list.addEventListener("keydown", (event) => {
    const ends = { Home: -session.films.length, End: session.films.length };
    const step = MOVES[event.key] ?? ends[event.key] ?? stepByRow(session, ROWS[event.key]);
    if (step || event.key in ROWS) {
      event.preventDefault();
      session.step(step);
    }
  });
  filters.addEventListener("click", ({ target }) => {
    if (target.dataset.only !== undefined) {
      filter(session, target.dataset.only);
    }
  });
  element("queue-stop").addEventListener("click", () => queue.stop());
  element("queue-go-on").addEventListener("click", () => queue.start());
}

/** What became of a film, in a few words. */
export function outcomeOf({ state, answer }) {
  if (state === "uncertain") {
    return answer.prediction.reason === "unfamiliar" ? "Uncertain: unfamiliar" : "Uncertain";
  }
  if (state !== "done") {
    return STATES[state];
  }
  const { predicted_class: name, confidence } = answer.prediction;
  return `${displayName(name)} ${percent(confidence)}`;
}

/** How many places lie between a film and the one below or above it; none where none is there. */
function stepByRow({ listed, current }, rows) {
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const rowOf = (place) => Math.floor(place / columns);
  const next = rowOf(listed.indexOf(current)) + rows;
  return next < 0 || next > rowOf(listed.length - 1) ? 0 : rows * columns;
}

function rowId(film) {
  return `film-${film.id}`;
}

function makeRow(film) {
  const [, folder, name] = /^(.*\/)?(.*)$/s.exec(film.name);
  const place = folder ? ` ${folder.slice(0, -1)}` : ""; // last: what does not fit is cut
  return part(
    "li",
    { id: rowId(film), className: "strip-row", role: "option", ariaSelected: "false" },
    part("span", { className: "strip-picture" }, part("img", { alt: "", loading: "lazy" })),
    part("span", { className: "strip-name", title: film.name }, name, part("span", { className: "muted" }, place)),
    part("span", { className: "strip-said" }),
  );
}

function fillRow(session, film) {
  const row = element(rowId(film));
  if (!row) {
    return;
  }
  row.dataset.state = film.state;
  row.hidden = Boolean(session.only) && film.state !== session.only;
  const outcome = outcomeOf(film);
  row.querySelector(".strip-said").textContent = outcome;
  row.querySelector(".strip-picture").dataset.sign = SIGNS[film.state] ?? outcome[0];
  const picture = row.querySelector("img");
  if (film.thumbnail && picture.src !== film.thumbnail) {
    picture.src = film.thumbnail;
  }
}

/** List the films of one state, or all. */
function filter(session, only) {
  session.list(only);
  session.films.forEach((film) => fillRow(session, film));
  mark(session.current);
  showFilters(session);
}

/** How many films are in doubt, each kind a button that lists them alone. */
function showFilters(session) {
  const buttons = [...filters.children];
  for (const button of buttons) {
    const { only, label } = button.dataset;
    const { length } = only ? session.in(only) : session.films;
    button.textContent = `${label} ${length}`;
    button.hidden = !length;
    button.setAttribute("aria-pressed", String(only === session.only));
  }
  filters.hidden = buttons.filter((button) => !button.hidden).length < 2;
}

function mark(film) {
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  const row = film && element(rowId(film));
  list.setAttribute("aria-activedescendant", row?.id ?? "");
  row?.setAttribute("aria-selected", "true");
  if (row) {
    bringIntoView(row);
  }
}

/** Scroll the list, but not the page. */
function bringIntoView(row) {
  const [inner, outer] = [row, list].map((part) => part.getBoundingClientRect());
  const past = (start, end) => Math.min(0, inner[start] - outer[start]) || Math.max(0, inner[end] - outer[end]);
  list.scrollBy(past("left", "right"), past("top", "bottom"));
}

function summarise(session) {
  const { length } = session.films;
  const open = session.in("waiting", "running").length;
  const stopped = session.in("stopped").length;
  element("strip").hidden = length < 2;
  element("strip-count").textContent = `${length - open - stopped} of ${length} done`;
  if (session.only && !session.in(session.only).length) {
    filter(session, "");
  }
  showFilters(session);
  element("strip-progress").max = Math.max(1, length);
  element("strip-progress").value = length - open - stopped;
  element("strip-progress").hidden = open === 0;
  element("queue-stop").hidden = open === 0;
  element("queue-go-on").hidden = open > 0 || !session.in("stopped").some((film) => film.file);
}
