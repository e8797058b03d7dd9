/* What the person sees; nothing here knows where an answer comes from. */

const element = (id) => document.getElementById(id);

let objectUrl = null;

/** Show the chosen file at once, as far as the browser can decode it. */
export function showFile(file) {
  URL.revokeObjectURL(objectUrl);
  objectUrl = URL.createObjectURL(file);
  showFilm(objectUrl);
}

/** There is no image: the viewer asks for one again. */
export function showNoFile() {
  element("viewer").dataset.state = "empty";
}

function showPreview(picture) {
  showFilm(`data:image/png;base64,${picture}`);
}

/** Show a picture by its address. */
function showFilm(address) {
  const image = element("film-image");
  image.onload = () => markFilm(true);
  image.onerror = () => markFilm(false);
  image.src = address;
  element("viewer").dataset.state = "filled";
}

function markFilm(visible) {
  element("film-image").hidden = !visible;
  element("film-note").hidden = visible;
}

/** The answer is on its way. */
export function showBusy() {
  setState("busy");
  fillBars([]);
  announce("The model is looking at the image.");
}

/** The answer of the server. */
export function showAnswer(answer) {
  const { abstained, all_probabilities: shares } = answer.prediction;
  showPreview(answer.image);
  showWarnings(answer.warnings ?? []);
  const said = abstained ? showNoVerdict() : showVerdict(answer.prediction);
  fillBars(Object.entries(shares).sort((a, b) => b[1] - a[1]));
  announce(`${element("warning").textContent} ${said} Not a diagnosis.`);
  scrollToResult();
}

/** Name the most probable class; what to announce of it. */
function showVerdict({ predicted_class: name, confidence }) {
  element("verdict-name").textContent = displayName(name);
  element("verdict-share").textContent = percent(confidence);
  element("verdict-text").textContent =
    "Of the classes it knows, the model finds this one the best fit.";
  setState("done", "high");
  return `Model’s estimate: ${displayName(name)}, ${percent(confidence)}.`;
}

/** Name no class, because the model abstains; the warning says why. What to announce. */
function showNoVerdict() {
  element("verdict-name").textContent = "Uncertain";
  element("verdict-share").textContent = "";
  element("verdict-text").textContent =
    "The model names no class. The shares below are what it computed all the same.";
  setState("done", "none");
  return "The model names no class.";
}

/** The image does not look like a chest X-ray; the person may go on nevertheless. */
export function showRefusal({ image, reason = "" }) {
  if (image) {
    showPreview(image);
  }
  element("refusal-reason").textContent = reason;
  fillBars([]);
  setState("refused");
  announce(`This image was not analysed. ${reason} You can have it analysed anyway.`);
  scrollToResult();
}

/** A failure, with a button where trying again makes sense. */
export function showError(message, { canRetry = false } = {}) {
  announce("");
  fillBars([]);
  element("error-text").textContent = message;
  element("retry").hidden = !canRetry;
  setState("error");
  scrollToResult();
}

function showWarnings(warnings) {
  element("warning").textContent = warnings.map((warning) => warning.message).join(" ");
  element("warning").hidden = !warnings.length;
}

function setState(state, certainty = "") {
  const result = element("result");
  result.dataset.state = state;
  result.dataset.certainty = certainty;
  result.setAttribute("aria-busy", String(state === "busy"));
}

/** Fill the bars from `[class, probability]` pairs, best first; none empties those there are. */
function fillBars(pairs) {
  const list = element("bars");
  if (!pairs.length) {
    for (const row of list.children) {
      row.removeAttribute("data-first");
      row.querySelector(".bar-share").textContent = "–";
      row.querySelector(".bar-fill").style.width = "0";
    }
    return;
  }
  list.replaceChildren(...pairs.map(([name, share]) => barRow(name, share)));
  list.firstElementChild.toggleAttribute("data-first", true);
  list.getBoundingClientRect(); // lay out at zero first, so that the bars grow
  pairs.forEach(([, share], index) => {
    list.children[index].querySelector(".bar-fill").style.width = `${100 * share}%`;
  });
}

function barRow(name, share) {
  const row = part("li", "bar-row");
  const bar = part("span", "bar");
  bar.setAttribute("aria-hidden", "true");
  bar.append(part("span", "bar-fill"));
  row.append(
    part("span", "bar-name", displayName(name)),
    part("span", "bar-share", percent(share)),
    bar,
  );
  return row;
}

function part(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A model is never quite certain: its extremes are shown as bounds. */
function percent(share) {
  if (share > 0.99) {
    return ">99%";
  }
  return share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

/** A class as people read it: the server says how. */
export function displayName(name) {
  return JSON.parse(element("workbench").dataset.names)[name] ?? name;
}

function announce(text) {
  element("announcer").textContent = text;
}

function scrollToResult() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element("result").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}
