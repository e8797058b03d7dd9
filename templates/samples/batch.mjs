/* Classify several films in one request (Node.js 20 or newer). */

import { readFile } from "node:fs/promises";

const body = new FormData();
for (const name of ["first.png", "second.dcm"]) {
  body.append("files", new Blob([await readFile(name)]), name);
}

const response = await fetch("http://localhost:5000/v1/predict/batch?preview=0", {
  method: "POST",
  headers: { "X-API-Key": process.env.RESFORMER_API_KEY ?? "" }, // where one is asked for
  body,
});
const answer = await response.json();
if (!answer.success) {
  // the whole request: too many files, no key, a busy server
  throw new Error(`${answer.code}: ${answer.error}`);
}
for (const result of answer.results) {
  const found = result.success ? result.prediction.predicted_class : `${result.code} ${result.error}`;
  console.log(result.index, result.name, found);
}
