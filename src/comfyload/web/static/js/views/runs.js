// All runs of the folder: found by words, marked to be compared or kept.
import { ofRun, post, useGet } from "../http.js";
import { walk } from "../keys.js";
import { Chip, Empty, Failing, Icon, Loading, RunState, Unread, Why, useAttempt } from "../parts.js";
import { address, go, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useState } from "../ui.js";
import { BADGES, counted, host, moment, plural, runState } from "../words.js";

const AT_ONCE = 100;

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const { data, error } = useWatch("runs", {});
  const { data: session } = useGet("session");
  const [marked, mark] = useState(/** @type {string[]} */ ([]));
  const [most, setMost] = useState(AT_ONCE);
  if (error && !data) return html`<h1>Runs</h1><${Failing} error=${error} />`;
  if (!data) return html`<h1>Runs</h1><${Loading} what="runs" />`;
  const { text = "", state = "" } = place.query;
  const all = /** @type {any[]} */ (data.runs);
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = all.filter((run) => {
    const words = `${run.id} ${run.name} ${run.label} ${run.load} ${run.server}`.toLowerCase();
    return wanted.every((word) => words.includes(word));
  });
  const found = matching.filter((run) => !state || (state === "attention" ? run.attention > 0 : run.state === state));
  const states = [...new Set(all.map((run) => run.state))];
  const inTrouble = matching.filter((run) => run.attention > 0).length;
  const toggle = (/** @type {string} */ id) => mark(marked.includes(id) ? marked.filter((one) => one !== id) : [...marked, id]);
  return html`
    <header class="head"><div class="head-words"><h1>Runs</h1><p class="muted">${data.total > all.length ? `the newest ${counted(all.length)} of ${counted(data.total)}` : counted(all.length)} in <code>${data.folder}</code></p></div>
      <div class="head-acts">
        ${marked.length > 0 && html`<${Keep} runs=${marked} done=${() => mark([])} />`}
        ${all.length > 0 && html`<a class="button" href=${address(["compare"], older(all, marked))}><${Icon} name="compare" />Compare${marked.length === 2 ? " these two" : ""}</a>`}
        ${session && !session.gateway && html`<a class="button primary" href=${address(["start"])}><${Icon} name="start" />Start a run</a>`}
      </div></header>
    <${Unread} unread=${data.unread} />
    ${all.length === 0 ? html`<${Empty} title="No run yet"><p>What <code>comfyload run</code> writes into <code>${data.folder}</code> is listed here, whoever started it.</p><//>` : html`
    <section class="panel list runs-list">
      <div class="bar"><label class="search"><${Icon} name="search" /><span class="unseen">Search runs</span><input type="search" data-search placeholder="name, label, load or server" value=${text} onInput=${(/** @type {any} */ e) => refine({ text: e.currentTarget.value })} /></label>
        <span class="chip-group" role="group" aria-label="State">
          ${inTrouble > 0 && html`<${Chip} label=${BADGES.attention.word} count=${inTrouble} on=${state === "attention"} look="attention" onClick=${() => refine({ state: state === "attention" ? "" : "attention" })} />`}
          ${states.map((one) => html`<${Chip} key=${one} label=${runState(one).word} count=${matching.filter((run) => run.state === one).length} on=${state === one} look=${runState(one).look} onClick=${() => refine({ state: state === one ? "" : one })} />`)}
        </span></div>
      ${found.length === 0 && html`<p class="list-none">No run matches. <button type="button" class="button quiet" onClick=${() => refine({ text: "", state: "" })}>Clear the filters</button></p>`}
      ${found.length > 0 && html`<p class="run-head" aria-hidden="true"><span></span><span>Run<small>mark runs to compare them, or to keep them as a baseline</small></span><span>State</span><span>Jobs</span><span>Latency over time</span></p>`}
      <ul class="runs" role="list" data-walk onKeyDown=${walk}>${found.slice(0, most).map((run) => html`<${Entry} key=${run.id} run=${run} on=${marked.includes(run.id)} toggle=${() => toggle(run.id)} />`)}</ul>
      ${found.length > most && html`<p class="list-none"><button type="button" class="button" onClick=${() => setMost(most + AT_ONCE)}>Show ${Math.min(AT_ONCE, found.length - most)} more of ${counted(found.length)}</button></p>`}
    </section>`}`;
}

/** The marked runs, the older one as A. @param {any[]} all The newest first. @param {string[]} marked */
function older(all, marked) {
  const [b, a] = all.map((run) => run.id).filter((id) => marked.includes(id)).slice(0, 2);
  return a ? { a, b } : { b };
}

/** @param {any} props */
function Entry({ run, on, toggle }) {
  const where = run.running ? address(["run", run.id, "watch"]) : address(["run", run.id]);
  const all = Math.max(1, Object.values(run.counts).reduce((/** @type {any} */ a, b) => a + b, 0));
  return html`<li class="run">
    <input type="checkbox" checked=${on} onChange=${toggle} aria-label=${`Mark ${run.name}`} />
    <a class="run-main" data-item href=${where}><b>${run.name}</b>${run.label && html` <span class="label">${run.label}</span>`}<small>${[run.id !== run.name && run.id, moment(run.started_utc), run.load, run.server && host(run.server)].filter(Boolean).join(" · ")}</small></a>
    <span class="run-state"><${RunState} state=${run.state} /></span>
    <span class="run-jobs"><b>${run.jobs == null ? "–" : counted(run.jobs)}</b> ${run.running && run.expected ? `of about ${plural(run.expected, "job")}` : run.jobs === 1 ? "job" : "jobs"}${run.attention > 0 && html` <a class="badge is-attention" href=${address(["run", run.id, "watch"], { state: "attention" })}><${Icon} name="alert" />${counted(run.attention)}<span class="unseen"> need attention</span></a>`}
      <span class="stacked" aria-hidden="true">${Object.keys(BADGES).map((badge) => html`<i key=${badge} class="is-${badge}" style=${{ width: `${(100 * (run.counts[badge] ?? 0)) / all}%` }}></i>`)}</span></span>
    <${Spark} values=${run.spark} />
  </li>`;
}

/** The latency through the run, small; null: no job ended in that part. @param {{ values: any[] }} props */
function Spark({ values }) {
  const known = (values ?? []).map((value, i) => ({ value, i })).filter(({ value }) => value != null);
  if (known.length < 2) return html`<span class="spark"></span>`;
  const most = Math.max(...known.map(({ value }) => value), 1e-9);
  const points = known.map(({ value, i }) => `${((100 * i) / (values.length - 1)).toFixed(1)},${(26 - (24 * value) / most).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" aria-hidden="true"><polyline points=${points.join(" ")} /></svg>`;
}

/** @param {{ run: string, label: string }} props */
export function LabelField({ run, label }) {
  const [editing, edit] = useState(false);
  const [why, attempt] = useAttempt();
  const save = (/** @type {any} */ event) => {
    event.preventDefault();
    const text = new FormData(event.currentTarget).get("label");
    attempt(async () => (await post(`${ofRun(run)}/label`, { label: text }), edit(false)));
  };
  if (!editing) return html`<p class="label-line">${label && html`<span class="label">${label}</span> `}<button type="button" class="button quiet small" onClick=${() => edit(true)}>${label ? "Change the label" : "Add a label"}</button></p>`;
  return html`<form class="label-line" onSubmit=${save}><label><span class="unseen">Label</span><input name="label" defaultValue=${label} maxlength="200" autofocus onKeyDown=${(/** @type {KeyboardEvent} */ e) => e.key === "Escape" && edit(false)} /></label> <button class="button small">Save</button><${Why} why=${why} /></form>`;
}

/** @param {any} props */
function Keep({ runs, done }) {
  const [naming, name] = useState(false);
  const [why, attempt] = useAttempt();
  const keep = (/** @type {any} */ event) => {
    event.preventDefault();
    const named = String(new FormData(event.currentTarget).get("name") ?? "");
    attempt(async () => {
      const kept = await post("archive", { runs, name: named });
      done();
      go(address(["baselines", kept.name]));
    });
  };
  if (!naming) return html`<button type="button" class="button" onClick=${() => name(true)}><${Icon} name="baselines" />Keep ${runs.length} as a baseline</button>`;
  return html`<form class="keep" onSubmit=${keep}><label><span class="unseen">Name of the baseline</span><input name="name" placeholder="name, such as rtx5060ti" autofocus /></label><button class="button primary">Keep</button><button type="button" class="button quiet" onClick=${() => name(false)}>Not now</button><${Why} why=${why} /></form>`;
}
