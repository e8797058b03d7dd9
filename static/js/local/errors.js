/* Why a file cannot be used, in the words and with the codes of the server. */

export const MIN_SIDE = 64;

/** An image that cannot be used; its text never quotes the file. */
export class ImageError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** A file that the server reads and no browser; its text says, without a full stop, what else to do. */
export class ServerOnlyError extends ImageError {}

/** Refuse a size before memory is spent on its pixels. */
export function checkSize(width, height, { maxPixels, minSide = MIN_SIDE }) {
  if (width * height > maxPixels) {
    throw new ImageError(
      `The image has ${width} x ${height} pixels, more than the ` +
        `${maxPixels.toLocaleString("en")} that are allowed. Scale it down and try again.`,
      "image_too_large",
    );
  }
  if (Math.min(width, height) < minSide) {
    throw new ImageError(
      `The image has only ${width} x ${height} pixels, too few for a radiograph: each side ` +
        `needs at least ${minSide}.`,
      "unreadable_image",
    );
  }
}
