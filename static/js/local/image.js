/* The one way in the browser from the bytes of a file to grey pixels, `{ pixels, width, height }`. */

import { recogniseFormat, stripContainer } from "./container.js";
import { decodeDicom } from "./dicom.js";
import { ImageError } from "./errors.js";
import { readPicture } from "./picture.js";
import { decodeDeepPng, isDeepPng } from "./png.js";

/** Decode a file; `limits` holds `maxPixels`. */
export async function decodeImage(bytes, limits) {
  if (!bytes.length) {
    throw new ImageError("The file is empty.", "unreadable_image");
  }
  const format = recogniseFormat(bytes);
  if (!format || format === "TIFF") {
    throw new ImageError(
      "The browser reads PNG, JPEG, BMP, GIF, WebP and DICOM, and this file is none of them. " +
        "The server reads TIFF too.",
      "unsupported_format",
    );
  }
  if (format === "DICOM") {
    return decodeDicom(bytes, limits);
  }
  try {
    return await decodeRaster(bytes, format, limits);
  } catch (error) {
    if (error instanceof ImageError) {
      throw error;
    }
    throw new ImageError(
      `The ${format} image cannot be read: the file is damaged, incomplete or of an unusual ` +
        "kind. Export it again, for example as PNG.",
      "unreadable_image",
    );
  }
}

async function decodeRaster(bytes, format, limits) {
  const { parts, orientation } = stripContainer(bytes, format);
  const film =
    format === "PNG" && isDeepPng(bytes)
      ? await decodeDeepPng(bytes, limits)
      : await readPicture(parts, format, limits);
  return turn(film, orientation);
}

/** Undo EXIF orientation 2 to 8; others mean upright. */
export function turn(film, orientation) {
  const isOneOf = (...codes) => codes.includes(orientation);
  const [across, rightToLeft, bottomUp] = [
    isOneOf(5, 6, 7, 8),
    isOneOf(2, 3, 6, 7),
    isOneOf(3, 4, 7, 8),
  ];
  if (!across && !rightToLeft && !bottomUp) {
    return film;
  }
  const [width, height] = across ? [film.height, film.width] : [film.width, film.height];
  const pixels = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const column = rightToLeft ? width - 1 - x : x;
      const line = bottomUp ? height - 1 - y : y;
      pixels[y * width + x] = film.pixels[across ? column * height + line : line * width + column];
    }
  }
  return { pixels, width, height };
}
