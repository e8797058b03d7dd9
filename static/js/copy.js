/* A button beside every sample that copies it. */

const SHOWN_MS = 2000;

for (const sample of document.querySelectorAll(".sample")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  const caption = sample.querySelector("figcaption");
  button.setAttribute("aria-label", `Copy: ${caption.textContent}`);
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
