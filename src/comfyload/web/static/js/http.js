// Plain requests: what can be cached is read here, and what a person does is sent from here.
import { useEffect, useState } from "./ui.js";

/** An answer that says no. `hint`: what to do about it, "" if there is none. */
export class Refused extends Error {
  /** @param {string} words @param {string} [hint] @param {any} [body] @param {number} [status] */
  constructor(words, hint = "", body = {}, status = 0) {
    super(words);
    this.status = status;
    this.hint = hint;
    this.body = body;
  }
}

/** @type {Promise<any> | undefined} */
let session;

/** Who serves this page, and the token that actions need. */
export function theSession() {
  session ??= get("session").catch((error) => {
    session = undefined;
    throw error;
  });
  return session;
}

/** @param {string} path Below `ui/`. */
export function url(path) {
  return new URL(`ui/${path}`, document.baseURI).href;
}

/** @param {string} id */
export const ofRun = (id) => `runs/${encodeURIComponent(id)}`;

/** @param {string} path @returns {Promise<any>} */
export async function get(path) {
  return answer(fetch(url(path), { headers: { Accept: "application/json" } }));
}

/** @param {string} path @param {object} [body] @returns {Promise<any>} */
export async function post(path, body = {}) {
  return sent(path, JSON.stringify(body)).catch((error) => {
    if (error.status !== 403) throw error;
    session = undefined; // it may have been started anew, with another token
    return sent(path, JSON.stringify(body));
  });
}

/** @param {string} path @param {string} body */
async function sent(path, body) {
  const { token } = await theSession();
  const headers = { "Content-Type": "application/json", "X-Comfyload-Token": token };
  return answer(fetch(url(path), { method: "POST", headers, body }));
}

/** @param {Promise<Response>} asked */
async function answer(asked) {
  const got = await asked.catch(() => {
    throw new Refused("comfyload does not answer.", "Is `comfyload ui` still running?");
  });
  const text = await got.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = {};
  }
  if (got.ok) return body;
  if (got.status === 401) location.reload(); // to the page that asks for the token
  throw new Refused(body.error || `The answer was ${got.status}.`, body.hint, body, got.status);
}

/**
 * What an address answers, read when it changes. `path` "": nothing is asked.
 * @param {string} path
 * @param {unknown} [again] Another value reads it again.
 */
export function useGet(path, again) {
  const [state, set] = useState(/** @type {{ path: string, data?: any, error?: Refused }} */ ({ path: "" }));
  useEffect(() => {
    if (!path) return;
    let live = true;
    get(path).then(
      (data) => live && set({ path, data }),
      (error) => live && set({ path, error }),
    );
    return () => {
      live = false;
    };
  }, [path, again]);
  return state.path === path ? state : { path, data: undefined, error: undefined };
}
