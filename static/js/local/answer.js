/* The answer of POST /predict, made in the browser: same keys, same values, same words. */

import { rint } from "./grey_levels.js";
import { NO_CORRECTION, correct, findObjection, findOrientation } from "./gate.js";
import { decodeImage } from "./image.js";
import { resize } from "./resize.js";

/** A refusal as the server words it: its whole answer. */
export class Refusal extends Error {
  constructor(answer) {
    super(answer.error);
    this.answer = answer;
  }
}

/** Classify the bytes of a file with the options of /predict. */
export async function answerFor(model, bytes, options) {
  const { facts } = model;
  const done = { invert: Boolean(Number(options.invert ?? 0)), rotate: Number(options.rotate ?? 0) };
  const film = correct(await decodeImage(bytes, { maxPixels: facts.max_pixels }), done);
  const input = resize(film, facts.size, facts.size);
  const [outputs] = await model.run([input]);
  const gate = await judge(model, outputs, film, input, done);
  const image = Number(options.preview ?? 1)
    ? { image: await encodePreview(film, sideOf(options, facts)) }
    : {};
  if (gate && !gate.accepted && !Number(options.force ?? 0)) {
    const { accepted: _, reason, ...details } = gate;
    throw new Refusal({
      success: false,
      error: `This image was not classified. ${reason}`,
      code: "not_a_chest_xray",
      reason,
      ...details,
      dicom: null,
      ...image,
    });
  }
  const prediction = predict(outputs, facts);
  const warnings = warn(prediction, gate, facts);
  const record = facts.track_records[prediction.predicted_class] ?? null;
  return {
    success: true,
    api_version: facts.api_version,
    prediction: { ...prediction, track_record: warnings.length ? null : record },
    model: facts.model,
    gate: gate && withoutReason(gate),
    warnings,
    dicom: null, // as in a refusal, not told here: what it holds serves pictures of the server
    ...image,
  };
}

function predict(outputs, { class_names: names, thresholds }) {
  const total = outputs.probabilities.reduce((sum, share) => sum + share, 0);
  const shares = Array.from(outputs.probabilities, (share) => share / total);
  const confidence = Math.max(...shares);
  const reason = findDoubt(confidence, outputs.distance?.[0], thresholds);
  return {
    predicted_class: names[shares.indexOf(confidence)],
    confidence,
    abstained: reason !== null,
    reason,
    all_probabilities: Object.fromEntries(names.map((name, index) => [name, shares[index]])),
  };
}

function findDoubt(confidence, distance, thresholds) {
  if (distance === undefined) {
    return null; // the model does not abstain
  }
  if (!(distance <= thresholds.distance)) {
    return "unfamiliar";
  }
  return confidence >= thresholds.confidence ? null : "undecided";
}

/** The gate's word on a film, or null where the model has no gate. */
async function judge(model, outputs, film, input, done) {
  const { thresholds, messages } = model.facts;
  if (!outputs.gate_score) {
    return null;
  }
  const objection = findObjection(film);
  const score = objection ? 0 : outputs.gate_score[0];
  const accepted = score >= thresholds.gate;
  const { orientation, correction } =
    objection || accepted
      ? NO_CORRECTION
      : await findOrientation(model, input, done);
  const unlike = messages.orientations[orientation] ?? messages.unlike_films;
  const reason = objection || (accepted ? "" : unlike);
  return { reason, accepted, score, threshold: thresholds.gate, orientation, correction };
}

function withoutReason({ reason: _, ...gate }) {
  return gate;
}

function warn({ reason }, gate, { messages }) {
  const warnings = [];
  if (gate && !gate.accepted) {
    const message = `${gate.reason} ${messages.forced}`;
    warnings.push({ code: "not_a_chest_xray", message });
  }
  if (reason) {
    warnings.push({ code: "uncertain", message: messages.uncertain[reason] });
  }
  return warnings;
}

/** The side that `preview` asks for; 1 is the usual one. */
function sideOf({ preview = 1 }, facts) {
  return Number(preview) > 1 ? Number(preview) : facts.preview_side;
}

/** A PNG in base64, scaled down to `side` pixels on the longer side. */
async function encodePreview(film, side) {
  const scale = Math.min(1, side / Math.max(film.width, film.height));
  const [width, height] = [film.width, film.height].map((n) => Math.max(1, rint(n * scale)));
  const { pixels } = resize(film, width, height);
  const colours = new Uint8ClampedArray(4 * pixels.length).fill(255);
  pixels.forEach((level, index) => colours.fill(level, 4 * index, 4 * index + 3));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(colours, width, height), 0, 0);
  const file = await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer();
  let text = "";
  for (let at = 0; at < file.byteLength; at += 8192) {
    text += String.fromCharCode(...new Uint8Array(file, at, Math.min(8192, file.byteLength - at)));
  }
  return btoa(text);
}
