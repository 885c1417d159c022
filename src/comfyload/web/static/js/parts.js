// Small parts that every view is made of: signs, badges, chips, states of waiting and failing.
import { link } from "./socket.js";
import { html, signal, useEffect, useState } from "./ui.js";
import { BADGES, FINE_ICONS, counted, plural, runState } from "./words.js";

/** @type {Record<string, string>} Paths in a square of 16. */
const ICONS = {
  clock: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2M8 5v3.3l2.2 1.5",
  play: "M5.2 3.4v9.2l7.2-4.6z",
  alert: "M8 2.4 14.2 13.3H1.8zM8 6.6v3M8 11.3v.2",
  check: "M3.2 8.4 6.6 11.8 12.9 4.8",
  dash: "M4 8h8",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2.4v2.9h-2.9",
  bolt: "M9 2 4.2 9h3.4L7 14l4.8-7H8.4z",
  question: "M5.9 6a2.2 2.2 0 1 1 3.2 2c-.8.4-1.1.8-1.1 1.6M8 12v.2",
  hourglass: "M4.5 2.5h7M4.5 13.5h7M5.3 2.5c0 3 2.7 3.6 2.7 5.5s-2.7 2.5-2.7 5.5M10.7 2.5c0 3-2.7 3.6-2.7 5.5s2.7 2.5 2.7 5.5",
  stop: "M4.5 4.5h7v7h-7z",
  now: "M2 9h2.6l1.8-5 3 9 1.8-4H14",
  runs: "M3 4h10M3 8h10M3 12h6",
  baselines: "M4 2.5h8v11L8 10.6 4 13.5z",
  trend: "M2.5 12.5 6 8l3 2.5 4.5-6M10.5 4.5h3v3",
  start: "M3.5 8h9M8 3.5v9",
  advice: "M3 5h10M3 11h10M6 3.3v3.4M10.5 9.3v3.4",
  servers: "M2.8 3.2h10.4v3.9H2.8zM2.8 8.9h10.4v3.9H2.8zM5 5.2v.1M5 10.8v.1",
  search: "M7 2.8a4.2 4.2 0 1 0 0 8.4 4.2 4.2 0 0 0 0-8.4M10.2 10.2 13.4 13.4",
  close: "M4 4l8 8M12 4l-8 8",
  theme: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  keys: "M2 4.5h12v7H2zM4.5 7v.1M7 7v.1M9.5 7v.1M12 7v.1M5 9.4h6",
  copy: "M5.5 5.5h7v8h-7zM3.5 10.5v-8h7",
  up: "M8 12.5v-9M4.2 7 8 3.2 11.8 7",
  info: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2M8 7.4v3.6M8 5v.1",
  swap: "M3 5.5h9.5M10 3l2.5 2.5L10 8M13 10.5H3.5M6 8 3.5 10.5 6 13",
  before: "M9.8 3.5 5.2 8l4.6 4.5",
  after: "M6.2 3.5 10.8 8l-4.6 4.5",
  wall: "M2 3.5h12v7.5H2zM6 13.5h4",
  compare: "M5.5 2.5v11M10.5 2.5v11M2.5 5.5h3M10.5 10.5h3",
};

/** @param {{ name: string }} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[name] ?? ICONS.dash} /></svg>`;
}

/** @param {{ badge: string, fine?: string }} props */
export function Badge({ badge, fine = "" }) {
  const known = BADGES[badge] ?? BADGES.ended;
  const look = fine === "retrying" ? "retrying" : badge;
  return html`<span class="badge is-${look}"><${Icon} name=${FINE_ICONS[fine] ?? known.icon} />${known.word}</span>`;
}

/** @param {{ state: string }} props */
export function RunState({ state }) {
  const known = runState(state);
  return html`<span class="badge is-${known.look}" title=${known.hint}><${Icon} name=${known.icon} />${known.word}</span>`;
}

/**
 * A filter with its count. Pressed again, it filters no more.
 * @param {{ label: string, count: number, on: boolean, look?: string, onClick: () => void }} props
 */
export function Chip({ label, count, on, look = "", onClick }) {
  return html`<button type="button" class="chip ${look && `is-${look}`}" aria-pressed=${on ? "true" : "false"} onClick=${onClick}>
    <span>${label}</span> <b>${counted(count)}</b>
  </button>`;
}

/** @param {{ title: string, children?: any, icon?: string }} props */
export function Empty({ title, children, icon = "runs" }) {
  return html`<div class="empty"><${Icon} name=${icon} /><h2>${title}</h2><div>${children}</div></div>`;
}

/** @param {{ what?: string }} props Nothing is drawn for a moment, so that what is quick does not flicker. */
export function Loading({ what = "" }) {
  return html`<div class="loading" role="status"><span class="spinner" aria-hidden="true"></span>Loading${what && ` ${what}`} …</div>`;
}

/**
 * @param {{ error: { message?: string, hint?: string } | string, to?: string, where?: string }} props
 * `to`: the address at which a reader goes on, `where`: what is there.
 */
export function Failing({ error, to = "", where = "" }) {
  const words = typeof error === "string" ? error : error.message;
  const hint = typeof error === "string" ? "" : error.hint;
  return html`<div class="failing" role="alert"><${Icon} name="alert" />
    <div><b>${words}</b>${hint && html`<p>${hint}</p>`}${to && html`<a class="button" href=${to}>${where}</a>`}</div>
  </div>`;
}

/** A second has passed: countdowns look at the clock again. */
export const tick = signal(0);
setInterval(() => {
  if (!document.hidden) tick.value += 1;
}, 1000);

/** Said once when the link is lost and when it is back. */
export function LinkLost() {
  tick.value;
  const { state, again } = link.value;
  const [was, setWas] = useState(false);
  useEffect(() => {
    if (state === "lost") setWas(true);
  }, [state]);
  const lost = state === "lost";
  const left = Math.max(0, Math.ceil((again - performance.now()) / 1000));
  return html`<div class="link-lost ${lost ? "is-shown" : ""}">
    <span role="status">${lost ? "Disconnected: what you see is the last state." : was ? html`<span class="unseen">Connected again.</span>` : ""}</span>
    ${lost && html`<span aria-hidden="true"> ${left ? `Trying again in ${left} s.` : "Trying again …"}</span>`}
  </div>`;
}

/**
 * What a person did, in words, until the next one; read out once.
 */
export const told = signal({ words: "", look: "" });
let hushed = 0;

/** @param {string} words @param {"good" | "bad"} [look] */
export function tell(words, look = "good") {
  told.value = { words, look };
  clearTimeout(hushed);
  hushed = setTimeout(() => {
    told.value = { words: "", look: "" };
  }, 8000);
}

export function Toast() {
  const { words, look } = told.value;
  return html`<div class="toast-place" role="status" aria-live="polite">
    ${words && html`<div class="toast is-${look}"><${Icon} name=${look === "bad" ? "alert" : "check"} />${words}</div>`}
  </div>`;
}

/**
 * A button that asks once more before it does what cannot be undone.
 * @param {{ label: string, sure: string, act: () => Promise<any>, icon: string, look?: string }} props
 */
export function Action({ label, sure, act, icon, look = "" }) {
  const [state, set] = useState("");
  const [why, attempt] = useAttempt();
  const press = async () => {
    if (sure && state !== "sure") return set("sure");
    set("busy");
    await attempt(act);
    set("");
  };
  return html`<span class="action"><button type="button" class="button ${look}" aria-disabled=${state === "busy" ? "true" : "false"}
    onClick=${() => state !== "busy" && press()} onBlur=${() => state === "sure" && set("")}>
    <${Icon} name=${icon} />${state === "sure" ? sure : label}
  </button><${Why} why=${why} /></span>`;
}

/**
 * What a person does, and why it failed the last time: it is said where they did it, until they try again.
 * @returns {[why: any, attempt: (act: () => Promise<any>) => Promise<void>]}
 */
export function useAttempt() {
  const [why, set] = useState(/** @type {any} */ (null));
  const attempt = async (/** @type {() => Promise<any>} */ act) => {
    set(null);
    try {
      await act();
    } catch (error) {
      set(error);
    }
  };
  return [why, attempt];
}

/** @param {{ why: { message: string, hint?: string } | null }} props */
export function Why({ why }) {
  return why && html`<span class="why" role="alert"><${Icon} name="alert" /><span>${why.message}${why.hint && html` <small>${why.hint}</small>`}</span></span>`;
}

/**
 * Into the clipboard, which a browser opens only to pages of this machine or with TLS; elsewhere by the old way.
 * @param {string} text
 */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** What is left out of the list, as it cannot be read. @param {{ unread: { count: number, folder: string, why: string } | null }} props */
export function Unread({ unread }) {
  if (!unread) return null;
  return html`<p class="remark look-doubt"><${Icon} name="alert" /><span>${plural(unread.count, "folder")} could not be read${unread.count > 1 && ", the first"}: <code>${unread.folder}</code>: ${unread.why}</span></p>`;
}
