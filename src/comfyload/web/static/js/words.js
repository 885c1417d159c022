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

/** @type {Record<string, { word: string, icon: string, look: string }>} How a run stands. */
export const RUN_STATES = {
  running: { word: "Running", icon: "play", look: "rendering" },
  complete: { word: "Complete", icon: "check", look: "done" },
  stopped: { word: "Stopped", icon: "stop", look: "ended" },
  cancelled: { word: "Cancelled", icon: "dash", look: "ended" },
  crashed: { word: "Crashed", icon: "alert", look: "attention" },
  decided: { word: "Decided", icon: "check", look: "done" },
  capped: { word: "Capped", icon: "stop", look: "ended" },
  "lost sight": { word: "Lost sight", icon: "question", look: "retrying" },
};

/** @param {string} state */
export const runState = (state) => RUN_STATES[state] ?? { word: state, icon: "dash", look: "ended" };

/** @type {Record<string, string>} */
export const VERDICTS = { PASS: "good", "PASS*": "good", ok: "good", FAIL: "bad", INCONCLUSIVE: "doubt" };

const GROUPS = new Intl.NumberFormat("en", { useGrouping: true });

/** @param {number} count */
export const counted = (count) => GROUPS.format(count).replaceAll(",", "\u202f");

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${counted(count)} ${noun}${count === 1 ? "" : "s"}`;

/**
 * Seconds as people read them beside an axis or a countdown.
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
  return date.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
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
