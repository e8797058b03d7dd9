/* The switch “Compute here, send nothing”, and what the page says of it. */

import { computesHere } from "./classify.js";
import { prepare } from "./local.js";
import { keepSite } from "./offline.js";

const KEY = "compute-here";
const LIMITS = "“Show why” needs a server.";
const NOT_KEPT = "The browser could not keep the page for use without a connection.";
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

if (compute) {
  compute.checked = localStorage.getItem(KEY) === "1";
  compute.addEventListener("change", () => {
    localStorage.setItem(KEY, compute.checked ? "1" : "0");
    start();
  });
}
start();
