// Numbers through the baselines, or through the runs, with the steps that were found.
import { Typed } from "../field.js";
import { useGet } from "../http.js";
import { Empty, Failing, Icon, Loading } from "../parts.js";
import { Page } from "../page.js";
import { address, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html } from "../ui.js";

const MOST = 50;

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const { of = "", metric = "", text = "" } = place.query;
  const { data: list } = useWatch("runs", {});
  const runs = of === "runs" ? chosen(list?.runs ?? [], text) : [];
  const query = new URLSearchParams([...runs.map((id) => ["run", id]), ...metric.split(",").filter(Boolean).map((one) => ["metric", one])]);
  const ready = of !== "runs" || runs.length > 1;
  const { data, error } = useGet(ready ? `trend?${query}` : "");
  return html`<header class="head"><div class="head-words"><h1>Trend</h1><p class="muted">Is it getting better or worse? A step is a change that is more than noise.</p></div></header>
    <div class="bar bare" role="group" aria-label="Of what">
      <button type="button" class="chip" aria-pressed=${of === "runs" ? "false" : "true"} onClick=${() => refine({ of: "" })}>Baselines</button>
      <button type="button" class="chip" aria-pressed=${of === "runs" ? "true" : "false"} onClick=${() => refine({ of: "runs" })}>Runs</button>
      ${of === "runs" && html`<label class="search"><${Icon} name="search" /><span class="unseen">Which runs</span><${Typed} type="search" data-search placeholder="runs whose name or label has …" value=${text} onDone=${(/** @type {string} */ words) => refine({ text: words })} /></label>`}
    </div>
    ${!ready ? html`<${Empty} title="A trend needs two runs" icon="trend"><p>Runs that have ended and match, the newest ${MOST} of them.</p><//>`
      : error ? html`<${Failing} error=${error} />`
      : !data ? html`<${Loading} what="the trend" />`
      : data.left_out.length > 0 && data.series.length === 0 ? html`<${Failing} error=${{ message: "Too few of the runs can be read.", hint: data.left_out.join(" · ") }} />`
      : data.series.length === 0 ? html`<${Empty} title="A trend needs two baselines" icon="trend"><p>Keep runs as <a href=${address(["baselines"])}>baselines</a> from time to time, or look at the trend of all runs.</p><p><button type="button" class="button primary" onClick=${() => refine({ of: "runs" })}><${Icon} name="runs" />Trend of runs</button></p><//>`
      : html`${data.left_out.map((/** @type {string} */ why) => html`<p key=${why} class="remark look-doubt"><${Icon} name="alert" />Left out: ${why}</p>`)}<${Page} page=${data.page} charts=${data.charts.map((/** @type {any} */ chart, /** @type {number} */ n) => ({ ...chart, name: String(n) }))} chartsAt=${`trend.svg?${query}${String(query) ? "&" : ""}n={name}`} />`}`;
}

/** Runs that have ended and match, the oldest first. @param {any[]} runs @param {string} text */
function chosen(runs, text) {
  const words = text.toLowerCase();
  const found = runs.filter((run) => !run.running && `${run.id} ${run.name} ${run.label}`.toLowerCase().includes(words));
  return found.slice(0, MOST).map((run) => run.id).reverse();
}
