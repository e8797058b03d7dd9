/* Whether a picture is an upright film, as `resformer.gate` and `resformer.orientation` say. */

import { histogram } from "./grey_levels.js";
import { MIN_SIDE } from "./errors.js";
import { turn } from "./image.js";

const MAX_ASPECT = 2.5;
const MIN_CONTRAST = 10;
const SAMPLED_SIDE = 128;
const EXIF_BY_ROTATION = { 0: 1, 90: 6, 180: 3, 270: 8 };
const NAMES = { 0: "", 90: "sideways", 180: "upside_down", 270: "sideways" };
const CORRECTIONS = [false, true]
  .flatMap((invert) => [0, 90, 180, 270].map((rotate) => ({ invert, rotate })))
  .slice(1);

/** Why a picture cannot be a film, a sentence; empty if it can. */
export function findObjection({ pixels, width, height }) {
  const [short, long] = [Math.min(width, height), Math.max(width, height)];
  if (short < MIN_SIDE) {
    return `It is only ${width} x ${height} pixels; a film has ${MIN_SIDE} or more a side.`;
  }
  if (long > MAX_ASPECT * short) {
    return `It is ${width} x ${height} pixels: too long and narrow for a chest X-ray.`;
  }
  const sample = [];
  for (let y = 0; y < height; y += 1 + Math.floor(height / SAMPLED_SIDE)) {
    for (let x = 0; x < width; x += 1 + Math.floor(width / SAMPLED_SIDE)) {
      sample.push(pixels[y * width + x]);
    }
  }
  const counts = histogram(sample, 256);
  const [low, high] = [0.01, 0.99].map((share) => {
    let seen = 0;
    return counts.findIndex((count) => (seen += count) / sample.length >= share);
  });
  return high - low < MIN_CONTRAST ? "It is blank: there is no contrast in it." : "";
}

/** Invert and turn a film clockwise. */
export function correct(film, { invert, rotate }) {
  const turned = turn(film, EXIF_BY_ROTATION[rotate]);
  return invert ? { ...turned, pixels: turned.pixels.map((level) => 255 - level) } : turned;
}

/** Where nothing puts a film right, or nothing has to. */
export const NO_CORRECTION = { orientation: null, correction: null };

/** How a refused film lies, and what puts it right: `{ orientation, correction }`. */
export async function findOrientation(model, input, done) {
  const found = await model.run(CORRECTIONS.map((correction) => correct(input, correction)));
  const scores = found.map(({ gate_score: score }) => score[0]);
  const best = scores.indexOf(Math.max(...scores));
  if (!(scores[best] >= model.facts.thresholds.gate)) {
    return NO_CORRECTION;
  }
  const { invert, rotate } = CORRECTIONS[best];
  return {
    orientation: [invert ? "inverted" : "", NAMES[rotate]].filter(Boolean).join("_"),
    correction: { invert: done.invert !== invert, rotate: (done.rotate + rotate) % 360 },
  };
}
