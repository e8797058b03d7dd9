/* The operator's key, where the server asks for one: in this page's memory alone. */

import { part } from "./part.js";

let key = null;
let asking = null; // requests that wait for the person wait for the same answer

/**
 * Run `request(headers)` and return what it returns. Where it fails because of the key, ask the
 * person for one and run it again; its failure stands where the person has none.
 */
export async function withKey(request) {
  for (;;) {
    const used = key;
    try {
      return await request(used ? { "X-API-Key": used } : {});
    } catch (error) {
      if (error.answer?.code !== "unauthorized") {
        throw error;
      }
      if (used === key) {
        asking ??= ask(used !== null).finally(() => (asking = null));
        if (!(await asking)) {
          error.message = "This server asks for a key, and none was given.";
          error.answer = { ...error.answer, error: error.message };
          throw error;
        }
      }
    }
  }
}

/** Open a dialog; whether the person gave a key. */
function ask(wasRefused) {
  const dialog = part("dialog", { className: "key-dialog", ariaLabel: "Key of this server" });
  const form = part("form");
  const input = part("input", { type: "password", required: true, pattern: "[ -~]+" });
  input.autocomplete = "off";
  input.title = "Letters, digits and signs of ASCII only";
  const label = part("label", {}, "Key", input);
  const cancel = part("button", { type: "button", className: "button-quiet" }, "Cancel");
  const reason = wasRefused ? "The server does not accept this key. " : "This server asks for a key. ";
  form.append(
    part("p", { role: "status" }, `${reason}Ask its operator for it. The page forgets the key when it is closed.`),
    label,
    part("p", { className: "key-buttons" }, part("button", { className: "button" }, "Continue"), cancel),
  );
  dialog.append(form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let given = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      key = input.value;
      given = true;
      dialog.close();
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(given);
    });
    dialog.showModal();
    input.focus();
  });
}
