// The strips: one quantity over the last two minutes as a line, with gaps where nothing was read.

import { set, svg } from "./dom.js";

const SPAN_S = 120;
const GAP_S = 3;
const [WIDTH, HEIGHT] = [120, 24];

/** A strip without data yet; `stepped` for what jumps, such as a queue's length. */
export function strip({ stepped = false } = {}) {
  const area = svg("path", { class: "clp-area" });
  const line = svg("path", { class: "clp-line", "vector-effect": "non-scaling-stroke" });
  const root = svg(
    "svg",
    { class: "clp-strip", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    svg("path", { class: "clp-floor", d: `M0 ${HEIGHT - 0.5}H${WIDTH}`, "vector-effect": "non-scaling-stroke" }),
    area,
    line,
  );
  return { root, area, line, stepped };
}

/**
 * Draw points [{t, value|null}] up to the instant `until` (seconds, the points' clock), from 0 to `top`;
 * `label` says it in words.
 */
export function draw(part, points, { until, top, label }) {
  const runs = unbroken(points.filter(({ t }) => t !== null && t >= until - SPAN_S && t <= until));
  const x = (t) => round((1 - (until - t) / SPAN_S) * WIDTH);
  const y = (value) => round(HEIGHT - 1 - Math.min(1, Math.max(0, value / top)) * (HEIGHT - 3));
  const through = (run) =>
    run
      .map(({ t, value }, at) => {
        if (at === 0) return `M${x(t)} ${y(value)}`;
        return part.stepped ? `H${x(t)}V${y(value)}` : `L${x(t)} ${y(value)}`;
      })
      .join("");
  const seen = runs.map((run) => (run.length > 1 ? run : [run[0], { ...run[0], t: run[0].t + 0.6 }]));
  set(part.line, "d", seen.map(through).join("") || null);
  set(part.area, "d", seen.map((run) => `${through(run)}V${HEIGHT}H${x(run[0].t)}Z`).join("") || null);
  set(part.root, "aria-label", label);
}

/** The points as runs without a hole: an unknown value or more than a few seconds of silence ends one. */
function unbroken(points) {
  const runs = [];
  let before = null;
  for (const point of points) {
    if (point.value !== null) {
      if (before === null || before.value === null || point.t - before.t > GAP_S) runs.push([]);
      runs.at(-1).push(point);
    }
    before = point;
  }
  return runs;
}

/** What a line of values says in words: "now 87 %, lowest 3 %, highest 100 %", or that nothing was read. */
export function inWords(values, written) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return "not reported";
  const last = values.at(-1);
  const now = last === null ? "not reported now" : `now ${written(last)}`;
  return `${now}, lowest ${written(Math.min(...known))}, highest ${written(Math.max(...known))}`;
}

const round = (value) => Math.round(value * 100) / 100;
