// Addresses behind the `#`: which view is shown, of what, and with which filters. Each can be shared.
import { signal } from "./ui.js";

/**
 * @typedef {object} Place
 * @property {string} view
 * @property {string[]} path What follows the view, decoded: a run's id, a job's number.
 * @property {Record<string, string>} query
 */

/** @returns {Place} */
function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/").map(decoded);
  return { view: view || "now", path: rest, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const place = signal(read());
addEventListener("hashchange", () => {
  place.value = read();
});

/**
 * The address of a view.
 * @param {string[]} path
 * @param {Record<string, string | number | undefined>} [query] What is empty is left out.
 */
export function address(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** @param {string} to */
export function go(to) {
  location.hash = to;
}

/**
 * Change filters of the view that is shown, without a step in the browser's history.
 * @param {Record<string, string | number | undefined>} changed
 */
export function refine(changed) {
  const { view, path, query } = place.value;
  history.replaceState(null, "", address([view, ...path], { ...query, ...changed }));
  place.value = read();
}
