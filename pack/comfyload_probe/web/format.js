// How a number is written. What is not a finite number is written "–": unknown is never 0.

export const UNKNOWN = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);
const two = (value) => String(value).padStart(2, "0");

/** Milliseconds as "6 ms", "1.72 s", "12.4 s", "3:05" or "1:02:03". */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 0.05) return "0 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  return clock(ms / 1000);
}

/** Seconds that count up: "0.4 s", "12 s", "3:05", "1:02:03". */
export function counted(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  return seconds < 59.5 ? `${Math.round(seconds)} s` : clock(seconds);
}

function clock(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** How long ago, both instants by the same clock: "now", "12 s ago", "4 min ago", "2 h ago". */
export function ago(seconds) {
  if (!known(seconds)) return "";
  if (seconds < 1.5) return "now";
  if (seconds < 59.5) return `${Math.round(seconds)} s ago`;
  if (seconds < 3570) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

/** The window that numbers cover, never more than it is: "last hour", "last 23 min", "last 95 s". */
export function covered(seconds) {
  if (!known(seconds)) return "time since the start";
  if (seconds >= 3590) return "last hour";
  return seconds < 120 ? `last ${Math.max(1, Math.floor(seconds))} s` : `last ${Math.floor(seconds / 60)} min`;
}

/** Bytes as GiB, one decimal, without the unit. */
export function gibibytes(bytes) {
  return known(bytes) ? (bytes / 2 ** 30).toFixed(1) : UNKNOWN;
}

/** A number without decimals and its unit: "87 %". */
export function whole(value, unit) {
  return known(value) ? `${Math.round(value)} ${unit}` : UNKNOWN;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** The time of day of a Unix instant, in the reader's own zone. */
export function timeOfDay(unix_s) {
  return known(unix_s) ? new Date(unix_s * 1000).toLocaleTimeString() : UNKNOWN;
}
