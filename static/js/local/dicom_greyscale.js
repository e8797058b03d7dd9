/* DICOM's grey-scale pipeline from stored values to 8 bits, as `resformer.dicom.greyscale`. */

import { greyLevels, histogram, lookUp, percentiles, rint, smallestDepth } from "./grey_levels.js";
import { refuse } from "./dicom_header.js";

/** Show `places` (stored values less the lowest): grey levels, one a pixel. */
export function render(places, header, layout) {
  const stored = Float64Array.from({ length: 2 ** layout.bitsStored }, (_, i) => i + layout.lowest);
  const values = modalityValues(header, stored);
  const counts = histogram(places, stored.length);
  const isPadding = findPadding(header, layout, stored, counts);
  counts.forEach((_, i) => isPadding[i] && (counts[i] = 0));
  let shown = show(header, values, counts);
  if (header.text("PhotometricInterpretation") === "MONOCHROME1") {
    shown = shown.map((share) => 1 - share);
  }
  const levels = greyLevels(shown, counts);
  levels.forEach((_, i) => isPadding[i] && (levels[i] = 0));
  return lookUp(levels, places);
}

const BEAM_INTENSITY_CLASSES = new Set(
  ["12.1", "12.1.1", "12.2", "12.2.1"].map((end) => `1.2.840.10008.5.1.4.1.1.${end}`),
);

/** What the modality LUT or the rescale makes of each value that can be stored. */
function modalityValues(header, stored) {
  const [table] = readTables(header, "ModalityLUTSequence", stored);
  // The table of fluoroscopy maps back to the intensity of the beam (PS3.3 C.8.7.1.1.2).
  const isFluoroscopy =
    header.text("Modality") === "RF" || BEAM_INTENSITY_CLASSES.has(header.text("SOPClassUID"));
  if (table && !isFluoroscopy) {
    return stored.map((value) => entryFor(table, value));
  }
  const slope = header.number("RescaleSlope", 1) || 1;
  const intercept = header.number("RescaleIntercept", 0);
  const values = stored.map((value) => value * slope + intercept);
  return values.every(Number.isFinite) && values[0] !== values.at(-1) ? values : stored;
}

/** The brightness 0 to 1 of every value, by the first VOI LUT or window that shows the film. */
function show(header, values, counts) {
  const tables = readTables(header, "VOILUTSequence", values).map(
    (table) => (value) => entryFor(table, value) / (2 ** table.depth - 1),
  );
  const ways = [...tables, ...readWindows(header)];
  for (const way of ways) {
    const shown = values.map(way);
    if (!isBlank(shown, counts) || isBlank(values, counts)) {
      return shown;
    }
  }
  if (ways.length) {
    throw refuse(
      "the window or VOI LUT in it leaves the film blank: nearly all values lie outside. " +
        "Correct Window Center and Window Width, or remove them",
    );
  }
  return stretch(values, counts);
}

function isBlank(values, counts) {
  const [low, high] = percentiles(values, counts);
  return low === high;
}

function stretch(values, counts) {
  const present = values.filter((_, i) => counts[i]);
  const low = present.reduce((least, value) => Math.min(least, value), Infinity);
  const high = present.reduce((most, value) => Math.max(most, value), -Infinity);
  return values.map((value) => (low === high ? 0 : clip((value - low) / (high - low))));
}

/** The windows as functions (PS3.3 C.11.2.1.2 and C.11.2.1.3). */
function readWindows(header) {
  const named = header.text("VOILUTFunction");
  const kind = ["LINEAR_EXACT", "SIGMOID"].includes(named) ? named : "LINEAR";
  const narrowest = kind === "LINEAR" ? 1 : 1e-9;
  const widths = header.numbers("WindowWidth");
  return header
    .numbers("WindowCenter")
    .slice(0, widths.length)
    .map((center, i) => ({ center, width: widths[i] }))
    .filter(({ center, width }) => center !== null && width !== null && width >= narrowest)
    .map(({ center, width }) => windowFunction(kind, center, width));
}

function windowFunction(kind, center, width) {
  if (kind === "SIGMOID") {
    return (value) => {
      const exponent = (-4 * (value - center)) / width;
      return 1 / (1 + Math.exp(Math.min(500, Math.max(-500, exponent))));
    };
  }
  if (kind === "LINEAR") {
    center -= 0.5;
    width -= 1;
  }
  return (value) => (width === 0 ? Number(value > center) : clip((value - center) / width + 0.5));
}

function clip(share) {
  return Math.min(1, Math.max(0, share));
}

/** The lookup tables of a sequence, `{ first, depth, entries }`, less those that make no sense. */
function readTables(header, keyword, inputs) {
  return header.items(keyword).map((item) => readTable(item, inputs)).filter(Boolean);
}

function readTable(item, inputs) {
  const descriptor = item.raw("LUTDescriptor");
  const data = item.raw("LUTData");
  if (descriptor.bytes.length !== 6) {
    return null;
  }
  let [count, first, depth] = readWords(descriptor);
  count ||= 1 << 16;
  // Tables of 8 bits may hold a byte an entry.
  const isShort = data.bytes.length < 2 * count && depth <= 8;
  const stored = isShort && !["US", "SS"].includes(data.vr) ? data.bytes : readWords(data);
  const entries = Array.from(stored.slice(0, count));
  if (!entries.length) {
    return null;
  }
  if (first >= 1 << 15 && beginsBelowZero(descriptor.vr, first, entries.length, inputs)) {
    first -= 1 << 16;
  }
  // Writers often put the 16 bits of an entry in place of the depth, so the largest decides.
  const largest = entries.reduce((most, entry) => Math.max(most, entry), 0);
  let bits = smallestDepth(largest);
  if (depth <= 16 && largest <= 2 ** depth) {
    bits = Math.min(bits, Math.max(depth, 8));
  }
  return { first, depth: bits, entries: entries.map((entry) => Math.min(entry, 2 ** bits - 1)) };
}

function entryFor({ first, entries }, value) {
  return entries[Math.min(entries.length - 1, Math.max(0, rint(value) - first))];
}

/** Whether the first input of a table, read without a sign, is meant with one. */
function beginsBelowZero(vr, first, count, inputs) {
  const low = inputs.reduce((least, value) => Math.min(least, value), Infinity);
  const high = inputs.reduce((most, value) => Math.max(most, value), -Infinity);
  const covered = (start) =>
    Math.max(0, Math.min(start + count - 1, high) - Math.max(start, low) + 1);
  const [signed, unsigned] = [covered(first - (1 << 16)), covered(first)];
  return signed === unsigned ? vr === "SS" || (vr !== "US" && low < 0) : signed > unsigned;
}

/** Which stored values mark what is no image; padding that leaves no image is none. */
function findPadding(header, layout, stored, counts) {
  const ends = ["PixelPaddingValue", "PixelPaddingRangeLimit"]
    .map((keyword) => header.raw(keyword))
    .filter(({ bytes }) => bytes.length === 2)
    .map((raw) => (layout.signed ? (readWords(raw)[0] << 16) >> 16 : readWords(raw)[0]));
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const isPadding = Array.from(stored, (value) => value >= low && value <= high);
  return counts.some((count, i) => count && !isPadding[i]) ? isPadding : isPadding.fill(false);
}

function readWords({ bytes, little }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length >> 1 }, (_, i) => view.getUint16(2 * i, little));
}
