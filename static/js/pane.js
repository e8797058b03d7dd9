/* One film on the screen: its picture, and how it is looked at. */

import { drawScale, windowOf } from "./dicom.js";
import { isShownByBrowsers } from "./formats.js";

const AS_IT_IS = { width: 255, center: 127.5, invert: false, rotate: 0 };
const SIDES = [1024, 2048, 4096]; // of the pictures that the server is asked for
const NOTES = {
  lost: "Choose this film again to see it. Its result is kept.",
  coming: "The picture comes with the answer.",
  none: "There is no picture of this file.",
};

/**
 * A pane of the page; `askPicture(film, side, signal)` gets the picture of a film that the browser
 * cannot show by itself, as a blob. Its root dispatches `picture` when one comes or goes.
 */
export class Pane {
  film = null;
  #askPicture;
  #key = "";
  #side = 0; // of the picture that is shown: infinite where there is no larger one
  #address = null;
  #controller = new AbortController();

  constructor(root, askPicture) {
    this.root = root;
    this.image = root.querySelector(".film-image");
    this.stage = root.querySelector(".stage");
    this.#askPicture = askPicture;
    new ResizeObserver(() => drawScale(this)).observe(root);
  }

  /** How the film is looked at: the window in grey levels, the rest as said. */
  get look() {
    return this.film?.look ?? AS_IT_IS;
  }

  /** Show a film as well as it can be now, or none. */
  async show(film) {
    const key = film ? JSON.stringify([film.id, film.options]) : "";
    if (key !== this.#key) {
      this.#key = key;
      this.film = film;
      this.#controller.abort();
      this.#controller = new AbortController();
      this.#place("", 0);
    }
    this.#draw();
    if (film) {
      await this.#improve(SIDES[0]);
    }
  }

  /** Look at the film in another way. */
  change(changes) {
    if (this.film) {
      if (this.film.nextWindow) {
        this.#controller.abort(); // that picture would come too late
        this.#controller = new AbortController();
        this.#side = SIDES[0];
        this.film.nextWindow = null;
      }
      this.film.look = { ...this.look, ...changes };
      this.#draw();
    }
  }

  /** Look at the film as it is, through the window of the file that is preferred if there is one. */
  reset() {
    this.change(AS_IT_IS);
    if (this.film?.window !== this.film?.preferred) {
      this.prefer(this.film.preferred).catch(reportError);
    }
  }

  /** Look at the film through a window of its file; null is the first look. */
  async prefer(window) {
    const { width, center } = AS_IT_IS;
    this.change({ width, center });
    Object.assign(this.film, { preferred: window, window });
    await this.#renew();
  }

  /** Have the file's own values shown through the window that was made of its picture's levels. */
  async deepen() {
    const { film, look } = this;
    if (film?.window && film.file && (look.width !== AS_IT_IS.width || look.center !== AS_IT_IS.center)) {
      film.nextWindow = windowOf(film, look);
      await this.#renew();
    }
  }

  /** Get the picture anew; what is shown stays until the other one is there. */
  async #renew() {
    this.#controller.abort();
    this.#controller = new AbortController();
    this.#side = 1;
    await this.#improve(SIDES[0]);
    await this.sharpen();
  }

  /** Get a picture as large as the film is on the screen, if it is larger than the one there. */
  async sharpen() {
    const { width, height } = this.image.getBoundingClientRect();
    const needed = Math.max(width, height) * devicePixelRatio;
    if (this.film && needed > this.#side && this.#side >= SIDES[0]) {
      await this.#improve(SIDES.find((side) => side >= needed) ?? SIDES.at(-1));
    }
  }

  async #improve(side) {
    const { film } = this;
    const { signal } = this.#controller;
    if (this.#side >= side) {
      return;
    }
    const isAsItIs = !film.options.invert && !film.options.rotate;
    if (film.file && isAsItIs && (await isShownByBrowsers(film.file)) && !signal.aborted) {
      if (await this.#load(film.file, Infinity, signal)) {
        return;
      }
    }
    if (signal.aborted) {
      return;
    }
    if (film.thumbnail && this.#side === 0) {
      await this.#load(film.thumbnail, 1, signal);
    }
    if (film.file && ["done", "uncertain", "refused"].includes(film.state)) {
      const picture = await this.#askPicture(film, side, signal).catch(() => null);
      if (picture && !signal.aborted) {
        await this.#load(picture, side, signal);
      }
    }
  }

  /** Show a picture once it is decoded; whether it could be. */
  async #load(source, side, signal) {
    const isOwn = source instanceof Blob;
    const address = isOwn ? URL.createObjectURL(source) : source;
    const picture = new Image();
    picture.src = address;
    const isDecoded = await picture.decode().then(
      () => !signal.aborted,
      () => false,
    );
    if (!isDecoded) {
      if (isOwn) {
        URL.revokeObjectURL(address);
      }
      return false;
    }
    if (this.film.nextWindow && side > 1) {
      const { width, center } = AS_IT_IS;
      Object.assign(this.film, { window: this.film.nextWindow, nextWindow: null });
      this.film.look = { ...this.look, width, center };
    }
    const { naturalWidth: width, naturalHeight: height } = picture;
    this.stage.style.setProperty("--ratio", width / height);
    this.#place(address, side > 1 && Math.max(width, height) < side ? Infinity : side, isOwn);
    this.#draw();
    return true;
  }

  #place(address, side, isOwn = false) {
    URL.revokeObjectURL(this.#address);
    this.#address = isOwn ? address : null;
    this.#side = side;
    if (address) {
      this.image.src = address;
    } else {
      this.image.removeAttribute("src");
    }
    this.image.hidden = !address;
    this.root.dispatchEvent(new Event("picture"));
  }

  #draw() {
    const { width, center, invert, rotate } = this.look;
    const slope = (invert ? -255 : 255) / width;
    const start = (center - width / 2) / width;
    for (const channel of this.root.querySelectorAll("feFuncR, feFuncG, feFuncB")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", invert ? 1 + start : -start);
    }
    const isPlain = width === AS_IT_IS.width && center === AS_IT_IS.center && !invert;
    this.image.toggleAttribute("data-windowed", !isPlain);
    this.stage.style.setProperty("--turn", `${rotate}deg`);
    this.stage.toggleAttribute("data-lying", rotate % 180 !== 0);
    const note = this.root.querySelector(".film-note");
    note.hidden = !this.film || !this.image.hidden;
    note.textContent = NOTES[this.#missing()];
    this.root.querySelector(".film-name").textContent = this.film?.name ?? "";
    drawScale(this);
  }

  #missing() {
    if (!this.film?.file) {
      return "lost";
    }
    return ["waiting", "running"].includes(this.film.state) ? "coming" : "none";
  }
}

/** Grey levels of 0 to 255 as a look shows them. */
export function levels({ width, center, invert }) {
  return Uint8ClampedArray.from({ length: 256 }, (_, level) => {
    const shown = (255 * (level - (center - width / 2))) / width;
    return invert ? 255 - shown : shown;
  });
}
