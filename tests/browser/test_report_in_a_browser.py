"""The page as a browser sees it: charts drawn, nothing asked of a network, nothing run that is a stranger's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from comfyload.app.report import whole_page
from comfyload.report.overview import overview
from tests.browser.chromium import Page, opened
from tests.unit.chart_runs import EVIL, hostile, shown
from tests.unit.judge_runs import manifest, one_by_one

pytestmark = pytest.mark.long

WATCH = """
window.violations = []; window.alerts = 0; window.alert = () => { window.alerts += 1; };
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
"""
WIDTHS = (1280, 390, 320)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    plain = shown(manifest(30), list(one_by_one([10.0 + i % 3 for i in range(30)])))
    runs = [hostile(), plain]
    text = whole_page(overview(f"page {EVIL}", runs), runs, ["comfyload run"])
    file.write_text(text, encoding="utf-8")
    return file


def _see(file: Path, look: Callable[[Page], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(file, before=WATCH) as page:
            charts = await page.value("document.querySelectorAll('.plot svg').length")
            assert charts == 1  # the others are in closed parts
            await page.value("document.querySelectorAll('details').forEach((part) => { part.open = true; }), 0")
            await page.look(width=1280)
            await look(page)

    asyncio.run(main())


def test_every_chart_draws_and_nothing_is_loaded_or_run(page: Path) -> None:
    async def look(tab: Page) -> None:
        drawn = await tab.value(
            "[...document.querySelectorAll('.plot')].map((p) => [p.dataset.spec, "
            "p.querySelectorAll('svg [class*=mark-] path, svg [class*=mark-] line, svg [class*=mark-] rect').length])"
        )
        assert len(drawn) == 12 and all(marks > 3 for _, marks in drawn), drawn
        assert [event["request"]["url"] for event in tab.events_of("Network.requestWillBeSent")] == [page.as_uri()]
        assert tab.events_of("Runtime.exceptionThrown") == [] and tab.events_of("Log.entryAdded") == []
        assert tab.events_of("Runtime.consoleAPICalled") == []
        assert await tab.value("[violations, alerts, chartsFailed]") == [[], 0, []]
        text = await tab.value("document.querySelector('#run-1-nodes svg').textContent")
        assert EVIL in text

    _see(page, look)


def test_no_width_scrolls_sideways_and_dark_is_dark(page: Path) -> None:
    async def look(tab: Page) -> None:
        inks: dict[str, Any] = {}
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                await tab.look(width=width, scheme=scheme)
                wide, inner = await tab.value("[document.documentElement.scrollWidth, innerWidth]")
                assert wide <= inner == width
                over = await tab.value(
                    "[...document.querySelectorAll('.plot')].filter((p) => "
                    "p.querySelector('svg').getBoundingClientRect().width > p.clientWidth + 1).map((p) => "
                    "p.dataset.spec)"
                )
                assert over == []
                inks[scheme] = await tab.value(
                    "[getComputedStyle(document.body).backgroundColor, "
                    "getComputedStyle(document.querySelector('.plot svg .role-axis-label text')).fill]"
                )
        assert inks["light"] == ["rgb(255, 255, 255)", "rgb(87, 96, 106)"]
        assert inks["dark"] == ["rgb(20, 24, 28)", "rgb(163, 173, 183)"]
        await tab.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert await tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

    _see(page, look)


def test_another_job_can_be_chosen_and_a_mark_asked(page: Path) -> None:
    async def look(tab: Page) -> None:
        before = await tab.value("document.querySelector('#run-1-waterfall svg').innerHTML.length")
        await tab.value(
            "(() => { const s = document.querySelector('#run-1-waterfall select'); s.value = '20'; "
            "for (const name of ['input', 'change']) s.dispatchEvent(new Event(name, {bubbles: true})); "
            "return new Promise((ok) => requestAnimationFrame(() => requestAnimationFrame(ok))).then(() => 0) })()"
        )
        after = await tab.value("document.querySelector('#run-1-waterfall svg').innerHTML.length")
        assert after != before
        x, y = await tab.value(
            "(() => { const bar = document.querySelector('#run-1-nodes svg .mark-rect path'); "
            "bar.scrollIntoView({block: 'center', behavior: 'instant'}); const b = bar.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        await tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        tip = await tab.value(
            "new Promise((ok) => requestAnimationFrame(() => requestAnimationFrame(() => "
            "ok(document.querySelector('#vg-tooltip-element')?.textContent ?? ''))))"
        )
        assert EVIL in tip
        assert await tab.value("[violations, alerts]") == [[], 0]

    _see(page, look)
