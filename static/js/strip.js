/* The list of films: what each is called, what became of it, and which one is shown. */

import { displayName, percent } from "./names.js";

const element = (id) => document.getElementById(id);
const list = element("films");
const STATES = {
  waiting: "Waiting",
  running: "Reading…",
  stopped: "Not read",
  refused: "Refused",
  failed: "Failed",
};
const MOVES = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 5, PageUp: -5 };

/** Keep the list as the session is; `queue` can be stopped and go on. */
export function watchStrip(session, queue) {
  session.addEventListener("list", () => {
    list.replaceChildren(...session.films.map(makeRow));
    session.films.forEach(fillRow);
    summarise(session);
  });
  session.addEventListener("change", ({ detail: film }) => {
    fillRow(film);
    summarise(session);
  });
  session.addEventListener("select", () => mark(session.current));

  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    session.select(session.films.find((film) => rowId(film) === row?.id));
  });
  list.addEventListener("keydown", (event) => {
    const ends = { Home: -session.films.length, End: session.films.length };
    const step = MOVES[event.key] ?? ends[event.key];
    if (step) {
      event.preventDefault();
      session.step(step);
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

function rowId(film) {
  return `film-${film.id}`;
}

function makeRow(film) {
  const row = document.createElement("li");
  row.id = rowId(film);
  row.className = "strip-row";
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", "false");
  const picture = document.createElement("img");
  Object.assign(picture, { className: "strip-picture", alt: "", loading: "lazy" });
  const [name, said] = ["strip-name", "strip-said"].map((className) => {
    const part = document.createElement("span");
    part.className = className;
    return part;
  });
  name.textContent = film.name;
  name.title = film.name;
  row.append(picture, name, said);
  return row;
}

function fillRow(film) {
  const row = element(rowId(film));
  if (!row) {
    return;
  }
  row.dataset.state = film.state;
  row.querySelector(".strip-said").textContent = outcomeOf(film);
  const picture = row.querySelector("img");
  if (film.thumbnail && picture.src !== film.thumbnail) {
    picture.src = film.thumbnail;
  }
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
  element("strip-count").textContent = `${length - open - stopped} of ${length} read`;
  const doubts = ["uncertain", "refused", "failed"]
    .map((state) => [session.in(state).length, state])
    .filter(([count]) => count);
  element("strip-doubts").textContent = doubts.map((doubt) => doubt.join(" ")).join(", ");
  element("strip-progress").max = Math.max(1, length);
  element("strip-progress").value = length - open - stopped;
  element("strip-progress").hidden = open === 0;
  element("queue-stop").hidden = open === 0;
  element("queue-go-on").hidden = open > 0 || !session.in("stopped").some((film) => film.file);
}
