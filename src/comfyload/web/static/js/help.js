// The page of keys, shown by `?`.
import { KEYS, helpShown } from "./keys.js";
import { Icon } from "./parts.js";
import { html, useEffect, useRef } from "./ui.js";

export function Help() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const shown = helpShown.value;
  useEffect(() => {
    if (shown) dialog.current?.showModal();
    else dialog.current?.close();
  }, [shown]);
  const close = () => {
    helpShown.value = false;
  };
  return html`<dialog class="help" ref=${dialog} aria-labelledby="help-title" onClose=${close}
    onClick=${(/** @type {Event} */ e) => e.target === dialog.current && close()}>
    <header><h2 id="help-title">Keys</h2>
      <button type="button" class="button quiet" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>
    <dl>${KEYS.map(([keys, does]) => html`<div key=${keys}><dt>${keys.split(/\s+/).map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl>
  </dialog>`;
}
