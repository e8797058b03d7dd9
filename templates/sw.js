/* Keeps the whole site in the browser, so that it works without a connection. */

const FILES = {{ files | tojson }};
const CACHE = `${self.registration.scope} {{ version }}`;

self.addEventListener("install", (event) => {
  // What the page has fetched already comes from the browser, if the server has not changed it.
  const wanted = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(wanted)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetEarlier().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  event.respondWith(answer(event.request));
});

async function forgetEarlier() {
  const own = (await caches.keys()).filter((name) => name.startsWith(`${self.registration.scope} `));
  await Promise.all(own.filter((name) => name !== CACHE).map((name) => caches.delete(name)));
}

async function answer(request) {
  const kept = await caches.open(CACHE).then((cache) => cache.match(request, { ignoreSearch: true }));
  return kept ?? fetch(request);
}
