/* Classify every film of a folder (Node.js 20 or newer): node folder.mjs films results.jsonl */

import { appendFile, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

const SERVER = "http://localhost:5000";
const [, , folder, results] = process.argv;

/** Ask for one film; where the server is busy or limits its clients, again. */
async function classify(film) {
  for (let attempt = 1; ; attempt += 1) {
    const body = new FormData();
    body.append("file", new Blob([await readFile(join(folder, film))]));
    const response = await fetch(`${SERVER}/v1/predict?preview=0`, {
      method: "POST",
      headers: { "X-API-Key": process.env.RESFORMER_API_KEY ?? "" }, // where one is asked for
      body,
    });
    const answer = await response.json();
    if (![429, 503].includes(response.status) || attempt === 6) {
      return answer;
    }
    await setTimeout(1000 * Number(response.headers.get("Retry-After") ?? attempt));
  }
}

async function work(films) {
  for (const film of films) {
    const answer = await classify(film).catch((error) => ({ success: false, error: error.message }));
    if (answer.code === "unauthorized") {
      throw new Error(answer.error);
    }
    await appendFile(results, `${JSON.stringify({ film, ...answer })}\n`);
  }
}

const films = (await readdir(folder)).values(); // one list, from which all four take the next
await Promise.all([work(films), work(films), work(films), work(films)]);
