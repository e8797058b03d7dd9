/* The same answers without sending a film: the model runs in this browser, beside the page. */

import { RequestError } from "./api.js";

const PROBLEM = "The model cannot run in this browser. Reload the page and try again.";

const hasServer = Boolean(document.getElementById("compute-here")); // which one could ask instead

let worker = null;
let lastId = 0;
const waiting = new Map(); // what to call with the worker's reply, by the id of the message

/** Fetch the model and make it ready; `base` is the address of its files. */
export function prepare(base) {
  return ask({ base: new URL(base, document.baseURI).href });
}

/** The answer for one file with options as of /predict; RequestError where there is none. */
export async function classifyHere(base, file, options, signal) {
  signal.throwIfAborted();
  const reply = ask({ base: new URL(base, document.baseURI).href, file, options });
  const stopped = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  return Promise.race([reply, stopped]);
}

function ask(message) {
  worker ??= start();
  lastId += 1;
  const id = lastId;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, hasServer, ...message });
  });
}

function start() {
  const started = new Worker(new URL("local/worker.js", import.meta.url), { type: "module" });
  started.addEventListener("message", ({ data: { id, answer, failure } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (failure) {
      reject(explain(failure));
    } else {
      resolve(answer);
    }
  });
  started.addEventListener("error", () => {
    worker = null; // the next film starts another one
    waiting.forEach(({ reject }) => reject(explain({ message: null })));
    waiting.clear();
  });
  return started;
}

function explain({ message, answer }) {
  return new RequestError(message ?? PROBLEM, { canRetry: !answer, answer });
}
