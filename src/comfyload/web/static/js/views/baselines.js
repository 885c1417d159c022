// Baselines: runs that were kept, which of them is promoted, and the Page of each.
import { post, useGet } from "../http.js";
import { walk } from "../keys.js";
import { Action, Empty, Failing, Icon, Loading, tell } from "../parts.js";
import { Page } from "../page.js";
import { address, refine } from "../router.js";
import { html, useState } from "../ui.js";
import { moment } from "../words.js";

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  return place.path[0] ? html`<${One} name=${place.path[0]} run=${place.query.run} />` : html`<${All} text=${place.query.text ?? ""} />`;
}

/** @param {string} name @param {() => void} done */
async function promote(name, done) {
  await post("archive/promote", { name });
  tell(`${name} is promoted: runs are compared with it.`);
  done();
}

/** @param {{ text: string }} props */
function All({ text }) {
  const [version, again] = useState(0);
  const { data, error } = useGet("archive", version);
  if (error) return html`<h1>Baselines</h1><${Failing} error=${error} />`;
  if (!data) return html`<h1>Baselines</h1><${Loading} what="baselines" />`;
  const found = data.baselines.filter((/** @type {any} */ one) => `${one.name} ${one.words}`.toLowerCase().includes(text.toLowerCase()));
  return html`<header class="head"><div class="head-words"><h1>Baselines</h1><p class="muted">Runs that were kept to compare later ones with${data.folder ? html`, in <code>${data.folder}</code>` : ". No folder is configured for them: start the dashboard with --archive"}. Gates such as <code>${"p95_latency_s <= 1.1 * baseline"}</code> mean the one that is promoted.</p></div>
      <div class="head-acts"><a class="button" href=${address(["trend"])}><${Icon} name="trend" />Trend</a></div></header>
    ${data.problem && html`<${Failing} error=${data.problem} />`}
    ${data.baselines.length === 0 ? html`<${Empty} title="No baseline yet" icon="baselines"><p>Mark a good run in the list of runs and keep it; later runs are compared with it.</p><p><a class="button primary" href=${address(["runs"])}><${Icon} name="runs" />Choose a run</a></p><//>` : html`
    <section class="panel list"><div class="bar"><label class="search"><${Icon} name="search" /><span class="unseen">Search baselines</span><input type="search" data-search placeholder="name or runs" value=${text} onInput=${(/** @type {any} */ e) => refine({ text: e.currentTarget.value })} /></label></div>
      ${found.length === 0 && html`<p class="list-none">No baseline matches.</p>`}
      <ul class="runs" role="list" data-walk onKeyDown=${walk}>${found.map((/** @type {any} */ one) => html`<li key=${one.name} class="run kept">
        <a class="run-main" data-item href=${address(["baselines", one.name])}><b>${one.name}</b><small>${[moment(one.saved_utc), one.words].filter(Boolean).join(" · ")}</small></a>
        <span>${one.promoted ? html`<${Promoted} />` : one.state === "damaged" ? html`<span class="badge is-attention"><${Icon} name="alert" />Damaged</span>` : one.state === "by hand" ? html`<span class="badge is-ended"><${Icon} name="dash" />By hand</span>` : html`<${Action} label="Promote" sure="Compare runs with this one?" icon="up" act=${() => promote(one.name, () => again(version + 1))} />`}</span>
      </li>`)}</ul></section>`}`;
}

function Promoted() {
  return html`<span class="badge is-done"><${Icon} name="baselines" />Promoted</span>`;
}

/** @param {{ name: string, run?: string }} props */
function One({ name, run }) {
  const [version, again] = useState(0);
  const { data: archive } = useGet("archive", version);
  const promoted = archive?.promoted === name;
  const of = `archive/${encodeURIComponent(name)}`;
  const { data, error } = useGet(`${of}/page${run ? `?run=${run}` : ""}`);
  return html`<nav class="crumbs" aria-label="Where this is"><a data-back href=${address(["baselines"])}>Baselines</a> <span aria-hidden="true">/</span> <span>${name}</span></nav>
    <header class="head"><div class="head-words"><h1>${name} ${promoted && html`<${Promoted} />`}</h1>${data?.page.subtitle?.length > 0 && html`<p class="muted">${data.page.subtitle.join(" · ")}</p>`}</div>
      ${data && html`<div class="head-acts"><a class="button" href=${address(["compare"], { a: `baseline:${name}` })}><${Icon} name="compare" />Compare a run with it</a>
        ${archive && !promoted && html`<${Action} label="Promote" sure="Compare runs with this one?" icon="up" act=${() => promote(name, () => again(version + 1))} />`}</div>`}</header>
    ${error ? html`<${Failing} error=${error} to=${address(["baselines"])} where="All baselines" />` : !data ? html`<${Loading} what="the baseline" />` : html`
      ${data.runs.length > 0 && html`<div class="tabs" role="group" aria-label="Runs of the baseline">
        <button type="button" aria-pressed=${run ? "false" : "true"} onClick=${() => refine({ run: "" })}>All</button>
        ${data.runs.map((/** @type {any} */ one) => html`<button key=${one.n} type="button" aria-pressed=${run === String(one.n) ? "true" : "false"} onClick=${() => refine({ run: String(one.n) })}>${one.label}</button>`)}</div>`}
      <${Page} page=${data.page} charts=${data.charts} chartsAt=${`${of}/charts/{name}.svg${run ? `?run=${run}` : ""}`} />
      ${data.readme && html`<section class="panel after"><h2>README</h2><pre class="readme" tabindex="0">${data.readme}</pre></section>`}`}`;
}
