// One job: what happened to it, attempt by attempt.
import { Fine } from "../cards.js";
import { ofRun, url } from "../http.js";
import { Action, Badge, Failing, Icon, Loading, copyText, tell } from "../parts.js";
import { address, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useRef, useState } from "../ui.js";
import { counted, duration, host, span } from "../words.js";
import { Waterfall } from "../waterfall.js";
import { again, useClock } from "./now.js";

/** @type {Record<string, string>} */
const BADGE_OF = { completed: "done", failed: "attention", lost: "attention", timed_out: "attention", cancelled: "ended", dropped: "ended" };

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
  if (error) return html`${crumbs}<h1>#${counted(index)}</h1><${Failing} error=${error} to=${list} where="Its run" />`;
  if (!data) return html`${crumbs}<${Loading} what=${`#${counted(index)}`} />`;
  return html`${crumbs}<${Job} run=${run} index=${index} job=${data} now=${now} chosen=${Number(place.query.attempt)} />`;
}

/** Attempts of the job, then those of each time that it was sent once more. @param {string} run @param {number} index @param {any} job */
function tried(run, index, job) {
  /** @type {any[]} */
  const all = [];
  for (const [place, number, of, more] of [[run, index, job, 0], ...(job.again ?? []).map((/** @type {any} */ a, /** @type {number} */ i) => [a.run, a.index, a.job, i + 1])]) {
    if (!of) continue;
    const attempts = of.attempts?.length ? of.attempts : more ? [{ attempt: 1, outcome: null, words: of.words }] : [];
    attempts.forEach((/** @type {any} */ attempt, /** @type {number} */ i) => {
      const label = more ? `Again${more > 1 ? ` ${more}` : ""}${attempts.length > 1 ? `, attempt ${attempt.attempt}` : ""}` : `Attempt ${attempt.attempt}`;
      all.push({ label, attempt, job: of, last: i === attempts.length - 1, run: place, index: number });
    });
  }
  return all;
}

/** @param {any} props */
function Job({ run, index, job, now, chosen }) {
  const tries = tried(run, index, job);
  const at = chosen >= 1 && chosen <= tries.length ? chosen - 1 : Math.max(0, tries.length - 1);
  const shown = tries[at] ?? { attempt: {}, job, last: true, run, index };
  const { attempt, job: of, last } = shown;
  const nodes = last ? (of.nodes ?? []) : [];
  const begin = of.started_s ?? attempt.sent_s ?? of.due_s ?? 0;
  const message = attempt.error || (last ? of.message : "");
  const several = tries.length > 1;
  const newest = tries.at(-1)?.job ?? job;
  return html`
    <header class="head">
      <div class="head-words"><h1>#${counted(index)} <${Badge} badge=${newest.badge} fine=${newest.fine} /></h1>
        <p><${Fine} row=${newest} now=${now} />${newest.latency != null && html` after <b>${duration(newest.latency)}</b>`} <span class="muted">· ${[job.workflow, job.server && host(job.server)].filter(Boolean).join(" · ")}${job.book != null && html` · <a href=${address(["run", run, "watch"], { book: job.book })}>all of book ${job.book}</a>`}</span></p></div>
      <div class="head-acts"><${Acts} run=${run} index=${index} job=${job} /></div>
    </header>
    ${several && html`<${Tabs} tries=${tries} at=${at} now=${now} />`}
    <div class="split" role=${several ? "tabpanel" : undefined} id="attempt" aria-labelledby=${several ? `attempt-${at}` : undefined}>
      <div class="stack">
        ${message && html`<section class="panel message"><h2><${Icon} name="alert" />What the server said</h2><pre tabindex="0" role="group" aria-label="Message">${message}</pre>
          ${attempt.rule && html`<p class="rule"><b>Policy:</b> ${attempt.rule}${attempt.wait_s != null && html` · wait ${span(attempt.wait_s)}`}</p>`}</section>`}
        ${(nodes.length > 0 || last) && html`<section class="panel"><h2>Nodes</h2>${nodes.length
          ? html`<${Waterfall} nodes=${nodes} from=${begin} to=${attempt.ended_s ?? begin} failed=${attempt.node ?? of.failure?.node ?? ""} />`
          : html`<p class="muted">${of.ended_s == null ? "Which nodes ran is known when the job has ended." : "No node ran."}</p>`}</section>`}
        ${last && html`<${Outputs} run=${shown.run} index=${shown.index} outputs=${of.outputs ?? []} />`}
      </div>
      <aside class="beside" aria-label="Facts">
        <${Facts} title=${several ? shown.label : "Facts"} facts=${ofAttempt(attempt, job.of_day)} />
        ${last && html`<${Facts} title="Times" facts=${(of.durations ?? []).filter((/** @type {any} */ d) => d.seconds != null).map((/** @type {any} */ d) => [d.words, duration(d.seconds)])} />`}
        <${Facts} title="Inputs" facts=${Object.entries(of.values ?? {}).map(([key, value]) => [key, typeof value === "object" ? JSON.stringify(value) : String(value)])} />
      </aside>
    </div>`;
}

/** @param {{ title: string, facts: [string, any][] }} props */
function Facts({ title, facts }) {
  if (!facts.length) return null;
  return html`<section><h2>${title}</h2><dl class="facts">${facts.map(([label, words]) => html`<div key=${label}><dt>${label}</dt><dd>${words}</dd></div>`)}</dl></section>`;
}

/** @param {any} attempt @param {boolean} ofDay The run's instants are times of a day. @returns {[string, any][]} */
function ofAttempt(attempt, ofDay) {
  const into = (/** @type {number | null} */ at) => at != null && (ofDay ? `${span(at)} UTC` : `${span(at)} into the run`);
  const facts = /** @type {[string, any][]} */ ([
    ["Ended as", attempt.words],
    ["Failure", [attempt.kind?.replaceAll("_", " "), attempt.type !== attempt.kind && attempt.type, attempt.status].filter(Boolean).join(" · ")],
    ["Node", [attempt.node_class, attempt.node].filter(Boolean).join(" ")],
    ["Prompt id", attempt.id],
    ["Server", attempt.server && host(attempt.server)],
    ["Sent", into(attempt.sent_s)],
    ["Ended", into(attempt.ended_s)],
    ["Executed", attempt.executed_s != null && duration(attempt.executed_s)],
    ["Held back", attempt.waited_s > 0 && duration(attempt.waited_s)],
  ]);
  return facts.filter(([, words]) => words);
}

/** @param {any} props */
function Tabs({ tries, at, now }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const choose = (/** @type {number} */ to) => {
    const next = (to + tries.length) % tries.length;
    refine({ attempt: next + 1 });
    /** @type {HTMLElement | undefined} */ (list.current?.children[next])?.focus();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tries.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  };
  return html`<div class="tabs" role="tablist" aria-label="Attempts" ref=${list} onKeyDown=${onKey}>
    ${tries.map((/** @type {any} */ { label, attempt, job }, /** @type {number} */ i) => html`<button key=${label} type="button" role="tab" id=${`attempt-${i}`} aria-controls="attempt" aria-selected=${i === at ? "true" : "false"} tabindex=${i === at ? 0 : -1} onClick=${() => choose(i)}>
      <b>${label}</b> <span class="badge is-${BADGE_OF[attempt.outcome] ?? job.badge}">${attempt.outcome ? attempt.words : html`<${Fine} row=${job} now=${now} />`}</span>
    </button>`)}
  </div>`;
}

/** @param {any} props */
function Outputs({ run, index, outputs }) {
  if (!outputs.length) return null;
  return html`<section class="panel"><h2>Outputs</h2><ul class="outputs">
    ${outputs.map((/** @type {any} */ output, /** @type {number} */ n) => html`<${Output} key=${n} output=${output} at=${url(`${ofRun(run)}/jobs/${index}/outputs/${n}`)} />`)}
  </ul></section>`;
}

/** @param {any} props A picture, or the file's name where it is none or is not there any more. */
function Output({ output, at }) {
  const [gone, setGone] = useState(output.kind && output.kind !== "image" && output.kind !== "images");
  return html`<li><a href=${at} target="_blank" rel="noopener">
    ${gone ? html`<span class="no-picture">no picture</span>` : html`<img src=${at} alt="" loading="lazy" onError=${() => setGone(true)} />`}<span title=${output.file}>${output.name ?? output.file}</span></a></li>`;
}

/** @param {any} props */
function Acts({ run, index, job }) {
  const acts = job.actions ?? (job.ended_s == null ? [] : ["again"]);
  const copy = async () => {
    await copyText(JSON.stringify(tried(run, index, job).map(({ attempt, run: where }) => ({ run: where, ...attempt })), null, 2));
    tell("Copied: the attempts as a JSON array.");
  };
  const of = `${ofRun(run)}/jobs/${index}`;
  return html`
    ${acts.includes("again") && html`<${Action} label="Regenerate" sure="Run it again?" icon="again" look=${job.badge === "attention" ? "primary" : ""} act=${() => again(run, { jobs: [index] })} />`}
    <${Action} label="Copy attempts" sure="" icon="copy" act=${copy} />
    <a class="button" href=${url(`${of}.json`)} download>JSON</a>`;
}
