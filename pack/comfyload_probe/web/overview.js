// What a reply of /comfyload/v1/overview holds. Nothing of a server is trusted: what has another shape is unknown.

const LONGEST_TEXT = 600;

/** The reply with every field present and of its type, or null where it is no overview at all. */
export function read(raw) {
  if (!plain(raw) || !Number.isInteger(raw.schema)) return null;
  const queue = plain(raw.queue) ? raw.queue : {};
  return {
    schema: raw.schema,
    boot: text(raw.boot),
    unix_s: number(raw.unix_s),
    mono_s: number(raw.mono_s),
    window_s: number(raw.window_s),
    active: raw.active !== false,
    running: list(queue.running, 16).map((job) => ({
      prompt_id: text(job.prompt_id),
      node: text(job.node),
      class_type: text(job.class_type),
      started_mono_s: number(job.started_mono_s),
    })),
    waiting: number(queue.waiting),
    jobs: list(raw.jobs, 20).map(job),
    durations: percentiles(raw.duration_ms),
    latencies: percentiles(raw.latency_ms),
    failures: list(raw.failures, 20).map(failure),
    retries: number(raw.retries),
    samples: list(raw.samples, 480).map(sample),
    missing: (Array.isArray(raw.missing) ? raw.missing.slice(0, 40) : []).map(text).filter(Boolean),
  };
}

function job(raw) {
  return {
    ...failure(raw),
    status: text(raw.status),
    waited_ms: number(raw.waited_ms),
    duration_ms: number(raw.duration_ms),
    nodes_cached: number(raw.nodes_cached),
    nodes: list(raw.nodes, 64).map((node) => ({
      node: text(node.node),
      class_type: text(node.class_type) || "unknown node",
      status: text(node.status),
      duration_ms: number(node.duration_ms),
    })),
  };
}

function failure(raw) {
  return {
    prompt_id: text(raw.prompt_id),
    ended_unix_s: number(raw.ended_unix_s),
    error: text(raw.error),
    exception_type: text(raw.exception_type),
    class_type: text(raw.class_type),
    attempt: number(raw.attempt),
    retry_of: text(raw.retry_of),
  };
}

function percentiles(raw) {
  const given = plain(raw) ? raw : {};
  return { n: number(given.n) ?? 0, p50: number(given.p50), p95: number(given.p95) };
}

function sample(raw) {
  return {
    mono_s: number(raw.mono_s),
    queue_depth: number(raw.queue_depth),
    gpus: list(raw.gpus, 16).map((gpu) => ({
      index: number(gpu.index),
      utilisation_percent: number(gpu.utilisation_percent),
      vram_used_bytes: number(gpu.vram_used_bytes),
      vram_total_bytes: number(gpu.vram_total_bytes),
      power_w: number(gpu.power_w),
      temperature_c: number(gpu.temperature_c),
    })),
  };
}

const plain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const list = (value, most) => (Array.isArray(value) ? value.slice(0, most).filter(plain) : []);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

function text(value) {
  if (typeof value !== "string" && typeof value !== "number") return "";
  const whole = String(value);
  return whole.length > LONGEST_TEXT ? `${whole.slice(0, LONGEST_TEXT)}…` : whole;
}
