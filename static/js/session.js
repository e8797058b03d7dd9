/*
 * The films of this tab, in order, and the one that is shown. What the server said of each, and
 * which file it was, outlives a reload; the films themselves do not.
 */

const KEY = "resformer.session";
export const MOST_FILMS = 500;
const DRAWN = {
  code: "drawn",
  message:
    "This is a drawing, not an X-ray: it shows how the page works, and the estimate for it means nothing.",
};

/** Where a film stands: `waiting`, `running`, `stopped`, or what became of it. */
function outcome({ success, code, prediction }) {
  if (success) {
    return prediction.abstained ? "uncertain" : "done";
  }
  return code === "not_a_chest_xray" ? "refused" : "failed";
}

/**
 * The session. It dispatches `list` when films come or go, `select` when another one is shown, and
 * `change` with the film as `detail` when something becomes known of it.
 */
export class Session extends EventTarget {
  films = [];
  current = null;
  only = ""; // the state of the films that are listed, where not all are
  #nextId = 1;

  /** Films of one state. */
  in(...states) {
    return this.films.filter((film) => states.includes(film.state));
  }

  /** The films that are walked through: all, or those of one state. */
  get listed() {
    return this.only ? this.in(this.only) : this.films;
  }

  /** List the films of one state, or all. */
  list(only) {
    this.only = only;
    this.select(this.listed.includes(this.current) ? this.current : this.listed[0]);
  }

  /**
   * Add files as films, or give a film that a reload took away its file back; `named` says how a
   * file is called. The first of them is shown. How many found no room.
   */
  add(files, named) {
    const lost = new Map(
      this.films.filter((film) => !film.file).map((film) => [identity(film), film]),
    );
    let first = null;
    let leftOut = 0;
    for (const file of files) {
      const described = { name: named(file), size: file.size, modified: file.lastModified };
      let film = lost.get(identity(described));
      if (!film && this.films.length >= MOST_FILMS) {
        leftOut += 1;
        continue;
      }
      if (film) {
        lost.delete(identity(film));
        film.file = file;
        film.state = film.answer ? film.state : "waiting";
      } else {
        film = this.#make({ ...described, file });
        this.films.push(film);
      }
      first ??= film;
    }
    this.current = first ?? this.current;
    this.only = "";
    this.#say("list");
    this.#say("select");
    return leftOut;
  }

  /** Show a film. */
  select(film) {
    if (film && film !== this.current) {
      this.current = film;
      this.#say("select");
    }
  }

  /** Show the film that is so many places further on in the list. */
  step(places) {
    const { listed, current } = this;
    const here = listed.filter((film) => film.id < current?.id).length;
    const isBetween = listed[here] !== current; // what became of it took it out of the list
    const place = here + places - Number(isBetween && places > 0);
    this.select(listed[Math.max(0, Math.min(listed.length - 1, place))]);
  }

  /** Something is known of a film. */
  update(film, changes) {
    Object.assign(film, changes);
    this.#say("change", film);
  }

  /** Keep what was said of a film, but not the pictures in it. */
  settle(film, { image, explanation, ...answer }, canRetry = false) {
    if (image) {
      URL.revokeObjectURL(film.thumbnail);
      film.thumbnail = URL.createObjectURL(pictureOf(image));
    }
    const known = film.file?.isDrawn && answer.success ? withDrawn(answer) : answer;
    this.update(film, { answer: known, canRetry, date: Date.now(), state: outcome(known) });
  }

  /** Ask for a film again, with options such as `{ force: 1 }`. */
  ask(film, options) {
    this.update(film, { options, answer: null, maps: new Map(), state: "waiting" });
  }

  /** Forget every film. */
  clear() {
    for (const film of this.films) {
      URL.revokeObjectURL(film.thumbnail);
    }
    this.films = [];
    this.current = null;
    this.only = "";
    sessionStorage.removeItem(KEY);
    this.#say("list");
    this.#say("select");
  }

  /** Keep in this tab what is known; see the top of this file. */
  save() {
    const films = this.films.map(({ name, size, modified, options, answer, canRetry, date }) => {
      return { name, size, modified, options, answer, canRetry, date };
    });
    if (films.length) {
      const current = this.films.indexOf(this.current);
      sessionStorage.setItem(KEY, JSON.stringify({ current, films }));
    }
  }

  /** Bring back what was kept. */
  restore() {
    const { current, films } = JSON.parse(sessionStorage.getItem(KEY) ?? '{"films": []}');
    this.films = films.map((kept) =>
      this.#make({ ...kept, state: kept.answer ? outcome(kept.answer) : "stopped" }),
    );
    this.current = this.films[current] ?? null;
    this.#say("list");
    this.#say("select");
  }

  #make(known) {
    const id = this.#nextId++;
    const blank = { file: null, options: {}, answer: null, canRetry: false, state: "waiting" };
    return { id, ...blank, thumbnail: null, maps: new Map(), look: null, ...known };
  }

  #say(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The answer for a drawing: with a warning, and as beside any warning without a track record. */
function withDrawn({ prediction, warnings = [], ...answer }) {
  return {
    ...answer,
    prediction: { ...prediction, track_record: null },
    warnings: [DRAWN, ...warnings],
  };
}

/** What tells one file from another after a reload. */
function identity({ name, size, modified }) {
  return JSON.stringify([name, size, modified]);
}

/** The picture that came as base64. */
export function pictureOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
