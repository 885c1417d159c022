// A Page as the other formats have it, in their words and their order: answers, tiles, pictures, then all else.
import { url } from "./http.js";
import { dark } from "./look.js";
import { Icon, copyText } from "./parts.js";
import { html, useState } from "./ui.js";

/** A bar as a terminal has it, which is drawn here; the longest has so many letters. */
const BAR = /^▇+$/;
const BAR_LETTERS = 12;

/** A cell of so few letters stays on one line. */
const FEW_LETTERS = 24;

const LOOK_ICONS = { good: "check", bad: "alert", doubt: "question", plain: "dash" };

/** Equal footnotes are numbered once. */
class Notes {
  constructor() {
    /** @type {string[]} */
    this.words = [];
  }
  /** @param {string} note */
  number(note) {
    if (!this.words.includes(note)) this.words.push(note);
    return this.words.indexOf(note) + 1;
  }
}

/**
 * @param {{ page: any, charts?: any[], chartsAt?: string, level?: number }} props
 * `chartsAt`: the address below which its pictures lie, with `{name}` for a picture's.
 */
export function Page({ page, charts = [], chartsAt = "" }) {
  const notes = new Notes();
  const drawn = charts.filter((chart) => !chart.withheld);
  const withheld = charts.filter((chart) => chart.withheld);
  const tables = (page.tables ?? []).filter((/** @type {any} */ table) => !table.detail);
  const details = (page.tables ?? []).filter((/** @type {any} */ table) => table.detail);
  const facts = (page.facts ?? []).filter((/** @type {any} */ line) => !line.detail);
  const numbers = (page.facts ?? []).filter((/** @type {any} */ line) => line.detail);
  const body = html`
    <${States} states=${page.states} />
    <${PageTiles} tiles=${page.tiles} notes=${notes} />
    ${page.short?.length > 0 && html`<p class="short">${page.short.join(" · ")}</p>`}
    ${(drawn.length > 0 || page.bars?.length > 0) && html`<div class="front">
      ${drawn.length > 0 && html`<${Picture} chart=${drawn[0]} at=${chartsAt} first />`}
      ${page.bars?.length > 0 && html`<div class="stack">${page.bars.map((/** @type {any} */ bars) => html`<${Bars} key=${bars.key} bars=${bars} />`)}</div>`}</div>`}
    ${tables.filter(ofGates).map((/** @type {any} */ table) => html`<${Table} key=${table.key} table=${table} notes=${notes} />`)}
    <${Remarks} remarks=${(page.remarks ?? []).filter((/** @type {any} */ r) => !r.detail)} boxed most=${5} />
    ${tables.filter((/** @type {any} */ table) => !ofGates(table)).map((/** @type {any} */ table) => html`<${Table} key=${table.key} table=${table} notes=${notes} />`)}
    ${drawn.length > 1 && html`<section class="pictures" aria-label="Pictures">${drawn.slice(1).map((chart) => html`<${Picture} key=${chart.name} chart=${chart} at=${chartsAt} />`)}</section>`}
    ${facts.length > 0 && html`<section class="panel"><h2>Facts</h2><${Facts} lines=${facts} notes=${notes} /></section>`}
    ${numbers.length > 0 && html`<${Folded} title="All numbers"><${Facts} lines=${numbers} notes=${notes} /><//>`}
    ${details.map((/** @type {any} */ table) => html`<${Folded} key=${table.key} title=${table.title || named(table.key)}><${Table} table=${table} notes=${notes} bare /><//>`)}
    <${Remarks} remarks=${(page.remarks ?? []).filter((/** @type {any} */ r) => r.detail)} boxed title="More to know" />
    ${withheld.length > 0 && html`<${Folded} title="Pictures that were not drawn"><ul class="plain">${withheld.map((chart) => html`<li key=${chart.name}><b>${chart.title}</b>: ${chart.withheld}</li>`)}</ul><//>`}
    ${(page.notes ?? []).map((/** @type {string} */ note) => html`<p key=${note} class="note">${note}</p>`)}
    <${Next} next=${page.next} places=${page.places} />`;
  return html`<div class="page">${body}<${Footnotes} notes=${notes} /></div>`;
}

/** A reader wants the gates on the first screen. @param {{ key: string }} table */
const ofGates = (table) => table.key.startsWith("gates");

/** @param {{ notes: Notes }} props Drawn after all that has notes. */
function Footnotes({ notes }) {
  if (!notes.words.length) return null;
  return html`<ol class="footnotes" aria-label="Footnotes">${notes.words.map((note, i) => html`<li key=${note} id=${`note-${i + 1}`}>${note}</li>`)}</ol>`;
}

/** @param {any} props */
export function States({ states }) {
  if (!states?.length) return null;
  return html`<ul class="answers">${states.map((/** @type {any} */ state) => html`<li key=${state.word} class="look-${state.look}">
    <${Icon} name=${state.word === "ok" ? "check" : LOOK_ICONS[/** @type {keyof typeof LOOK_ICONS} */ (state.look)]} /><b>${state.word}</b>${state.sentence && html`<span>${state.sentence.replace(/:$/, ".")}</span>`}</li>`)}</ul>`;
}

/** @param {any} props */
function PageTiles({ tiles, notes }) {
  if (!tiles?.length) return null;
  return html`<dl class="tiles">${tiles.map((/** @type {any} */ tile) => html`<div key=${tile.label} class="look-${tile.look ?? tile.value.look ?? "plain"}"><dt>${tile.label}</dt>
    <dd><b>${tile.value.words}</b>${(tile.value.interval || tile.value.note) && html` <small>${tile.value.interval || tile.value.note}</small>`}</dd></div>`)}</dl>`;
}

/** @param {{ lines: any[], notes: Notes }} props */
function Facts({ lines, notes }) {
  return html`<dl class="facts wide">${lines.map((line) => html`<div key=${line.label}><dt>${line.label}</dt><dd><${Value} value=${{ look: line.look, ...line.value }} notes=${notes} /></dd></div>`)}</dl>`;
}

/** @param {{ value: any, notes: Notes }} props */
function Value({ value, notes }) {
  return html`<span class=${value.look && value.look !== "plain" ? `look-${value.look} toned` : undefined}>${value.words}</span>${value.interval && html` <small class="interval">${value.interval}</small>`}${value.note && html`<sup><a href=${`#note-${notes.number(value.note)}`} onClick=${jump} aria-label=${`Footnote ${notes.number(value.note)}`}>${notes.number(value.note)}</a></sup>`}`;
}

/** @param {string} key */
const named = (key) => key.charAt(0).toUpperCase() + key.slice(1).replaceAll("_", " ");

/** The address is the view's: a footnote is only scrolled to. @param {any} event */
function jump(event) {
  event.preventDefault();
  document.querySelector(event.currentTarget.getAttribute("href"))?.scrollIntoView({ block: "center" });
}

/** @param {any} props */
function Bars({ bars }) {
  return html`<section class="panel"><h2>${named(bars.title)}</h2>${bars.bars.map((/** @type {any} */ bar) => html`<div key=${bar.label} class="bar-line"><span>${bar.label}</span>
    <span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${Math.min(100, bar.share * 100)}%` }}></span></span><b>${bar.words}</b></div>`)}</section>`;
}

/** @param {any} props */
export function Remarks({ remarks, boxed = false, title = "To know", most = Number.POSITIVE_INFINITY }) {
  const [all, showAll] = useState(false);
  if (!remarks?.length) return null;
  const weight = { invalid: 0, warning: 1, info: 2 };
  const sorted = [...remarks].sort((a, b) => weight[/** @type {keyof typeof weight} */ (a.level)] - weight[/** @type {keyof typeof weight} */ (b.level)]);
  const shown = all || sorted.length <= most + 1 ? sorted : sorted.slice(0, most);
  return html`<section class=${boxed ? "panel" : undefined}><h2>${title}</h2><ul class="remarks">
    ${shown.map((/** @type {any} */ remark) => html`<li key=${remark.text} class="level-${remark.level}"><${Icon} name=${remark.level === "info" ? "info" : "alert"} /><div><span class="unseen">${remark.level}: </span>${remark.text}${remark.hint && html`<p>${remark.hint}</p>`}</div></li>`)}
  </ul>${shown.length < sorted.length && html`<button type="button" class="button quiet small" onClick=${() => showAll(true)}>${sorted.length - shown.length} more</button>`}</section>`;
}

/** @param {{ table: any, notes: Notes, bare?: boolean }} props */
export function Table({ table, notes = new Notes(), bare = false }) {
  const titled = table.columns.some((/** @type {any} */ column) => column.title);
  const body = html`<div class="table-room" tabindex="0" role="group" aria-label=${table.title || table.key}><table>
    ${titled && html`<thead><tr>${table.columns.map((/** @type {any} */ column) => html`<th key=${column.title} scope="col" class=${column.right ? "num" : undefined}>${column.title}</th>`)}</tr></thead>`}
    <tbody>${table.rows.map((/** @type {any[]} */ row) => html`<tr>${row.map((cell, i) => {
      const column = table.columns[i] ?? {};
      const kind = [column.right ? "num" : column.prose ? "prose" : "", cell.words ? "" : "is-empty", cell.words.length <= FEW_LETTERS ? "is-few" : ""].join(" ").trim() || undefined;
      const inside = BAR.test(cell.words) ? html`<span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${(100 * cell.words.length) / BAR_LETTERS}%` }}></span></span>` : html`<span><${Value} value=${cell} notes=${notes} /></span>`;
      return i === 0 && cell.words ? html`<th scope="row" class=${kind}>${inside}</th>` : html`<td class=${kind} data-title=${column.title}>${inside}</td>`;
    })}</tr>`)}</tbody>
  </table></div>${table.note && html`<p class="note">${table.note.replace(" (--all)", "")}</p>`}`;
  return bare ? body : html`<section class="panel">${table.title && html`<h2>${table.title}</h2>`}${body}</section>`;
}

/** @param {any} props */
function Picture({ chart, at, first = false }) {
  const theme = dark.value ? "dark" : "light";
  const address = url(at.replace("{name}", encodeURIComponent(chart.name)));
  const src = `${address}${address.includes("?") ? "&" : "?"}theme=${theme}`;
  return html`<figure class="picture ${first ? "is-first" : ""}"><figcaption><h2>${chart.title}</h2></figcaption>
    <div class="picture-room"><img src=${src} alt=${chart.description || chart.title} loading=${first ? "eager" : "lazy"} /></div></figure>`;
}

/** @param {any} props */
export function Folded({ title, children }) {
  return html`<details class="panel folded"><summary><h2>${title}</h2></summary>${children}</details>`;
}

/** @param {any} props */
function Next({ next, places }) {
  if (!next?.length && !places?.length) return null;
  return html`<section class="panel"><h2>Next</h2>
    ${(next ?? []).map((/** @type {string} */ line) => html`<${Command} key=${line} line=${line} />`)}
    ${(places ?? []).map((/** @type {string[]} */ [label, where]) => html`<p key=${label}>${label}: <code>${where}</code></p>`)}
  </section>`;
}

/** A command line that can be copied. @param {{ line: string }} props */
export function Command({ line }) {
  const [done, set] = useState(false);
  const copy = async () => {
    await copyText(line);
    set(true);
    setTimeout(() => set(false), 2000);
  };
  return html`<div class="command"><code>${line}</code><button type="button" class="button quiet small" onClick=${copy}><${Icon} name=${done ? "check" : "copy"} /><span>${done ? "Copied" : "Copy"}</span></button></div>`;
}
