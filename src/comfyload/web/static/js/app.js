// The shell: what every view stands in. It chooses the view from the address.
import { Help } from "./help.js";
import { useGet } from "./http.js";
import { listen } from "./keys.js";
import { turnTheme } from "./look.js";
import { Icon, LinkLost, Loading, Toast, Failing, tell } from "./parts.js";
import { address, place } from "./router.js";
import { connect } from "./socket.js";
import { Component, html, render, signal, useEffect, useRef, visible } from "./ui.js";

/** @type {[view: string, label: string, key: string][]} */
export const VIEWS = [
  ["now", "Now", "n"],
  ["runs", "Runs", "r"],
  ["baselines", "Baselines", "b"],
  ["trend", "Trend", "t"],
  ["start", "Start", "s"],
  ["advice", "Advice", "a"],
  ["servers", "Servers", "v"],
];

/** @type {Record<string, { from: string, title: string, under: string }>} Where the code of a view is, read when it is first shown. */
const CODE = {
  now: { from: "./views/now.js", title: "Now", under: "now" },
  job: { from: "./views/job.js", title: "Job", under: "runs" },
  runs: { from: "./views/runs.js", title: "Runs", under: "runs" },
  run: { from: "./views/run.js", title: "Run", under: "runs" },
  compare: { from: "./views/compare.js", title: "Compare", under: "runs" },
  baselines: { from: "./views/baselines.js", title: "Baselines", under: "baselines" },
  trend: { from: "./views/trend.js", title: "Trend", under: "trend" },
  start: { from: "./views/start.js", title: "Start", under: "start" },
  advice: { from: "./views/advice.js", title: "Advice", under: "advice" },
  servers: { from: "./views/servers.js", title: "Servers", under: "servers" },
};

/** @type {import("../vendor/signals-core.js").Signal<Record<string, any>>} */
const loaded = signal({});

/** @param {string} name */
async function load(name) {
  const code = CODE[name] ?? CODE.now;
  const { View } = await import(code.from);
  loaded.value = { ...loaded.value, [name]: View };
}

/** A view that fails leaves the rest of the page as it is. */
class Boundary extends Component {
  /** @param {Error} error */
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }
  render() {
    const { error } = /** @type {any} */ (this.state);
    if (error) return html`<${Failing} error=${{ message: "This view cannot be shown.", hint: String(error.message) }} />`;
    return /** @type {any} */ (this.props).children;
  }
}

/** @returns {string} */
function shown() {
  const { view, path } = place.value;
  if (view === "run" && path[1] === "job") return "job";
  if (view === "run" && path[1] === "watch") return "now";
  return CODE[view] ? view : "now";
}

function App() {
  const name = shown();
  const { query, path } = place.value;
  const under = place.value.view === "run" ? "runs" : CODE[name].under;
  const wall = query.wall === "1";
  const main = useRef(/** @type {HTMLElement | null} */ (null));
  const first = useRef(true);
  const here = `${name} ${path.join(" ")}`;
  useEffect(() => {
    if (!loaded.value[name]) load(name).catch((error) => tell(`This view could not be read: ${error.message}`, "bad"));
  }, [name]);
  useEffect(() => {
    document.title = `${[visible(path[0]), CODE[name].title].filter(Boolean).join(" · ")} · comfyload`;
    if (!first.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [here]);
  useEffect(() => {
    document.documentElement.classList.toggle("wall", wall);
  }, [wall]);
  const View = loaded.value[name];
  const { data: session } = useGet("session");
  // A gateway's servers are for its jobs, and no load test's.
  const views = VIEWS.filter(([view]) => !(session?.gateway && view === "start"));
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ e) => (e.preventDefault(), main.current?.focus())}>To the content</a>
    <nav class="rail" aria-label="Views">
      <a class="mark" href=${address(["now"])} aria-label="comfyload: what runs now"><img src="ui/static/icon.svg" alt="" width="28" height="28" /></a>
      ${views.map(([view, label]) => html`<a class="rail-link" key=${view} href=${address([view])} aria-current=${under === view ? "page" : undefined}>
        <${Icon} name=${view} /><span>${label}</span>
      </a>`)}
      <span class="rail-rest"></span>
      <${ThemeButton} />
      <button type="button" class="rail-link rail-keys" data-keys="?" title="Keys (?)"><${Icon} name="keys" /><span>Keys</span></button>
    </nav>
    <main id="main" tabindex="-1" ref=${main}>
      <${LinkLost} />
      <${Boundary} key=${here}>${View ? html`<${View} place=${place.value} />` : html`<${Loading} />`}<//>
    </main>
    <${Toast} />
    <${Help} />
  `;
}

function ThemeButton() {
  return html`<button type="button" class="rail-link rail-theme" onClick=${turnTheme} title="Dark or light"><${Icon} name="theme" /><span>Theme</span></button>`;
}

connect();
listen(turnTheme);
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
