/* The one way in the browser from the bytes of a file to grey pixels, `{ pixels, width, height }`. */

import { recogniseFormat, stripContainer } from "./container.js";
import { decodeDicom } from "./dicom.js";
import { checkSize, ImageError, ServerOnlyError } from "./errors.js";
import { readPicture } from "./picture.js";
import { decodeDeepPng, isDeepPng, readPngHeader } from "./png.js";

/** Decode a file; `limits` holds `maxPixels`. */
export async function decodeImage(bytes, limits) {
  if (!bytes.length) {
    throw new ImageError("The file is empty. Choose another one.", "empty_file");
  }
  const format = recogniseFormat(bytes);
  if (!format) {
    throw new ImageError(
      "This is not an image of a format that the browser reads: PNG, JPEG, BMP, GIF, WebP or DICOM.",
      "unsupported_format",
    );
  }
  if (format === "TIFF") {
    throw new ServerOnlyError(
      "The browser cannot read TIFF. Convert the file to PNG", "unsupported_format",
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
  if (format === "PNG") {
    const { width, height } = readPngHeader(bytes);
    checkSize(width, height, limits); // beyond bounds of its own a browser merely fails
  }
  const { parts, orientation } = stripContainer(bytes, format);
  const film =
    format === "PNG" && isDeepPng(bytes)
      ? await decodeDeepPng(bytes)
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
