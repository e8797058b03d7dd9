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

/** The options with which the server shows a film through a window of the file's own values. */
export function windowOptions({ window, nextWindow }) {
  const { center, width } = nextWindow ?? window ?? {};
  return width ? { window_center: center, window_width: width } : {};
}

/** The window of the file's values that a look at the picture comes to; grey levels where it has none. */
export function windowOf(film, { width, center }) {
  const { window } = film ?? {};
  return window
    ? { width: (window.width * width) / 255, center: window.center + window.width * (center / 255 - 0.5) }
    : { width, center };
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
