// One job: what happened to it, attempt by attempt.
import { Fine } from "../cards.js";
import { ofRun, post, url } from "../http.js";
import { Action, Badge, Failing, Icon, Loading, tell } from "../parts.js";
import { address, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useRef } from "../ui.js";
import { counted, host, span } from "../words.js";
import { Waterfall } from "../waterfall.js";
import { again, useClock } from "./now.js";

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const [run, , number] = place.path;
  const index = Number(number);
  const { data, error } = useWatch("job", { run, index }, `${run} ${index}`);
  const now = useClock(data);
  const list = address(["run", run, "watch"]);
  const crumbs = html`<nav class="crumbs" aria-label="Where this is">
    <a href=${address(["runs"])}>Runs</a> <span aria-hidden="true">/</span> <a data-back href=${list}>${run}</a> <span aria-hidden="true">/</span> <span>#${counted(index)}</span>
    <span class="rest">
      <a class="button small" data-step="before" aria-label="Job before ([)" href=${address(["run", run, "job", String(Math.max(0, index - 1))])}><${Icon} name="before" /></a>
      <a class="button small" data-step="after" aria-label="Job after (])" href=${address(["run", run, "job", String(index + 1)])}><${Icon} name="after" /></a>
    </span>
  </nav>`;
  if (error) return html`${crumbs}<h1>#${counted(index)}</h1><${Failing} error=${error} />`;
  if (!data) return html`${crumbs}<${Loading} what=${`#${counted(index)}`} />`;
  return html`${crumbs}<${Job} run=${run} index=${index} job=${data} now=${now} chosen=${Number(place.query.attempt)} />`;
}

/** @param {any} props */
function Job({ run, index, job, now, chosen }) {
  const attempts = job.attempts ?? [];
  const at = Math.max(0, chosen >= 1 ? attempts.findIndex((/** @type {any} */ a) => a.attempt === chosen) : attempts.length - 1);
  const attempt = attempts[at] ?? {};
  const nodes = attempt.nodes ?? job.nodes ?? [];
  const from = attempt.sent_s ?? job.due_s;
  const message = attempt.message ?? job.message;
  return html`
    <header class="head">
      <div class="head-words"><h1>#${counted(index)} <${Badge} badge=${job.badge} fine=${job.fine} /></h1>
        <p><${Fine} row=${job} now=${now} />${job.latency != null && html` after <b>${span(job.latency)}</b>`} <span class="muted">· ${[job.workflow, job.server && host(job.server), job.book].filter(Boolean).join(" · ")}</span></p></div>
      <div class="head-acts"><${Acts} run=${run} index=${index} job=${job} /></div>
    </header>
    ${attempts.length > 1 && html`<${Tabs} attempts=${attempts} at=${at} now=${now} />`}
    <div class="split" role=${attempts.length > 1 ? "tabpanel" : undefined} id="attempt" aria-labelledby=${attempts.length > 1 ? `attempt-${at}` : undefined}>
      <div class="stack">
        ${message && html`<section class="panel message"><h2><${Icon} name="alert" />What the server said</h2><pre tabindex="0">${message}</pre>
          ${attempt.rule && html`<p class="rule"><b>Policy:</b> ${attempt.rule}${attempt.wait_s != null && html` · waits ${span(attempt.wait_s)}`}</p>`}</section>`}
        <section class="panel"><h2>Nodes</h2>${nodes.length
          ? html`<${Waterfall} nodes=${nodes} from=${from} to=${attempt.ended_s ?? from} failed=${attempt.failed_node ?? job.failed_node ?? ""} />`
          : html`<p class="muted">${job.ended_s == null ? "No node has run yet." : "No node ran."}</p>`}</section>
        <${Outputs} run=${run} index=${index} outputs=${attempt.outputs ?? job.outputs ?? []} />
      </div>
      <aside class="beside" aria-label="Facts"><section><h2>Facts</h2><dl class="facts">
        ${[...(job.facts ?? []), ...ofAttempt(attempt)].map(([label, words]) => html`<div key=${label}><dt>${label}</dt><dd>${words}</dd></div>`)}
      </dl></section></aside>
    </div>`;
}

/** @param {any} attempt @returns {[string, string][]} */
function ofAttempt(attempt) {
  const facts = /** @type {[string, any][]} */ ([
    ["Prompt", attempt.prompt_id],
    ["Server", attempt.server && host(attempt.server)],
    ["Sent", attempt.sent_s != null && `${span(attempt.sent_s)} into the run`],
    ["Ended", attempt.ended_s != null && `${span(attempt.ended_s)} into the run`],
  ]);
  return facts.filter(([, words]) => words);
}

/** @param {any} props */
function Tabs({ attempts, at, now }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const choose = (/** @type {number} */ to) => {
    const next = (to + attempts.length) % attempts.length;
    refine({ attempt: attempts[next].attempt });
    /** @type {HTMLElement | undefined} */ (list.current?.children[next])?.focus();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: attempts.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  };
  return html`<div class="tabs" role="tablist" aria-label="Attempts" ref=${list} onKeyDown=${onKey}>
    ${attempts.map((/** @type {any} */ attempt, /** @type {number} */ i) => html`<button key=${attempt.attempt} type="button" role="tab" id=${`attempt-${i}`} aria-controls="attempt" aria-selected=${i === at ? "true" : "false"} tabindex=${i === at ? 0 : -1} onClick=${() => choose(i)}>
      <b>Attempt ${attempt.attempt}</b> <span class="badge is-${attempt.badge}">${attempt.until_s != null ? html`<${Fine} row=${attempt} now=${now} />` : attempt.words}</span>
    </button>`)}
  </div>`;
}

/** @param {any} props */
function Outputs({ run, index, outputs }) {
  if (!outputs.length) return null;
  return html`<section class="panel"><h2>Outputs</h2><ul class="outputs">
    ${outputs.map((/** @type {any} */ output) => {
      const at = url(`${ofRun(run)}/jobs/${index}/outputs/${output.n}`);
      return html`<li key=${output.n}><a href=${at} target="_blank" rel="noopener"><img src=${at} alt="" loading="lazy" onError=${(/** @type {any} */ e) => e.currentTarget.replaceWith(Object.assign(document.createElement("span"), { className: "no-picture", textContent: "no picture" }))} /><span>${output.name}</span></a></li>`;
    })}
  </ul></section>`;
}

/** @param {any} props */
function Acts({ run, index, job }) {
  const acts = job.actions ?? [];
  const copy = async () => {
    const text = JSON.stringify(job.attempts ?? [], null, 2);
    await navigator.clipboard.writeText(text);
    tell("Copied: the attempts as a JSON array.");
  };
  const of = `${ofRun(run)}/jobs/${index}`;
  return html`
    ${acts.includes("now") && html`<${Action} label="Retry now" sure="" icon="again" act=${async () => (await post(`${of}/now`), tell("It is sent again now."))} />`}
    ${acts.includes("give_up") && html`<${Action} label="Give up" sure="Send it no more?" icon="stop" act=${async () => (await post(`${of}/give_up`), tell("Given up."))} />`}
    ${acts.includes("again") && html`<${Action} label="Regenerate" sure="Run it again?" icon="again" look="primary" act=${() => again(run, [index])} />`}
    <${Action} label="Copy as JSON" sure="" icon="copy" act=${copy} />
    <a class="button" href=${url(`${of}.json`)} download>JSON</a>`;
}
