// The last jobs: how long each took and in which nodes, all bars on one scale so that they can be compared.

import { each, h, paint, set, show, write } from "./dom.js";
import { ago, duration, plural, timeOfDay } from "./format.js";

const HUES = 6;
const NAMED = 2;
const SHOWN = { ok: ["✓", "ok"], error: ["✕", "failed"], interrupted: ["■", "interrupted"] };

/** The list of jobs; `update(jobs, unix_s)` with the newest first. */
export function jobList() {
  const legend = h("p", { class: "clp-names clp-legend" });
  const list = h("ol", { class: "clp-jobs" });
  const root = h("div", {}, legend, list);
  const hues = new Map();

  function update(jobs, unix_s) {
    const longest = Math.max(...jobs.map(({ duration_ms, nodes }) => Math.max(duration_ms ?? 0, total(nodes))), 1);
    share(hues, jobs);
    show(legend, hues.size > 0);
    each(
      legend,
      [...hues.keys()],
      (name) => name,
      caption,
      (part, name) => part.update({ class_type: name, text: "" }, hues),
    );
    each(
      list,
      jobs,
      (job) => job.prompt_id,
      row,
      (part, job) => part.update(job, { longest, unix_s, hues }),
    );
  }
  return { root, update };
}

/** Give each class of node a hue while it is among the shown; the ones that took longest get one first. */
function share(hues, jobs) {
  const spent = new Map();
  for (const { class_type, duration_ms } of jobs.flatMap(({ nodes }) => nodes)) {
    spent.set(class_type, (spent.get(class_type) ?? 0) + (duration_ms ?? 0));
  }
  for (const name of hues.keys()) if (!spent.has(name)) hues.delete(name);
  const free = [...Array(HUES).keys()].filter((hue) => ![...hues.values()].includes(hue));
  const wanting = [...spent].filter(([name, ms]) => ms > 0 && !hues.has(name)).sort((a, b) => b[1] - a[1]);
  for (const [name] of wanting.slice(0, free.length)) hues.set(name, free.shift());
}

function row() {
  const mark = h("span", { class: "clp-mark", "aria-hidden": "true" });
  const word = h("span", { class: "clp-word" });
  const took = h("span", { class: "clp-took" });
  const aside = h("span", { class: "clp-aside" });
  const bar = h("span", { class: "clp-bar", "aria-hidden": "true" });
  const names = h("span", { class: "clp-names" });
  const summary = h("summary", {}, h("span", { class: "clp-line1" }, mark, took, word, aside), bar, names);
  const nodes = h("ol", { class: "clp-nodes" });
  const more = h("p", { class: "clp-more" });
  const folded = h("details", {}, summary, nodes, more);
  const root = h("li", { class: "clp-job" }, folded);

  function update(job, { longest, unix_s, hues }) {
    const [glyph, outcome] = SHOWN[job.status] ?? ["?", job.status || "unknown"];
    set(root, "data-status", job.status);
    write(mark, glyph);
    write(word, outcome);
    set(word, "class", job.status === "ok" ? "clp-unseen" : "clp-word");
    write(took, duration(job.duration_ms));
    write(aside, [job.attempt > 1 ? `attempt ${job.attempt}` : "", since(job, unix_s)].filter(Boolean).join(" · "));
    set(aside, "title", `Ended at ${timeOfDay(job.ended_unix_s)}`);

    const timed = job.nodes.filter(({ duration_ms }) => duration_ms > 0);
    const whole = Math.max(job.duration_ms ?? 0, total(timed));
    const rest = whole - total(timed);
    const parts = rest > whole / 500 ? [...timed, { class_type: "", duration_ms: rest }] : timed;
    paint(bar, { "--clp-of": whole / longest });
    show(bar, timed.length > 0);
    each(
      bar,
      parts,
      (_, at) => at,
      segment,
      (part, node) => part.update(node, { whole, hues }),
    );
    each(
      names,
      captions(job, timed, hues),
      (_, at) => at,
      caption,
      (part, given) => part.update(given, hues),
    );

    each(
      nodes,
      job.nodes,
      ({ node, class_type }) => `${node} ${class_type}`,
      nodeRow,
      (part, node) => {
        part.update(node, { longest: Math.max(job.nodes[0].duration_ms ?? 0, 1e-9), hues });
      },
    );
    write(more, footnote(job, rest));
  }
  return { root, update };
}

const since = (job, unix_s) => (unix_s === null || job.ended_unix_s === null ? "" : ago(unix_s - job.ended_unix_s));
const total = (nodes) => nodes.reduce((sum, { duration_ms }) => sum + (duration_ms ?? 0), 0);
const hueOf = (hues, name) =>
  hues.has(name) ? `var(--clp-hue-${hues.get(name)})` : name ? "var(--clp-hue-other)" : "transparent";

function segment() {
  const root = h("span", { class: "clp-segment" });
  const update = (node, { whole, hues }) => {
    paint(root, { "--clp-of": node.duration_ms / whole, "--clp-hue": hueOf(hues, node.class_type) });
    set(root, "title", `${node.class_type || "outside the nodes named"} ${duration(node.duration_ms)}`);
  };
  return { root, update };
}

/** What stands under a bar: the slowest nodes, or why there is none. The legend names a node that has a hue. */
function captions(job, timed, hues) {
  const left = timed.length - NAMED;
  const lines = timed.slice(0, NAMED).map(({ class_type, duration_ms }, at) => {
    const others = at === NAMED - 1 && left > 0 ? `\u2002+${left}` : "";
    return { class_type, text: `${duration(duration_ms)}${others}`, unnamed: hues.has(class_type) };
  });
  if (!timed.length && job.status === "ok" && job.nodes_cached > 0)
    lines.push({ text: `all ${plural(job.nodes_cached, "node")} from the cache` });
  else if (!timed.length)
    lines.push({ text: job.status === "error" ? job.error || "failed before a node ran" : "no node ran" });
  return lines;
}

function caption() {
  const swatch = h("i", { class: "clp-swatch" });
  const name = h("span", { class: "clp-name" });
  const text = h("span", { class: "clp-figure" });
  const root = h("span", { class: "clp-caption" }, swatch, name, text);
  const update = (given, hues) => {
    show(swatch, Boolean(given.class_type));
    paint(swatch, { "--clp-hue": hueOf(hues, given.class_type) });
    write(name, given.class_type ?? "");
    set(name, "class", given.unnamed ? "clp-unseen" : "clp-name"); // still read aloud
    set(root, "title", given.class_type);
    show(name, Boolean(given.class_type));
    write(text, given.text);
  };
  return { root, update };
}

function nodeRow() {
  const swatch = h("i", { class: "clp-swatch" });
  const name = h("span", { class: "clp-name" });
  const id = h("span", { class: "clp-id" });
  const figure = h("span", { class: "clp-figure" });
  const bar = h("span", { class: "clp-bar", "aria-hidden": "true" }, h("span", { class: "clp-segment" }));
  const root = h("li", { class: "clp-node" }, swatch, name, id, figure, bar);
  const update = (node, { longest, hues }) => {
    set(root, "data-status", node.status);
    paint(root, { "--clp-hue": hueOf(hues, node.class_type) });
    write(name, node.class_type);
    set(name, "title", node.class_type);
    write(id, node.node ? `#${node.node}` : "");
    write(figure, node.duration_ms === null ? node.status || "–" : `${duration(node.duration_ms)}${failing(node)}`);
    paint(bar, { "--clp-of": (node.duration_ms ?? 0) / longest });
    show(bar, node.duration_ms !== null);
  };
  return { root, update };
}

const failing = ({ status }) => (status === "error" ? ", failed" : status === "interrupted" ? ", interrupted" : "");

function footnote(job, rest) {
  const facts = [
    job.waited_ms === null ? "" : `waited ${duration(job.waited_ms)}`,
    job.nodes_cached ? `${plural(job.nodes_cached, "node")} from the cache` : "",
    job.nodes.length && rest > 1 ? `${duration(rest)} elsewhere` : "",
    job.retry_of ? `retry of ${job.retry_of.slice(0, 8)}` : "",
    job.prompt_id ? `prompt ${job.prompt_id.slice(0, 8)}` : "",
  ];
  return facts.filter(Boolean).join(" · ");
}
