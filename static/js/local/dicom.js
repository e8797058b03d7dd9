/*
 * From a DICOM file to the grey pixels that a radiologist would be shown: uncompressed, RLE and
 * 8-bit JPEG. What else the server reads needs decoders that no browser has.
 */

import { walkJpeg } from "./container.js";
import { render } from "./dicom_greyscale.js";
import { BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, readFile, refuse } from "./dicom_header.js";
import { checkSize, ImageError, ServerOnlyError } from "./errors.js";
import { readPicture } from "./picture.js";

const NATIVE = new Set(["", IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN]);
const RLE = "1.2.840.10008.1.2.5";
const JPEG = new Set(["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"]);
const MIN_SIDE = 16;

/** Decode the one grey radiograph of a file: `{ pixels, width, height }`. */
export async function decodeDicom(bytes, limits) {
  try {
    const file = await readFile(bytes, limits);
    const layout = readLayout(file.header, limits);
    const places = await readStoredValues(file, layout, limits);
    const pixels = render(places, file.header, layout);
    return { pixels, width: layout.columns, height: layout.rows };
  } catch (error) {
    throw error instanceof ImageError ? error : refuse("it is damaged or incomplete");
  }
}

const RADIOGRAPHS = ["CR", "DX", "DR", "RG", "RF"];
const STORAGE_CLASSES = ["1", "1.1", "1.1.1", "7", "12.2"].map(
  (end) => `1.2.840.10008.5.1.4.1.1.${end}`,
);
const COLOUR = ["RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK", "XYB"];

/** Check the header: the file must be a single grey radiograph. */
function readLayout(header, { maxPixels }) {
  const modality = header.text("Modality");
  const storageClass = header.text("SOPClassUID");
  if (!RADIOGRAPHS.includes(modality)) {
    if (!["", "OT"].includes(modality)) {
      throw refuse("it is no radiograph (CR, DX, DR, RG or RF)");
    }
    if (storageClass && !STORAGE_CLASSES.includes(storageClass)) {
      throw refuse("it does not say that it is a radiograph, and its kind is another one");
    }
  }
  if (header.integer("NumberOfFrames", 1) > 1) {
    throw refuse("it holds several frames. Export the one radiograph that you mean");
  }
  const photometric = header.text("PhotometricInterpretation");
  const samples = header.integer("SamplesPerPixel", 1);
  if (samples === 3 || samples === 4 || COLOUR.some((name) => photometric.startsWith(name))) {
    throw refuse("it is a colour image, and radiographs are grey");
  }
  if (!photometric.startsWith("MONOCHROME")) {
    throw refuse(
      "it does not say whether low values are black or white: its Photometric Interpretation " +
        "should be MONOCHROME2 or MONOCHROME1",
    );
  }
  const [rows, columns] = [header.integer("Rows"), header.integer("Columns")];
  checkSize(columns, rows, { maxPixels, minSide: MIN_SIDE });
  const bitsAllocated = header.integer("BitsAllocated");
  const bitsStored = header.integer("BitsStored", bitsAllocated);
  if (![8, 16].includes(bitsAllocated)) {
    throw refuse("only pixels of 8 or 16 bits are supported");
  }
  if (bitsStored < 1 || bitsStored > bitsAllocated) {
    throw refuse("its header is contradictory about the bits of a pixel");
  }
  const highBit = header.integer("HighBit", bitsStored - 1);
  const isSound = bitsStored <= highBit + 1 && highBit + 1 <= bitsAllocated;
  const signed = header.integer("PixelRepresentation", 0) === 1;
  return {
    rows,
    columns,
    bitsAllocated,
    bitsStored,
    shift: isSound ? highBit + 1 - bitsStored : 0,
    signed,
    lowest: signed ? -(2 ** (bitsStored - 1)) : 0,
  };
}

/** The stored values less the lowest one that can be stored. */
async function readStoredValues(file, layout, limits) {
  if (NATIVE.has(file.syntax) === file.encapsulated) {
    throw refuse("its pixel data is not in the form that its header announces");
  }
  if (NATIVE.has(file.syntax)) {
    return toPlaces(dropUnusedBits(readNative(file, layout), layout), layout.bitsStored, layout);
  }
  if (file.syntax === RLE) {
    const words = readRle(joinFragments(file.pixelData), layout);
    return toPlaces(dropUnusedBits(words, layout), layout.bitsStored, layout);
  }
  if (JPEG.has(file.syntax)) {
    const words = await readJpeg(joinFragments(file.pixelData), layout, limits);
    return toPlaces(words, 8, layout);
  }
  throw new ServerOnlyError(
    "This DICOM file cannot be used: the browser cannot unpack its compression. Export it " +
      "uncompressed",
    "unsupported_dicom",
  );
}

function readNative({ pixelData, little, vr }, { rows, columns, bitsAllocated }) {
  const count = rows * columns;
  const size = bitsAllocated / 8;
  if (pixelData.length < size * count) {
    throw refuse("it is incomplete: there are fewer pixels than its header announces");
  }
  if (size === 1) {
    const swapped = !little && vr === "OW"; // bytes in pairs
    return new Uint16Array(count).map((_, i) => pixelData[swapped ? i ^ 1 : i]);
  }
  const view = new DataView(pixelData.buffer, pixelData.byteOffset, pixelData.length);
  return new Uint16Array(count).map((_, i) => view.getUint16(2 * i, little));
}

/** Join the fragments of the one frame behind the offset table (PS3.5 annex A.4). */
function joinFragments(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const fragments = [];
  for (let at = 0; at < data.length; ) {
    const tag = view.getUint16(at, true) * 0x10000 + view.getUint16(at + 2, true);
    const length = view.getUint32(at + 4, true);
    if (tag === 0xfffee0dd) {
      break;
    }
    if (tag !== 0xfffee000 || at + 8 + length > data.length) {
      throw refuse("its compressed image is incomplete or damaged");
    }
    fragments.push(data.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  const frame = new Uint8Array(fragments.slice(1).reduce((sum, part) => sum + part.length, 0));
  let filled = 0;
  for (const part of fragments.slice(1)) {
    frame.set(part, filled);
    filled += part.length;
  }
  return frame;
}

/** PackBits segments, one for each byte of a value, the highest first (PS3.5 annex G). */
function readRle(frame, { rows, columns, bitsAllocated }) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const segments = bitsAllocated / 8;
  if (view.getUint32(0, true) !== segments) {
    throw new RangeError("number of segments");
  }
  const words = new Uint16Array(rows * columns);
  for (let segment = 0; segment < segments; segment++) {
    const start = view.getUint32(4 + 4 * segment, true);
    unpackBits(frame.subarray(start), words, 8 * (segments - 1 - segment));
  }
  return words;
}

function unpackBits(packed, words, shift) {
  let at = 0;
  for (let filled = 0; filled < words.length; ) {
    if (at + 1 >= packed.length) {
      throw refuse("it is incomplete: there are fewer pixels than its header announces");
    }
    const code = packed[at++];
    if (code === 128) {
      continue;
    }
    const repeats = code > 128;
    const end = Math.min(words.length, filled + (repeats ? 257 - code : code + 1));
    for (; filled < end; filled++) {
      words[filled] |= packed[at] << shift;
      at += repeats ? 0 : 1;
    }
    at += repeats ? 1 : 0;
  }
}

async function readJpeg(frame, { rows, columns }, limits) {
  const parts = [frame.subarray(0, 2)];
  let header = null;
  const scan = walkJpeg(frame, (code, segment) => {
    if (code >= 0xc0 && code <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(code)) {
      header ??= segment;
    }
    if (code < 0xe0) {
      parts.push(segment);
    }
  });
  const view = new DataView(header.buffer, header.byteOffset);
  const [precision, height, width] = [header[4], view.getUint16(5), view.getUint16(7)];
  if (width !== columns || height !== rows || header[9] !== 1) {
    throw refuse("its header and its compressed image differ in size or colour");
  }
  if (precision !== 8) {
    throw refuse(
      "12-bit JPEG is not supported. Export it uncompressed, or as JPEG lossless or JPEG 2000",
    );
  }
  parts.push(frame.subarray(scan));
  const { pixels } = await readPicture(parts, "JPEG", { ...limits, minSide: MIN_SIDE });
  return Uint16Array.from(pixels);
}

/** Keep the stored bits; those around them may hold an overlay of old files. */
function dropUnusedBits(words, { bitsAllocated, bitsStored, shift, signed, lowest }) {
  const extend = 32 - bitsAllocated;
  const value = (word) => (signed && bitsAllocated === 16 ? (word << extend) >> extend : word);
  const top = lowest + 2 ** bitsStored - 1;
  // Values that stand unshifted although the high bit says otherwise are a common mistake.
  const isShifted =
    shift > 0 && words.some((word) => value(word) < lowest || value(word) > top);
  const mask = 2 ** bitsStored - 1;
  return words.map((word) => (isShifted ? word >> shift : word) & mask);
}

/** Interpret words of `precision` bits and bound them to what can be stored. */
function toPlaces(words, precision, { bitsStored, signed, lowest }) {
  const mask = 2 ** precision - 1;
  const most = 2 ** bitsStored - 1;
  return words.map((word) => {
    const bits = word & mask;
    const value = signed && bits >> (precision - 1) ? bits - 2 ** precision : bits;
    return Math.min(most, Math.max(0, value - lowest));
  });
}
