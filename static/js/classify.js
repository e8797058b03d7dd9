/* Who answers for a film: the server, or the model in this browser, by the switch on the page. */

import { sendImage, sendImages } from "./api.js";
import { classifyHere } from "./local.js";

const compute = document.getElementById("compute-here"); // absent where there is no server to ask
const model = document.getElementById("compute-text")?.dataset.model; // absent where none is offered

/** Whether films are computed here and nothing is sent. */
export function computesHere() {
  return Boolean(model) && (!compute || compute.checked);
}

/** The answer for one film; RequestError or, through `signal`, AbortError where there is none. */
export function classify(endpoint, file, options, signal) {
  return computesHere()
    ? classifyHere(model, file, options, signal)
    : sendImage(endpoint, file, options, signal);
}

/** An answer or a failure for each of several films. */
export async function classifyAll(endpoint, files, options, signal) {
  if (!computesHere()) {
    return sendImages(endpoint, files, options, signal);
  }
  const answers = [];
  for (const file of files) {
    try {
      answers.push(await classifyHere(model, file, options, signal));
    } catch (error) {
      if (!error.answer) {
        throw error;
      }
      answers.push(error.answer);
    }
  }
  return answers;
}
