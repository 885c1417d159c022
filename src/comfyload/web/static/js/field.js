// A field of a form, by its kind; its words and bounds are the flag's.
import { html, useRef, useState } from "./ui.js";

/** @param {string} flag */
const titled = (flag) => flag.replace(/^--/, "").replaceAll("-", " ");

/** The words of a flag's help where there is a form: other flags are fields here, and a list has a line for each. @param {any} field */
const inForm = ({ kind, words }) => (kind === "texts" ? words.replaceAll("'", "").replace("Repeatable", "One a line") : words).replace(/--[a-z-]+/g, (/** @type {string} */ flag) => `“${titled(flag)}”`);

/** @param {{ field: any, value: any, onChange: (value: any) => void }} props */
export function Field({ field, value, onChange }) {
  const id = useRef(`field-${field.name}`).current;
  const help = html`<small id=${`${id}-help`}>${inForm(field)}${field.default && html` <span>If empty: ${field.default}.</span>`}</small>`;
  const on = (/** @type {any} */ event) => onChange(event.currentTarget.value);
  const common = { id, "aria-describedby": `${id}-help`, placeholder: field.default || (/\d/.test(field.example) ? `such as ${field.example.split(",")[0]}` : "") };
  const title = html`<span class="field-title">${titled(field.flag)}</span>`;
  if (field.kind === "switch") {
    return html`<div class="field is-switch"><label for=${id}><input type="checkbox" id=${id} aria-describedby=${`${id}-help`} checked=${value === true} onChange=${(/** @type {any} */ e) => onChange(e.currentTarget.checked)} /> ${title}</label>${help}</div>`;
  }
  let control;
  if (field.kind === "choice") {
    control = html`<select ...${common} onChange=${on}><option value="" selected=${!value}>${field.default || "–"}</option>${field.choices.map((/** @type {string} */ choice) => html`<option key=${choice} value=${choice} selected=${value === choice}>${choice}</option>`)}</select>`;
  } else if (field.kind === "texts") {
    control = html`<textarea ...${common} rows="2" value=${(value ?? []).join("\n")} onInput=${(/** @type {any} */ e) => onChange(e.currentTarget.value.split("\n").filter((/** @type {string} */ line) => line.trim()))}></textarea>`;
  } else if (field.kind === "file") {
    control = html`<span class="file-field"><input type="file" ...${common} onChange=${async (/** @type {any} */ e) => {
      const file = e.currentTarget.files?.[0];
      onChange(file ? { name: file.name, text: await file.text() } : null);
    }} />${value && html`<small>${value.name}</small>`}</span>`;
  } else {
    const numeric = field.kind === "number";
    control = html`<input ...${common} inputmode=${numeric ? (field.whole ? "numeric" : "decimal") : undefined} value=${value ?? ""} onInput=${on} />`;
  }
  return html`<div class="field"><label for=${id}>${title}</label>${control}${help}</div>`;
}

/**
 * An input whose text is taken when it is done; until then it is the writer's, whatever else is drawn anew.
 * @param {Record<string, any> & { value: any, onDone: (text: string) => void }} props
 */
export function Typed({ value, onDone, ...more }) {
  const [draft, set] = useState(/** @type {string | null} */ (null));
  return html`<input ...${more} value=${draft ?? value} onInput=${(/** @type {any} */ e) => set(e.currentTarget.value)} onBlur=${() => set(null)}
    onChange=${(/** @type {any} */ e) => (set(null), onDone(e.currentTarget.value.trim()))} />`;
}
