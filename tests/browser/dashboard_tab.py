"""A tab of the dashboard in Chromium, driven by Playwright."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["Tab", "opened"]

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.sourceFile));
"""


class Tab:
    """A page of the dashboard. `told`: errors and warnings of its console."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.told: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("console", lambda said: self.told.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda request: self.asked.append(request.url))

    async def go(self, address: str) -> None:
        await self.page.goto(self.base + address)
        await self.until("document.querySelector('main h1') && !document.querySelector('main .loading')")

    async def until(self, script: str) -> None:
        """Playwright's own wait evaluates texts in the page, which its policy forbids."""
        for _ in range(600):
            if await self.page.evaluate(script):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{script}\n{await self.page.inner_text('body')}\n{self.told}")

    async def value(self, script: str) -> Any:
        return await self.page.evaluate(script)


@asynccontextmanager
async def opened(base: str, **context: Any) -> AsyncIterator[Tab]:
    """A tab for the dashboard at `base`. Nothing may be asked of another host, nor be against the page's policy."""
    play, browser = tools()
    async with play.async_playwright() as started:
        chromium = await started.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
        )
        view = await chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **context})
        page = await view.new_page()
        await page.add_init_script(WATCH)
        tab = Tab(page, base)
        yield tab
        assert await tab.value("violations") == []
        assert [url for url in tab.asked if not url.startswith((base, "blob:", "data:"))] == []
        await chromium.close()


def tools() -> tuple[Any, str]:
    """Playwright and a Chromium; the test is skipped where one is missing, and fails in CI."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if os.environ.get("CI"):
        assert browser is not None, "CI has no Chromium: the page is not looked at"
    elif browser is None:
        pytest.skip("no Chromium")
    else:
        pytest.importorskip("playwright")
    from playwright import async_api

    return async_api, browser
