// One socket for the tab. A watch is a state: the newest arrives, and nothing queues.
import { signal, useEffect, useMemo, useRef } from "./ui.js";

/**
 * @typedef {object} Watch
 * @property {number} number
 * @property {string} view
 * @property {object} params
 * @property {number} users
 * @property {import("../vendor/signals-core.js").Signal} data Newest state; undefined: none came yet.
 * @property {import("../vendor/signals-core.js").Signal} error Words; "" without one.
 */

/** `open`, `opening` or `lost`; then `again` is when it is tried again, in ms of performance.now(). */
export const link = signal({ state: "opening", again: 0 });

/** @type {Map<string, Watch>} */
const watches = new Map();
/** @type {Map<number, Watch>} */
const numbered = new Map();
/** @type {Map<number, number>} States that came and are not painted yet, by their watches. */
const fresh = new Map();
const LATEST_MS = 1000;
let numbers = 0;
let failures = 0;
/** @type {WebSocket | undefined} */
let socket;

export function connect() {
  link.value = { state: failures ? "lost" : "opening", again: 0 };
  const url = new URL("ui/ws", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = opened;
  socket.onmessage = (event) => take(event.data);
  socket.onclose = closed;
}

function opened() {
  failures = 0;
  link.value = { state: "open", again: 0 };
  fresh.clear();
  say({ painted: [] });
  if (document.hidden) say({ visible: false });
  for (const watch of watches.values()) ask(watch);
}

function closed() {
  failures += 1;
  const wait = Math.min(500 * 2 ** Math.min(failures - 1, 5), 10_000);
  link.value = { state: "lost", again: performance.now() + wait };
  setTimeout(connect, wait);
}

/** @param {object} message */
function say(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

/** @param {Watch} watch */
function ask(watch) {
  say({ watch: watch.number, view: watch.view, params: watch.params });
}

/** @param {string | ArrayBuffer} frame */
function take(frame) {
  const message = typeof frame === "string" ? JSON.parse(frame) : columnsOf(frame);
  const watch = numbered.get(message.watch);
  if (!watch) return;
  if (!fresh.size) whenPainted(() => (say({ painted: [...fresh] }), fresh.clear()));
  fresh.set(message.watch, message.seq);
  if (message.error) {
    watch.error.value = [message.error, message.hint].filter(Boolean).join(": ");
    return;
  }
  watch.error.value = "";
  watch.data.value = message.data;
}

/** Calls after the next frame, so that a busy tab is sent no more than it paints; a second later where none is drawn. @param {() => void} then */
function whenPainted(then) {
  let told = false;
  const once = () => {
    if (!told) then();
    told = true;
  };
  requestAnimationFrame(() => setTimeout(once));
  setTimeout(once, LATEST_MS);
}

/** @param {ArrayBuffer} frame */
function columnsOf(frame) {
  const length = new DataView(frame).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(frame, 4, length)));
  const columns = head.names.map(
    (/** @type {string} */ _, /** @type {number} */ i) => new Float32Array(frame, 4 + length + 4 * i * head.n, head.n),
  );
  return { watch: head.watch, seq: head.seq, data: { ...head, columns } };
}

document.addEventListener("visibilitychange", () => say({ visible: !document.hidden }));

/**
 * Begin to watch, or join those who watch the same.
 * @param {string} view
 * @param {object} params
 * @returns {Watch}
 */
export function begin(view, params) {
  const key = JSON.stringify([view, params]);
  let watch = watches.get(key);
  if (!watch) {
    numbers += 1;
    watch = { number: numbers, view, params, users: 0, data: signal(undefined), error: signal("") };
    watches.set(key, watch);
    numbered.set(watch.number, watch);
    ask(watch);
  }
  watch.users += 1;
  return watch;
}

/** @param {Watch} watch */
export function end(watch) {
  watch.users -= 1;
  if (watch.users) return;
  watches.delete(JSON.stringify([watch.view, watch.params]));
  numbered.delete(watch.number);
  say({ unwatch: watch.number });
}

/**
 * What is watched by a component. Until the first state of new parameters comes, the last one of the same `of` stays.
 * @param {string} view
 * @param {Record<string, any> | null} params null: nothing is watched yet.
 * @param {string} [of]
 * @returns {{ data: any, error: string }}
 */
export function useWatch(view, params, of = view) {
  const key = JSON.stringify([view, params]);
  const watch = useMemo(() => (params ? begin(view, params) : null), [key]);
  useEffect(() => () => watch && end(watch), [watch]);
  const last = useRef({ of: "", data: undefined });
  const data = watch?.data.value;
  if (data !== undefined) last.current = { of, data };
  return { data: data ?? (last.current.of === of ? last.current.data : undefined), error: watch?.error.value ?? "" };
}
