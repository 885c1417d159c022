"""A whole story in a browser: a run is started from the page, watched, gone into, sent again, kept and compared."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.dashboard_tab import Tab, opened
from tests.support.rig import SLEEPER
from tests.support.servers import serving, simulator

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}
FAILS = {
    "1": EMPTY,
    "3": {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "it broke <b>here</b>", "seed": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}


def test_from_a_dropped_workflow_to_a_comparison(tmp_path: Path) -> None:
    for name, graph in (("book", SLEEPER), ("fails", FAILS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")

    async def main(base: str) -> None:
        async with opened(base) as tab:
            run = await start(tab, tmp_path)
            await regenerate(tab, run)
            other = await start(tab, tmp_path)
            await keep_and_compare(tab, run, other)

    with (
        simulator(speed=100) as server,
        serving(
            *("ui", "--port", "0", "--runs", str(tmp_path / "runs"), "--archive", str(tmp_path / "kept")),
            *("--server", f"gpu={server}"),
        ) as url,
    ):
        asyncio.run(main(re.sub(r"comfyload/?$", "", url).rstrip("/") + "/comfyload/"))


async def start(tab: Tab, folder: Path) -> str:
    """Fill in the form, look first, start; its id once it has ended, with some jobs in need of attention."""
    page = tab.page
    await tab.go("#/start")
    await page.locator(".drop input").set_input_files([folder / "book.json", folder / "fails.json"])
    await page.get_by_label("jobs", exact=True).fill("12")
    await page.get_by_label("order", exact=True).evaluate("(field) => { field.closest('details').open = true; }")
    await page.get_by_label("order", exact=True).fill("aabb")
    await page.get_by_role("button", name="Check first").click()
    await tab.until("document.querySelector('.answers')?.innerText.includes('READY')")
    await tab.until("document.querySelector('.command')?.innerText.includes('--jobs 12')")
    await page.get_by_role("button", name="Start", exact=True).click()
    await tab.until("location.hash.endsWith('/watch')")
    await tab.until("document.querySelector('h1')?.innerText.includes('Complete')")
    await tab.until("Number(document.querySelector('.state.is-attention b').innerText) > 2")
    return str(await tab.value("decodeURIComponent(location.hash.split('/')[2])"))


async def regenerate(tab: Tab, run: str) -> None:
    """Find what failed by its chip, read why, and have it run again: it stays on its card."""
    page = tab.page
    await page.get_by_role("button", name=re.compile("^Needs attention")).click()
    await tab.until("document.querySelectorAll('.card.is-attention').length > 2")
    await page.locator(".card").first.click()
    await tab.until("document.querySelector('.message pre')?.innerText.includes('it broke <b>here</b>')")
    assert await tab.value("document.querySelector('.message pre b')") is None
    job = await tab.value("location.hash")
    await page.get_by_role("button", name="Regenerate").click()
    await page.get_by_role("button", name="Run it again?").click()
    await tab.until(f"location.hash.includes({json.dumps('again-1')})")
    await tab.until("document.querySelector('h1')?.innerText.includes('Complete')")
    await tab.go(job)
    await tab.until("document.querySelectorAll('[role=tab]').length === 2")
    assert await tab.value("document.querySelector('[role=tab][aria-selected=true]').innerText.includes('Again')")


async def keep_and_compare(tab: Tab, run: str, other: str) -> None:
    page = tab.page
    await tab.go("#/runs?text=book")
    await tab.until("document.querySelectorAll('.run').length > 1")
    await page.locator(f".run:has(a.run-main[href='#/run/{quote(run)}']) input").check()
    await page.get_by_role("button", name="Keep 1 as a baseline").click()
    await page.get_by_label("Name of the baseline").fill("gpu")
    await page.keyboard.press("Enter")
    await tab.until("location.hash.startsWith('#/baselines/')")
    await tab.until("document.querySelector('.tiles') !== null")
    kept = await tab.value("decodeURIComponent(location.hash.split('/')[2])")
    await page.get_by_role("button", name="Promote").click()
    await page.get_by_role("button", name="Compare with this one?").click()
    await tab.until("document.querySelector('.toast')?.innerText.includes('promoted')")
    await tab.go(f"#/compare?a=baseline:{kept}&b={quote(other)}")
    await tab.until("document.querySelector('.answers b') !== null && document.querySelector('table') !== null")
