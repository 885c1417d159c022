// Words and signs of states, and instants as people read them.

/** @type {Record<string, { word: string, icon: string }>} */
export const BADGES = {
  pending: { word: "Pending", icon: "clock" },
  rendering: { word: "Rendering", icon: "play" },
  attention: { word: "Needs attention", icon: "alert" },
  done: { word: "Done", icon: "check" },
  ended: { word: "Ended", icon: "dash" },
};

/** @type {Record<string, string>} Finer states that have a sign of their own. */
export const FINE_ICONS = { retrying: "again", cached: "bolt", lost: "question", timeout: "hourglass" };

/** @type {Record<string, { word: string, icon: string, look: string, hint?: string }>} How a run stands. */
export const RUN_STATES = {
  running: { word: "Running", icon: "play", look: "rendering" },
  complete: { word: "Complete", icon: "check", look: "done" },
  stopped: { word: "Stopped", icon: "stop", look: "ended", hint: "No more jobs were sent; those that ran were waited for." },
  cancelled: { word: "Cancelled", icon: "dash", look: "ended", hint: "It was ended early, and its jobs were taken off the server." },
  crashed: { word: "Crashed", icon: "alert", look: "attention" },
  decided: { word: "Decided", icon: "check", look: "done", hint: "It ended as soon as its gates were decided." },
  capped: { word: "Capped", icon: "stop", look: "ended", hint: "It had all the jobs that it may have, and its gates are not decided." },
  "lost sight": { word: "Broken off", icon: "question", look: "retrying", hint: "It has no end, and no process is at work in it: it was killed, or its machine went down." },
};

/** @param {string} state */
export const runState = (state) => RUN_STATES[state] ?? { word: state, icon: "dash", look: "ended", hint: "" };

/** @type {Record<string, string>} */
export const VERDICTS = { PASS: "good", "PASS*": "good", ok: "good", FAIL: "bad", INCONCLUSIVE: "doubt" };

const GROUPS = new Intl.NumberFormat("en", { useGrouping: true });

/** @param {number} count */
export const counted = (count) => GROUPS.format(count).replaceAll(",", "\u202f");

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${counted(count)} ${noun}${count === 1 ? "" : "s"}`;

/**
 * A measured time, written as the report writes it: 12.3 s, 0.842 s, 3.4 ms.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const [value, unit, most] = Math.abs(seconds) < 0.1 ? [1000 * seconds, "ms", 1] : [seconds, "s", 3];
  const size = Math.abs(Number(value.toPrecision(3)));
  const places = size ? Math.min(most, Math.max(0, 2 - Math.floor(Math.log10(size)))) : 0;
  return `${size < 1000 ? value.toFixed(places) : counted(Math.round(value))} ${unit}`;
}

/**
 * An instant of a run, or a time that a person chose: 45 s, 2:05, 1:00:00.
 * @param {number} seconds
 */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.abs(seconds);
  if (s === 0) return "0 s";
  if (s < 1) return `${Number((1000 * seconds).toPrecision(s < 0.1 ? 2 : 3))} ms`;
  if (s < 60) return `${seconds.toFixed(s < 10 ? 1 : 0)} s`;
  const whole = Math.round(s);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** @param {string} utc */
export function moment(utc) {
  const date = new Date(utc);
  if (!utc || Number.isNaN(date.valueOf())) return "";
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return date.toLocaleString("en-GB", { year, day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** @param {string} address */
export const host = (address) => address.replace(/^https?:\/\//, "").replace(/\/$/, "");

/** @param {number} value */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return counted(Math.round(value));
  return String(Number(value.toPrecision(3)));
}
