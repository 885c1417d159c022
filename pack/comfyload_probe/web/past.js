// What the server has done: times of the last hour, failures, the last jobs, and what could not be measured of them.

import { each, h, set, show, write } from "./dom.js";
import { ago, covered, duration, plural, timeOfDay } from "./format.js";
import { jobList } from "./jobs.js";
import { section } from "./section.js";

const P95_NEEDS = 20;

export function times() {
  const none = h("p", { class: "clp-quiet" });
  const rows = [
    timeRow("execution", "From a job's start on the server to its end.", "durations"),
    timeRow(
      "with wait",
      "From when the server took a job in to its end: execution and the wait in its queue.",
      "latencies",
    ),
  ];
  const heads = [
    h("th", { scope: "col" }, h("span", { class: "clp-unseen" }, "time")),
    h("th", { scope: "col", title: "Half of the jobs took no longer." }, "p50"),
    h("th", { scope: "col", title: "95 of 100 jobs took no longer." }, "p95"),
    h("th", { scope: "col", title: "How many jobs that is." }, "n"),
  ];
  const table = h(
    "table",
    { class: "clp-times" },
    h("thead", {}, h("tr", {}, ...heads)),
    h("tbody", {}, ...rows.map(({ root }) => root)),
  );
  const few = h("p", { class: "clp-note" }, `p95 needs ${P95_NEEDS} jobs`);
  const part = section(
    "Times",
    "Jobs that ended well in the window named at the right, cached ones too.",
    none,
    table,
    few,
  );

  function update(overview) {
    const window = covered(overview.window_s);
    write(part.remark, `over the ${window}`);
    const any = overview.durations.n > 0 || overview.latencies.n > 0;
    write(none, `No job has ended well in the ${window}.`);
    show(none, !any);
    show(table, any);
    show(few, any && (overview.durations.p95 === null || overview.latencies.p95 === null));
    for (const row of rows) row.update(overview);
  }
  return { root: part.root, update };
}

function timeRow(name, measured, field) {
  const cells = [h("td", {}), h("td", {}), h("td", { class: "clp-n" })];
  const root = h("tr", {}, h("th", { scope: "row", title: measured }, name), ...cells);
  const update = (overview) => {
    const { p50, p95, n } = overview[field];
    [duration(p50), duration(p95), String(n)].forEach((text, at) => write(cells[at], text));
    set(cells[1], "title", p95 === null ? `p95 needs ${P95_NEEDS} jobs` : null);
  };
  return { root, update };
}

export function failures() {
  const none = h("p", { class: "clp-quiet" });
  const list = h("ol", { class: "clp-failures" });
  const part = section(
    "Failures",
    "Jobs that ended with an error, newest first, with the error's own words. Retries are known where the sender says so.",
    none,
    list,
  );

  function update(overview) {
    const { failures: failed, retries, unix_s } = overview;
    const again = retries ? plural(retries, "retry", "retries") : "";
    show(none, !failed.length);
    write(none, `None in the ${covered(overview.window_s)}`);
    const count = failed.length >= 20 ? "20 or more" : failed.length ? String(failed.length) : "";
    write(part.remark, [count, again].filter(Boolean).join(" · "));
    each(
      list,
      failed,
      ({ prompt_id }) => prompt_id,
      failure,
      (row, given) => row.update(given, unix_s),
    );
  }
  return { root: part.root, update };
}

function failure() {
  const where = h("span", { class: "clp-name" });
  const when = h("span", { class: "clp-aside" });
  const message = h("span", { class: "clp-message" });
  const more = h("p", { class: "clp-more" });
  const summary = h(
    "summary",
    {},
    h("span", { class: "clp-line1" }, h("span", { class: "clp-mark", "aria-hidden": "true" }, "✕"), where, when),
    message,
  );
  const root = h("li", { class: "clp-failure" }, h("details", {}, summary, more));
  const update = (given, unix_s) => {
    write(where, given.class_type || "outside the nodes");
    write(
      when,
      [
        given.attempt > 1 ? `attempt ${given.attempt}` : "",
        unix_s === null || given.ended_unix_s === null ? "" : ago(unix_s - given.ended_unix_s),
      ]
        .filter(Boolean)
        .join(" · "),
    );
    set(when, "title", `Ended at ${timeOfDay(given.ended_unix_s)}`);
    write(message, given.error || "no message");
    const facts = [
      given.exception_type,
      given.retry_of ? `retry of ${given.retry_of.slice(0, 8)}` : "",
      given.prompt_id ? `prompt ${given.prompt_id.slice(0, 8)}` : "",
    ];
    write(more, facts.filter(Boolean).join(" · "));
  };
  return { root, update };
}

export function jobs() {
  const none = h("p", { class: "clp-quiet" }, "No job yet. Each one appears here when it has ended.");
  const list = jobList();
  const part = section(
    "Last jobs",
    "Execution time of each job and the nodes it was spent in, slowest first. All bars are on one scale: the longest job shown fills the width.",
    none,
    list.root,
  );
  const update = (overview) => {
    show(none, !overview.jobs.length);
    list.update(overview.jobs, overview.unix_s);
  };
  return { root: part.root, update };
}

export function unseen() {
  const list = h("ul", { class: "clp-missing" });
  const part = section(
    "Not measured",
    "What the probe cannot see on this server, and therefore what is missing above and in its log.",
    list,
  );
  const update = ({ missing }) => {
    show(part.root, missing.length > 0);
    each(
      list,
      missing,
      (sentence) => sentence,
      () => ({ root: h("li", {}) }),
      (row, sentence) => write(row.root, sentence),
    );
  };
  return { root: part.root, update };
}
