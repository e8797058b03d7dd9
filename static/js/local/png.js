/* PNG files of 16 bits a channel, of which a browser would hand out the upper 8 alone. */

import { readPngChunks } from "./container.js";
import { scaleToUint8 } from "./grey_levels.js";
import { ImageError, ServerOnlyError } from "./errors.js";

const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };
const ALPHA = 4;

/** What the header of a PNG announces: `{ width, height, colourType, isInterlaced }`. */
export function readPngHeader(bytes) {
  const header = readPngChunks(bytes)[0].body;
  const sizes = new DataView(header.buffer, header.byteOffset);
  return {
    width: sizes.getUint32(0),
    height: sizes.getUint32(4),
    colourType: header[9],
    isInterlaced: header[12] > 0,
  };
}

/** Whether a PNG has 16 bits a channel. */
export function isDeepPng(bytes) {
  return bytes[24] === 16;
}

/** Decode such a file, of a size that was checked, to grey of 8 bits, `{ pixels, width, height }`. */
export async function decodeDeepPng(bytes) {
  const { width, height, colourType, isInterlaced } = readPngHeader(bytes);
  const channels = CHANNELS[colourType];
  if (!channels || isInterlaced) {
    throw new ServerOnlyError(
      "The browser cannot read an interlaced PNG of 16 bits. Save it without interlacing",
      "unreadable_image",
    );
  }
  const chunks = readPngChunks(bytes);
  const data = chunks.filter(({ kind }) => kind === "IDAT").map(({ body }) => body);
  const stride = 2 * channels * width;
  const lines = await inflate(new Blob(data), "deflate", height * (stride + 1));
  const words = joinBytes(undoFilters(lines, stride, height, 2 * channels));
  const pixels = scaleToUint8(luma(words, channels));
  const hidden = chunks.find(({ kind }) => kind === "tRNS")?.body;
  if (colourType & ALPHA) {
    pixels.forEach((level, i) => {
      pixels[i] = onBlack(level, Math.floor((words[(i + 1) * channels - 1] + 128) / 257));
    });
  } else if (hidden) {
    const colour = joinBytes(hidden);
    pixels.forEach((_, i) => {
      if (colour.every((value, channel) => words[i * channels + channel] === value)) {
        pixels[i] = 0;
      }
    });
  }
  return { pixels, width, height };
}

/** Unpack at least `length` bytes of a Blob. */
export async function inflate(blob, format, length) {
  const unpacked = new Uint8Array(length);
  let filled = 0;
  const reader = blob.stream().pipeThrough(new DecompressionStream(format)).getReader();
  while (filled < length) {
    const { done, value } = await reader.read();
    if (done) {
      throw new ImageError(
        "The image cannot be read: the file is incomplete.", "unreadable_image",
      );
    }
    const piece = value.subarray(0, length - filled);
    unpacked.set(piece, filled);
    filled += piece.length;
  }
  await reader.cancel();
  return unpacked;
}

/** Undo the prediction of each line from its neighbours (PNG, section 9). */
function undoFilters(lines, stride, height, step) {
  const bytes = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const kind = lines[y * (stride + 1)];
    const source = y * (stride + 1) + 1;
    const target = y * stride;
    for (let x = 0; x < stride; x++) {
      const left = x < step ? 0 : bytes[target + x - step];
      const up = y ? bytes[target + x - stride] : 0;
      const corner = x < step || !y ? 0 : bytes[target + x - stride - step];
      bytes[target + x] = lines[source + x] + predict(kind, left, up, corner);
    }
  }
  return bytes;
}

function predict(kind, left, up, corner) {
  switch (kind) {
    case 1:
      return left;
    case 2:
      return up;
    case 3:
      return (left + up) >> 1;
    case 4: {
      const a = Math.abs(up - corner); // how far each is from left + up - corner
      const b = Math.abs(left - corner);
      const c = Math.abs(left + up - 2 * corner);
      return a <= b && a <= c ? left : b <= c ? up : corner;
    }
    default:
      return 0;
  }
}

function joinBytes(bytes) {
  const words = new Uint16Array(bytes.length >> 1);
  for (let i = 0; i < words.length; i++) {
    words[i] = (bytes[2 * i] << 8) | bytes[2 * i + 1];
  }
  return words;
}

/** Grey as it is, colour by ITU-R 601 in fixed point, as Pillow has it; sums exceed 32 bits. */
function luma(words, channels) {
  const grey = new Uint16Array(words.length / channels);
  for (let i = 0, at = 0; i < grey.length; i++, at += channels) {
    const sum = 19595 * words[at] + 38470 * words[at + 1] + 7471 * words[at + 2];
    grey[i] = channels < 3 ? words[at] : Math.floor((sum + 0x8000) / 65536);
  }
  return grey;
}

function onBlack(level, opacity) {
  const product = level * opacity + 128;
  return ((product >> 8) + product) >> 8;
}
