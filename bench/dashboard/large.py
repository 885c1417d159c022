"""A run of a hundred thousand jobs: opened, scrolled, and what it takes; and what the page weighs."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.dashboard.browser import browser, tab, until, watch
from bench.dashboard.processes import page
from bench.dashboard.row import Row, quantile
from bench.parts.summary import write_run

if TYPE_CHECKING:
    from playwright.async_api import Browser, Response

RUN = "large"
FIRST = """
(() => {
  const look = () => {
    if (!document.querySelector(".card[href]")) return requestAnimationFrame(look);
    setTimeout(() => (window.firstCard = performance.now()), 0);  // this frame is painted by then
  };
  requestAnimationFrame(look);
})();
"""
SCROLL = """async (frames) => {
  const list = document.querySelector(".cards");
  const took = [];
  let most = 0;
  let last = await new Promise((r) => requestAnimationFrame(r));
  for (let i = 0; i < frames; i += 1) {
    list.scrollTop += i % 60 === 59 ? 400000 : 120;
    const now = await new Promise((r) => requestAnimationFrame(r));
    took.push(now - last);
    last = now;
    most = Math.max(most, list.querySelectorAll("*").length);
  }
  await new Promise((r) => setTimeout(r, 1000));
  gc();
  const blank = list.querySelectorAll(".is-blank").length;
  return { took, most, blank, heap: performance.memory.usedJSHeapSize / 1e6 };
}"""


async def measure(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    jobs, rounds, frames = (20_000, 1, 120) if quick else (100_000, 7, 600)
    runs = folder / "runs"
    write_run(runs / RUN, jobs)
    opened: list[float] = []
    p50: list[float] = []
    p95: list[float] = []
    nodes: list[float] = []
    heap: list[float] = []
    with page(runs) as (base, _):
        async with browser() as chromium:
            began = time.monotonic()
            async with tab(chromium) as first:
                await first.goto(watch(base, RUN))
                await until(first, "document.querySelector('.card[href]') !== null")
                cold = time.monotonic() - began
                await until(first, "document.querySelector('.tiles') !== null")  # all of it is computed
            for number in range(rounds):
                async with tab(chromium, FIRST) as looking:
                    await looking.goto(watch(base, RUN))
                    opened.append(await until(looking, "window.firstCard"))
                    await looking.wait_for_timeout(500)
                    found = await looking.evaluate(SCROLL, frames)
                assert found["blank"] == 0, "cards that were never filled in"
                p50.append(quantile(found["took"], 0.5))
                p95.append(quantile(found["took"], 0.95))
                nodes.append(found["most"])
                heap.append(found["heap"])
                say(f"large {number + 1}: open {opened[-1]:.0f} ms, a frame {p50[-1]:.1f} and {p95[-1]:.1f} ms")
            packed, plain = await _weight(chromium, base)
    part = f"{jobs:,} jobs"
    return [
        Row(part, "first card after navigation", opened, "ms", "< 1 000 ms"),
        Row(part, "the same, with a server that has not read the run yet", [1000 * cold], "ms"),
        Row(part, "a frame while scrolling, p50", p50, "ms", "≤ 17 ms"),
        Row(part, "a frame while scrolling, p95", p95, "ms", "≤ 50 ms"),
        Row(part, "elements in the list", nodes, "", "≤ 300"),
        Row(part, "heap after scrolling", heap, "MB", "≤ 60 MB"),
        Row("weight", "up to the first paint, gzip", [packed / 1000], "kB", "≤ 150 kB"),
        Row("weight", "the same, unpacked", [plain / 1000], "kB"),
    ]


async def _weight(chromium: Browser, base: str) -> tuple[int, int]:
    """Bytes of all that the first view asks for, packed and not."""
    answers: list[Response] = []
    async with tab(chromium) as looking:
        looking.on("response", lambda answer: answers.append(answer))
        await looking.goto(base)
        await until(looking, "document.querySelector('main h1') !== null")
        await looking.wait_for_timeout(500)
        contents = [await answer.body() for answer in list(answers)]
    return sum(len(gzip.compress(content)) for content in contents), sum(map(len, contents))
