// Advice: how many servers a load needs, where a server saturates, and how to retry.
import { Plot } from "../chart.js";
import { Typed } from "../field.js";
import { useGet } from "../http.js";
import { Empty, Failing, Icon, Loading } from "../parts.js";
import { Page, States } from "../page.js";
import { address, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useEffect, useMemo, useRef, useState } from "../ui.js";
import { plural, short, span } from "../words.js";

const TABS = { capacity: "Capacity", saturation: "Saturation", policy: "Retry policy" };

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const tab = place.query.tab && place.query.tab in TABS ? place.query.tab : "capacity";
  const { data: list, error } = useWatch("runs", {});
  const { data: archive } = useGet("archive");
  if (error && !list) return html`<h1>Advice</h1><${Failing} error=${error} />`;
  if (!list) return html`<h1>Advice</h1><${Loading} />`;
  const ended = list.runs.filter((/** @type {any} */ run) => !run.running);
  const whole = ended.filter((/** @type {any} */ run) => ["complete", "decided"].includes(run.state));
  const best = [10, 1].map((least) => whole.find((/** @type {any} */ run) => (run.counts.done ?? 0) >= least)).find(Boolean) ?? ended[0];
  const of = place.query.run || (archive?.promoted ? `baseline:${archive.promoted}` : best?.id) || "";
  const Tab = { capacity: Capacity, saturation: Saturation, policy: Policy }[/** @type {keyof typeof TABS} */ (tab)];
  return html`<header class="head"><div class="head-words"><h1>Advice</h1><p class="muted">What follows from measured times. Nothing is sent to a server.</p></div></header>
    <div class="tabs" role="group" aria-label="About what">${Object.entries(TABS).map(([key, words]) => html`<button key=${key} type="button" aria-pressed=${key === tab ? "true" : "false"} onClick=${() => refine({ tab: key === "capacity" ? "" : key })}>${words}</button>`)}</div>
    ${ended.length === 0 && !archive?.baselines.length
      ? html`<${Empty} title="Advice needs a run" icon="advice"><p>Measure a server first; then this page says how many servers a load needs.</p><p><a class="button primary" href=${address(["start"])}><${Icon} name="start" />Start a run</a></p><//>`
      : html`<${Tab} key=${tab} of=${of} runs=${ended} archive=${archive} query=${place.query} />`}`;
}

/** What the advice rests on. @param {any} props */
function From({ of, runs, archive }) {
  const names = [...(archive?.baselines ?? []).map((/** @type {any} */ one) => `baseline:${one.name}`), ...runs.map((/** @type {any} */ run) => run.id)];
  return html`<label class="side">Measured in <select onChange=${(/** @type {any} */ e) => refine({ run: e.currentTarget.value })}>
    ${!names.includes(of) && html`<option value=${of} selected>${of || "choose …"}</option>`}
    ${names.map((name) => html`<option key=${name} value=${name} selected=${name === of}>${name.replace("baseline:", "baseline ")}</option>`)}
  </select></label>`;
}

/** @param {any} props */
function Capacity({ of, runs, archive, query }) {
  const basis = useGet(of ? `advice/basis?${new URLSearchParams([["of", of]])}` : "");
  const per = basis.data?.capacity_per_minute ?? 0;
  const servers = Number(query.servers) || 1;
  const rate = Number(query.rate) || Number((0.7 * per * servers).toPrecision(2));
  const limit = Number(query.p95) || basis.data?.limit_s || 45;
  const asked = useSettled(`${new URLSearchParams([["of", of], ["servers", String(servers)], ["rate", `${rate}/min`], ["p95", `${limit}s`]])}`);
  const [again, setAgain] = useState(0);
  const fresh = useGet(basis.data && rate > 0 && !asked.includes("rate=0%2F") ? `advice/capacity?${asked}` : "", again);
  const kept = useRef(/** @type {any} */ (null));
  if (fresh.data) kept.current = fresh.data;
  const found = fresh.data ?? kept.current;
  const waiting = found && !found.sizing && found.simulated < found.to_simulate;
  useEffect(() => {
    if (!waiting) return;
    const timer = setTimeout(() => setAgain((n) => n + 1), 700);
    return () => clearTimeout(timer);
  }, [waiting, again, found]);
  const error = basis.error ?? fresh.error;
  return html`<div class="bar bare"><${From} of=${of} runs=${runs} archive=${archive} />
      ${basis.data && html`<span class="muted">${basis.data.jobs} jobs · one server does ${short(per)} a minute · ${basis.data.workflows.map((/** @type {any} */ one, /** @type {number} */ _, /** @type {any[]} */ all) => (all.length > 1 ? `${one.name} ${Math.round(100 * one.share)} %` : one.name)).join(", ")}</span>`}</div>
    ${error && html`<${Failing} error=${error} />`}
    ${!error && !basis.data && html`<${Loading} what="measured times" />`}
    ${basis.data && html`<div class="split advice">
      <section class="panel sliders" aria-label="Load">
        <${Slider} label="Jobs" unit="a minute" value=${rate} least=${0} most=${Math.max(1.2 * per * servers, rate)} step=${Math.max(0.1, Number((per / 100).toPrecision(1)))} words=${short(rate)} onChange=${(/** @type {number} */ v) => refine({ rate: v })} />
        <${Slider} label="95 % of jobs within" unit="s" value=${limit} least=${1} most=${Math.max(180, limit)} step=${1} words=${span(limit)} onChange=${(/** @type {number} */ v) => refine({ p95: v })} />
        <${Slider} label="Servers" unit="" value=${servers} least=${1} most=${basis.data.most_servers} step=${1} words=${String(servers)} onChange=${(/** @type {number} */ v) => refine({ servers: v, rate: query.rate ? rate : "" })} />
      </section>
      <aside class="beside" aria-label="Answer"><${Answer} found=${found} limit=${limit} servers=${servers} /></aside>
    </div>
    ${found && html`<${Curve} found=${found} rate=${rate} limit=${limit} />`}
    ${basis.data.doubts.length > 0 && html`<ul class="plain note">${basis.data.doubts.map((/** @type {string} */ doubt) => html`<li key=${doubt}>${doubt}</li>`)}</ul>`}`}`;
}

/** The value when it has stood still for a moment, so that a slider on its way asks little. @param {string} value */
function useSettled(value) {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), 60);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

/** @param {any} props */
function Slider({ label, unit, value, least, most, step, words, onChange }) {
  const id = `slider-${label.toLowerCase().replace(/\W+/g, "-")}`;
  const typed = (/** @type {string} */ text) => {
    const number = Number(text);
    if (number > 0 && number >= least) onChange(unit ? number : Math.min(Math.round(number), most));
  };
  return html`<div class="slider"><label for=${id}>${label}</label><span><${Typed} id=${id} type="number" min=${least} step="any" value=${value} onDone=${typed} /> ${unit}</span>
    <input type="range" aria-label=${[label, unit].filter(Boolean).join(", ")} min=${least} max=${most} step=${step} value=${value} aria-valuetext=${words} onInput=${(/** @type {any} */ e) => onChange(Number(e.currentTarget.value))} /></div>`;
}

const MEANT = /** @type {Record<string, string>} */ ({ load: "Busy", p50: "Half of the jobs", p95: "95 % of jobs", p99: "99 % of jobs" });

/** @param {any} props */
function Answer({ found, limit, servers }) {
  if (!found) return html`<section><${Loading} what="the answer" /></section>`;
  const look = found.keeps ? "good" : found.may_keep ? "doubt" : "bad";
  const words = found.keeps ? `within ${span(limit)}` : found.may_keep ? `perhaps within ${span(limit)}` : found.stable ? `not within ${span(limit)}` : "too slow: the queue grows without end";
  const facts = Object.entries(found.values).map(([key, value], i) => ({ key, value, unit: found.columns[i].split(", ")[1] ?? "" }));
  return html`<section aria-live="off"><h2>How many servers?</h2><p class="short">${found.sizing || html`<span class="muted">Simulating ${found.simulated + 1} of ${found.to_simulate} servers …</span>`}</p></section>
    <section aria-live="off"><p class="verdict look-${look}"><${Icon} name=${look === "good" ? "check" : look === "bad" ? "alert" : "question"} /><b>${plural(servers, "server")}: ${words}</b></p>
    <dl class="facts">${facts.map(({ key, value, unit }) => {
      const title = key === "late" ? `Longer than ${span(limit)}` : MEANT[key];
      return value && title && html`<div key=${title}><dt>${title}</dt><dd><b>${value.words} ${unit}</b>${value.interval && html` <small class="muted">${value.interval}</small>`}${value.note && html` <small class="muted">${value.note}</small>`}</dd></div>`;
    })}</dl></section>`;
}

/** @param {any} props The p95 over all rates. */
function Curve({ found, rate, limit }) {
  const data = useMemo(() => {
    const { curve } = found;
    const column = (/** @type {(number | null)[]} */ values) => Float32Array.from(values, (value) => value ?? Number.NaN);
    return { names: ["t", "p95 min", "p95 max", "p95 last", "half last"], columns: [curve.rate_per_minute, curve.low_s, curve.high_s, curve.p95_s, curve.p50_s].map(column) };
  }, [found]);
  return html`<div class="charts two one"><${Plot} title="Latency by load" unit="seconds, by jobs a minute" data=${data} xText=${short} lines=${{ x: rate, y: limit }} top=${3 * limit} /></div>`;
}

/** @param {any} props */
function Saturation({ runs, query }) {
  const folders = [...new Set(runs.map((/** @type {any} */ run) => run.id.split("/").slice(0, -1).join("/")).filter(Boolean))];
  const folder = query.folder || folders[0] || "";
  const { data, error } = useGet(folder ? `advice/saturation?${new URLSearchParams([["run", String(folder)], ...(query.p95 ? [["p95", `${query.p95}s`]] : [])])}` : "");
  if (!folders.length) return html`<${Empty} title="No series of loads yet" icon="advice"><p><code>comfyload saturate</code> raises the load step by step; here is what it found.</p><//>`;
  return html`<div class="bar bare"><label class="side">Steps in <select onChange=${(/** @type {any} */ e) => refine({ folder: e.currentTarget.value })}>${folders.map((one) => html`<option key=${one} value=${one} selected=${one === folder}>${one}</option>`)}</select></label>
      <label class="side">95 % of jobs within <${Typed} type="number" class="few" min="0.1" step="any" value=${query.p95 || data?.limit_s || ""} onDone=${(/** @type {string} */ text) => refine({ p95: Number(text) > 0 ? text : "" })} /> s</label></div>
    ${error ? html`<${Failing} error=${error} />` : !data ? html`<${Loading} what="the steps" />` : html`<${States} states=${data.page.states} /><${Hockey} found=${data} /><${Page} page=${{ ...data.page, states: [] }} />`}`;
}

/** The p95 over load, with what to deploy. @param {any} props */
function Hockey({ found }) {
  const data = useMemo(() => {
    const curve = found.curve;
    if (!Array.isArray(curve) || !curve.length) return null;
    const column = (/** @type {(point: any) => number | null} */ of) => Float32Array.from(curve, (point) => of(point) ?? Number.NaN);
    const columns = [column((p) => 60 * p.rate_per_s), column((p) => p.p95_s.low), column((p) => p.p95_s.high), column((p) => p.p95_s.estimate)];
    return { names: ["t", "p95 min", "p95 max", "p95 last"], columns };
  }, [found]);
  if (!data) return null;
  return html`<div class="charts two one"><${Plot} title="p95 by load" unit="seconds, by jobs a minute" data=${data} xText=${short} lines=${{ x: found.deploy_per_minute ?? undefined, y: found.limit_s }} top=${3 * found.limit_s} /></div>`;
}

/** @param {any} props */
function Policy({ of, runs, archive, query }) {
  const deadline = query.deadline || "90s";
  const { data, error } = useGet(of ? `advice/policy?${new URLSearchParams([["of", of], ["deadline", deadline]])}` : "");
  return html`<div class="bar bare"><${From} of=${of} runs=${runs} archive=${archive} />
      <label class="side">A job may take <${Typed} size="6" value=${deadline} onDone=${(/** @type {string} */ text) => refine({ deadline: text })} /></label></div>
    ${error ? html`<${Failing} error=${error} />` : !data ? html`<${Loading} what="the policy (trouble is simulated: half a minute)" />` : html`
      <p class="short sentence">${data.words}.</p>
      <h2 class="after">Jobs done within ${data.deadline} in trouble, by policy</h2>
      <div class="multiples">${data.scenarios.map((/** @type {any} */ one) => html`<${Multiple} key=${one.scenario} scenario=${one} />`)}</div>
      <section class="panel after"><h2>Rules</h2><ul class="rules">${data.rules.map((/** @type {any} */ rule) => html`<li key=${rule.class} class=${rule.retry ? "look-good" : "look-plain"}><${Icon} name=${rule.retry ? "again" : "stop"} /><div><b>${rule.class.replaceAll("_", " ")}</b> ${rule.words}${rule.why && html`<p class="muted">${rule.why}</p>`}</div></li>`)}</ul></section>
      <${Page} page=${data.page} />`}`;
}

const NO_RETRY = "no retry";

/** One trouble: the policy beside the naive ones. @param {any} props */
function Multiple({ scenario }) {
  const line = (/** @type {any} */ row) => html`<div key=${row.policy} class="bar-line ${row.ours ? "is-ours" : ""}"><span>${row.ours ? "this policy" : row.policy}</span>
    <span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${100 * row.success}%` }}></span></span><b>${short(100 * row.success)} %</b></div>`;
  const ours = scenario.rows.filter((/** @type {any} */ row) => row.ours);
  const [best, ...rest] = scenario.rows.filter((/** @type {any} */ row) => !row.ours && row.policy !== NO_RETRY).sort((/** @type {any} */ a, /** @type {any} */ b) => b.success - a.success);
  const none = scenario.rows.filter((/** @type {any} */ row) => row.policy === NO_RETRY);
  return html`<section class="panel"><h3 class="sentence">${scenario.words}</h3>${[...ours, ...(best ? [best] : []), ...none].map(line)}
    ${rest.length > 0 && html`<details><summary>${plural(rest.length, "more policy").replace("policys", "policies")}</summary>${rest.map(line)}</details>`}</section>`;
}
