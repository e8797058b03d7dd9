/* The switch “Compute here, send nothing”, and what the page says of it. */

import { computesHere } from "./classify.js";
import { prepare } from "./local.js";

const KEY = "compute-here";
const LIMITS = "“Show why” and the details of a DICOM file need a server.";
const NOT_KEPT = "The browser could not store the page for use without a connection.";
const compute = document.getElementById("compute-here"); // absent on a site without a server
const text = document.getElementById("compute-text");

async function start() {
  document.body.toggleAttribute("data-computes-here", computesHere());
  if (!computesHere()) {
    text.textContent = "";
    return;
  }
  text.textContent = "Fetching the model, about 10 MB, once…";
  try {
    const kept = compute ? "" : await keepSite().catch(() => NOT_KEPT);
    await prepare(text.dataset.model);
    text.textContent = `Films are read in this browser and sent nowhere. ${LIMITS} ${kept}`;
  } catch (error) {
    text.textContent = error.message;
  }
}

/** Keep the exported site in the browser; resolves, once all of it is there, to a sentence for people. */
async function keepSite() {
  if (!("serviceWorker" in navigator)) {
    return "To work without a connection, this page must come over https.";
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

if (compute) {
  compute.checked = localStorage.getItem(KEY) === "1";
  compute.addEventListener("change", () => {
    localStorage.setItem(KEY, compute.checked ? "1" : "0");
    start();
  });
}
start();
