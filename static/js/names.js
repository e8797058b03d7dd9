/* How answers are written for people, and what goes with all that leaves the page. */

export const DISCLAIMER = "Research tool, not a medical device. Not a diagnosis.";

const names = JSON.parse(document.getElementById("workbench").dataset.names);

/** A class as people read it; the server says how, and a class that it does not know stays. */
export function displayName(key) {
  return names[key] ?? key;
}

/** A model is never quite certain: its extremes are shown as bounds. */
export function percent(share) {
  if (share > 0.99) {
    return ">99%";
  }
  return share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

/** What was done to a film before the model read it, by the options of the request; or nothing. */
export function correctionOf({ invert, rotate }) {
  const done = [invert && "inverted", rotate && `turned clockwise by ${rotate}°`];
  return done.filter(Boolean).join(" and ");
}

/** The warnings of an answer, in words. */
export function warningsOf({ warnings = [] }) {
  return warnings.map(({ message }) => message);
}

/** Classes and their shares, best first. */
export function ranked(prediction) {
  return Object.entries(prediction.all_probabilities).sort((a, b) => b[1] - a[1]);
}
