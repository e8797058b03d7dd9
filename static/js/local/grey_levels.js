/* Grey values of more than 8 bits to 8 bits, as `resformer.grey_levels` does; see there. */

const DEPTHS = [8, 10, 12, 14, 16];
const PERCENTILES = [0.01, 0.99];
const FEWEST_LEVELS = 64;
const MARGIN = 0.5;
const GAP = 7 / 8;

/** Scale whole values of up to 16 bits to 0..255. */
export function scaleToUint8(values) {
  let largest = 0;
  for (const value of values) {
    largest = Math.max(largest, value);
  }
  const size = 1 << smallestDepth(largest);
  const numbers = Float64Array.from({ length: size }, (_, index) => index);
  const counts = withoutIsolated(numbers, histogram(values, size));
  let top = size - 1;
  if (wastesLevels(numbers.map((value) => value / top), counts)) {
    top = (1 << smallestDepth(usualRange(numbers, counts)[1])) - 1;
  }
  const brightness = numbers.map((value) => Math.min(value / top, 1));
  return lookUp(greyLevels(brightness, counts), values);
}

/** The smallest usual depth in bits that holds a value. */
export function smallestDepth(largest) {
  return DEPTHS.find((bits) => largest < 2 ** bits);
}

/** How often each of `size` values occurs. */
export function histogram(values, size) {
  const counts = new Uint32Array(size);
  for (const value of values) {
    counts[value]++;
  }
  return counts;
}

/** The 8-bit level of each possible value, from its brightness 0 to 1 and how often it occurs. */
export function greyLevels(brightness, counts) {
  const usual = withoutIsolated(brightness, counts);
  if (!wastesLevels(brightness, usual)) {
    return Uint8Array.from(brightness, (share) => rint(share * 255));
  }
  const [start, end] = usualRange(brightness, usual);
  return Uint8Array.from(brightness, (share) =>
    rint(Math.min(1, Math.max(0, (share - start) / (end - start))) * 255),
  );
}

/** The values at the lower and the upper percentile of a film; zeros where none occurs. */
export function percentiles(values, counts) {
  const order = occurring(counts).sort((a, b) => values[a] - values[b]);
  const total = order.reduce((sum, index) => sum + counts[index], 0);
  if (total === 0) {
    return [0, 0];
  }
  return PERCENTILES.map((share) => {
    const rank = share * (total - 1);
    let seen = 0;
    return values[order.find((index) => (seen += counts[index]) > rank)];
  });
}

/** Look up each value in a table of bytes. */
export function lookUp(table, values) {
  const found = new Uint8Array(values.length); // loops: Uint8Array.from takes ten times as long
  for (let i = 0; i < found.length; i++) {
    found[i] = table[values[i]];
  }
  return found;
}

/** Round to the nearest, halves to even, as numpy does. */
export function rint(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

function withoutIsolated(values, counts) {
  const present = unique(occurring(counts).map((index) => values[index]));
  if (present.length < 3) {
    return counts;
  }
  let widest = 0;
  for (let i = 1; i < present.length - 1; i++) {
    if (present[i + 1] - present[i] > present[widest + 1] - present[widest]) {
      widest = i;
    }
  }
  const below = widest + 1;
  const above = present.length - below;
  const isGap = present[widest + 1] - present[widest] > GAP * (present.at(-1) - present[0]);
  if (!isGap || Math.min(below, above) > (1 - GAP) * Math.max(below, above)) {
    return counts;
  }
  return counts.map((count, i) => (values[i] <= present[widest] === below > above ? count : 0));
}

function wastesLevels(brightness, counts) {
  const [low, high] = percentiles(brightness, counts);
  if (low === high || (high - low) * 255 >= FEWEST_LEVELS) {
    return false;
  }
  const shares = occurring(counts).map((index) => brightness[index]);
  const between = unique(shares.filter((share) => share >= low && share <= high));
  return unique(between.map((share) => rint(share * 255))).length < between.length;
}

function usualRange(values, counts) {
  const [low, high] = percentiles(values, counts);
  const margin = MARGIN * (high - low);
  const present = occurring(counts).map((index) => values[index]);
  return [
    present.reduce((least, v) => (v >= low - margin ? Math.min(least, v) : least), low),
    present.reduce((most, v) => (v <= high + margin ? Math.max(most, v) : most), high),
  ];
}

function occurring(counts) {
  const found = [];
  counts.forEach((count, index) => count && found.push(index));
  return found;
}

function unique(values) {
  return [...new Set(values)].sort((a, b) => a - b);
}
