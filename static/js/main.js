/* One image at a time: a newer one replaces the one that is on its way. */

import { RequestError, requestPrediction } from "./api.js";
import { watchIntake } from "./intake.js";
import { showAnswer, showBusy, showError, showFile, showNoFile } from "./view.js";

const viewer = document.getElementById("viewer");
const result = document.getElementById("result");
const maxBytes = Number(viewer.dataset.maxBytes);

let current = { file: null, controller: new AbortController() };

async function analyse(file) {
  if (file.size > maxBytes) {
    refuse(`The file is too large: up to ${Math.floor(maxBytes / 1024 ** 2)} MB are possible.`);
    return;
  }
  current.controller.abort();
  const mine = { file, controller: new AbortController() };
  current = mine;
  showFile(file);
  showBusy();
  try {
    const answer = await requestPrediction(viewer.dataset.endpoint, file, mine.controller.signal);
    if (mine === current) {
      showAnswer(answer);
    }
  } catch (error) {
    if (mine === current) {
      report(error);
    }
  }
}

function refuse(message) {
  current.controller.abort();
  current = { file: null, controller: new AbortController() };
  showNoFile();
  showError(message);
}

function report(error) {
  if (error instanceof RequestError) {
    showError(error.message, { canRetry: error.canRetry });
  } else {
    showError("This page ran into a problem. Reload it and try again.");
    throw error;
  }
}

viewer.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("retry").addEventListener("click", () => {
  result.focus({ preventScroll: true }); // the button goes away
  analyse(current.file);
});
watchIntake({
  viewer,
  input: document.getElementById("file"),
  onImage: analyse,
  onRefusal: refuse,
});
