// The panel as one looks at it: what the probe saw, drawn from overviews. It asks nothing itself.

import { each, h, set, show, write } from "./dom.js";
import { timeOfDay } from "./format.js";
import { failures, jobs, times, unseen } from "./past.js";
import { gpus, queue } from "./present.js";

const SCHEMA = 1;
const RESTART_SAID_FOR_S = 60;

/** A panel that shows nothing yet. `onRetry()` and `onToken(text)` are for who asks the server. */
export function panel() {
  const state = h("span", { class: "clp-state" });
  const notices = h("div", { class: "clp-notices", role: "status" });
  const waiting = h("p", { class: "clp-waiting" }, "Asking the probe…");
  const [present, past] = [
    [queue(), gpus(), times()],
    [failures(), jobs(), unseen()],
  ];
  const sections = [...present, ...past];
  const column = (parts) => h("div", {}, ...parts.map((part) => part.root));
  const body = h("div", { class: "clp-body" }, column(present), column(past));
  const token = tokenForm((given) => view.onToken(given));
  const root = h(
    "section",
    { class: "clp", "aria-label": "comfyload probe" },
    h("header", { class: "clp-head" }, h("h2", {}, "Probe"), state),
    notices,
    token.root,
    waiting,
    body,
  );
  let [last, restarted] = [null, null];

  function look(kind, word, said) {
    set(root, "data-state", kind);
    write(state, word);
    each(
      notices,
      said,
      ({ key }) => key,
      notice,
      (part, given) => part.update(given),
    );
    show(waiting, kind === "loading");
    show(token.root, kind === "locked");
    show(body, last !== null && kind !== "locked");
  }

  const view = {
    root,
    onRetry: () => {},
    onToken: () => {},

    showLoading() {
      look("loading", "", []);
    },

    /** Draw an overview as `overview.js` reads it. */
    showOverview(overview) {
      if (last && last.boot !== overview.boot) restarted = overview.mono_s;
      last = overview;
      for (const section of sections) section.update(overview);
      const said = [];
      if (!overview.active) {
        said.push({
          key: "off",
          kind: "bad",
          text: "The probe has switched itself off.",
          hint: "Jobs go on; nothing is measured any more. Its log says why (probe.disabled). Restart ComfyUI to switch it on again.",
        });
      }
      if (overview.schema !== SCHEMA) {
        said.push({
          key: "schema",
          kind: "odd",
          text: `The probe speaks version ${overview.schema}, this panel ${SCHEMA}.`,
          hint: "Reload the page.",
        });
      }
      if (restarted !== null && overview.mono_s !== null && overview.mono_s - restarted < RESTART_SAID_FOR_S) {
        said.push({
          key: "restart",
          kind: "odd",
          text: "ComfyUI was restarted.",
          hint: "The numbers began anew; what came before is in the probe's log.",
        });
      }
      look(overview.active ? "live" : "off", overview.active ? "live" : "off", said);
    },

    /** Say why there is no answer; numbers that were shown stay, marked as old. */
    showTrouble(text, hint) {
      const old = last ? ` The numbers below are from ${timeOfDay(last.unix_s)}.` : "";
      const said = {
        key: "trouble",
        kind: "bad",
        text,
        hint: `${hint}${old} Trying again by itself.`,
        act: ["Try now", () => view.onRetry()],
      };
      look("trouble", "no answer", [said]);
    },

    /** Ask for the token; `refused`: one was given and is not the server's. */
    askForToken({ refused }) {
      token.update(refused);
      look("locked", "locked", []);
      token.again();
    },
  };
  view.showLoading();
  return view;
}

function notice() {
  const text = h("strong", {});
  const hint = h("span", {});
  const button = h("button", { type: "button" });
  const root = h("div", { class: "clp-notice" }, h("p", {}, text, " ", hint), button);
  const update = (given) => {
    set(root, "data-kind", given.kind);
    write(text, given.text);
    write(hint, given.hint);
    show(button, Boolean(given.act));
    if (given.act) {
      write(button, given.act[0]);
      button.onclick = given.act[1];
    }
  };
  return { root, update };
}

function tokenForm(given) {
  const text = h("p", { id: "clp-token-why", class: "clp-why" });
  const input = h("input", {
    type: "password",
    "aria-label": "Token of the probe",
    "aria-describedby": "clp-token-why",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    placeholder: "Token",
  });
  const root = h(
    "form",
    { class: "clp-token" },
    text,
    h("div", { class: "clp-entry" }, input, h("button", { type: "submit" }, "Unlock")),
  );
  let tried = false;
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    tried = true;
    given(input.value);
    input.value = "";
  });
  const update = (refused) => {
    set(root, "data-refused", refused);
    set(input, "aria-invalid", refused ? "true" : null);
    write(
      text,
      (refused ? "That is not the probe's token. " : "This probe wants a token. ") +
        "It is in COMFYLOAD_PROBE_TOKEN where ComfyUI was started, and is kept in this browser tab only.",
    );
  };
  /** Back into the field for whoever just tried; nobody else's focus is taken. */
  const again = () => tried && input.focus();
  return { root, update, again };
}
