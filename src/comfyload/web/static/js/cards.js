// Jobs as cards: any number of them, of which only those in sight are in the document.
import { address } from "./router.js";
import { begin, end } from "./socket.js";
import { Badge, tick } from "./parts.js";
import { html, signal, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./ui.js";
import { counted, duration, host, span } from "./words.js";

const PAGE = 100;
const AHEAD = 4;
const MOST_PIXELS = 6_000_000;
const KEPT_PAGES = 12;

/** The state of one list: which pages are watched, and which were seen. */
class Pages {
  /** @param {object} params */
  constructor(params) {
    this.params = params;
    /** @type {Map<number, import("./socket.js").Watch>} */
    this.watched = new Map();
    /** @type {Map<number, any>} */
    this.kept = new Map();
    this.wanted = signal(/** @type {number[]} */ ([0]));
    this.want([0]);
  }

  /** @param {number[]} pages */
  want(pages) {
    for (const page of pages) {
      if (!this.watched.has(page)) {
        this.watched.set(page, begin("jobs", { ...this.params, offset: page * PAGE, limit: PAGE }));
      }
    }
    for (const [page, watch] of [...this.watched]) {
      if (pages.includes(page)) continue;
      if (watch.data.peek()) this.kept.set(page, watch.data.peek());
      if (this.kept.size > KEPT_PAGES) this.kept.delete(/** @type {number} */ (this.kept.keys().next().value));
      end(watch);
      this.watched.delete(page);
    }
    this.wanted.value = pages;
  }

  /** @param {number} page */
  of(page) {
    const watch = this.watched.get(page);
    return watch?.data.value ?? this.kept.get(page);
  }

  error() {
    for (const watch of this.watched.values()) if (watch.error.value) return watch.error.value;
    return "";
  }

  newest() {
    for (const watch of this.watched.values()) if (watch.data.value) return watch.data.value;
    return this.kept.values().next().value;
  }

  close() {
    for (const watch of this.watched.values()) end(watch);
    this.watched.clear();
  }
}

/**
 * @param {{ run: string, filter: Record<string, string>, now: () => number, rowHeight?: number, none: any }} props
 * `now`: the instant of the run. `none`: what is shown where nothing matches.
 */
export function Cards({ run, filter, now, none }) {
  const key = JSON.stringify([run, filter]);
  const pages = useMemo(() => new Pages({ run, ...filter }), [key]);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [view, setView] = useState({ top: 0, height: 600, row: 60 });
  const cursor = useRef(0);
  const toFocus = useRef(false);
  const total = useRef(0);
  useEffect(() => () => pages.close(), [pages]);
  useEffect(() => {
    cursor.current = 0;
    total.current = 0;
    if (box.current) box.current.scrollTop = 0;
  }, [key]);
  pages.wanted.value;

  const newest = pages.newest();
  const count = newest?.total ?? 0;
  const real = count * view.row;
  const drawn = Math.min(real, MOST_PIXELS);
  const scale = drawn > view.height ? Math.max(1, (real - view.height) / (drawn - view.height)) : 1;
  const at = view.top * scale;

  // What arrives at the top must not move what a reader looks at.
  const order = filter.order || "newest";
  useLayoutEffect(() => {
    const grown = count - total.current;
    if (grown > 0 && total.current && order === "newest") {
      if (view.top > 0 && box.current) box.current.scrollTop += (grown * view.row) / scale;
      if (view.top > 0 || box.current?.contains(document.activeElement)) cursor.current += grown;
    }
    total.current = count;
  }, [count]);

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => {
      const row = Number.parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 60;
      setView((v) => ({ ...v, height: element.clientHeight, row }));
    };
    const watcher = new ResizeObserver(measure);
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [count > 0]);

  const first = Math.max(0, Math.floor(at / view.row) - AHEAD);
  const last = Math.min(count, Math.ceil((at + view.height) / view.row) + AHEAD);
  const held = useRef(0);
  const lastTop = useRef(0);
  useEffect(() => {
    const leap = Math.abs(at - lastTop.current) > 3000;
    lastTop.current = at;
    /** @type {number[]} */
    const need = [];
    const from = Math.floor(Math.max(0, first - 20) / PAGE);
    const to = Math.floor(Math.max(0, Math.min(count - 1, last + 20)) / PAGE);
    for (let page = from; page <= to; page += 1) need.push(page);
    if (String(need) === String(pages.wanted.peek())) return;
    clearTimeout(held.current);
    if (leap) held.current = setTimeout(() => pages.want(need), 60);
    else pages.want(need);
  }, [first, last, pages]);
  useEffect(() => () => clearTimeout(held.current), [pages]);

  useLayoutEffect(() => {
    if (!toFocus.current) return;
    const card = /** @type {HTMLElement | null} */ (box.current?.querySelector(`[data-offset="${cursor.current}"]`));
    if (card?.tagName === "A") {
      card.focus({ preventScroll: true });
      toFocus.current = false;
    }
  });

  /** @param {number} offset */
  const moveTo = (offset) => {
    const element = box.current;
    if (!element || !count) return;
    cursor.current = Math.min(Math.max(offset, 0), count - 1);
    toFocus.current = true;
    const [up, down] = [cursor.current * view.row, (cursor.current + 1) * view.row];
    if (up < at) element.scrollTop = up / scale;
    else if (down > at + view.height) element.scrollTop = (down - view.height) / scale;
    setView((v) => ({ ...v, top: element.scrollTop }));
  };
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const screen = Math.max(1, Math.floor(view.height / view.row) - 1);
    const here = cursor.current;
    const to = { j: here + 1, ArrowDown: here + 1, k: here - 1, ArrowUp: here - 1, PageDown: here + screen, PageUp: here - screen, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    moveTo(to);
  };

  const error = pages.error();
  if (error && !newest) return html`<p class="list-none">${error}</p>`;
  if (!newest) return html`<div class="cards is-waiting" aria-busy="true"></div>`;
  if (!count) return html`<div class="list-none">${none}</div>`;
  const offsets = [];
  for (let offset = first; offset < last; offset += 1) offsets.push(offset);
  const kept = cursor.current;
  if ((kept < first || kept >= last) && kept < count && box.current?.contains(document.activeElement)) offsets.push(kept);
  return html`<div class="cards" ref=${box} data-walk onKeyDown=${onKey} style=${{ maxHeight: `${drawn + 1}px` }}
    onScroll=${(/** @type {any} */ e) => setView((v) => ({ ...v, top: e.currentTarget.scrollTop }))}>
    <ul role="list" aria-label="Jobs" style=${{ height: `${drawn}px` }}>
      ${offsets.map((offset) => {
        const page = pages.of(Math.floor(offset / PAGE));
        const row = page?.rows[offset - page.offset];
        const y = view.top + offset * view.row - at;
        return html`<li key=${row ? row.index : `at ${offset}`} style=${{ transform: `translateY(${Math.round(y)}px)` }} aria-setsize=${count} aria-posinset=${offset + 1}>
          ${row ? html`<${Card} run=${run} row=${row} offset=${offset} now=${now} here=${offset === kept} onFocus=${() => (cursor.current = offset)} />` : html`<span class="card is-blank"></span>`}
        </li>`;
      })}
    </ul>
  </div>`;
}

/** @param {any} props */
function Card({ run, row, offset, now, here, onFocus }) {
  const from = [row.workflow, row.server && host(row.server)].filter(Boolean).join(" · ");
  return html`<a class="card is-${(row.again ?? row).badge}" href=${address(["run", run, "job", row.index])} data-offset=${offset}
    tabindex=${here ? 0 : -1} onFocus=${onFocus}>
    <${Badge} badge=${(row.again ?? row).badge} fine=${(row.again ?? row).fine} />
    <span class="card-title">#${counted(row.index)}${row.book == null || row.book === "" ? "" : ` · book ${row.book}`}</span>
    <span class="card-words">${row.again ? html`again: ${row.again.words} · before: ` : ""}<${Fine} row=${row} now=${now} />${row.why && html`<i> ${row.why}</i>`}</span>
    <span class="card-from">${from}</span>
    <span class="card-time">${row.latency == null ? "" : duration(row.latency)}</span>
  </a>`;
}

/** The finer state; what waits for an instant counts down to it. @param {any} props */
export function Fine({ row, now }) {
  if (row.until_s == null) return html`${row.words}`;
  tick.value;
  const left = Math.ceil(row.until_s - now());
  return html`${row.words.replace(/ in [\d.:]+ ?\w*$/, "")} ${left > 0 ? `in ${span(left).replace(".0", "")}` : "now"}`;
}
