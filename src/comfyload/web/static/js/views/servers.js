// The servers that are configured, as they are now; those behind a gateway can be drained.
import { post } from "../http.js";
import { Action, Empty, Failing, Icon, Loading, tell } from "../parts.js";
import { address } from "../router.js";
import { useWatch } from "../socket.js";
import { html } from "../ui.js";
import { counted, host, span } from "../words.js";

/** @type {Record<string, { word: string, icon: string, look: string }>} */
const STATES = {
  up: { word: "Up", icon: "check", look: "done" },
  down: { word: "Down", icon: "alert", look: "attention" },
  asking: { word: "Asking", icon: "clock", look: "pending" },
  joining: { word: "Joining", icon: "clock", look: "pending" },
  drained: { word: "Drained", icon: "hourglass", look: "retrying" },
  leaving: { word: "Leaving", icon: "hourglass", look: "retrying" },
};

export function View() {
  const { data, error } = useWatch("servers", {});
  const head = html`<header class="head"><div class="head-words"><h1>Servers</h1></div></header>`;
  if (error && !data) return html`${head}<${Failing} error=${error} />`;
  if (!data) return html`${head}<${Loading} what="servers" />`;
  if (data.gateway) return html`${head}<${Members} members=${data.gateway.servers ?? []} differ=${data.gateway.differ} gateway="" />`;
  if (!data.servers.length) return html`${head}<${Empty} title="No server is configured" icon="servers"><p>Give one when you start the dashboard: <code>comfyload ui --server URL</code></p><//>`;
  return html`${head}<div class="servers">${data.servers.map((/** @type {any} */ server) => (server.kind === "gateway" ? html`<section key=${server.name} class="wide"><h2>${server.name} <small class="muted">gateway at ${host(server.url)}</small> <a class="button small" href=${address(["now"], { of: "gateway" })}>Its jobs</a></h2><${Members} members=${server.members ?? []} differ=${server.differ} gateway=${server.name} /></section>` : html`<${Server} key=${server.name} server=${server} />`))}</div>`;
}

/** What a person calls a device: "cuda:0 NVIDIA GeForce RTX 5060 Ti : cudaMallocAsync" has more. @param {string} name */
const deviceName = (name) => name.replace(/^(cuda|mps|xpu|hip)(:\d+)? (?=\S)/, "").replace(/ : \w+$/, "");

/** @param {number} bytes */
const gib = (bytes) => (bytes / 2 ** 30).toFixed(1);

/** @param {{ state: string }} props */
function State({ state }) {
  const known = STATES[state] ?? { word: state, icon: "dash", look: "ended" };
  return html`<span class="badge is-${known.look}"><${Icon} name=${known.icon} />${known.word}</span>`;
}

/** @param {any} props */
function Server({ server }) {
  return html`<section class="panel server"><header><h2>${server.name}</h2><${State} state=${server.state} /></header>
    <p class="muted"><a href=${server.url} target="_blank" rel="noopener noreferrer">${host(server.url)}</a></p>
    ${server.why && html`<p class="look-bad toned sentence">${server.why}</p>${server.hint && html`<p class="muted sentence">${server.hint}</p>`}`}
    ${server.kind === "comfyui" && html`<p class="queue"><b>${counted(server.queue ?? 0)}</b> in the queue</p>
      ${server.devices.map((/** @type {any} */ device, /** @type {number} */ i) => html`<${Memory} key=${i} name=${deviceName(device.name)} memory=${device.memory} />`)}
      <${Memory} name="Main memory" memory=${server.memory} />
      <dl class="facts"><div><dt>ComfyUI</dt><dd>${server.version ?? "unknown"}</dd></div><div><dt>Answers in</dt><dd>${server.answers_in}</dd></div>
        ${server.cache && html`<div><dt>Cache</dt><dd>${server.cache}</dd></div>`}<div><dt>Probe</dt><dd>${server.probe === "there" ? "installed" : server.probe}</dd></div>
        ${server.models && html`<div><dt>Models</dt><dd>${server.models.length ? server.models.map((/** @type {any} */ one) => html`<span key=${one.name} class="model">${one.name} <small class="muted">${one.words}</small></span>`) : "none loaded"}</dd></div>`}</dl>`}
  </section>`;
}

/** What is in use of a memory. @param {any} props */
function Memory({ name, memory }) {
  if (!memory) return html`<p class="muted">${name}</p>`;
  const used = 1 - memory.free / memory.total;
  return html`<div class="memory"><span>${name}</span><small class="muted">${gib(memory.total - memory.free)} of ${gib(memory.total)} GiB in use</small><span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${Math.round(100 * used)}%` }}></span></span></div>`;
}

/** Servers behind a gateway. @param {any} props */
function Members({ members, differ, gateway }) {
  const act = async (/** @type {string} */ name, /** @type {string} */ what) => {
    await post(`../api/servers/${encodeURIComponent(name)}/${what}${gateway ? `?gateway=${encodeURIComponent(gateway)}` : ""}`);
    tell(what === "drain" ? `${name} takes no new job.` : `${name} takes jobs again.`);
  };
  const differing = Object.entries(differ ?? {});
  return html`${differing.length > 0 && html`<section class="panel after"><h2><${Icon} name="alert" />They differ</h2><dl class="facts wide">${differing.map(([key, values]) => html`<div key=${key}><dt>${key}</dt><dd>${Object.entries(values).map(([name, value]) => `${name}: ${value ?? "unknown"}`).join(" · ")}</dd></div>`)}</dl></section>`}
    <div class="servers">${members.map((/** @type {any} */ member) => html`<section key=${member.name} class="panel server"><header><h2>${member.name}</h2><${State} state=${member.state ?? "asking"} /></header>
      <p class="muted">${host(member.url ?? "")}</p>
      ${member.why && html`<p class="look-bad toned">${member.why}</p>`}
      ${member.jobs != null && html`<p class="queue"><b>${counted(member.jobs)}</b> ${member.jobs === 1 ? "job" : "jobs"}, ${counted(member.running)} running${member.others > 0 && `, ${counted(member.others)} of others`}</p>`}
      <dl class="facts">${[["ComfyUI", member.comfyui], ["Devices", member.devices?.map(deviceName).join(", ")], ["Breaker", member.circuit && (member.circuit === "closed" ? "closed: jobs pass" : `${member.circuit} for ${span(member.broken_s)}: too many jobs failed here`)], ["Home", member.home ? "yes: files and settings come from here" : ""]].filter(([, words]) => words).map(([label, words]) => html`<div key=${label}><dt>${label}</dt><dd>${words}</dd></div>`)}</dl>
      <div class="acts">${member.drained
        ? html`<${Action} label="Resume" sure="" icon="play" act=${() => act(member.name, "resume")} />`
        : html`<${Action} label="Drain" sure="Send it no new job?" icon="stop" act=${() => act(member.name, "drain")} />`}</div>
    </section>`)}</div>`;
}
