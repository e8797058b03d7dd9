/*
 * Leave out of an image file what makes a browser show other pixels than are stored: colour
 * profiles, gamma and orientation. The orientation is read here, for every browser alike.
 */

const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The format that the first bytes announce; null for none that is read here. */
export function recogniseFormat(bytes) {
  if (ascii(bytes, 128, 132) === "DICM") {
    return "DICOM";
  }
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 12) === "WEBP") {
    return "WebP";
  }
  const signatures = {
    "\x89PNG\r\n\x1a\n": "PNG",
    "\xff\xd8\xff": "JPEG",
    BM: "BMP",
    GIF87a: "GIF",
    GIF89a: "GIF",
    "II*\0": "TIFF",
    "MM\0*": "TIFF",
    "II+\0": "TIFF",
    "MM\0+": "TIFF",
  };
  const start = ascii(bytes, 0, 8);
  const found = Object.entries(signatures).find(([signature]) => start.startsWith(signature));
  return found ? found[1] : null;
}

/** The file as `{ parts, orientation }`: pieces to put into a Blob, and EXIF's 1 to 8. */
export function stripContainer(bytes, format) {
  const strip = { PNG: stripPng, JPEG: stripJpeg, WebP: stripWebp }[format];
  return strip ? strip(bytes) : { parts: [bytes], orientation: 1 };
}

/** The chunks of a PNG as `{ kind, body, whole }`. */
export function readPngChunks(bytes) {
  const chunks = [];
  for (let position = 8; position + 12 <= bytes.length; ) {
    const end = position + 12 + view(bytes).getUint32(position);
    const kind = ascii(bytes, position + 4, position + 8);
    chunks.push({
      kind,
      body: bytes.subarray(position + 8, end - 4),
      whole: bytes.subarray(position, end),
    });
    position = kind === "IEND" ? bytes.length : end;
  }
  return chunks;
}

function stripPng(bytes) {
  const chunks = readPngChunks(bytes);
  const kept = chunks.filter(({ kind }) => ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"].includes(kind));
  const exif = chunks.find(({ kind }) => kind === "eXIf");
  return {
    parts: [bytes.subarray(0, 8), ...kept.map(({ whole }) => whole)],
    orientation: exif ? readOrientation(exif.body) : 1,
  };
}

const SCAN = 0xda;
const [JFIF, EXIF, ADOBE] = [0xe0, 0xe1, 0xee];

/** Visit the segments of a JPEG before its first scan; where that begins. */
export function walkJpeg(bytes, visit) {
  let position = 2;
  while (position + 4 <= bytes.length) {
    if (bytes[position] !== 0xff || bytes[position + 1] === 0xff) {
      position++; // filling, or stray bytes, which decoders step over too
      continue;
    }
    const code = bytes[position + 1];
    if (code === SCAN) {
      break;
    }
    const end = position + 2 + view(bytes).getUint16(position + 2);
    visit(code, bytes.subarray(position, end));
    position = end;
  }
  return position;
}

function stripJpeg(bytes) {
  const parts = [bytes.subarray(0, 2)];
  let exif = null;
  const scan = walkJpeg(bytes, (code, segment) => {
    const isMetadata = (code >= JFIF && code <= 0xef) || code === 0xfe;
    if (!isMetadata || code === JFIF || code === ADOBE) {
      parts.push(segment);
    }
    if (code === EXIF && ascii(segment, 4, 10) === "Exif\0\0") {
      exif ??= segment.subarray(10);
    }
  });
  parts.push(bytes.subarray(scan));
  return { parts, orientation: exif ? readOrientation(exif) : 1 };
}

const WEBP_PROFILE_EXIF_XMP = 0x20 | 0x08 | 0x04;

function stripWebp(bytes) {
  const parts = [bytes.slice(0, 12)];
  let exif = null;
  for (let position = 12; position + 8 <= bytes.length; ) {
    const kind = ascii(bytes, position, position + 4);
    const length = view(bytes).getUint32(position + 4, true);
    const chunk = bytes.slice(position, position + 8 + length + (length % 2));
    if (kind === "EXIF") {
      exif ??= chunk.subarray(ascii(chunk, 8, 14) === "Exif\0\0" ? 14 : 8);
    } else if (!["ICCP", "XMP "].includes(kind)) {
      parts.push(chunk);
    }
    if (kind === "VP8X") {
      chunk[8] &= ~WEBP_PROFILE_EXIF_XMP;
    }
    position += chunk.length;
  }
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  view(parts[0]).setUint32(4, length - 8, true);
  return { parts, orientation: exif ? readOrientation(exif) : 1 };
}

const ORIENTATION_TAG = 0x0112;

/** EXIF's orientation, 1 where it is absent or damaged: no reason to refuse sound pixels. */
function readOrientation(tiff) {
  try {
    const little = ascii(tiff, 0, 2) === "II";
    const data = view(tiff);
    const start = data.getUint32(4, little);
    for (let i = 0; i < data.getUint16(start, little); i++) {
      const entry = start + 2 + 12 * i;
      if (data.getUint16(entry, little) === ORIENTATION_TAG) {
        return data.getUint16(entry + 8, little);
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) {
      throw error;
    }
  }
  return 1;
}
