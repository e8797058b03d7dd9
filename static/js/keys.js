/* One key for each thing to do, as the list of keys on the page has them; they can be switched off. */

const element = (id) => document.getElementById(id);
const KEPT = "resformer.keys";
const ARROWS = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

/** Listen for keys: `session` and `viewer` are worked on, other things to do are buttons. */
export function watchKeys(session, viewer) {
  const press = (id) => () => element(id).checkVisibility() && element(id).click();
  const keys = {
    j: () => session.step(1),
    k: () => session.step(-1),
    ArrowRight: () => session.step(1),
    ArrowLeft: () => session.step(-1),
    "+": () => viewer.zoom(1),
    "=": () => viewer.zoom(1),
    "-": () => viewer.zoom(-1),
    0: () => viewer.reset(),
    w: () => viewer.window(10, 0),
    W: () => viewer.window(-10, 0),
    l: () => viewer.window(0, 5),
    L: () => viewer.window(0, -5),
    i: () => viewer.invert(),
    r: () => viewer.rotate(90),
    R: () => viewer.rotate(270),
    f: () => viewer.fill(),
    m: () => viewer.use("move"),
    d: () => viewer.use("window"),
    c: press("compare"),
    e: press("show-why"),
    o: () => element("file").click(),
    "?": press("show-keys"),
  };

  document.addEventListener("keydown", (event) => {
    const isHandled = event.defaultPrevented; // the list of films has arrows of its own
    if (isHandled || event.ctrlKey || event.altKey || event.metaKey || element("keys").open) {
      return;
    }
    const isTyping = event.target.closest("input:not([type=file]), select, textarea");
    const isOnZoomed = event.target.closest("[data-zoomed] .panes");
    const act = event.key in ARROWS && isOnZoomed
      ? () => viewer.pan(...ARROWS[event.key])
      : Object.hasOwn(keys, event.key) && element("keys-on").checked && keys[event.key];
    if (act && !isTyping) {
      event.preventDefault();
      act();
    }
  });

  element("keys-on").checked = sessionStorage.getItem(KEPT) !== "off";
  element("keys-on").addEventListener("change", () => {
    sessionStorage.setItem(KEPT, element("keys-on").checked ? "on" : "off");
  });
  element("show-keys").addEventListener("click", () => element("keys").showModal());
  element("keys-close").addEventListener("click", () => element("keys").close());
}
