/*
 * Pillow's antialiased bilinear filter, bit for bit: `Image.resize(size, BILINEAR)` of 8-bit grey.
 * Weights are rounded to 22 bits behind the point, and each of the two passes to whole levels.
 */

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** Resize a film `{ pixels, width, height }`. */
export function resize(film, width, height) {
  const across = film.width === width ? film : resizeLines(film, width);
  return across.height === height ? across : transpose(resizeLines(transpose(across), height));
}

function resizeLines({ pixels, width: oldWidth, height }, width) {
  const { starts, lengths, weights, most } = weigh(oldWidth, width);
  const resized = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = y * oldWidth + starts[x];
      let sum = HALF;
      for (let i = 0, k = x * most; i < lengths[x]; i++, k++) {
        sum += pixels[from + i] * weights[k];
      }
      resized[y * width + x] = Math.min(255, sum >> PRECISION_BITS);
    }
  }
  return { pixels: resized, width, height };
}

/** For each new pixel: its first old one, their number, and what each weighs. */
function weigh(oldSize, newSize) {
  const scale = oldSize / newSize;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(newSize);
  const lengths = new Int32Array(newSize);
  const weights = new Int32Array(newSize * most);
  for (let x = 0; x < newSize; x++) {
    const center = (x + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(oldSize, Math.trunc(center + support + 0.5));
    const shares = [];
    for (let i = start; i < end; i++) {
      // multiplied, not divided, as Pillow does: the last bit decides where a weight is rounded to
      shares.push(Math.max(0, 1 - Math.abs((i - center + 0.5) * (1 / support))));
    }
    const total = shares.reduce((sum, share) => sum + share, 0);
    starts[x] = start;
    lengths[x] = end - start;
    weights.set(
      shares.map((share) => Math.trunc(0.5 + (share / total) * (1 << PRECISION_BITS))),
      x * most,
    );
  }
  return { starts, lengths, weights, most };
}

function transpose({ pixels, width, height }) {
  const turned = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      turned[x * height + y] = pixels[y * width + x];
    }
  }
  return { pixels: turned, width: height, height: width };
}
