/* The one way in which scripts make elements of the page. */

/** An element with properties, such as `{ className: "bar" }`, and what is in it. */
export function part(tag, properties = {}, ...content) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...content);
  return made;
}
