/*
 * Find the image's own attributes and its pixel data in a DICOM file, and read nothing else, as
 * `resformer.dicom.read` does; no element that names a patient is ever turned into a value.
 */

import { ImageError } from "./errors.js";

// Tag and value representation, for files that do not state it.
const ATTRIBUTES = {
  TransferSyntaxUID: [0x00020010, "UI"],
  SOPClassUID: [0x00080016, "UI"],
  Modality: [0x00080060, "CS"],
  SamplesPerPixel: [0x00280002, "US"],
  PhotometricInterpretation: [0x00280004, "CS"],
  NumberOfFrames: [0x00280008, "IS"],
  Rows: [0x00280010, "US"],
  Columns: [0x00280011, "US"],
  BitsAllocated: [0x00280100, "US"],
  BitsStored: [0x00280101, "US"],
  HighBit: [0x00280102, "US"],
  PixelRepresentation: [0x00280103, "US"],
  PixelPaddingValue: [0x00280120, "US or SS"],
  PixelPaddingRangeLimit: [0x00280121, "US or SS"],
  WindowCenter: [0x00281050, "DS"],
  WindowWidth: [0x00281051, "DS"],
  RescaleIntercept: [0x00281052, "DS"],
  RescaleSlope: [0x00281053, "DS"],
  VOILUTFunction: [0x00281056, "CS"],
  ModalityLUTSequence: [0x00283000, "SQ"],
  LUTDescriptor: [0x00283002, "US or SS"],
  LUTData: [0x00283006, "US or OW"],
  VOILUTSequence: [0x00283010, "SQ"],
};
const WANTED = new Set(Object.values(ATTRIBUTES).map(([tag]) => tag));
const [PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS] = [0x7fe00010, 0x7fe00008, 0x7fe00009];
const [ITEM, ITEM_END, SEQUENCE_END] = [0xfffee000, 0xfffee00d, 0xfffee0dd];
const UNDEFINED_LENGTH = 0xffffffff;
const LONG_VRS = new Set("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(" "));
const MAX_SEQUENCE_ITEMS = 8;
const META_START = 132;

export const IMPLICIT = "1.2.840.10008.1.2";
export const EXPLICIT = "1.2.840.10008.1.2.1";
export const DEFLATED = "1.2.840.10008.1.2.1.99";
export const BIG_ENDIAN = "1.2.840.10008.1.2.2";

/** The error to throw; `reason` is ours and never quotes the file. */
export function refuse(reason) {
  return new ImageError(`This DICOM file cannot be used: ${reason}.`, "unsupported_dicom");
}

/** Parse a file up to its pixel data: `{ header, syntax, little, vr, encapsulated, pixelData }`. */
export async function readFile(bytes, { maxPixels }) {
  const meta = new Map();
  const explicit = { implicit: false, little: true };
  let start = walk(bytes, META_START, explicit, meta, (tag) => tag >>> 16 !== 2).at;
  const syntax = new Header(meta).text("TransferSyntaxUID");
  if (syntax === DEFLATED) {
    bytes = await inflateToEnd(bytes.subarray(start), 2 * maxPixels + (16 << 20));
    start = 0;
  }
  const encoding = { implicit: syntax === IMPLICIT || !syntax, little: syntax !== BIG_ENDIAN };
  const elements = new Map();
  const found = walk(bytes, start, encoding, elements, (tag) => tag >= FLOAT_PIXELS);
  if (found.tag === FLOAT_PIXELS || found.tag === DOUBLE_PIXELS) {
    throw refuse("its pixels are fractions, not whole numbers");
  }
  if (found.tag !== PIXEL_DATA) {
    throw refuse("it holds no image (no pixel data), or ends before it");
  }
  const encapsulated = found.length === UNDEFINED_LENGTH;
  const end = encapsulated ? bytes.length : found.value + found.length;
  if (end > bytes.length) {
    throw refuse("it is incomplete: the file ends in the middle of the image");
  }
  return {
    header: new Header(elements),
    syntax,
    little: encoding.little,
    vr: found.vr,
    encapsulated,
    pixelData: bytes.subarray(found.value, end),
  };
}

/** Unpack what is as long as it says itself, up to a limit; it may be padded by one byte. */
async function inflateToEnd(deflated, limit) {
  try {
    return await inflateAll(deflated, limit);
  } catch (error) {
    if (error instanceof ImageError) {
      throw error;
    }
    return inflateAll(deflated.subarray(0, -1), limit);
  }
}

async function inflateAll(deflated, limit) {
  const unpacked = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const pieces = [];
  let length = 0;
  const reader = unpacked.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    pieces.push(piece.value);
    length += piece.value.length;
    if (length > limit) {
      throw refuse("it unpacks to more data than is allowed");
    }
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/**
 * Read elements into a Map by tag, those that are wanted; `{ at, tag, vr, length, value }` where
 * `stop(tag)` is true, or `{ at }` at the end.
 */
function walk(bytes, at, encoding, elements, stop) {
  while (at + 8 <= bytes.length) {
    const element = readElement(bytes, at, encoding);
    if (element.tag === ITEM_END || element.tag === SEQUENCE_END) {
      return { at: element.value };
    }
    if (stop(element.tag)) {
      return { at, ...element };
    }
    const start = element.value;
    if (element.length === UNDEFINED_LENGTH) {
      // an unknown value of undefined length is a sequence, always implicit (PS3.5 6.2.2)
      const inner = element.vr === "UN" ? { implicit: true, little: true } : encoding;
      at = skipItems(bytes, start, inner);
    } else {
      at = start + element.length;
    }
    if (WANTED.has(element.tag)) {
      elements.set(element.tag, { ...element, bytes: bytes.subarray(start, at), encoding });
    }
  }
  return { at };
}

function readElement(bytes, at, { implicit, little }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
  const tag = view.getUint16(0, little) * 0x10000 + view.getUint16(2, little);
  if (implicit || tag >>> 16 === 0xfffe) {
    return { tag, vr: null, length: view.getUint32(4, little), value: at + 8 };
  }
  const vr = String.fromCharCode(bytes[at + 4], bytes[at + 5]);
  return LONG_VRS.has(vr)
    ? { tag, vr, length: view.getUint32(8, little), value: at + 12 }
    : { tag, vr, length: view.getUint16(6, little), value: at + 8 };
}

/** Where a sequence of undefined length ends; `visit(start, end)` sees its items. */
function skipItems(bytes, at, encoding, visit = () => {}) {
  while (at + 8 <= bytes.length) {
    const item = readElement(bytes, at, encoding);
    if (item.tag !== ITEM) {
      return item.value;
    }
    at =
      item.length === UNDEFINED_LENGTH
        ? walk(bytes, item.value, encoding, new Map(), () => false).at
        : item.value + item.length;
    visit(item.value, at);
  }
  return at;
}

const NUMBER_READERS = {
  US: ["getUint16", 2],
  SS: ["getInt16", 2],
  "US or SS": ["getUint16", 2],
  UL: ["getUint32", 4],
  SL: ["getInt32", 4],
  FL: ["getFloat32", 4],
  FD: ["getFloat64", 8],
};
// A comma is a decimal sign to many writers, against PS3.5.
const NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$/;
const PADDING = /^[ \0]+|[ \0]+$/g;

/** Attributes as they stand in a file, read leniently; what cannot be read is absent. */
export class Header {
  constructor(elements) {
    this.elements = elements;
  }

  /** `{ vr, bytes, little }` of an attribute; no bytes where it is absent. */
  raw(keyword) {
    const [tag, usualVr] = ATTRIBUTES[keyword];
    const element = this.elements.get(tag);
    if (!element) {
      return { vr: "", bytes: new Uint8Array(), little: true };
    }
    const vr = element.vr === null || element.vr === "UN" ? usualVr : element.vr;
    return { vr, bytes: element.bytes, little: element.encoding.little };
  }

  /** The first value in capitals, or an empty text. */
  text(keyword) {
    const value = decodeText(this.raw(keyword).bytes);
    return value.split("\\")[0].replace(PADDING, "").toUpperCase();
  }

  /** All values, null in place of each that is no finite number. */
  numbers(keyword) {
    const { vr, bytes, little } = this.raw(keyword);
    const found = [];
    if (vr in NUMBER_READERS) {
      const [read, size] = NUMBER_READERS[vr];
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let at = 0; at + size <= bytes.length; at += size) {
        found.push(view[read](at, little));
      }
    } else {
      for (const part of decodeText(bytes).split("\\")) {
        const text = part.replace(PADDING, "");
        found.push(NUMBER.test(text) ? Number(text.replace(",", ".")) : null);
      }
    }
    return found.map((number) => (Number.isFinite(number) ? number : null));
  }

  /** The first value that is a number, or another. */
  number(keyword, other) {
    return this.numbers(keyword).find((number) => number !== null) ?? other;
  }

  /** The first value as a whole number, or another; refused where there is neither. */
  integer(keyword, other) {
    const [number = null] = this.numbers(keyword);
    if (Number.isInteger(number)) {
      return number;
    }
    if (other === undefined) {
      throw refuse("its header does not describe the pixels");
    }
    return other;
  }

  /** The first items of a sequence, as Headers. */
  items(keyword) {
    const element = this.elements.get(ATTRIBUTES[keyword][0]);
    const items = [];
    if (element) {
      const { bytes, vr } = element;
      const encoding = vr === "UN" ? { implicit: true, little: true } : element.encoding;
      skipItems(bytes, 0, encoding, (start, end) => {
        const elements = new Map();
        walk(bytes.subarray(0, end), start, encoding, elements, () => false);
        items.push(new Header(elements));
      });
    }
    return items.slice(0, MAX_SEQUENCE_ITEMS);
  }
}

function decodeText(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}
