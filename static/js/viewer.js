/* Zoom, move, window and turn the films; two side by side move in step. */

import { drawScale, showFacts, windowOf } from "./dicom.js";
import { Pane } from "./pane.js";

const element = (id) => document.getElementById(id);
const MOST_ZOOM = 20;
const STEP = 1.25;

/** The viewer with its panes; `askPicture` as for a pane. */
export class Viewer {
  #view = { zoom: 1, x: 0, y: 0 };
  #root = element("viewer");
  #pointers = new Map();
  #timer = 0;
  #windowTimer = 0;

  constructor(askPicture) {
    this.panes = ["film", "other-film"].map((id) => new Pane(element(id), askPicture));
    this.panes.forEach((pane) => this.#watch(pane));
    this.#draw();
  }

  get main() {
    return this.panes[0];
  }

  get isComparing() {
    return !this.panes[1].root.hidden;
  }

  /** Show a film in the main pane, or none; another film is seen whole first. */
  show(film) {
    if (film !== this.main.film && !this.isComparing) {
      this.#move({ zoom: 1, x: 0, y: 0 });
    }
    this.#root.dataset.state = film ? "filled" : "empty";
    this.main.show(film).catch(reportError);
    showFacts(film);
    this.#draw();
  }

  /** Show the main film through a window of its file, by its place there; none is the first look. */
  choosePreset(place) {
    const { film } = this.main;
    film.preset = place;
    this.main.prefer(film.answer.dicom.windows[place || NaN] ?? null).catch(reportError);
    this.#draw();
  }

  /** Keep the film that is shown beside those to come, or end that. */
  compare() {
    const isOn = !this.isComparing && this.main.film;
    this.panes[1].root.hidden = !isOn;
    this.panes[1].show(isOn ? this.main.film : null).catch(reportError);
    this.#root.toggleAttribute("data-comparing", Boolean(isOn));
    element("compare").setAttribute("aria-pressed", String(Boolean(isOn)));
  }

  /** Zoom in steps around the middle, or around a place in shares of the pane. */
  zoom(steps, x = 0, y = 0) {
    const { zoom } = this.#view;
    const next = Math.max(1, Math.min(MOST_ZOOM, zoom * STEP ** steps));
    this.#zoomTo(next, x, y);
  }

  /** Move the films by shares of a pane. */
  pan(x, y) {
    this.#move({ ...this.#view, x: this.#view.x + x, y: this.#view.y + y });
  }

  /** Change the window of the main film by grey levels. */
  window(wider, brighter, pane = this.main) {
    const { width, center } = pane.look;
    pane.change({
      width: Math.max(2, Math.min(510, Math.round(width + wider))),
      center: Math.max(-127.5, Math.min(382.5, center - brighter)),
    });
    this.#draw();
    clearTimeout(this.#windowTimer);
    this.#windowTimer = setTimeout(() => pane.deepen().then(() => this.#draw(), reportError), 300);
  }

  invert() {
    this.main.change({ invert: !this.main.look.invert });
    this.#draw();
  }

  rotate(degrees) {
    this.main.change({ rotate: (this.main.look.rotate + degrees + 360) % 360 });
    this.#draw();
  }

  /** See the films whole and as they are. */
  reset() {
    this.#move({ zoom: 1, x: 0, y: 0 });
    this.panes.forEach((pane) => pane.reset());
    this.#draw();
  }

  /** Fill the screen, or end that. */
  fill() {
    if (document.fullscreenElement) {
      document.exitFullscreen();
    } else {
      this.#root.requestFullscreen?.();
    }
  }

  /** What dragging does: `move` or `window`. */
  use(tool) {
    this.#root.dataset.tool = tool;
    element("tool-move").setAttribute("aria-pressed", String(tool === "move"));
    element("tool-window").setAttribute("aria-pressed", String(tool === "window"));
  }

  #zoomTo(zoom, x, y) {
    const ratio = zoom / this.#view.zoom;
    this.#move({ zoom, x: x - (x - this.#view.x) * ratio, y: y - (y - this.#view.y) * ratio });
  }

  #move({ zoom, x, y }) {
    const most = zoom === 1 ? 0 : zoom / 2;
    const within = (value) => Math.max(-most, Math.min(most, value));
    this.#view = { zoom, x: within(x), y: within(y) };
    this.#draw();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.panes.forEach((pane) => pane.sharpen()), 300);
  }

  #draw() {
    const { zoom, x, y } = this.#view;
    for (const pane of this.panes) {
      const { stage } = pane;
      stage.style.setProperty("--zoom", zoom);
      stage.style.setProperty("--x", x);
      stage.style.setProperty("--y", y);
      drawScale(pane);
    }
    const { invert, rotate } = this.main.look;
    const { width, center } = windowOf(this.main.film, this.main.look);
    this.#root.toggleAttribute("data-zoomed", zoom > 1);
    element("look-zoom").textContent = `${Math.round(100 * zoom)}%`;
    element("look-window").textContent = `W ${Math.round(width)} L ${Math.round(center)}`;
    element("look-turn").textContent = rotate ? `${rotate}°` : "";
    element("invert").setAttribute("aria-pressed", String(invert));
  }

  /** Shares of the pane from its middle. */
  #place(pane, { clientX, clientY }) {
    const box = pane.root.getBoundingClientRect();
    return [(clientX - box.x) / box.width - 0.5, (clientY - box.y) / box.height - 0.5];
  }

  #watch(pane) {
    const { root } = pane;
    root.addEventListener(
      "wheel",
      (event) => {
        if (this.#view.zoom === 1 && event.deltaY > 0) {
          return; // the page scrolls on
        }
        event.preventDefault();
        const pixels = event.deltaY * (event.deltaMode ? 33 : 1);
        this.zoom(-pixels / (event.ctrlKey ? 25 : 100), ...this.#place(pane, event));
      },
      { passive: false },
    );
    root.addEventListener("dblclick", () => this.reset());
    root.addEventListener("contextmenu", (event) => event.preventDefault());
    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 1) {
        root.setPointerCapture(event.pointerId);
        this.#pointers.set(event.pointerId, event);
      }
    });
    root.addEventListener("pointermove", (event) => this.#drag(pane, event));
    for (const end of ["pointerup", "pointercancel"]) {
      root.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
  }

  #drag(pane, event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) {
      return;
    }
    const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
    const other = [...this.#pointers.values()].find((one) => one.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (other) {
      const [was, is] = [before, event].map((one) =>
        Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY),
      );
      const zoom = Math.max(1, Math.min(MOST_ZOOM, (this.#view.zoom * is) / Math.max(1, was)));
      this.#zoomTo(zoom, ...this.#place(pane, other));
    } else if (this.#root.dataset.tool === "window" || event.shiftKey || event.buttons === 2) {
      this.window(x, -y, pane);
    } else {
      const { width, height } = pane.root.getBoundingClientRect();
      this.pan(x / width, y / height);
    }
  }
}
