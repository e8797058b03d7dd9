/* How a film lies that is not upright, for people. */

/** An orientation's name, such as `inverted_sideways`, in a sentence. */
export function describeOrientation(name) {
  const words = name.replace("inverted_", "inverted and ").replace("_", " ");
  return `It looks like a chest X-ray that is ${words}.`;
}
