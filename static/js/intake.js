/* The ways in: choose files or a folder, drop, paste. */

// What lies in folders beside films. Scanners name films by numbers, often without a suffix.
const SUFFIX = /\.([a-z][a-z0-9]*)$/i;

/** Call `onFiles(files, leftOut)` with what came in, and the number of files that are no films. */
export function watchIntake({ viewer, file, folder, onFiles }) {
  const known = new Set(file.accept.split(",").map((suffix) => suffix.toLowerCase()));
  const take = (found, sift) => {
    const films = sift ? found.filter(({ name }) => mayBeFilm(name, known)) : found;
    onFiles(films, found.length - films.length);
  };

  file.addEventListener("change", () => {
    if (file.files.length) {
      take([...file.files], false);
    }
    file.value = ""; // choosing the same file again is a change too
  });
  folder.addEventListener("change", () => {
    take([...folder.files].sort(byPath), true);
    folder.value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take([...event.clipboardData.files], false);
    }
  });
  watchDrops(viewer, take);
}

/** The name to show of a file: with its folders, where it came in one. */
export function nameOf(file) {
  return file.webkitRelativePath || file.pathInFolder || file.name;
}

function mayBeFilm(name, known) {
  const suffix = SUFFIX.exec(name);
  return !name.startsWith(".") && (!suffix || known.has(suffix[0].toLowerCase()));
}

function byPath(one, other) {
  return nameOf(one).localeCompare(nameOf(other), undefined, { numeric: true });
}

/** The whole page takes a drop, or the browser would leave it and open the file. */
function watchDrops(viewer, take) {
  const mark = (dragging) => viewer.toggleAttribute("data-dragging", dragging);

  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) {
      mark(false);
    }
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(false);
    const files = [...(event.dataTransfer?.files ?? [])];
    const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
    if (!entries.some((entry) => entry?.isDirectory)) {
      take(files, false);
      return;
    }
    const found = await Promise.all(entries.filter(Boolean).map(readEntry));
    take(found.flat().sort(byPath), true);
  });
}

/** The files of a dropped file or folder, at any depth. */
async function readEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    file.pathInFolder = entry.fullPath.slice(1);
    return [file];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // a browser hands out a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) {
      return found;
    }
    found.push(...(await Promise.all(some.map(readEntry))).flat());
  }
}
