/* Classifies films beside the page, so that it stays responsive; nothing is sent anywhere. */

import { answerFor, Refusal } from "./answer.js";
import { ImageError } from "./errors.js";
import { Model } from "./model.js";

let model = null; // a promise, from the first message on
let last = Promise.resolve(); // films run one after the other

self.addEventListener("message", ({ data }) => {
  last = last.then(() => reply(data));
});

async function reply({ id, base, file, options }) {
  try {
    model ??= Model.load(base);
    const ready = await model;
    const answer = file && (await answerFor(ready, new Uint8Array(await file.arrayBuffer()), options));
    self.postMessage({ id, answer });
  } catch (error) {
    self.postMessage({ id, failure: describe(error) });
  }
}

function describe(error) {
  if (error instanceof Refusal) {
    return { message: error.message, answer: error.answer };
  }
  if (error instanceof ImageError) {
    const { message, code } = error;
    return { message, answer: { success: false, error: message, code } };
  }
  console.error(error);
  return { message: null };
}
