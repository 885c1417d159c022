// A run's Page: what it came to, in the words of the report.
import { ofRun, useGet } from "../http.js";
import { Failing, Icon, Loading, RunState } from "../parts.js";
import { Page } from "../page.js";
import { address } from "../router.js";
import { useWatch } from "../socket.js";
import { html } from "../ui.js";
import { LabelField } from "./runs.js";

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const run = place.path[0] ?? "";
  const { data: list } = useWatch("runs", {});
  const entry = list?.runs.find((/** @type {any} */ one) => one.id === run);
  const { data: archive } = useGet("archive");
  const baseline = archive?.promoted ?? archive?.baselines.find((/** @type {any} */ one) => one.state === "kept")?.name;
  const { data, error } = useGet(`${ofRun(run)}/page`, `${entry?.state} ${entry?.running ? Math.floor((entry.jobs ?? 0) / 50) : ""}`);
  return html`
    <nav class="crumbs" aria-label="Where this is"><a data-back href=${address(["runs"])}>Runs</a> <span aria-hidden="true">/</span> <span>${run}</span></nav>
    <header class="head"><div class="head-words"><h1>${data?.page.title ?? entry?.name ?? run} ${entry && html`<${RunState} state=${entry.state} />`}</h1>
      ${data?.page.subtitle?.length > 0 && html`<p class="muted">${data.page.subtitle.join(" · ")}</p>`}
      ${(entry || data) && html`<${LabelField} run=${run} label=${entry?.label ?? data?.label ?? ""} />`}</div>
      ${(entry || data) && html`<div class="head-acts">
        <a class="button primary" href=${address(["run", run, "watch"])}><${Icon} name="now" />Jobs and charts</a>
        <a class="button" href=${address(["compare"], { a: baseline && `baseline:${baseline}`, b: run })}><${Icon} name="compare" />${baseline ? "Compare with the baseline" : "Compare"}</a>
        <a class="button" href=${address(["advice"], { run })}><${Icon} name="advice" />How many servers?</a>
      </div>`}</header>
    ${error ? html`<${Failing} error=${error} to=${address(["runs"])} where="All runs" />` : !data ? html`<${Loading} what="the report" />` : html`
      ${data.salvaged && html`<p class="note">Some lines of its files cannot be read; they are left out.</p>`}
      ${data.running && html`<p class="note">The run goes on: these numbers are of the jobs that have ended.</p>`}
      <${Page} page=${data.page} charts=${data.charts} chartsAt=${`${ofRun(run)}/charts/{name}.svg`} />`}`;
}
