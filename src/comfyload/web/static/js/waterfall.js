// Nodes of a job as a waterfall: when each began, how long it took, and what came from the cache.
import { html } from "./ui.js";
import { duration, short, span } from "./words.js";

/**
 * @param {{ nodes: { node: string, class: string, begin_s: number | null, end_s: number | null, cached?: boolean, words?: string }[], from: number, to: number, failed?: string }} props
 * Instants in seconds of one clock. `failed`: the node that raised, "" if none did.
 */
export function Waterfall({ nodes, from, to, failed = "" }) {
  const ran = nodes.filter((node) => node.begin_s != null);
  const cached = nodes.filter((node) => node.cached);
  const [first, last] = [Math.min(from, ...ran.map((node) => node.begin_s ?? from)), Math.max(to, ...ran.map((node) => node.end_s ?? to))];
  const room = Math.max(last - first, 1e-9);
  const share = (/** @type {number} */ at) => `${(100 * (at - first)) / room}%`;
  return html`<div class="fall">
    <div class="fall-axis" aria-hidden="true"><span></span><div>${ticks(room).map((at) => html`<i key=${at} style=${{ left: `${(100 * at) / room}%` }}>${room < 1 ? `${short(1000 * at)} ms` : room < 60 ? `${at} s` : span(at)}</i>`)}</div><span></span></div>
    <ol aria-label="Nodes, in the order in which they ran">
      ${(cached.length > 3 ? nodes.filter((node) => !node.cached) : nodes).map((node) => {
        const took = node.begin_s != null && node.end_s != null ? node.end_s - node.begin_s : null;
        const words = node.words ?? (node.cached ? "from the cache" : took == null ? (node.begin_s == null || node.node === failed ? "" : "running") : duration(took));
        return html`<li key=${node.node} class=${`fall-row ${node.cached ? "is-cached" : ""} ${node.node === failed ? "is-failed" : ""}`}>
          <span class="fall-name">${node.class || "node"} <small>${node.node}</small></span>
          <span class="fall-lane">${node.begin_s != null && !node.cached && html`<span class="fall-bar" style=${{ left: share(node.begin_s), width: share(first + ((node.end_s ?? last) - node.begin_s)) }}></span>`}</span>
          <span class="fall-words">${[words, node.node === failed && "failed"].filter(Boolean).join(", ")}</span>
        </li>`;
      })}
    </ol>
    ${cached.length > 3 && html`<details class="fall-cached"><summary>${cached.length} more nodes from the cache</summary><p>${cached.map((node) => html`<span key=${node.node}>${node.class || "node"} <small>${node.node}</small></span> `)}</p></details>`}
  </div>`;
}

/** Round instants within so many seconds: some three to six. @param {number} room */
function ticks(room) {
  const step = [1, 2, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(room) - 0.7)).find((n) => room / n < 6) ?? room;
  return Array.from({ length: Math.floor((0.97 * room) / step) + 1 }, (_, n) => Number((n * step).toPrecision(3)));
}
