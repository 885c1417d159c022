// When the server is asked: every second while somebody looks, less and less often while it does not answer.

import { read } from "./overview.js";

const EVERY_MS = 1000;
const LONGEST_MS = 30000;
const PATIENCE_MS = 8000;
const KEPT_AS = "comfyload.probe.token";

/**
 * Keep `panel` up to date until `stop()`. `ask({headers, signal})` fetches the overview.
 * Nothing is asked while the page is hidden, while the panel is not in it, or while a token is wanted.
 */
export function watch(panel, ask) {
  let [timer, asking, failed, locked, stopped] = [null, null, 0, false, false];
  let token = kept();

  const next = (ms) => {
    clearTimeout(timer);
    timer = stopped || locked || document.visibilityState === "hidden" ? null : setTimeout(turn, ms);
  };

  async function turn() {
    if (stopped || !panel.root.isConnected) return stop();
    if (asking) return;
    asking = new AbortController();
    const { signal } = asking;
    const patience = setTimeout(() => asking.abort(), PATIENCE_MS);
    const answer = await answered(() =>
      ask({ headers: token ? { "X-Comfyload-Token": token } : {}, signal, cache: "no-store" }),
    );
    clearTimeout(patience);
    asking = null;
    if (!stopped) settle(answer);
  }

  function settle(answer) {
    if (answer.overview) {
      failed = 0;
      panel.showOverview(answer.overview);
      next(EVERY_MS);
    } else if (answer.locked) {
      locked = true;
      panel.askForToken({ refused: Boolean(token) });
      token = keep("");
    } else {
      const wait = Math.min(LONGEST_MS, EVERY_MS * 2 ** failed);
      failed += 1;
      panel.showTrouble(answer.trouble, answer.hint, wait);
      next(wait);
    }
  }

  const seen = () => (document.visibilityState === "hidden" ? clearTimeout(timer) : next(0));

  function stop() {
    stopped = true;
    clearTimeout(timer);
    asking?.abort();
    document.removeEventListener("visibilitychange", seen);
  }

  panel.onRetry = () => next(0);
  panel.onToken = (given) => {
    token = keep(given.trim());
    [failed, locked] = [0, false];
    panel.showLoading();
    next(0);
  };
  document.addEventListener("visibilitychange", seen);
  next(0);
  return { stop, stopped: () => stopped };
}

/** What asking came to: an overview, a locked door, or trouble in words. */
async function answered(ask) {
  try {
    const reply = await ask();
    if (reply.status === 401) return { locked: true };
    if (reply.status === 404) {
      return {
        trouble: "ComfyUI does not know the probe.",
        hint: "Restart ComfyUI so that it loads the pack. If it does, its log says why this failed.",
      };
    }
    if (!reply.ok) return { trouble: `ComfyUI answered ${reply.status}.`, hint: "Its log may say why." };
    const overview = read(parsed(await reply.text()));
    if (overview) return { overview };
    return {
      trouble: "The answer was not the probe's.",
      hint: "Something between this page and ComfyUI may have replaced it.",
    };
  } catch {
    return { trouble: "No answer from ComfyUI.", hint: "It may be starting, stopped, or busy." };
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The token of this browser tab: kept in its session storage, gone when it is closed. */
function kept() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? "";
  } catch {
    return "";
  }
}

function keep(token) {
  try {
    if (token) sessionStorage.setItem(KEPT_AS, token);
    else sessionStorage.removeItem(KEPT_AS);
  } catch {
    // Storage is switched off: the token lasts as long as the panel.
  }
  return token;
}
