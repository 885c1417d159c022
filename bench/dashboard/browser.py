"""Chromium by Playwright, and what a page can tell of itself."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, ViewportSize

FLAGS = ("--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc")
WINDOW: ViewportSize = {"width": 1440, "height": 900}
PATIENCE_S = 60.0


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("no Chromium")
    async with async_playwright() as play:
        found = await play.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        await found.close()


@asynccontextmanager
async def tab(of: Browser, script: str = "", **context: Any) -> AsyncIterator[Page]:
    """A page in a profile of its own, with `script` run ahead of its own."""
    view = await of.new_context(**{"viewport": WINDOW, "color_scheme": "dark", **context})
    page = await view.new_page()
    if script:
        await page.add_init_script(script)
    yield page
    await view.close()


def watch(base: str, run: str) -> str:
    """The address at which a run is watched."""
    return f"{base}#/run/{quote(run, safe='')}/watch"


async def until(page: Page, expression: str) -> Any:
    """The expression's value once it holds; Playwright's own wait is against the page's policy."""
    began = time.monotonic()
    while not (found := await page.evaluate(expression)):
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"{expression} does not hold:\n{(await page.inner_text('body'))[:2000]}")
        await asyncio.sleep(0.02)
    return found


async def clock_offset_s(page: Page) -> float:
    """What the page's clock is ahead of ours, by the question that was answered fastest."""
    tries = []
    for _ in range(30):
        before = time.time()
        there = await page.evaluate("(performance.timeOrigin + performance.now()) / 1000")
        after = time.time()
        tries.append((after - before, there - (before + after) / 2))
    return float(min(tries)[1])
