// Two runs or baselines, B against A: the verdict, both in one picture, and what differs in their servers.
import { Plot } from "../chart.js";
import { useGet } from "../http.js";
import { Empty, Failing, Icon, Loading } from "../parts.js";
import { Page, States } from "../page.js";
import { address, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useMemo, useState } from "../ui.js";

const KEPT = "baseline:";

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const { a = "", b = "", accept = "", paired = "" } = place.query;
  const asked = new URLSearchParams([["a", a], ["b", b], ...accept.split(",").filter(Boolean).map((key) => ["accept", key]), ...(paired ? [["paired", "1"]] : [])]);
  const { data, error } = useGet(a && b ? `compare?${asked}` : "");
  return html`
    <nav class="crumbs" aria-label="Where this is"><a data-back href=${address(["runs"])}>Runs</a> <span aria-hidden="true">/</span> <span>Compare</span></nav>
    <header class="head"><div class="head-words"><h1>Compare</h1><p class="muted">Is B faster than A, slower, or the same?</p></div></header>
    <${Sides} a=${a} b=${b} paired=${paired} />
    ${!a || !b ? html`<${Empty} title="Choose two" icon="compare"><p>A is what it was before, such as a baseline; B is what you want to judge, such as today's run.</p><//>`
      : error ? html`<${Refusal} error=${error} accept=${accept} />`
      : !data ? html`<${Loading} what="the comparison" />`
      : html`<${States} states=${data.page.states} /><${Overlaid} a=${a} b=${b} /><${Page} page=${{ ...data.page, states: [], facts: data.page.facts?.filter((/** @type {any} */ line) => !["A", "B"].includes(line.label)) }} />`}
    ${a && b && html`<${Environment} a=${a} b=${b} />`}`;
}

/** @param {any} props */
function Sides({ a, b, paired }) {
  const { data } = useWatch("runs", {});
  const { data: archive } = useGet("archive");
  const side = (/** @type {string} */ name, /** @type {string} */ chosen) => html`<label class="side"><span><b>${name.toUpperCase()}</b> <span class="muted">${name === "a" ? "before" : "after"}</span></span>
    <select onChange=${(/** @type {any} */ e) => refine({ [name]: e.currentTarget.value, accept: "" })}>
      <option value="" selected=${!chosen}>choose …</option>
      ${chosen && ![...(data?.runs ?? []).map((/** @type {any} */ run) => run.id), ...(archive?.baselines ?? []).map((/** @type {any} */ one) => KEPT + one.name)].includes(chosen) && html`<option value=${chosen} selected>${chosen}</option>`}
      ${archive?.baselines.length > 0 && html`<optgroup label="Baselines">${archive.baselines.map((/** @type {any} */ one) => html`<option key=${one.name} value=${KEPT + one.name} selected=${chosen === KEPT + one.name}>${one.name}${one.promoted ? " (promoted)" : ""}</option>`)}</optgroup>`}
      <optgroup label="Runs">${(data?.runs ?? []).map((/** @type {any} */ run) => html`<option key=${run.id} value=${run.id} selected=${chosen === run.id}>${run.id}</option>`)}</optgroup>
    </select></label>`;
  return html`<div class="sides">${side("a", a)}<button type="button" class="button" aria-label="Swap A and B" onClick=${() => refine({ a: b, b: a })}><${Icon} name="swap" /></button>${side("b", b)}
    <label class="check"><input type="checkbox" checked=${Boolean(paired)} onChange=${(/** @type {any} */ e) => refine({ paired: e.currentTarget.checked ? "1" : "" })} /> <span>in alternating pairs, as <code>comfyload ab</code> runs them</span></label></div>`;
}

/** @param {any} props */
function Refusal({ error, accept }) {
  const { differences = [], accept: keys = [] } = error.body ?? {};
  return html`<${Failing} error=${differences.length ? { message: error.message, hint: "They differ in more than what is to be judged." } : error} />
    ${differences.length > 0 && html`<section class="panel page"><h2>What differs</h2><ul class="plain">
      ${differences.map((/** @type {any} */ one) => html`<li key=${one.key}><b>${one.key}</b>: ${one.a} <span class="muted">against</span> ${one.b}<p class="muted">${one.why}</p></li>`)}</ul>
      <p><button type="button" class="button" onClick=${() => refine({ accept: [...accept.split(",").filter(Boolean), ...keys].join(",") })}>Compare them anyway</button></p></section>`}`;
}

/** @param {{ a: string, b: string }} props Charts of both, from their beginnings. */
function Overlaid({ a, b }) {
  if (a.startsWith(KEPT) || b.startsWith(KEPT)) return null;
  return html`<section class="charts two" aria-label="Both in one picture">${["latency", "queue"].map((chart) => html`<${Both} key=${chart} a=${a} b=${b} chart=${chart} />`)}</section>`;
}

/** @param {any} props */
function Both({ a, b, chart }) {
  const [width, setWidth] = useState(600);
  const params = { chart, from_s: null, to_s: null, width: Math.max(100, Math.round(width / 20) * 20) };
  const ours = useWatch("chart", { run: a, ...params }, `${a} ${chart}`);
  const theirs = useWatch("chart", { run: b, ...params }, `${b} ${chart}`);
  const data = useMemo(() => (ours.data && theirs.data ? together(ours.data, theirs.data) : undefined), [ours.data, theirs.data]);
  return html`<${Plot} title=${ours.data?.title ?? chart} unit=${ours.data?.unit ?? ""} data=${data} error=${ours.error || theirs.error} draw=${ours.data?.draw === "points" ? "points" : "line"} onWidth=${setWidth} sync="compare" gaps />`;
}

/** The first series of both on one axis, each from its run's first instant. @param {any} a @param {any} b */
function together(a, b) {
  const begin = [a, b].map((data) => data.columns[0]?.[0] ?? 0);
  const times = [a, b].map((data, i) => Array.from(data.columns[0] ?? [], (t) => t - begin[i]));
  const all = Float32Array.from([...new Set([...times[0], ...times[1]])].sort((x, y) => x - y));
  const place = new Map(Array.from(all, (t, i) => [Math.fround(t), i]));
  /** @type {Float32Array[]} */
  const columns = [all];
  /** @type {string[]} */
  const names = ["t"];
  [a, b].forEach((data, i) => {
    const first = data.names[1]?.replace(/[ .:_](min|max|last)$/, "");
    data.names.forEach((/** @type {string} */ name, /** @type {number} */ n) => {
      if (n === 0 || name.replace(/[ .:_](min|max|last)$/, "") !== first) return;
      const column = new Float32Array(all.length).fill(Number.NaN);
      times[i].forEach((t, at) => {
        column[place.get(Math.fround(t)) ?? 0] = data.columns[n][at];
      });
      columns.push(column);
      names.push(name.replace(first, i ? "B" : "A"));
    });
  });
  return { names, columns };
}

/** @param {{ a: string, b: string }} props */
function Environment({ a, b }) {
  const [open, setOpen] = useState(false);
  const { data, error } = useGet(open ? `environment?${new URLSearchParams([["a", a], ["b", b]])}` : "");
  return html`<details class="panel folded after" onToggle=${(/** @type {any} */ e) => setOpen(e.currentTarget.open)}><summary><h2>What differs in servers and machines</h2></summary>
    ${error ? html`<${Failing} error=${error} />` : data ? html`<${Page} page=${data.page} />` : open && html`<${Loading} />`}</details>`;
}
