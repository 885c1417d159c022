// Jobs of a gateway: those that need a person first, then those that wait or run, then the last that have ended.
import { post } from "./http.js";
import { walk } from "./keys.js";
import { Action, Badge, Failing, Icon, Loading, copyText, tell, tick } from "./parts.js";
import { address, refine } from "./router.js";
import { useWatch } from "./socket.js";
import { html, useState } from "./ui.js";
import { States } from "./views/now.js";
import { counted, moment, span } from "./words.js";

const AT_ONCE = 60;
const BADGES = /** @type {Record<string, string>} */ ({ pending: "pending", in_progress: "rendering", completed: "done", cancelled: "ended" });

/** @param {any} job @returns {[badge: string, fine: string]} */
function stands(job) {
  if (job.attention) return ["attention", "failed"];
  if (job.next_attempt_at) return ["pending", "retrying"];
  return [BADGES[job.state] ?? "ended", ""];
}

/** @param {{ query: Record<string, string> }} props */
export function GatewayJobs({ query }) {
  const { text = "", state = "" } = query;
  const { data, error } = useWatch("gateway", ["done", "ended"].includes(state) ? { state } : {});
  const { data: list } = useWatch("runs", {});
  if (error && !data) return html`<h1>Jobs of the gateway</h1><${Failing} error=${error} />`;
  if (!data) return html`<${Loading} what="jobs" />`;
  const ledger = list?.runs.find((/** @type {any} */ run) => run.running) ?? list?.runs[0];
  const has = (/** @type {any} */ job) => !text || JSON.stringify(job).toLowerCase().includes(text.toLowerCase());
  const [needing, unended, ended] = [data.attention, data.unended, data.ended].map(({ jobs }) => jobs.filter(has));
  const waiting = unended.filter((/** @type {any} */ job) => !["pending", "rendering"].includes(state) || stands(job)[0] === state);
  const shows = (/** @type {string[]} */ ...badges) => !state || badges.includes(state);
  const all = data.attention.total;
  return html`<header class="head"><div class="head-words"><h1>Jobs of the gateway</h1><p class="muted">${counted(data.unended.total)} wait or run · ${counted(all)} need attention</p></div>
      <div class="head-acts">
        ${all > 0 && html`<${Action} label="Retry all failed" sure=${`Send ${counted(all)} again?`} icon="again" act=${async () => tell(retried(await post("../api/jobs/retry")))} />`}
        ${ledger && html`<a class="button" href=${address(["run", ledger.id, "watch"])}><${Icon} name="now" />Charts and all jobs</a>`}
        <a class="button" href=${address(["servers"])}><${Icon} name="servers" />Servers</a></div></header>
    <div class="bar bare"><label class="search"><${Icon} name="search" /><span class="unseen">Search jobs</span><input type="search" data-search placeholder="id, workflow, server or words" value=${text} onInput=${(/** @type {any} */ e) => refine({ text: e.currentTarget.value })} /></label></div>
    ${data.counts && html`<${States} counts=${data.counts} on=${state} />`}
    ${shows("attention") && html`<${List} title="Needs attention" jobs=${needing} none="No job needs attention." />`}
    ${shows("pending", "rendering") && html`<${List} title="Waiting and running" jobs=${waiting} none=${state ? "No job matches." : "No job waits or runs."} />`}
    ${shows("done", "ended") && html`<${List} title="Ended" note=${ofThose(data)} jobs=${ended} none="No job has ended yet." />`}`;
}

/** How many of those that have ended are listed, and how far back they are counted. @param {any} data */
function ofThose({ ended, kept }) {
  const listed = ended.total > ended.jobs.length && `the newest ${counted(ended.jobs.length)} of ${counted(ended.total)}`;
  return [listed, kept && ended.total >= kept && `counted among the last ${counted(kept)}`].filter(Boolean).join(", ");
}

/** @param {any} answer */
const retried = (answer) => `${counted(answer.retried?.length ?? answer.sent?.length ?? 0)} sent again.`;

/** @param {any} props */
function List({ title, jobs, none, note = "" }) {
  const [most, setMost] = useState(AT_ONCE);
  return html`<section class="panel list after"><div class="bar"><h2>${title}</h2>${note && html` <span class="muted">${note}</span>`}</div>
    ${jobs.length === 0 ? html`<p class="list-none is-short">${none}</p>` : html`<ul role="list" class="gateway" data-walk onKeyDown=${walk}>${jobs.slice(0, most).map((/** @type {any} */ job) => html`<${Job} key=${job.id} job=${job} />`)}</ul>
    ${jobs.length > most && html`<p class="list-none"><button type="button" class="button" onClick=${() => setMost(most + AT_ONCE)}>Show more of ${counted(jobs.length)}</button></p>`}`}</section>`;
}

/** @param {any} props */
function Job({ job }) {
  const [badge, fine] = stands(job);
  const last = job.attempts?.at(-1);
  const error = typeof job.error === "string" ? job.error : job.error?.message ?? last?.error;
  const of = `../api/jobs/${encodeURIComponent(job.id)}`;
  return html`<li><details><summary data-item>
      <${Badge} badge=${badge} fine=${fine} /><b>${job.workflow ?? "a job"}</b> <span class="muted">${[job.server, job.attempts?.length > 1 && `attempt ${job.attempts.length}`].filter(Boolean).join(" · ")}</span>
      ${job.next_attempt_at && html`<${Until} at=${job.next_attempt_at} />`}${error && html`<span class="error-text">${error}</span>`}</summary>
    <dl class="facts">${facts(job).map(([label, words]) => html`<div key=${label}><dt>${label}</dt><dd>${words}</dd></div>`)}</dl>
    ${job.attempts?.length > 0 && html`<ol class="plain">${job.attempts.map((/** @type {any} */ attempt, /** @type {number} */ i) => html`<li key=${i}><b>Attempt ${i + 1}</b> ${attempt.outcome} <span class="muted">${[attempt.server, attempt.kind].filter(Boolean).join(" · ")}</span>${attempt.error && html`<pre class="said" tabindex="0" role="group" aria-label="Message">${attempt.error}</pre>`}</li>`)}</ol>`}
    ${job.attempts?.length > 0 && html`<${Action} label="Copy attempts" sure="" icon="copy" look="small" act=${async () => (await copyText(JSON.stringify(job.attempts, null, 2)), tell("Copied: the attempts as a JSON array."))} />`}
    </details>
    ${job.attention && html`<div class="acts">
      <${Action} label="Regenerate" sure="" icon="again" look="small" act=${async () => (await post(`${of}/retry`), tell("Sent again."))} />
      <${Action} label="Dismiss" sure="It stays failed?" icon="close" look="small" act=${async () => (await post(`${of}/dismiss`), tell("It needs no attention any more."))} /></div>`}
    ${fine === "retrying" && html`<div class="acts">
      <${Action} label="Retry now" sure="" icon="again" look="small" act=${async () => (await post(`${of}/now`), tell("It is sent as soon as a server is free."))} />
      <${Action} label="Give up" sure="Send it no more?" icon="stop" look="small" act=${async () => (await post(`${of}/give-up`), tell("It is sent no more, and needs attention."))} /></div>`}</li>`;
}

/** @param {any} job @returns {[string, any][]} */
function facts(job) {
  const at = (/** @type {number | undefined} */ ms) => ms && moment(new Date(ms).toISOString());
  const found = /** @type {[string, any][]} */ ([["Job", job.id], ["Arrived", at(job.created_ms)], ["Began", at(job.started_ms)], ["Ended", at(job.ended_ms)], ["Tenant", job.tenant !== "default" && job.tenant], ["Client", job.client_id]]);
  return found.filter(([, words]) => words);
}

/** @param {{ at: number }} props */
function Until({ at }) {
  tick.value;
  const left = Math.ceil((at - Date.now()) / 1000);
  return html`<span class="muted">again ${left > 0 ? `in ${span(left).replace(".0", "")}` : "now"}</span>`;
}
