// What runs at this moment, or the run that is looked at: picture first, then the jobs, then what to know of them.
import { Cards } from "../cards.js";
import { LiveChart } from "../chart.js";
import { GatewayJobs } from "../gateway.js";
import { ofRun, post, url, useGet } from "../http.js";
import { Action, Badge, Chip, Empty, Failing, Icon, Loading, RunState, Unread, tell, tick } from "../parts.js";
import { Remarks } from "../page.js";
import { address, go, refine } from "../router.js";
import { useWatch } from "../socket.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { BADGES, VERDICTS, counted, host, plural, span } from "../words.js";

const FILTERS = ["state", "attempt", "kind", "workflow", "server", "node", "book", "text"];
const GROUPS = { state: "State", attempt: "Attempt", kind: "Failure", node: "Node", workflow: "Workflow", server: "Server", book: "Book" };
const ORDERS = { newest: "newest first", slowest: "slowest first", due: "as they came due" };

/** @param {{ place: import("../router.js").Place }} props */
export function View({ place }) {
  const { data, error } = useWatch("runs", {});
  const { data: session } = useGet("session");
  const chosen = place.view === "run" ? place.path[0] : place.query.run;
  if (place.query.of === "gateway" || (session?.gateway && !chosen)) return html`<${GatewayJobs} query=${place.query} />`;
  if (error && !data && !chosen) return html`<h1 class="unseen">Now</h1><${Failing} error=${error} />`;
  if (!data && !chosen) return html`<${Loading} />`;
  const runs = /** @type {any[]} */ (data?.runs ?? []);
  const going = runs.filter((run) => run.running);
  const run = chosen ?? going[0]?.id ?? runs[0]?.id;
  if (!run) return html`<${Nothing} folder=${data.folder} /><${Unread} unread=${data.unread} />`;
  return html`<${Watched} key=${run} run=${run} entry=${runs.find((one) => one.id === run)} place=${place} others=${going.filter((other) => other.id !== run)} />`;
}

/** @param {{ folder: string }} props */
function Nothing({ folder }) {
  return html`<h1 class="unseen">Now</h1><${Empty} title="Nothing runs, and nothing ran yet" icon="now">
    <p>A run in <code>${folder}</code> is shown here from its first job on, whoever started it.</p>
    <p><a class="button primary" href=${address(["start"])}><${Icon} name="start" />Start a run</a></p>
    <p class="muted">or in a terminal: <code>comfyload run --server :8188 --workflow page.json --jobs 20</code></p>
  <//>`;
}

/** @param {{ run: string, entry: any, place: import("../router.js").Place, others: any[] }} props `entry`: of the list of runs, once it is there. */
function Watched({ run, entry, place, others }) {
  const { query } = place;
  const filter = Object.fromEntries(FILTERS.filter((key) => query[key]).map((key) => [key, query[key]]));
  const { data, error } = useWatch("run", { run, ...filter }, run);
  const now = useClock(data);
  const crumbs = place.view === "run" && html`<nav class="crumbs" aria-label="Where this is"><a data-back href=${address(["runs"])}>Runs</a> <span aria-hidden="true">/</span> <span>${run}</span></nav>`;
  if (error && !data) return html`${crumbs}<h1>${run}</h1><${Failing} error=${error} to=${address(["runs"])} where="All runs" />`;
  if (!data) return html`${crumbs}<h1 class="unseen">${run}</h1><${Loading} what=${run} />`;
  const expected = (data.running && entry?.expected) || 0;
  const [from, to] = [Number(query.from) || 0, Number(query.to) || 0];
  const onZoom = (/** @type {number} */ a, /** @type {number} */ b) => refine({ from: a ? a.toFixed(1) : "", to: b ? b.toFixed(1) : "" });
  return html`${crumbs}
    <${Head} run=${run} data=${data} now=${now} others=${others} expected=${expected} place=${place} />
    <${Notes} data=${data} />
    ${data.book && html`<${Book} run=${run} book=${data.book} canRetry=${data.actions.includes("retry_all")} />`}
    <${States} counts=${data.counts} expected=${expected} on=${query.state} />
    <${Tiles} tiles=${data.tiles} asOf=${data.running ? data.as_of_s : null} ofDay=${data.of_day} coming=${measuring(data)} />
    ${data.charts.length > 0 && html`<section class="charts" aria-label="Charts" style=${{ "--rows": Math.ceil((data.charts.length - 1) / 2) || 1 }}>
      ${data.charts.map((/** @type {any} */ head, /** @type {number} */ i) => html`<${LiveChart} key=${head.name} run=${run} head=${head} tall=${i === 0} from=${from} to=${to} onZoom=${onZoom} />`)}
    </section>`}
    <div class="split">
      <${Jobs} run=${run} data=${data} query=${query} filter=${filter} now=${now} />
      <aside class="beside" aria-label="What to know">
        ${measuring(data) && html`<section class="muted" role="status">Measuring …</section>`}
        <${Errors} errors=${data.errors} run=${run} />
        <${Gates} gates=${data.gates} own=${data.own_gates} running=${data.running} />
        <${Books} books=${data.books} on=${query.book} />
        <${Remarks} remarks=${data.remarks} />
        <${Nodes} nodes=${data.nodes} />
      </aside>
    </div>
    <${Announced} count=${data.counts.attention ?? 0} />`;
}

/** Whether jobs have ended, and what they come to is not known yet. @param {any} data */
function measuring(data) {
  const { done = 0, attention = 0, ended = 0 } = data.counts;
  return !data.problem && !data.states.length && done + attention + ended > 0;
}

/** What a reader must know before the numbers. @param {any} props */
function Notes({ data }) {
  const lines = [data.damaged > 0 && `${counted(data.damaged)} ${data.damaged === 1 ? "line" : "lines"} of its files cannot be read: left out.`, data.problem && `Its numbers cannot be shown: ${data.problem}`];
  return html`${lines.filter(Boolean).map((words) => html`<p key=${words} class="remark look-doubt"><${Icon} name="alert" />${words}</p>`)}`;
}

/** The run's instant, which goes on between two states. @param {any} data @returns {() => number} */
export function useClock(data) {
  const seen = useRef({ now: 0, at: 0 });
  if (data && data.now_s !== seen.current.now) seen.current = { now: data.now_s, at: performance.now() };
  return () => seen.current.now + (data?.running === false ? 0 : (performance.now() - seen.current.at) / 1000);
}

/** @param {any} props */
function Head({ run, data, now, others, expected, place }) {
  const { done = 0, attention = 0, ended = 0 } = data.counts;
  return html`<header class="head">
    <div class="head-words">
      <h1>${data.name} <${RunState} state=${data.state} />${data.running && !data.of_day && html`<${Elapsed} now=${now} />`}${expected > 0 && html` <span class="elapsed">${counted(done + attention + ended)} of about ${plural(expected, "job")}</span>`}</h1>
      <p class="muted">${data.subtitle.join(" · ")}</p>
      ${data.again_of && html`<p class="also">${plural(data.again_of.jobs, "job")} of ${data.again_of.run ? html`<a href=${address(["run", data.again_of.run, "watch"])}>${data.again_of.run}</a>` : "a run that is not here any more"}, sent once more</p>`}
      ${data.again.length > 0 && html`<p class="also">Sent once more: ${data.again.map((/** @type {any} */ later, /** @type {number} */ i) => html`${i ? ", " : ""}<a key=${later.run} href=${address(["run", later.run, "watch"])}>${plural(later.jobs, "job")} in ${later.run.split("/").at(-1)}</a>`)}${data.counts.attention > 0 && (data.needing ? `. ${plural(data.needing, "job")} still ${data.needing === 1 ? "needs" : "need"} attention.` : ". All that failed are done.")}</p>`}
      ${others.length > 0 && html`<p class="also">Also running: ${others.map((/** @type {any} */ other, /** @type {number} */ i) => html`${i ? ", " : ""}<a key=${other.id} href=${address(["now"], { run: other.id })}>${other.name}</a>`)}</p>`}
    </div>
    <div class="head-acts">
      ${data.actions.includes("retry_all") && html`<${Action} label="Retry all failed" sure=${`Run ${counted(data.needing)} again?`} icon="again" act=${() => again(run, { jobs: "failed" })} />`}
      ${data.actions.includes("stop") && html`<${Action} label="Stop" sure="Stop this run?" icon="stop" act=${async () => tell((await post(`${ofRun(run)}/stop`)).words ?? "The run is being stopped.")} />`}
      <a class="button" href=${address(["run", run])}><${Icon} name="runs" />Report</a>
      <a class="button wall-in" href=${address([place.view, ...place.path], { ...place.query, wall: "1" })} title="For a screen on the wall (w)"><${Icon} name="wall" /><span class="unseen">Wall screen</span></a>
    </div>
    <a class="button quiet wall-out" href=${address([place.view, ...place.path], { ...place.query, wall: "" })} title="Leave the wall screen (w)"><${Icon} name="close" /><span class="unseen">Leave the wall screen</span></a>
  </header>`;
}

/** @param {any} props */
function Elapsed({ now }) {
  tick.value;
  return html` <span class="elapsed">${span(Math.round(now()))}</span>`;
}

/** Jobs of a run again, as a new run beside it. @param {string} run @param {{ jobs: number[] | "failed", book?: number }} which */
export async function again(run, which) {
  const answer = await post(`${ofRun(run)}/again`, which);
  tell(answer.words ?? "Sent again: a run of its own has begun.");
  if (answer.run) go(address(["now"], { run: answer.run }));
}

/** The book whose pages are looked at. @param {any} props */
function Book({ run, book, canRetry }) {
  const { attention = 0, done = 0 } = book.counts;
  return html`<section class="panel book" aria-label=${`Book ${book.book}`}>
    <div><h2>Book ${book.book} <${Badge} badge=${book.badge} /></h2><p class="muted">${counted(done)} of ${plural(book.pages, "page")} done${attention > 0 && ` · ${counted(attention)} ${attention === 1 ? "needs" : "need"} attention`}</p></div>
    <div class="head-acts">${canRetry && attention > 0 && html`<${Action} label="Retry all failed of this book" sure=${`Run ${counted(attention)} again?`} icon="again" act=${() => again(run, { jobs: "failed", book: book.book })} />`}
      <button type="button" class="button" onClick=${() => refine({ book: "" })}><${Icon} name="close" />All books</button></div>
  </section>`;
}

/** Books, those that need a person first. @param {any} props */
function Books({ books, on }) {
  if (!books.count) return null;
  return html`<section><h2>Books</h2><ul class="books">${books.first.map((/** @type {any} */ book) => html`<li key=${book.book}><button type="button" aria-pressed=${on === String(book.book) ? "true" : "false"} onClick=${() => refine({ book: on === String(book.book) ? "" : book.book })}>
    <${Badge} badge=${book.badge} /><b>Book ${book.book}</b><span class="muted">${counted(book.counts.done ?? 0)} of ${plural(book.pages, "page")} done</span></button></li>`)}</ul>
    ${books.count > books.first.length && html`<p class="muted">${counted(books.count - books.first.length)} more</p>`}</section>`;
}

/** The four badges with their counts: each filters. `expected`: 0 if that is not known. @param {any} props */
export function States({ counts, expected = 0, on }) {
  const all = Math.max(expected, Object.values(counts).reduce((/** @type {any} */ a, b) => a + b, 0));
  return html`<div class="states" role="group" aria-label="Jobs by state">
    ${Object.entries(BADGES).map(([badge, { word, icon }]) => {
      const count = counts[badge] ?? 0;
      if (badge === "ended" && !count) return null;
      return html`<button key=${badge} type="button" class="state is-${badge} ${count ? "" : "is-none"}" aria-pressed=${on === badge ? "true" : "false"} onClick=${() => refine({ state: on === badge ? "" : badge })}>
        <span class="state-word"><${Icon} name=${icon} />${word}</span><b>${counted(count)}</b>
        <span class="state-bar" aria-hidden="true"><i style=${{ width: `${all ? (100 * count) / all : 0}%` }}></i></span>
      </button>`;
    })}
  </div>`;
}

/** @param {any} props */
function Tiles({ tiles, asOf, ofDay, coming }) {
  if (coming) return html`<div class="tiles" aria-hidden="true"><div class="is-coming"></div></div>`;
  if (!tiles.length) return null;
  return html`<dl class="tiles" aria-label="Numbers">
    ${tiles.map((/** @type {any} */ tile) => html`<div key=${tile.label}><dt>${tile.label}</dt><dd><b>${tile.words}</b>${(tile.interval || tile.note) && html` <small>${tile.interval || tile.note}</small>`}</dd></div>`)}
  </dl>
  ${asOf != null && html`<p class="as-of">${ofDay ? `numbers until ${span(asOf)} UTC` : `numbers of the first ${span(asOf)}`}</p>`}`;
}

/** @param {any} props */
function Jobs({ run, data, query, filter, now }) {
  const [text, setText] = useState(query.text ?? "");
  const wait = useRef(0);
  const search = (/** @type {any} */ event) => {
    setText(event.currentTarget.value);
    clearTimeout(wait.current);
    const words = event.currentTarget.value.trim();
    wait.current = setTimeout(() => refine({ text: words }), 200);
  };
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const chosen = FILTERS.filter((key) => key !== "text").map((key) => query[key]).join("\n");
  useEffect(() => {
    // What was chosen above is looked at here.
    const top = place.current?.getBoundingClientRect().top ?? 0;
    if (chosen.trim() && top > innerHeight * 0.6) place.current?.scrollIntoView({ behavior: "smooth" });
  }, [chosen]);
  const order = query.order || "newest";
  const filtered = Object.keys(filter).length > 0;
  const params = { ...filter, order };
  const query_ = new URLSearchParams(filter).toString();
  const clear = () => {
    setText("");
    refine(Object.fromEntries(FILTERS.map((key) => [key, ""])));
  };
  return html`<section class="jobs" aria-label="Jobs" ref=${place}>
    <div class="bar">
      <h2>Jobs</h2>
      <label class="search"><${Icon} name="search" /><span class="unseen">Search jobs</span><input type="search" data-search placeholder="number, prompt id or words" value=${text} onInput=${search} /></label>
      <label class="order"><span class="unseen">Order</span><select value=${order} onChange=${(/** @type {any} */ e) => refine({ order: e.currentTarget.value === "newest" ? "" : e.currentTarget.value })}>
        ${Object.entries(ORDERS).map(([key, words]) => html`<option key=${key} value=${key} selected=${key === order}>${words}</option>`)}
      </select></label>
      <span class="downloads"><a href=${url(`${ofRun(run)}/jobs.csv?${query_}`)} download>CSV</a> <a href=${url(`${ofRun(run)}/jobs.json?${query_}`)} download>JSON</a></span>
    </div>
    <${Chips} chips=${data.chips} query=${query} filtered=${filtered} clear=${clear} />
    <${Cards} run=${run} filter=${params} now=${now} none=${filtered ? html`No job matches. <button type="button" class="button quiet" onClick=${clear}>Clear the filters</button>` : data.running ? "No job came due yet." : "This run has no jobs."} />
  </section>`;
}

/** @param {any} props */
function Chips({ chips, query, filtered, clear }) {
  const badges = Object.keys(BADGES);
  const groups = Object.keys(GROUPS).map((group) => [group, chips.filter((/** @type {any} */ chip) => chip.group === group && !badges.includes(chip.key))]);
  const shown = groups.filter(([, all]) => all.length > 1 || (all.length && (all[0].on || !["workflow", "server"].includes(all[0].group))));
  if (!shown.length && !filtered) return null;
  return html`<div class="chips" role="group" aria-label="Filters">
    ${shown.map(([group, all]) => html`<span class="chip-group" key=${group} role="group" aria-label=${GROUPS[/** @type {keyof typeof GROUPS} */ (group)]}>
      ${all.map((/** @type {any} */ chip) => html`<${Chip} key=${chip.key} label=${chip.group === "server" ? host(chip.label) : chip.label} count=${chip.count} on=${query[group] === String(chip.key)} look=${group === "state" ? chip.key : ""}
        onClick=${() => refine({ [group]: query[group] === String(chip.key) ? "" : chip.key })} />`)}
    </span>`)}
    ${filtered && html`<button type="button" class="button quiet small" onClick=${clear}><${Icon} name="close" />Clear</button>`}
  </div>`;
}

/** @param {any} props */
function Gates({ gates, own, running }) {
  if (!gates.length) return null;
  return html`<section><h2>Gates <small class="muted">${own ? "the limits it was started with" : "the usual limits"}</small></h2><ul class="gates">
    ${gates.map((/** @type {any} */ gate) => {
      const open = running && gate.verdict === "INCONCLUSIVE";
      const look = open ? "plain" : gate.look ?? VERDICTS[gate.verdict] ?? "doubt";
      const word = open ? "not known yet" : gate.verdict === "PASS*" ? "ok" : gate.verdict;
      return html`<li key=${gate.words} class="look-${look}"><${Icon} name=${open ? "clock" : look === "bad" ? "alert" : look === "doubt" ? "question" : "check"} />
        <div><div class="gate-head"><code>${gate.words}</code><span>${gate.value}</span></div><p><b>${word}</b> ${gate.why}</p></div></li>`;
    })}
  </ul></section>`;
}

/** @param {any} props */
function Nodes({ nodes }) {
  if (!nodes.length) return null;
  return html`<section><h2>Where the time goes</h2><ul class="node-bars">
    ${nodes.slice(0, 8).map((/** @type {any} */ node) => html`<li key=${`${node.workflow} ${node.node}`}>
      <span>${node.class || node.node}${node.class && html` <small>${node.node}</small>`}</span><b>${node.mean}</b><em>${node.share}</em>
      <i aria-hidden="true"><u style=${{ width: `${Math.min(100, (node.part ?? 0) * 100)}%` }}></u></i></li>`)}
  </ul></section>`;
}

/** @param {any} props */
function Errors({ errors, run }) {
  if (!errors.length) return null;
  return html`<section><h2>Errors</h2><ul class="errors">
    ${errors.map((/** @type {any} */ error) => html`<li key=${`${error.index} ${error.t_s}`}><a href=${address(["run", run, "job", error.index])}>
      <span class="error-head">${error.kind.replace(/^[a-z_]+/, (/** @type {string} */ kind) => kind.replaceAll("_", " "))}${error.node && ` in ${error.node}`}${error.count > 1 && html` <b>× ${counted(error.count)}</b>`}<small>${span(error.t_s)}</small></span>
      <span class="error-text">${error.text}</span></a></li>`)}
  </ul></section>`;
}

/** Says, at most every 15 s, that more jobs need attention. @param {{ count: number }} props */
function Announced({ count }) {
  const [words, set] = useState("");
  const last = useRef({ count, at: 0 });
  useEffect(() => {
    const { count: before, at } = last.current;
    if (count <= before) {
      last.current.count = count;
      return;
    }
    const timer = setTimeout(() => {
      last.current = { count, at: performance.now() };
      set(`${counted(count)} jobs need attention.`);
    }, Math.max(0, at + 15_000 - performance.now()));
    return () => clearTimeout(timer);
  }, [count]);
  return html`<p class="unseen" role="status">${words}</p>`;
}
