/* What a DICOM file tells of a film: a line of facts, its windows by name, and a scale bar. */

import { computesHere } from "./classify.js";

const element = (id) => document.getElementById(id);
const LENGTHS_MM = [100, 50, 20, 10, 5, 2, 1];
const MOST_OF_PANE = 0.35;
const LATERALITIES = { R: "right", L: "left", B: "both sides" }; // and unpaired

/** Show facts and windows of the film that is looked at, or of none. */
export function showFacts(film) {
  const dicom = film?.answer?.dicom;
  const facts = dicom ? [dicom.modality, dicom.view, LATERALITIES[dicom.laterality]].filter(Boolean) : [];
  element("film-told").textContent = facts.join(" · ");
  const windows = dicom?.windows ?? [];
  element("film-facts").hidden = !facts.length && !windows.length;
  const preset = element("preset");
  preset.replaceChildren(
    new Option("As the model sees it", ""),
    ...windows.map(({ name, center, width }, place) => {
      const numbers = `W ${Math.round(width)} L ${Math.round(center)}`;
      return new Option(name ? `${name} (${numbers})` : numbers, place);
    }),
  );
  preset.value = film?.preset ?? "";
  preset.hidden = !windows.length || !film.file || computesHere();
}

/** The options with which the server shows a film through the window that is chosen. */
export function windowOptions({ answer, preset }) {
  const chosen = answer?.dicom?.windows[preset || NaN];
  return chosen ? { window_center: chosen.center, window_width: chosen.width } : {};
}

/** Draw a bar of a round length as long as it is on the film, or none. */
export function drawScale(pane) {
  const bar = pane.root.querySelector(".scale-bar");
  const dicom = pane.film?.answer?.dicom;
  bar.hidden = !dicom?.pixel_spacing || pane.image.hidden;
  if (bar.hidden) {
    return;
  }
  const across = pane.look.rotate % 180 === 0 ? 1 : 0; // columns, or rows where it lies
  const shown = pane.image.getBoundingClientRect().width;
  const pixelsPerMm = shown / (dicom.size[across] * dicom.pixel_spacing[across]);
  const room = MOST_OF_PANE * pane.root.clientWidth;
  const length = LENGTHS_MM.find((mm) => mm * pixelsPerMm <= room) ?? LENGTHS_MM.at(-1);
  bar.style.width = `${length * pixelsPerMm}px`;
  bar.textContent = length < 10 ? `${length} mm` : `${length / 10} cm`;
}
