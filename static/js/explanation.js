/* Why the model says so: a map of the evidence for one class, laid over the film. */

import { RequestError } from "./api.js";
import { displayName, ranked } from "./names.js";

const element = (id) => document.getElementById(id);

let current = { film: null, ask: null, controller: new AbortController() };

/**
 * Let the person ask for the reasons of a film; `ask(options, signal)` repeats the request with
 * more options, and is missing where the film itself is gone.
 */
export function offerReasons(film, ask) {
  forgetReasons();
  current = { film, ask, controller: new AbortController() };
  const names = ranked(film.answer.prediction);
  element("why-class").replaceChildren(...names.map(([key]) => new Option(displayName(key), key)));
  element("show-why").hidden = !ask;
}

/** Another film is shown: its map and everything that is on its way goes. */
export function forgetReasons() {
  current.controller.abort();
  current = { film: null, ask: null, controller: new AbortController() };
  close();
}

/** The map that lies on the film, with the outlines of the lungs; null where none does. */
export function shownMap() {
  const map = current.film?.maps.get(element("why-class").value);
  const opacity = Number(element("why-opacity").value) / 100;
  return element("overlay").hidden ? null : { ...map, opacity };
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
  hideMap();
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
  hideMap();
  try {
    if (!mine.film.maps.has(name)) {
      say("Looking…", true);
      const answer = await mine.ask({ explain: 1, class: name, preview: 0 }, signal);
      mine.film.maps.set(name, answer.explanation);
    }
    if (!signal.aborted) {
      layOver(mine.film.maps.get(name), displayName(name));
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
    `The brighter a spot, the more it supports ${name}. The map shows what the network ` +
      "went by, not where a disease is." +
      (lungs.length ? " The dashed lines are the lungs that it found." : ""),
  );
  // points are in shares of the film's sides, as is the drawing
  const lines = lungs.map((points) => `M${points.map((point) => point.join(" ")).join("L")}Z`);
  element("lungs").firstElementChild.setAttribute("d", lines.join(""));
  element("lungs").toggleAttribute("hidden", !lungs.length);
}

function hideMap() {
  element("overlay").hidden = true;
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
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !element("why").hidden && !element("keys").open) {
    close();
    element("show-why").focus();
  }
});
element("why-class").addEventListener("change", showMap);
element("why-opacity").addEventListener("input", showOpacity);
showOpacity(); // a browser may keep the slider's position over a reload
