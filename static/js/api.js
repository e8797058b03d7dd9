/* The one place that talks to the server. */

import { withKey } from "./key.js";

const TIMEOUT_MS = 60_000;
const UNREACHABLE =
  "The server cannot be reached. Check that it is running and that you are connected.";

/**
 * A failure in words for a person; `canRetry` where the same image may work the next time,
 * `retryAfter` where the server says in how many seconds, and `answer` as the server gave it.
 */
export class RequestError extends Error {
  constructor(message, { canRetry, retryAfter = null, answer = null }) {
    super(message);
    Object.assign(this, { canRetry, retryAfter, answer });
  }
}

/**
 * Send one image with options such as `{ force: 1 }` and return the answer; aborts silently
 * (AbortError) through `signal`.
 */
export function sendImage(endpoint, file, options, signal) {
  return withKey((headers) => sendInTime(endpoint, { file: [file] }, options, headers, signal));
}

/** Send several images and return an answer or a failure, as the server gave it, for each. */
export async function sendImages(endpoint, files, options, signal) {
  const { results } = await withKey((headers) =>
    sendInTime(endpoint, { files }, options, headers, signal),
  );
  return results;
}

/** Fetch a picture of the server as a file. */
export async function fetchFile(address, name) {
  const response = await fetch(address).catch(() => null);
  if (!response?.ok) {
    throw new RequestError(UNREACHABLE, { canRetry: true });
  }
  const content = await response.blob();
  return new File([content], name, { type: content.type });
}

async function sendInTime(endpoint, images, options, headers, signal) {
  signal.throwIfAborted();
  const limit = new AbortController();
  const stop = () => limit.abort();
  const timer = setTimeout(stop, TIMEOUT_MS);
  signal.addEventListener("abort", stop);
  try {
    return await send(endpoint, images, options, headers, limit.signal);
  } catch (error) {
    if (error instanceof RequestError || signal.aborted) {
      throw error;
    }
    const timedOut = limit.signal.aborted;
    throw new RequestError(timedOut ? "The server takes too long to answer." : UNREACHABLE, {
      canRetry: true,
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

async function send(endpoint, images, options, headers, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(options)) {
    body.append(name, value);
  }
  for (const [field, files] of Object.entries(images)) {
    for (const file of files) {
      body.append(field, file, "image"); // the file's own name may tell who is on the film
    }
  }
  const response = await fetch(endpoint, { method: "POST", body, headers, signal });
  const answer = await readJson(response);
  if (response.ok && answer?.success) {
    return answer;
  }
  throw new RequestError(
    answer?.error ?? `The server gave an answer that this page cannot read (${response.status}).`,
    {
      canRetry: response.status >= 500 || [401, 429].includes(response.status),
      retryAfter: Number(response.headers.get("Retry-After")) || null,
      answer,
    },
  );
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) {
      return null;
    }
    throw error;
  }
}
