/* What the server said of the film that is shown. */

import { correctionOf, displayName, percent, ranked, warningsOf } from "./names.js";
import { part } from "./part.js";

const element = (id) => document.getElementById(id);
const FAILED = "This page ran into a problem. Reload it and try again.";

/** Show what is known of a film, or that there is none. */
export function showResult(film) {
  if (!film) {
    fillBars([]);
    setState("idle");
    announce("");
    return;
  }
  const show = { done: showAnswer, uncertain: showAnswer, refused: showRefusal, failed: showFailure };
  (show[film.state] ?? showBusy)(film);
}

/** Say something to people who do not see the page change. */
export function announce(text) {
  element("announcer").textContent = text;
}

/** A failure that belongs to no film. */
export function showError(message = FAILED) {
  showFailure({ answer: { error: message } });
}

function showBusy({ state }) {
  const isHere = state === "running";
  element("busy-text").textContent = { waiting: "Waiting…", stopped: "Not read yet" }[state] ?? "Looking…";
  element("busy-hint").textContent =
    state === "stopped"
      ? "The queue was stopped before this film was read. Press “Go on”, or choose the film again."
      : "This takes a moment.";
  setState("busy", "", state !== "stopped");
  element("result").toggleAttribute("data-stopped", state === "stopped");
  fillBars([]);
  announce(isHere ? "The model is looking at the image." : "");
}

function showAnswer({ answer, state, options }) {
  const { prediction } = answer;
  const warnings = warningsOf(answer);
  element("warning").textContent = warnings.join(" ");
  element("warning").hidden = !warnings.length;
  const said = state === "uncertain" ? showNoVerdict() : showVerdict(prediction, !warnings.length);
  const correction = correctionOf(options);
  const corrected = correction && ` The film was ${correction} before it was read.`;
  element("verdict-text").textContent += corrected;
  fillBars(ranked(prediction));
  announce(`${element("warning").textContent} ${said}${corrected} Not a diagnosis.`);
}

/** Name the most probable class, with its track record where it may have one; what to announce. */
function showVerdict({ predicted_class: key, confidence, track_record: record }, mayHaveRecord) {
  const name = displayName(key);
  element("verdict-name").textContent = name;
  element("verdict-share").textContent = percent(confidence);
  element("verdict-text").textContent =
    "Of the classes it knows, this one fits best by the model’s own estimate.";
  const counted = record
    ? `Of ${record.called} test films that the model called ${name} without a warning, ` +
      `${record.right} were labelled so.`
    : "Nobody has counted how often such an answer of this model is right.";
  element("record-text").textContent = mayHaveRecord ? counted : "";
  element("record").hidden = !mayHaveRecord;
  setState("done", "high");
  return `Model’s estimate: ${name}, ${percent(confidence)}. ${element("record-text").textContent}`;
}

/** Name no class, because the model abstains; the warning says why. What to announce. */
function showNoVerdict() {
  element("verdict-name").textContent = "Uncertain";
  element("verdict-share").textContent = "";
  element("verdict-text").textContent =
    "The model names no class. The shares below are what it computed all the same.";
  element("record").hidden = true;
  setState("done", "none");
  return "The model names no class.";
}

/**
 * The image does not look like a chest X-ray; what would cure that, or how to go on, as far as the
 * file is still there.
 */
function showRefusal({ answer, file }) {
  const { reason = "", correction = null } = answer;
  element("refusal-reason").textContent = reason;
  element("refusal").toggleAttribute("data-curable", Boolean(correction));
  element("correct").textContent = correction?.rotate
    ? "Turn it upright and read it"
    : "Invert it and read it";
  element("correct").hidden = !correction || !file;
  element("choose-another").hidden = Boolean(correction && file);
  element("force").hidden = !file;
  fillBars([]);
  setState("refused");
  announce(`This image was not analysed. ${reason}${file ? " You can have it analysed anyway." : ""}`);
}

function showFailure({ answer, file = null, canRetry = false }) {
  announce("");
  fillBars([]);
  element("error-text").textContent = answer.error;
  element("retry").hidden = !canRetry || !file;
  setState("error");
}

function setState(state, certainty = "", isBusy = state === "busy") {
  const result = element("result");
  result.dataset.state = state;
  result.dataset.certainty = certainty;
  result.setAttribute("aria-busy", String(isBusy));
}

/** Fill the bars from `[class, probability]` pairs, best first; none empties those there are. */
function fillBars(pairs) {
  const list = element("bars");
  if (!pairs.length) {
    for (const row of list.children) {
      row.removeAttribute("data-first");
      row.querySelector(".bar-share").textContent = "–";
      row.querySelector(".bar-fill").style.width = "0";
    }
    return;
  }
  list.replaceChildren(...pairs.map(([name, share]) => barRow(name, share)));
  list.firstElementChild.toggleAttribute("data-first", true);
  list.getBoundingClientRect(); // lay out at zero first, so that the bars grow
  pairs.forEach(([, share], index) => {
    list.children[index].querySelector(".bar-fill").style.width = `${100 * share}%`;
  });
}

function barRow(name, share) {
  const fill = part("span", { className: "bar-fill" });
  return part(
    "li",
    { className: "bar-row" },
    part("span", { className: "bar-name" }, displayName(name)),
    part("span", { className: "bar-share" }, percent(share)),
    part("span", { className: "bar", ariaHidden: "true" }, fill),
  );
}
