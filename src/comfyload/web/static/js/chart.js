// Charts: a line, and a band from the least to the most of what a pixel column stands for. Zoom asks the server again.
import uPlot from "../vendor/uplot.js";
import { dark } from "./look.js";
import { useWatch } from "./socket.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "./ui.js";
import { short, span } from "./words.js";

/**
 * @typedef {object} Series
 * @property {string} name
 * @property {Float32Array} line
 * @property {Float32Array} [low]
 * @property {Float32Array} [high]
 */

/**
 * The columns of a chart as series: `execution last` is the line, `execution min` and `execution max` are its band.
 * @param {{ names: string[], columns: Float32Array[], from_s?: number }} data `from_s`: the instant from which `t` counts.
 * @returns {{ t: Float64Array, series: Series[] }}
 */
export function seriesOf({ names, columns, from_s = 0 }) {
  /** @type {Map<string, any>} */
  const found = new Map();
  for (let i = 1; i < names.length; i += 1) {
    const [, name, part] = /^(.*?)[ .:_](min|max|last)$/.exec(names[i]) ?? ["", names[i], "last"];
    const series = found.get(name) ?? { name };
    series[part === "min" ? "low" : part === "max" ? "high" : "line"] = columns[i];
    found.set(name, series);
  }
  return { t: Float64Array.from(columns[0] ?? [], (t) => t + from_s), series: [...found.values()].filter((series) => series.line) };
}

/** @param {string} name */
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** @param {string} colour @param {number} alpha */
function faint(colour, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

/**
 * @param {{ run: string, head: { name: string, title: string, unit: string, draw?: string }, from: number, to: number, tall?: boolean, onZoom: (from: number, to: number) => void, bind?: object }} props
 * `from`, `to`: instants of the run; 0 and 0: all of it.
 */
export function LiveChart({ run, head, from, to, tall = false, onZoom }) {
  const [width, setWidth] = useState(0);
  const params = { run, chart: head.name, from_s: from || null, to_s: to || null, width: Math.max(100, Math.round(width / 20) * 20) };
  const { data, error } = useWatch("chart", width ? params : null, `${run} ${head.name}`);
  return html`<${Plot} title=${head.title} unit=${head.unit} data=${data} error=${error} tall=${tall} sync=${run} draw=${head.draw ?? data?.draw ?? "line"}
    onWidth=${setWidth} onZoom=${onZoom} from=${from} to=${to} />`;
}

/** @param {any} props A chart of columns that are here. */
export function Plot({ title, unit, data, error, tall, sync, onWidth, onZoom, from, to, draw = "line", gaps = false, xText = clock, lines = null, top = 0 }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const readout = useRef(/** @type {HTMLElement | null} */ (null));
  const [size, setSize] = useState(0);
  const [tallness, setTallness] = useState(0);
  const found = useMemo(() => (data ? seriesOf(data) : null), [data]);
  const any = Boolean(found?.series.length && found.t.length);
  const marks = useRef(lines);
  marks.current = lines;
  const reach = useRef(/** @type {number[] | null} */ (null));
  reach.current = data?.to_s > data?.from_s ? [data.from_s, data.to_s] : null;
  const names = found ? found.series.map((s) => s.name).join("\n") : "";

  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (box.current);
    const watcher = new ResizeObserver(() => {
      setSize(element.clientWidth);
      setTallness(element.clientHeight);
      onWidth?.(element.clientWidth);
    });
    watcher.observe(element);
    return () => watcher.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (!found || !size || !any) return;
    const element = /** @type {HTMLElement} */ (box.current);
    const made = new uPlot(options({ found, size, height: element.clientHeight, sync, onZoom, readout, draw, gaps, xText, marks, reach, top }), columnsOf(found, draw), element);
    plot.current = made;
    return () => {
      plot.current = null;
      made.destroy();
    };
  }, [names, any, dark.value, size > 0, sync, draw, top]);
  useLayoutEffect(() => {
    if (plot.current && found) plot.current.setData(columnsOf(found, draw));
  }, [found, lines?.x, lines?.y]);
  useLayoutEffect(() => {
    if (plot.current && size) plot.current.setSize({ width: size, height: tallness });
  }, [size, tallness]);

  const zoomed = Boolean(from || to);
  return html`<figure class="chart ${tall ? "is-tall" : ""}">
    <figcaption><h2>${title}</h2><span class="unit">${unit}</span>
      <span class="legend" ref=${readout}>${found?.series.map((s, i) => html`<span key=${s.name} class="legend-key" style=${{ "--key": `var(${colourOf(s.name, i)})` }}><i aria-hidden="true"></i>${s.name} <b data-series=${i}></b></span>`)}</span>
      ${zoomed && onZoom && html`<button type="button" class="button quiet small" onClick=${() => onZoom(0, 0)}>whole run</button>`}
    </figcaption>
    <div class="plot" ref=${box} role="img" tabindex=${onZoom ? 0 : undefined} aria-label=${inWords(title, unit, found)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => onZoom && zoomByKey(event, found, from, to, onZoom)}>
      ${!found && !error && html`<span class="plot-note">Waiting for data …</span>`}
      ${(error || (found && !any)) && html`<span class="plot-note">${error || (zoomed ? "Nothing was measured in this time." : "Nothing measured yet.")}</span>`}
    </div>
  </figure>`;
}

/** @param {{ t: Float64Array, series: Series[] }} found @param {string} draw */
function columnsOf(found, draw) {
  /** @type {any[]} */
  const columns = [found.t];
  // uPlot leaves a gap at null, and NaN breaks its search for the ends of an axis.
  const known = (/** @type {Float32Array} */ column) => Array.from(column, (value) => (Number.isNaN(value) ? null : value));
  if (draw === "layers") {
    const below = new Float64Array(found.t.length);
    for (const { line } of found.series) {
      columns.push(Array.from(line, (value, i) => (Number.isNaN(value) ? null : (below[i] += value))));
    }
    return columns;
  }
  for (const { line, low, high } of found.series) {
    columns.push(known(line));
    if (low && high) columns.push(known(high), known(low));
  }
  return columns;
}

/** States have their own tones; other series take turns. @param {string} name @param {number} i */
const colourOf = (name, i) => ({ Done: "--done", "Needs attention": "--attention", Ended: "--ended" })[name] ?? `--series-${i % 6}`;

/** @param {any} given */
function options({ found, size, height, sync, onZoom, readout, draw, gaps, xText, marks, reach, top }) {
  const text = token("--muted");
  const grid = { stroke: token("--grid"), width: 1 };
  const ticks = { show: false };
  const font = "11px system-ui, sans-serif";
  /** @type {any[]} */
  const series = [{}];
  /** @type {any[]} */
  const bands = [];
  found.series.forEach((/** @type {Series} */ s, /** @type {number} */ i) => {
    const colour = token(colourOf(s.name, i));
    const at = series.length;
    if (draw === "points") {
      const dots = { stroke: colour, paths: () => null, points: { show: true, size: size > 500 ? 6 : 4, width: 0, fill: faint(colour, 0.75) } };
      series.push({ ...dots, label: s.name, of: i });
      if (s.low && s.high) series.push(dots, dots);
      return;
    }
    const paths = draw === "steps" ? uPlot.paths.stepped({ align: 1 }) : undefined;
    series.push({ label: s.name, stroke: colour, width: 1.5, paths, points: { show: alone, size: 5, fill: colour }, of: i, spanGaps: gaps });
    if (draw === "layers") {
      series[at].layer = i > 0;
      series[at].fill = faint(colour, 0.3);
      if (i) {
        bands.push({ series: [at, at - 1], fill: faint(colour, 0.3) });
        series[at].fill = undefined;
      }
    } else if (s.low && s.high) {
      const edge = { stroke: "transparent", width: 0, paths, points: { show: false } };
      series.push(edge, edge);
      bands.push({ series: [at + 1, at + 2], fill: faint(colour, 0.22) });
    }
  });
  return {
    width: size,
    height,
    series,
    bands,
    legend: { show: false },
    padding: [8, 16, 0, 0],
    cursor: {
      sync: sync ? { key: sync, scales: ["x", null] } : undefined,
      drag: { x: Boolean(onZoom), y: false, setScale: false },
      points: { size: 5 },
      y: false,
    },
    scales: { x: { time: false, range: (/** @type {any} */ _, /** @type {number} */ least, /** @type {number} */ most) => reach.current ?? (most > least ? [least, most] : [least - 1, most + 1]) }, y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, most > 0 ? (top ? Math.min(most * 1.08, top) : most * 1.08) : 1] } },
    axes: [
      { stroke: text, grid: { show: false }, ticks, font, size: 22, gap: 4, space: 60, incrs: xText === clock ? TIMES : undefined, values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map(xText) },
      { stroke: text, grid, ticks, font, size: widthOf, gap: 4, space: height > 180 ? 48 : 30, values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map(short) },
    ],
    hooks: {
      draw: [(/** @type {any} */ u) => drawMarks(u, marks.current)],
      setCursor: [(/** @type {any} */ u) => read(u, readout.current)],
      setSelect: [
        (/** @type {any} */ u) => {
          if (!onZoom || u.select.width < 4) return;
          const [a, b] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          onZoom(a, b);
        },
      ],
      ready: [(/** @type {any} */ u) => onZoom && u.over.addEventListener("dblclick", () => onZoom(0, 0))],
    },
  };
}

/** One value makes no line: it is a dot. @param {any} u @param {number} i */
const alone = (u, i) => u.data[i].filter((/** @type {number | null} */ value) => value != null).length === 1;

/** The room that the numbers beside an axis need. @param {any} _ @param {string[] | null} values */
const widthOf = (_, values) => Math.max(44, 14 + 6.5 * Math.max(0, ...(values ?? []).map((value) => value.length)));

/** Steps of an axis of time, in seconds. */
const TIMES = [0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];

/** @param {number} seconds */
export const clock = (seconds) => (seconds < 60 ? `${Number(seconds.toFixed(seconds < 1 ? 4 : 2))} s` : span(seconds));

/** A limit across, or an instant down, as dashes. @param {any} u @param {{ x?: number, y?: number } | null} marks */
function drawMarks(u, marks) {
  if (!marks) return;
  const { ctx, bbox } = u;
  ctx.save();
  ctx.setLineDash([6, 5]);
  ctx.lineWidth = 1.5 * devicePixelRatio;
  for (const [axis, colour] of [["y", token("--attention")], ["x", token("--ink")]]) {
    const at = marks[/** @type {"x" | "y"} */ (axis)];
    if (at === undefined || at < u.scales[axis].min || at > u.scales[axis].max) continue;
    const place = u.valToPos(at, axis, true);
    ctx.strokeStyle = colour;
    ctx.beginPath();
    ctx.moveTo(axis === "y" ? bbox.left : place, axis === "y" ? place : bbox.top);
    ctx.lineTo(axis === "y" ? bbox.left + bbox.width : place, axis === "y" ? place : bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

/** Values at the cursor, or none. @param {any} u @param {HTMLElement | null} place */
function read(u, place) {
  const at = u.cursor.idx;
  u.series.forEach((/** @type {any} */ series, /** @type {number} */ i) => {
    const out = series.of === undefined ? null : place?.querySelector(`[data-series="${series.of}"]`);
    if (out) out.textContent = at == null || u.data[i][at] == null ? "" : short(series.layer ? u.data[i][at] - (u.data[i - 1]?.[at] ?? 0) : u.data[i][at]);
  });
}

/**
 * The picture for those who do not see it.
 * @param {string} title @param {string} unit @param {{ series: Series[] } | null} found
 */
function inWords(title, unit, found) {
  if (!found?.series.length) return `${title}: nothing yet`;
  const parts = found.series.map(({ name, line, low, high }) => {
    const last = line.findLast((value) => !Number.isNaN(value));
    const least = extreme(low ?? line, Math.min);
    const most = extreme(high ?? line, Math.max);
    return last === undefined ? `${name} none` : `${name} ${short(last)}, from ${short(least)} to ${short(most)}`;
  });
  return `${title}${unit ? `, ${unit}` : ""}: ${parts.join("; ")}`;
}

/** @param {Float32Array} values @param {(a: number, b: number) => number} choose */
const extreme = (values, choose) => values.reduce((kept, value) => (Number.isNaN(value) ? kept : Number.isNaN(kept) ? value : choose(kept, value)), Number.NaN);

/** @param {KeyboardEvent} event @param {any} found @param {number} from @param {number} to @param {(from: number, to: number) => void} onZoom */
function zoomByKey(event, found, from, to, onZoom) {
  if (!found?.t.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const [a, b] = [from || found.t[0], to || found.t[found.t.length - 1]];
  const [middle, half] = [(a + b) / 2, (b - a) / 2];
  const moved = { "+": [middle - half / 2, middle + half / 2], "=": [middle - half / 2, middle + half / 2], "-": [middle - half * 2, middle + half * 2], ArrowLeft: [a - half / 2, b - half / 2], ArrowRight: [a + half / 2, b + half / 2], 0: [0, 0] }[event.key];
  if (!moved) return;
  event.preventDefault();
  if (event.key === "-" && moved[0] <= 0) onZoom(0, 0);
  else onZoom(Math.max(0, moved[0]), Math.max(0, moved[1]));
}
