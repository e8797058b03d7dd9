/* A button beside every sample that copies it. */

import { part } from "./part.js";

const SHOWN_MS = 2000;

for (const sample of document.querySelectorAll(".sample")) {
  const caption = sample.querySelector("figcaption");
  const ariaLabel = `Copy: ${caption.textContent}`;
  const button = part("button", { type: "button", className: "copy", ariaLabel }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(sample.querySelector("code"));
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), SHOWN_MS);
  });
  caption.append(button);
}

/** Copy an element's text; where the page may not, select it for the person. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element); // without TLS there is no clipboard
    return document.execCommand("copy");
  }
}
