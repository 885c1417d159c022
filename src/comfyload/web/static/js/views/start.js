// Start a run: workflow, server, load, gates; looked at first, and written down as a plan and a command line.
import { Refused, get, post, useGet } from "../http.js";
import { Action, Failing, Icon, Loading, Why, tell, useAttempt } from "../parts.js";
import { Command, States } from "../page.js";
import { address, go } from "../router.js";
import { useWatch } from "../socket.js";
import { html, signal, useEffect, useState } from "../ui.js";
import { Field } from "../field.js";
import { host } from "../words.js";

/** What is filled in; it stays while other views are looked at. */
const form = signal({ server: "", workflows: /** @type {{ name: string, text: string, weight: number }[]} */ ([]), options: /** @type {Record<string, any>} */ ({}) });
const FIRST = ["concurrency", "rate", "jobs", "duration", "warmup", "timeout"];
const GATES = ["gate", "until_proven"];

/** @param {Partial<typeof form.value>} changed */
const change = (changed) => {
  form.value = { ...form.value, ...changed };
};
/** @param {string} name @param {any} value */
function fill(name, value) {
  const options = { ...form.value.options };
  if (value === "" || value === false || value == null || (Array.isArray(value) && !value.length)) delete options[name];
  else options[name] = value;
  change({ options });
}

export function View() {
  const { data, error } = useGet("start");
  const { data: seen } = useWatch("servers", {});
  const down = (/** @type {string} */ name) => seen?.servers?.some((/** @type {any} */ one) => one.name === name && one.state === "down");
  useEffect(() => {
    if (data?.servers.length && !data.servers.some((/** @type {any} */ one) => one.name === form.value.server)) change({ server: data.servers[0].name });
  }, [data]);
  if (error) return html`<h1>Start a run</h1><${Failing} error=${error} />`;
  if (!data) return html`<h1>Start a run</h1><${Loading} what="the form" />`;
  const asked = form.value;
  const field = (/** @type {string} */ name) => {
    const known = data.fields.find((/** @type {any} */ one) => one.name === name);
    return known && html`<${Field} key=${name} field=${known} value=${asked.options[name]} onChange=${(/** @type {any} */ value) => fill(name, value)} />`;
  };
  const rest = data.fields.filter((/** @type {any} */ one) => ![...FIRST, ...GATES].includes(one.name));
  const groups = [...new Set(rest.map((/** @type {any} */ one) => one.group))];
  return html`<header class="head"><div class="head-words"><h1>Start a run</h1><p class="muted">Drop a workflow, choose a server, press Start: what is left empty has a sensible value. The run goes on when this page is closed.</p></div></header>
    <div class="split start">
      <div class="stack">
        <${Workflows} files=${asked.workflows} />
        <section class="panel"><h2>Server</h2>${data.servers.length ? html`<div class="choices" role="radiogroup" aria-label="Server">${data.servers.map((/** @type {any} */ one) => html`<label key=${one.name} class="choice"><input type="radio" name="server" checked=${asked.server === one.name} onChange=${() => change({ server: one.name })} /><span><b>${one.name}</b> <small class="muted">${host(one.url)}</small>${down(one.name) && html` <small class="look-bad toned">does not answer</small>`}</span></label>`)}</div>` : html`<p class="muted">No server is configured: give <code>--server URL</code> to <code>comfyload ui</code>.</p>`}</section>
        <section class="panel"><h2>Load</h2><p class="note">Keep so many jobs in flight (concurrency), or send them at a rate. It ends after so many jobs, or after a time (duration).</p><div class="fields">${FIRST.map(field)}</div></section>
        <section class="panel"><h2>Gates</h2><p class="note">Limits that the run must keep. If none is given: ${(data.gates ?? []).map((/** @type {string} */ gate, /** @type {number} */ i) => html`${i ? ", " : ""}<code>${gate}</code>`)}.</p><div class="fields">${GATES.map(field)}</div></section>
        ${groups.map((group) => html`<details key=${group} class="panel folded"><summary><h2>More about the ${String(group).toLowerCase()}</h2></summary><div class="fields">${rest.filter((/** @type {any} */ one) => one.group === group).map((/** @type {any} */ one) => field(one.name))}</div></details>`)}
      </div>
      <aside class="beside sticky" aria-label="Plan and start"><${Go} asked=${asked} /><${Saved} asked=${asked} /></aside>
    </div>`;
}

/** @param {{ files: typeof form.value.workflows }} props */
function Workflows({ files }) {
  const [over, setOver] = useState(false);
  const add = async (/** @type {FileList | null | undefined} */ list) => {
    const read = await Promise.all([...(list ?? [])].map(async (file) => ({ name: file.name, text: await file.text(), weight: 1 })));
    const names = read.map((file) => file.name);
    if (read.length) change({ workflows: [...form.value.workflows.filter((file) => !names.includes(file.name)), ...read] });
  };
  const drop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    add(event.dataTransfer?.files);
  };
  return html`<section class="panel"><h2>Workflow</h2>
    <label class="drop ${over ? "is-over" : ""}" onDragOver=${(/** @type {DragEvent} */ e) => (e.preventDefault(), setOver(true))} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <${Icon} name="start" /><span><b>Drop a workflow here</b>, or choose a file<small>in API format: in ComfyUI, Workflow → Export (API)</small></span>
      <input class="unseen" type="file" accept=".json,application/json" multiple onChange=${(/** @type {any} */ e) => (add(e.currentTarget.files), (e.currentTarget.value = ""))} />
    </label>
    ${files.length > 0 && html`<ul class="files">${files.map((file) => html`<li key=${file.name}><b>${file.name}</b>
      ${files.length > 1 && html`<label class="check">weight <input type="number" min="0.1" step="any" value=${file.weight} onChange=${(/** @type {any} */ e) => change({ workflows: files.map((one) => (one === file ? { ...file, weight: Number(e.currentTarget.value) || 1 } : one)) })} /></label>`}
      <button type="button" class="button quiet small" aria-label=${`Remove ${file.name}`} onClick=${() => change({ workflows: files.filter((one) => one !== file) })}><${Icon} name="close" /></button></li>`)}</ul>`}
  </section>`;
}

/** What is wrong with the form, or the plan that it is. @param {{ asked: any }} props */
function Go({ asked }) {
  const [plan, setPlan] = useState(/** @type {any} */ (null));
  const [look, setLook] = useState(/** @type {any} */ (null));
  const ready = asked.server && asked.workflows.length > 0;
  useEffect(() => {
    setLook(null);
    if (!ready) return setPlan(null);
    let live = true;
    const timer = setTimeout(() => {
      const told = (/** @type {any} */ found) => live && setPlan(found);
      post("plan", asked).then(told, (error) => told({ error }));
    }, 300);
    return () => {
      live = false;
      clearTimeout(timer);
    };
  }, [asked]);
  const check = async () => {
    setLook({ busy: true });
    try {
      setLook(await post("preflight", asked));
    } catch (error) {
      setLook({ error });
    }
  };
  const start = async () => {
    const begun = await post("runs", asked).catch((error) => setLook({ error }));
    if (!begun) return;
    tell("The run has begun.");
    go(address(["run", begun.id, "watch"]));
  };
  return html`<section><h2>Plan</h2>
    ${!ready && html`<p class="muted">${asked.workflows.length ? "Choose a server." : "Drop a workflow first; then its plan stands here in words."}</p>`}
    ${plan?.error && html`<${Failing} error=${plan.error} />`}
    ${plan?.words && html`<p>${plan.words}</p>`}
    <div class="acts">
      <button type="button" class="button" aria-disabled=${ready && !look?.busy ? "false" : "true"} onClick=${() => ready && !look?.busy && check()}><${Icon} name="check" />${look?.busy ? "Looking …" : "Check first"}</button>
      ${ready && !plan?.error ? html`<${Action} label="Start" sure="" icon="play" look="primary" act=${start} />` : html`<button type="button" class="button primary" aria-disabled="true"><${Icon} name="play" />Start</button>`}
    </div>
    ${look?.error && html`<${Failing} error=${look.error} />${look.error instanceof Refused && look.error.body.said && html`<pre class="said" tabindex="0">${look.error.body.said}</pre>`}`}
    ${look?.checks && html`<${Checks} look=${look} />`}
    ${plan?.command && html`<details class="folded" open><summary>The same in a terminal</summary><${Command} line=${plan.command} /></details>`}
    ${plan?.toml && html`<details class="folded"><summary>As a plan file</summary><pre class="said" tabindex="0">${plan.toml}</pre></details>`}
    ${plan?.missing?.length > 0 && html`<p class="note">Not in the plan: ${plan.missing.join(", ")}</p>`}
  </section>`;
}

/** Problems first, what is fine folded. @param {{ look: any }} props */
function Checks({ look }) {
  const fine = look.checks.filter((/** @type {any} */ check) => check.status === "ok");
  const rest = look.checks.filter((/** @type {any} */ check) => check.status !== "ok");
  const line = (/** @type {any} */ check) => html`<li key=${check.name} class=${check.status === "ok" ? "look-good" : check.status === "problem" ? "look-bad" : "look-doubt"}>
    <${Icon} name=${check.status === "ok" ? "check" : check.status === "problem" ? "alert" : "info"} /><div><b>${check.name}</b> ${check.found}${check.advice && html`<p>${check.advice}</p>`}</div></li>`;
  return html`<div role="status"><${States} states=${[{ word: look.word, look: look.look, sentence: look.sentence.charAt(0).toUpperCase() + look.sentence.slice(1) }]} /></div>
    <ul class="gates">${rest.map(line)}</ul>
    ${fine.length > 0 && html`<details class="folded"><summary>${fine.length} more ${fine.length === 1 ? "is" : "are"} fine</summary><ul class="gates">${fine.map(line)}</ul></details>`}`;
}

/** @param {{ asked: any }} props */
function Saved({ asked }) {
  const [version, again] = useState(0);
  const { data } = useGet("plans", version);
  const [why, attempt] = useAttempt();
  const save = (/** @type {any} */ event) => {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget).get("name") ?? "");
    attempt(async () => {
      await post("plans", { ...asked, name }).catch((error) => {
        if (error.status !== 409 || !confirm(`Replace the plan ${name}?`)) throw error;
        return post("plans", { ...asked, name, replace: true });
      });
      tell(`Saved as ${name}.`);
      again(version + 1);
    });
  };
  const load = async (/** @type {string} */ name) => {
    const plan = await get(`plans/${encodeURIComponent(name)}`);
    change({ server: plan.server || form.value.server, workflows: plan.workflows.filter((/** @type {any} */ one) => one.text), options: plan.options });
    if (plan.problem) throw new Error(plan.problem);
  };
  return html`<section><h2>Saved plans</h2><p class="note">All that is filled in, kept under a name. <code>comfyload run --plan</code> takes it too.</p>
    <form class="keep" onSubmit=${save}><label><span class="unseen">Name of the plan</span><input name="name" required placeholder="name, such as nightly" /></label><button class="button">Save</button></form><${Why} why=${why} />
    <ul class="files">${(data?.plans ?? []).map((/** @type {any} */ plan) => html`<li key=${plan.name}><button type="button" class="button quiet" onClick=${() => attempt(() => load(plan.name))}>${plan.name}</button><small class="muted">${plan.problem || plan.words}</small>
      <${Action} label="Delete" sure="Delete it?" icon="close" look="quiet small" act=${async () => (await post(`plans/${encodeURIComponent(plan.name)}/delete`), again(version + 1))} /></li>`)}</ul>
  </section>`;
}
