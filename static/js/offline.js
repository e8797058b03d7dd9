/* The exported site alone: keep it in the browser, and say when it works without a connection. */

/** Resolves once all of the site is kept; a sentence for people. */
export async function keepSite() {
  if (!("serviceWorker" in navigator)) {
    return "To work without a connection, this page has to come by https.";
  }
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    await new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    });
  }
  return "This page now works without a connection.";
}
