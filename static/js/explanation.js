/* Why the model says so: a map of the evidence for one class, laid over the film. */

import { RequestError } from "./api.js";
import { displayName } from "./view.js";

const element = (id) => document.getElementById(id);
const nothing = { ask: null, maps: new Map(), controller: new AbortController() };

let current = nothing;

/** Let the person ask for reasons; `ask(options, signal)` repeats the request with more options. */
export function offerReasons(prediction, ask) {
  current = { ask, maps: new Map(), controller: new AbortController() };
  const names = Object.entries(prediction.all_probabilities)
    .sort((a, b) => b[1] - a[1])
    .map(([name]) => new Option(displayName(name), name));
  element("why-class").replaceChildren(...names);
}

/** The film changes: its map and everything that is on its way goes. */
export function forgetReasons() {
  current.controller.abort();
  current = nothing;
  close();
}

async function open() {
  element("why").hidden = false;
  element("show-why").setAttribute("aria-expanded", "true");
  element("show-why").textContent = "Hide why";
  element("viewer").scrollIntoView({ block: "nearest" });
  element("why").focus({ preventScroll: true });
  await showMap();
}

function close() {
  current.controller.abort();
  element("why").hidden = true;
  element("overlay").hidden = true;
  hideLungs();
  element("show-why").setAttribute("aria-expanded", "false");
  element("show-why").textContent = "Show why";
}

/** Show the map of the class that is picked; a class that is picked meanwhile replaces it. */
async function showMap() {
  const mine = current;
  const name = element("why-class").value;
  current.controller.abort();
  mine.controller = new AbortController();
  const { signal } = mine.controller;
  element("overlay").hidden = true;
  hideLungs();
  try {
    if (!mine.maps.has(name)) {
      say("Looking…", true);
      const answer = await mine.ask({ explain: 1, class: name, preview: 0 }, signal);
      mine.maps.set(name, answer.explanation);
    }
    if (!signal.aborted) {
      layOver(mine.maps.get(name), displayName(name));
    }
  } catch (error) {
    if (signal.aborted) {
      return;
    }
    say(error instanceof RequestError ? error.message : "The map cannot be shown.");
    if (!(error instanceof RequestError)) {
      throw error;
    }
  }
}

function layOver({ image, lungs = [] }, name) {
  const overlay = element("overlay");
  overlay.src = `data:image/png;base64,${image}`;
  overlay.alt = `Map of the evidence for ${name}`;
  overlay.hidden = false;
  say(
    `The brighter, the more this spot supports ${name}. It shows what the network ` +
      "went by, not where a disease is." +
      (lungs.length ? " The dashed lines are the lungs that it found." : ""),
  );
  outlineLungs(lungs);
}

/** Draw closed polygons of points in shares of the film's sides, fitted as the film itself is. */
function outlineLungs(polygons) {
  const { naturalWidth: width, naturalHeight: height } = element("film-image");
  const lines = polygons.map(
    (points) => `M${points.map(([x, y]) => `${x * width} ${y * height}`).join("L")}Z`,
  );
  element("lungs").setAttribute("viewBox", `0 0 ${width} ${height}`);
  element("lungs").firstElementChild.setAttribute("d", lines.join(""));
  element("lungs").toggleAttribute("hidden", !polygons.length);
}

function hideLungs() {
  element("lungs").toggleAttribute("hidden", true);
}

function say(text, busy = false) {
  element("why-text").textContent = text;
  element("why").setAttribute("aria-busy", String(busy));
}

function showOpacity() {
  const share = Number(element("why-opacity").value);
  element("overlay").style.opacity = String(share / 100);
  element("why-opacity-value").textContent = `${share}%`;
}

element("show-why").addEventListener("click", () => (element("why").hidden ? open() : close()));
element("why-close").addEventListener("click", () => {
  close();
  element("show-why").focus();
});
element("why-class").addEventListener("change", showMap);
element("why-opacity").addEventListener("input", showOpacity);
showOpacity(); // a browser may keep the slider's position over a reload
