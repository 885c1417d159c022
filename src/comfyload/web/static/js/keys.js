// Keys: one listener for the page. A list that can be walked answers `j` and `k` itself.
import { address, go, place } from "./router.js";
import { signal } from "./ui.js";

/** @type {[keys: string, does: string][]} As the page of keys shows them. */
export const KEYS = [
  ["j  k", "next, previous in the list"],
  ["Enter", "open what is marked"],
  ["/", "search"],
  ["Esc", "back: close, clear the search, leave the job"],
  ["g n", "Now"],
  ["g r", "Runs"],
  ["g b", "Baselines"],
  ["g t", "Trend"],
  ["g s", "Start"],
  ["g a", "Advice"],
  ["g v", "Servers"],
  ["[  ]", "previous, next job"],
  ["+  −  0", "zoom into a chart, out, whole run (arrows move)"],
  ["w", "wall screen"],
  ["d", "dark or light"],
  ["?", "these keys"],
];

const VIEWS = { n: "now", r: "runs", b: "baselines", t: "trend", s: "start", a: "advice", v: "servers", c: "compare" };
export const helpShown = signal(false);
let prefixed = 0;

/** @param {EventTarget | null} target */
const writing = (target) =>
  target instanceof HTMLElement &&
  (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));

/** @param {() => void} turnTheme */
export function listen(turnTheme) {
  document.addEventListener("click", (event) => {
    if (event.target instanceof Element && event.target.closest('[data-keys="?"]')) helpShown.value = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape") return back(event);
    if (writing(event.target) || document.querySelector("dialog[open]")) return;
    if (prefixed && performance.now() - prefixed < 1500) {
      prefixed = 0;
      const view = VIEWS[/** @type {keyof typeof VIEWS} */ (event.key)];
      if (view) {
        event.preventDefault();
        go(address([view]));
      }
      return;
    }
    const act = ACTS[event.key];
    if (event.key === "d") turnTheme();
    if (act && act() !== false) event.preventDefault();
  });
}

/** @type {Record<string, () => unknown>} */
const ACTS = {
  g: () => {
    prefixed = performance.now();
  },
  "?": () => {
    helpShown.value = true;
  },
  "/": () => focusOn("[data-search]"),
  j: () => focusOn("[data-walk] [tabindex='0'], [data-walk] a"),
  k: () => focusOn("[data-walk] [tabindex='0'], [data-walk] a"),
  "[": () => press("[data-step='before']"),
  "]": () => press("[data-step='after']"),
  w: () => {
    const { view, path, query } = place.value;
    go(address([view, ...path], { ...query, wall: query.wall ? "" : "1" }));
  },
};

/** @param {string} selector */
function focusOn(selector) {
  const found = /** @type {HTMLElement | null} */ (document.querySelector(selector));
  found?.focus();
  return Boolean(found);
}

/** @param {string} selector */
function press(selector) {
  const found = /** @type {HTMLElement | null} */ (document.querySelector(selector));
  found?.click();
  return Boolean(found);
}

/** @param {KeyboardEvent} event */
function back(event) {
  if (helpShown.value) return;
  if (event.target instanceof HTMLInputElement && event.target.dataset.search !== undefined) {
    if (event.target.value) {
      event.target.value = "";
      event.target.dispatchEvent(new Event("input", { bubbles: true }));
    } else event.target.blur();
    return;
  }
  if (writing(event.target)) return /** @type {HTMLElement} */ (event.target).blur();
  if (place.value.query.wall) return void ACTS.w();
  press("[data-back]");
}

/**
 * Walk a plain list of links: what `j`, `k` and the arrows do in it.
 * @param {KeyboardEvent} event
 */
export function walk(event) {
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || writing(event.target)) return;
  const list = /** @type {HTMLElement} */ (event.currentTarget);
  const items = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("[data-item]")]);
  const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  items[Math.min(Math.max(at + step, 0), items.length - 1)]?.focus();
  event.preventDefault();
}
