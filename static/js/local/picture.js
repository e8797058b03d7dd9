/* Image files that browsers decode themselves, as grey pixels `{ pixels, width, height }`. */

import { checkSize } from "./errors.js";

const BAND = 256; // lines that are read back at a time: colours take four times the memory

/** What the browser's own decoder makes of a file, as grey on black. */
export async function readPicture(parts, format, limits) {
  const picture = await createImageBitmap(
    new Blob(parts, { type: `image/${format.toLowerCase()}` }),
    { colorSpaceConversion: "none" },
  );
  try {
    checkSize(picture.width, picture.height, limits);
    return readGrey(picture);
  } finally {
    picture.close();
  }
}

function readGrey(picture) {
  const { width, height } = picture;
  const pixels = new Uint8Array(width * height);
  const canvas = new OffscreenCanvas(width, Math.min(BAND, height));
  const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  for (let top = 0; top < height; top += BAND) {
    const lines = Math.min(BAND, height - top);
    pen.fillRect(0, 0, width, lines); // black, behind what is see-through
    pen.drawImage(picture, 0, -top);
    const { data } = pen.getImageData(0, 0, width, lines);
    for (let i = 0, at = top * width; i < data.length; i += 4, at++) {
      // ITU-R 601 in fixed point, as Pillow has it; equal channels stay what they are
      pixels[at] =
        (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 0x8000) >> 16;
    }
  }
  return { pixels, width, height };
}
