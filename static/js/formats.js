/* Which films a browser shows as the model sees them. */

const STARTS = [
  [0xff, 0xd8, 0xff], // JPEG
  [0x47, 0x49, 0x46, 0x38], // GIF
  [0x42, 0x4d], // BMP
  [0x52, 0x49, 0x46, 0x46], // WebP
];
const PNG = [0x89, 0x50, 0x4e, 0x47];
const PNG_DEPTH = 24;

/**
 * Whether a file can be shown from itself. DICOM and TIFF cannot, and of PNG with 16 bits browsers
 * cut off half, which leaves a film of 12 bits black: the server's picture takes their place.
 */
export async function isShownByBrowsers(file) {
  const bytes = new Uint8Array(await file.slice(0, PNG_DEPTH + 1).arrayBuffer());
  const begins = (start) => start.every((byte, place) => bytes[place] === byte);
  return STARTS.some(begins) || (begins(PNG) && bytes[PNG_DEPTH] <= 8);
}
