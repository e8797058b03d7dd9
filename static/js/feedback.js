/* Was the answer right? The image goes to the server once more, to be kept with its class. */

import { RequestError, sendImage } from "./api.js";
import { displayName } from "./names.js";

const element = (id) => document.getElementById(id);
const form = element("feedback"); // there only where the server keeps images
const explanation = element("feedback-text")?.textContent;

let current = null;

/** Let the person confirm or correct the class of a film; a drawing is none to learn from. */
export function offerFeedback({ file, options, answer: { prediction } }) {
  if (form && file && !file.isDrawn) {
    current = { file, options };
    element("feedback-class").value = prediction.predicted_class;
    say(explanation);
    form.hidden = false;
  }
}

/** The film changes; what is on its way arrives nevertheless, because the person asked for it. */
export function forgetFeedback() {
  if (form) {
    current = null;
    form.hidden = true;
  }
}

async function keep() {
  const mine = current;
  const name = element("feedback-class").value;
  say("Sending…", true);
  let text = `Kept as ${displayName(name)}. To correct it, choose another class and press again.`;
  try {
    const { signal } = new AbortController();
    const { force, ...correction } = mine.options;
    await sendImage(form.dataset.endpoint, mine.file, { ...correction, class: name }, signal);
  } catch (error) {
    const isExpected = error instanceof RequestError;
    text = `Not kept. ${isExpected ? error.message : "This page ran into a problem."}`;
    if (!isExpected) {
      reportError(error);
    }
  }
  if (mine === current) {
    say(text);
  }
}

function say(text, busy = false) {
  element("feedback-text").textContent = text;
  element("feedback-keep").disabled = busy;
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  keep();
});
