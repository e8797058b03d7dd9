/* Classify one film (Node.js 20 or newer). */

import { readFile } from "node:fs/promises";

const body = new FormData();
body.append("file", new Blob([await readFile("film.png")])); // in a page: input.files[0]

const response = await fetch("http://localhost:5000/v1/predict?preview=0", {
  method: "POST",
  headers: { "X-API-Key": process.env.RESFORMER_API_KEY ?? "" }, // where one is asked for
  body,
});
const answer = await response.json();
if (!answer.success) {
  throw new Error(`${answer.code}: ${answer.error}`);
}
console.log(answer.prediction.predicted_class, answer.prediction.confidence);
for (const warning of answer.warnings) {
  console.log("Careful:", warning.message);
}
