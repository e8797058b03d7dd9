/* The session as a table: the columns that the command line writes, and a note. */

import { DISCLAIMER } from "./names.js";

// What spreadsheets take for the beginning of a formula, in half and in full width.
const FORMULA = /^[=+\-@\uff1d\uff0b\uff0d\uff20]/;

/** The films that were answered as CSV. */
export function writeTable(films) {
  const answered = films.filter((film) => film.answer);
  const shares = answered.map((film) => film.answer.prediction?.all_probabilities ?? {});
  const classes = [...new Set(shares.flatMap(Object.keys))];
  const header = [
    ...["file", "predicted_class", "confidence", "abstained", "reason"],
    ...classes.map((name) => text(`probability_${name}`)),
    ...["gate_accepted", "gate_score", "gate_threshold", "gate_orientation"],
    ...["warnings", "error_code", "error", "invert", "rotate", "model_sha256", "note"],
  ];
  const rows = [header, ...answered.map((film) => rowOf(film, classes))];
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

function rowOf({ name, answer, options }, classes) {
  const { success, prediction, model, warnings = [], code = "", error = "" } = answer;
  const gate = answer.gate ?? (success || !("score" in answer) ? null : { ...answer, accepted: false });
  const figures = prediction
    ? [
        text(prediction.predicted_class),
        prediction.confidence.toFixed(6),
        String(prediction.abstained),
        prediction.reason ?? "",
        ...classes.map((one) => prediction.all_probabilities[one]?.toFixed(6) ?? ""),
      ]
    : Array(4 + classes.length).fill("");
  return [
    FORMULA.test(name) ? `./${name}` : oneLine(name),
    ...figures,
    ...(gate
      ? [String(gate.accepted), gate.score.toFixed(6), gate.threshold.toFixed(6)]
      : ["", "", ""]),
    gate?.orientation ?? "",
    warnings.map((warning) => warning.code).join(" "),
    code,
    text(error),
    String(options.invert ?? 0),
    String(options.rotate ?? 0),
    model?.sha256 ?? "",
    DISCLAIMER,
  ];
}

function oneLine(value) {
  return value.replace(/\p{Cc}/gu, (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** A text for one line, which a spreadsheet does not take for a formula. */
function text(value) {
  const line = oneLine(value);
  return FORMULA.test(line) ? `'${line}` : line;
}

function cell(value) {
  return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}
