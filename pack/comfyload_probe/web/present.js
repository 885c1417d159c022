// What the server does now and did in the last two minutes: its queue and its GPUs.

import { each, h, set, show, write } from "./dom.js";
import { counted, gibibytes, UNKNOWN, whole } from "./format.js";
import { section } from "./section.js";
import { draw, inWords, strip } from "./strips.js";

const SILENT_AFTER_S = 5;

export function queue() {
  const idle = h("p", { class: "clp-quiet" }, "Idle");
  const running = h("ul", { class: "clp-running" });
  const depth = strip({ stepped: true });
  const part = section(
    "Queue",
    "The node that runs now and for how long its job has run, by the server's clock; jobs that wait; below, jobs running or waiting over the last two minutes.",
    idle,
    running,
    depth.root,
  );

  function update(overview) {
    write(part.remark, overview.waiting === null ? "" : `${overview.waiting} waiting`);
    show(idle, !overview.running.length);
    each(
      running,
      overview.running,
      ({ prompt_id }) => prompt_id,
      runningJob,
      (row, job) => row.update(job, overview.mono_s),
    );
    const points = overview.samples.map(({ mono_s, queue_depth }) => ({ t: mono_s, value: queue_depth }));
    const values = points.map(({ value }) => value);
    set(depth.root, "hidden", !values.some((value) => value !== null));
    draw(depth, points, {
      until: overview.mono_s ?? 0,
      top: Math.max(4, ...values),
      label: `Jobs in the queue over the last two minutes: ${inWords(values, String)}`,
    });
  }
  return { root: part.root, update };
}

function runningJob() {
  const name = h("span", { class: "clp-name" });
  const id = h("span", { class: "clp-id" });
  const took = h("span", { class: "clp-figure" });
  const root = h("li", {}, h("i", { class: "clp-pulse", "aria-hidden": "true" }), name, id, took);
  const update = (job, mono_s) => {
    write(name, job.class_type || (job.node ? "unknown node" : "between nodes"));
    write(id, job.node ? `#${job.node}` : "");
    set(root, "title", job.prompt_id ? `prompt ${job.prompt_id}` : null);
    const known = job.started_mono_s !== null && mono_s !== null;
    write(took, known ? counted(mono_s - job.started_mono_s) : UNKNOWN);
  };
  return { root, update };
}

export function gpus() {
  const none = h("p", { class: "clp-quiet" });
  const list = h("div", { class: "clp-gpus" });
  const part = section(
    "GPU",
    "Readings of the GPUs that this ComfyUI computes on, twice a second, over the last two minutes. A gap is a reading that failed.",
    none,
    list,
  );

  function update({ samples, missing, mono_s }) {
    const last = samples.at(-1);
    const seen = new Map();
    for (const { gpus: read } of samples) read.forEach((gpu, at) => seen.set(gpu.index ?? at, true));
    const indexes = [...seen.keys()].sort((a, b) => a - b);
    show(list, indexes.length > 0);
    show(none, !indexes.length);
    write(none, `No GPU readings: ${whyNone(samples, missing)}`);
    each(
      list,
      indexes,
      (index) => index,
      gpu,
      (row, index) => row.update(index, samples, mono_s, indexes.length > 1),
    );
    const silent = last && last.mono_s !== null && mono_s !== null ? mono_s - last.mono_s : 0;
    write(
      part.remark,
      indexes.length && silent > SILENT_AFTER_S ? `silent for ${counted(silent)}` : indexes.length ? "last 2 min" : "",
    );
  }
  return { root: part.root, update };
}

/** The reason alone, of the sentence in which the probe says that GPUs are not read. */
function whyNone(samples, missing) {
  const said = missing.find((sentence) => /readings of (the )?gpus?|gpu readings/i.test(sentence));
  if (said) return said.slice(said.indexOf(":") + 1).trim();
  return samples.length ? "this server names no GPU" : "nothing has been read yet";
}

function gpu() {
  const busy = reading(
    "busy",
    "Share of the time in which a kernel ran, as the driver counts it. Not how much of the GPU was used.",
  );
  const vram = reading("VRAM", "Memory in use on the GPU, by all processes, of what it has.");
  const name = h("span", {});
  const facts = h("span", {});
  const about = h("p", { class: "clp-facts" }, name, facts);
  const root = h("div", { class: "clp-gpu" }, busy.root, vram.root, about);

  function update(index, samples, mono_s, several) {
    const readings = samples.map(({ mono_s: t, gpus: read }) => ({
      t,
      gpu: read.find((one, at) => (one.index ?? at) === index) ?? null,
    }));
    const now = readings.at(-1)?.gpu ?? null;
    const total = readings.findLast(({ gpu: one }) => one?.vram_total_bytes > 0)?.gpu.vram_total_bytes ?? null;
    const of = (field) => readings.map(({ t, gpu: one }) => ({ t, value: one?.[field] ?? null }));
    const called = several ? `GPU ${index}` : "GPU";
    busy.update(of("utilisation_percent"), {
      until: mono_s ?? 0,
      top: 100,
      figure: whole(now?.utilisation_percent, "%"),
      label: `${called} busy over the last two minutes`,
      written: (value) => whole(value, "%"),
    });
    vram.update(of("vram_used_bytes"), {
      until: mono_s ?? 0,
      top: total ?? 1,
      figure: `${gibibytes(now?.vram_used_bytes)} / ${gibibytes(total)} GiB`,
      label: `${called} memory over the last two minutes, of ${gibibytes(total)} GiB`,
      written: (value) => `${gibibytes(value)} GiB`,
    });
    set(root, "data-several", several);
    write(name, several ? called : "");
    write(
      facts,
      [whole(now?.power_w, "W"), whole(now?.temperature_c, "°C")].filter((fact) => fact !== UNKNOWN).join(" · "),
    );
    show(about, about.textContent !== "");
  }
  return { root, update };
}

function reading(name, measured) {
  const line = strip();
  const figure = h("span", { class: "clp-figure" });
  const root = h(
    "div",
    { class: "clp-reading", title: measured },
    h("span", { class: "clp-label" }, name),
    line.root,
    figure,
  );
  const update = (points, { until, top, figure: now, label, written }) => {
    write(figure, now);
    draw(line, points, {
      until,
      top,
      label: `${label}: ${inWords(
        points.map(({ value }) => value),
        written,
      )}`,
    });
  };
  return { root, update };
}
