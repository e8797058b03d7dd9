/* Take the results along: a table, a text, a picture, a page on paper. */

import { shownMap } from "./explanation.js";
import { DISCLAIMER, correctionOf, displayName, percent, ranked, warningsOf } from "./names.js";
import { part } from "./part.js";
import { drawPicture } from "./picture.js";
import { announce } from "./result.js";
import { writeTable } from "./table.js";

const element = (id) => document.getElementById(id);

/** Offer it for the session and for the film that `viewer` shows. */
export function watchTakeaway(session, viewer) {
  element("save-table").addEventListener("click", () => {
    const table = new Blob(["\ufeff", writeTable(session.films)], { type: "text/csv" });
    save(table, "resformer-results.csv");
  });
  element("copy-text").addEventListener("click", async () => {
    const text = describe(session.current).join("\n");
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("This browser does not let the page copy. Save the table instead.");
    }
  });
  element("save-picture").addEventListener("click", async () => {
    const film = session.current;
    const picture = await drawPicture(viewer.main, shownMap(), describe(film));
    save(picture, `${film.name.replace(/.*\//, "").replace(/\.\w+$/, "")}-resformer.png`);
  });
  const { root, image } = viewer.main;
  root.addEventListener("picture", () => (element("save-picture").disabled = image.hidden));
  element("print").addEventListener("click", () => window.print());
  window.addEventListener("beforeprint", () => {
    element("print-head").replaceChildren(
      ...describe(session.current ?? {}).map((line) => part("p", {}, line)),
    );
  });
}

/** What there is to take of a film, or nothing. */
export function offerTakeaway(film) {
  element("takeaway").hidden = !film?.answer;
  say("");
}

/** What the model made of a film, in lines. */
function describe({ name, answer, date, options = {} }) {
  if (!answer?.prediction) {
    return [name ?? "", answer?.error ?? "", DISCLAIMER].filter(Boolean);
  }
  const { prediction, model } = answer;
  const { predicted_class: key, confidence, abstained, track_record: record } = prediction;
  const correction = correctionOf(options);
  const verdict = abstained ? "Uncertain" : `${displayName(key)}, ${percent(confidence)}`;
  const shares = ranked(prediction).map(([one, share]) => `${displayName(one)} ${percent(share)}`);
  return [
    `Film: ${name}${correction && `, ${correction} before it was read`}`,
    `Model’s estimate: ${verdict}`,
    `Shares: ${shares.join(", ")}`,
    ...(record && !abstained
      ? [`Track record: of ${record.called} test films called so, ${record.right} were labelled so`]
      : []),
    ...warningsOf(answer).map((warning) => `Warning: ${warning}`),
    ...(model ? [`Model: ${model.name} ${model.version}, SHA-256 ${model.sha256}`] : []),
    `Date: ${new Date(date).toLocaleString()}`,
    DISCLAIMER,
  ];
}

function save(content, name) {
  const link = part("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`Saved as ${name}.`);
}

function say(text) {
  element("takeaway-text").textContent = text;
  if (text) {
    announce(text);
  }
}
