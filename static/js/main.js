/* One image at a time: a newer one replaces the one that is on its way. */

import { RequestError, sendImage } from "./api.js";
import { forgetReasons, offerReasons } from "./explanation.js";
import { forgetFeedback, offerFeedback } from "./feedback.js";
import { watchIntake } from "./intake.js";
import { showAnswer, showBusy, showError, showFile, showNoFile, showRefusal } from "./view.js";

const viewer = document.getElementById("viewer");
const result = document.getElementById("result");
const maxBytes = Number(viewer.dataset.maxBytes);

let current = { file: null, options: {}, controller: new AbortController() };

function take(file) {
  if (file.size > maxBytes) {
    refuse(`The file is too large: up to ${Math.floor(maxBytes / 1024 ** 2)} MB are possible.`);
  } else {
    showFile(file);
    analyse(file);
  }
}

async function analyse(file, options = {}) {
  const mine = replaceCurrent(file, options);
  const ask = (further, signal) =>
    sendImage(viewer.dataset.endpoint, file, { ...options, ...further }, signal);
  showBusy();
  try {
    const answer = await ask({}, mine.controller.signal);
    if (mine === current) {
      showAnswer(answer);
      offerReasons(answer.prediction, ask);
      offerFeedback(answer.prediction, file);
    }
  } catch (error) {
    if (mine === current) {
      report(error);
    }
  }
}

function replaceCurrent(file, options = {}) {
  current.controller.abort();
  forgetReasons();
  forgetFeedback();
  current = { file, options, controller: new AbortController() };
  return current;
}

function refuse(message) {
  replaceCurrent(null);
  showNoFile();
  showError(message);
}

function report(error) {
  if (!(error instanceof RequestError)) {
    showError("This page ran into a problem. Reload it and try again.");
    throw error;
  }
  if (error.answer?.code === "not_a_chest_xray") {
    showRefusal(error.answer);
  } else {
    showError(error.message, { canRetry: error.canRetry });
  }
}

function repeat(options) {
  result.focus({ preventScroll: true }); // the button goes away
  analyse(current.file, options);
}

viewer.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("retry").addEventListener("click", () => repeat(current.options));
document.getElementById("force").addEventListener("click", () => repeat({ force: 1 }));
watchIntake({
  viewer,
  input: document.getElementById("file"),
  onImage: take,
  onRefusal: refuse,
});
