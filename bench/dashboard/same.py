"""Whether a reload and a second viewer see the same: the data behind the charts, and their pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.dashboard.browser import browser, tab, until, watch
from bench.dashboard.processes import begun, load, page, simulator
from bench.dashboard.row import Row

if TYPE_CHECKING:
    from playwright.async_api import Page

KEEP = """
window.kept = {};
window.WebSocket = class extends WebSocket {
  constructor(address) {
    super(address);
    this.addEventListener("message", async ({ data }) => {
      if (typeof data === "string") return;
      const length = new DataView(data).getUint32(0, true);
      const { name, seq, n } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data.slice(4 + length)));
      kept[`${name} ${seq}`] = `${n} ${[...hash].map((byte) => byte.toString(16)).join(" ")}`;
    });
  }
};
"""
PIXELS = """Object.fromEntries([...document.querySelectorAll(".chart")].map(
  (chart) => [chart.querySelector("h2").textContent, chart.querySelector("canvas").toDataURL()]))"""
DRAWN = "document.querySelectorAll('.chart canvas').length >= 3 && !document.querySelector('.plot-note')"


async def measure(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    seconds = 6 if quick else 20
    runs = folder / "runs"
    run = runs / "same"
    words = ("--rate", "20/s", "--duration", f"{2 * seconds}s")
    with simulator(150) as url, page(runs) as (base, _), load(url, run, workflow, *words) as process:
        await begun(run)
        async with browser() as chromium, tab(chromium, KEEP) as one, tab(chromium, KEEP) as two:
            for each in (one, two):
                await each.goto(watch(base, run.name))
                await until(each, DRAWN)
            await one.wait_for_timeout(1000 * seconds)
            before = await _alike(one, two)
            await one.reload()
            await until(one, DRAWN)
            await one.wait_for_timeout(300 * seconds)
            after = await _alike(one, two)
            process.wait()
            await until(one, "document.querySelector('h1').innerText.includes('Complete')")
            await one.wait_for_timeout(3000)
            seen = [await one.evaluate(PIXELS), await two.evaluate(PIXELS)]
            await one.reload()
            await until(one, DRAWN)
            await one.wait_for_timeout(1500)
            seen.append(await one.evaluate(PIXELS))
    return [
        Row("same", "data of charts, two viewers in mid-run", [], "", "identical", _states(before)),
        Row("same", "the same, one of them after a reload", [], "", "identical", _states(after)),
        Row("same", "pixels of charts, second viewer", [], "", "identical", _charts(seen[0], seen[1])),
        Row("same", "pixels of charts, after a reload", [], "", "identical", _charts(seen[0], seen[2])),
    ]


async def _alike(one: Page, two: Page) -> tuple[int, int]:
    """Of the states that both pages have got, by chart and number, how many are the same to the bit; and all."""
    here, there = await one.evaluate("kept"), await two.evaluate("kept")
    both = here.keys() & there.keys()
    return sum(here[key] == there[key] for key in both), len(both)


def _states(found: tuple[int, int]) -> str:
    return f"{found[0]} of {found[1]} states identical"


def _charts(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    assert len(set(here.values())) == len(here), "charts without a picture"
    alike = sum(here[name] == there.get(name) for name in here)
    return f"{alike} of {len(here)} charts identical"
