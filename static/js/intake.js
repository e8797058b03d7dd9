/* The three ways in: choose, drop, paste. */

/** Call `onImage(file)` for one file and `onRefusal(message)` where there is not exactly one. */
export function watchIntake({ viewer, input, onImage, onRefusal }) {
  const take = (files) => {
    if (files.length === 1) {
      onImage(files[0]);
    } else {
      onRefusal(files.length ? "One image at a time, please." : "That was not an image file.");
    }
  };

  input.addEventListener("change", () => {
    if (input.files.length) {
      take(input.files);
    }
    input.value = ""; // choosing the same file again is a change too
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take(event.clipboardData.files);
    }
  });
  watchDrops(viewer, take);
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
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    take(event.dataTransfer?.files ?? []);
  });
}
