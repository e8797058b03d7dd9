/* Puts the parts of the page together. */

import { RequestError, fetchFile } from "./api.js";
import { classify, computesHere } from "./classify.js";
import { windowOptions } from "./dicom.js";
import { forgetReasons, offerReasons } from "./explanation.js";
import { forgetFeedback, offerFeedback } from "./feedback.js";
import { nameOf, watchIntake } from "./intake.js";
import { watchKeys } from "./keys.js";
import { Queue } from "./queue.js";
import { announce, showError, showResult } from "./result.js";
import { MOST_FILMS, Session, pictureOf } from "./session.js";
import { watchStrip } from "./strip.js";
import { offerTakeaway, watchTakeaway } from "./takeaway.js";
import { Viewer } from "./viewer.js";

const element = (id) => document.getElementById(id);
const { endpoint, batchEndpoint, sample, maxBytes, maxFiles } = element("workbench").dataset;

const session = new Session();
const limits = { maxBytes: Number(maxBytes), maxFiles: Number(maxFiles) };
const queue = new Queue(session, { one: endpoint, batch: batchEndpoint }, limits);
const viewer = new Viewer(async (film, side, signal) => {
  const options = { ...film.options, force: 1, preview: side, ...windowOptions(film) };
  return pictureOf((await classify(endpoint, film.file, options, signal)).image);
});

function take(files, leftOut) {
  const noRoom = files.length ? session.add(files, nameOf) : 0;
  const complaints = [
    noRoom && `Up to ${MOST_FILMS} films are possible at once: ${several(noRoom, "film was", "films were")} left out.`,
    leftOut && `Left out, as they did not look like films: ${leftOut} of the files in the folder.`,
    !files.length && !leftOut && "That was not an image file.",
  ].filter(Boolean);
  element("intake-text").textContent = complaints.join(" ");
  element("intake-text").hidden = !complaints.length;
  queue.start();
}

function several(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}

/** Show the film that is picked, and what is known of it. */
function show() {
  const film = session.current;
  document.body.toggleAttribute("data-session", Boolean(film));
  viewer.show(film);
  forgetReasons();
  forgetFeedback();
  showResult(film);
  offerTakeaway(film);
  if (film?.answer?.prediction) {
    const ask = (options, signal) =>
      classify(endpoint, film.file, { ...film.options, ...options }, signal);
    offerReasons(film, !computesHere() && film.file && ask);
    offerFeedback(film);
  }
}

function repeat(options) {
  element("result").focus({ preventScroll: true }); // the button goes away
  session.ask(session.current, options);
  queue.start();
}

async function takeSample() {
  try {
    const drawing = await fetchFile(sample, "drawn sample.png");
    take([Object.assign(drawing, { isDrawn: true })], 0);
  } catch (error) {
    showError(error instanceof RequestError ? error.message : undefined);
  }
}

/** On a phone the result is below the film: bring what was said into view, and keep the film there. */
function scrollToResult() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const said = [...element("result").querySelectorAll(".panel")].find((panel) => panel.checkVisibility());
  said.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

session.addEventListener("select", () => {
  element("intake-text").hidden = true; // it was about the files that came last
  show();
});
session.addEventListener("change", ({ detail: film }) => {
  if (film === session.current) {
    show();
    if (film.answer) {
      scrollToResult();
    }
  }
  if (film.answer && session.films.length > 1 && !session.in("waiting", "running").length) {
    announce(`${element("announcer").textContent} All films are done.`);
  }
});
watchStrip(session, queue);
watchTakeaway(session, viewer);
watchKeys(session, viewer);
watchIntake({ viewer: element("viewer"), file: element("file"), folder: element("folder"), onFiles: take });

const actions = {
  "zoom-in": () => viewer.zoom(1),
  "zoom-out": () => viewer.zoom(-1),
  "tool-move": () => viewer.use("move"),
  "tool-window": () => viewer.use("window"),
  invert: () => viewer.invert(),
  rotate: () => viewer.rotate(90),
  reset: () => viewer.reset(),
  compare: () => viewer.compare(),
  "full-screen": () => viewer.fill(),
  sample: takeSample,
  retry: () => repeat(session.current.options),
  force: () => repeat({ ...session.current.options, force: 1 }),
  correct: () => {
    const { invert, rotate } = session.current.answer.correction;
    repeat({ invert: Number(invert), rotate });
  },
  "choose-another": () => element("file").click(),
  "choose-folder": () => element("folder").click(),
  clear: () => {
    queue.stop();
    session.clear();
    element("file").focus();
  },
};
for (const [id, act] of Object.entries(actions)) {
  element(id).addEventListener("click", act);
}
element("preset").addEventListener("change", ({ target }) => viewer.choosePreset(target.value));
element("viewer").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("pagehide", () => session.save());
session.restore();
