/* Classifies films beside the page, so that it stays responsive; nothing is sent anywhere. */

import { answerFor, Refusal } from "./answer.js";
import { ImageError, ServerOnlyError } from "./errors.js";
import { Model } from "./model.js";

const BY_SERVER = {
  true: "untick “Compute here, send nothing”: the server reads it.",
  false: "use the app: its server reads it.",
};

let model = null; // a promise, from the first message on
let last = Promise.resolve(); // films run one after the other

self.addEventListener("message", ({ data }) => {
  last = last.then(() => reply(data));
});

async function reply({ id, base, hasServer, file, options }) {
  try {
    model ??= Model.load(base);
    const ready = await model;
    const answer = file && (await answerFor(ready, new Uint8Array(await file.arrayBuffer()), options));
    self.postMessage({ id, answer });
  } catch (error) {
    self.postMessage({ id, failure: describe(error, hasServer) });
  }
}

function describe(error, hasServer) {
  if (error instanceof Refusal) {
    return { message: error.message, answer: error.answer };
  }
  if (error instanceof ImageError) {
    const { code } = error;
    const message =
      error instanceof ServerOnlyError ? `${error.message}, or ${BY_SERVER[hasServer]}` : error.message;
    return { message, answer: { success: false, error: message, code } };
  }
  console.error(error);
  return { message: null };
}
