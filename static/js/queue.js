/* Sends the films that wait: the one that is looked at alone and first, the others some at a time. */

import { RequestError } from "./api.js";
import { classify, classifyAll } from "./classify.js";
import { isShownByBrowsers } from "./formats.js";

const LANES = 2; // one request travels while the server works on the other
const MOST_AT_ONCE = 8;
const MOST_TRIES = 5;
const THUMBNAIL = 160;

/** Works through the session; `limits` are `{ maxFiles, maxBytes }` of a request. */
export class Queue {
  #session;
  #endpoints;
  #limits;
  #lanes = 0;
  #controller = new AbortController();

  constructor(session, endpoints, limits) {
    this.#session = session;
    this.#endpoints = endpoints;
    this.#limits = limits;
  }

  /** Send what waits, and what was stopped as far as its file is there; not what is too large. */
  start() {
    for (const film of this.#session.in("stopped")) {
      if (film.file) {
        this.#session.update(film, { state: "waiting" });
      }
    }
    for (const film of this.#session.in("waiting")) {
      if (film.file?.size > this.#limits.maxBytes) {
        this.#session.settle(film, tooLarge(film, this.#limits.maxBytes));
      }
    }
    for (; this.#lanes < LANES && this.#session.in("waiting").length > 0; this.#lanes += 1) {
      this.#run(this.#controller.signal).catch(reportError);
    }
  }

  /** Stop; films without an answer can be sent later. */
  stop() {
    this.#controller.abort();
    this.#controller = new AbortController();
    this.#lanes = 0;
    for (const film of this.#session.in("waiting", "running")) {
      this.#session.update(film, { state: "stopped" });
    }
  }

  async #run(signal) {
    try {
      for (let films = this.#next(); films.length; films = this.#next()) {
        for (const film of films) {
          this.#session.update(film, { state: "running" });
        }
        const answers = await this.#answers(films, signal);
        if (signal.aborted) {
          return;
        }
        films.forEach((film, place) => this.#session.settle(film, ...answers[place]));
      }
    } finally {
      this.#lanes -= signal.aborted ? 0 : 1;
    }
  }

  /** The film that is looked at, or as many others as one request holds. */
  #next() {
    const waiting = this.#session.in("waiting");
    const shown = this.#session.current;
    const first = waiting.includes(shown) ? shown : waiting[0];
    if (!first || first === shown || isSpecial(first)) {
      return first ? [first] : [];
    }
    const films = [];
    let bytes = 0;
    for (const film of waiting.filter((one) => !isSpecial(one))) {
      bytes += film.file.size;
      const isFull = films.length === Math.min(MOST_AT_ONCE, this.#limits.maxFiles);
      if (isFull || (films.length && bytes > this.#limits.maxBytes)) {
        break;
      }
      films.push(film);
    }
    return films;
  }

  /** For each film the arguments of `settle`. */
  async #answers(films, signal, tries = 1) {
    try {
      if (films.length > 1) {
        const files = films.map((film) => film.file);
        const options = { preview: THUMBNAIL };
        const answers = await classifyAll(this.#endpoints.batch, files, options, signal);
        return answers.map((answer) => [answer]);
      }
      const [{ file, options }] = films;
      const preview = (await isShownByBrowsers(file)) ? THUMBNAIL : 1;
      return [[await classify(this.#endpoints.one, file, { preview, ...options }, signal)]];
    } catch (error) {
      const isExpected = error instanceof RequestError;
      if (isExpected && error.retryAfter && films.length > 1 && tries < MOST_TRIES) {
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(20, error.retryAfter)));
        return signal.aborted ? [] : this.#answers(films, signal, tries + 1);
      }
      if (!isExpected && !signal.aborted) {
        reportError(error);
      }
      const text = isExpected ? error.message : "This page ran into a problem. Try again.";
      const failure = { success: false, error: text, code: "" };
      const known = films.length === 1 && isExpected && error.answer?.code;
      return films.map(() => [known ? error.answer : failure, !isExpected || error.canRetry]);
    }
  }
}

/** The answer for a file with too many bytes, with the server's code. */
function tooLarge({ name, size }, maxBytes) {
  const megabytes = (bytes, round) => round((10 * bytes) / 1024 ** 2) / 10;
  const error =
    `${name} is too large: it has ${megabytes(size, Math.ceil)} MB, and up to ` +
    `${megabytes(maxBytes, Math.floor)} MB are possible. Scale it down and try again.`;
  return { success: false, error, code: "upload_too_large" };
}

function isSpecial(film) {
  return Object.keys(film.options).length > 0;
}
