"""ComfyUI's own page in a browser, as the tests look at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.browser.chromium import Page, opened

__all__ = ["BROKEN", "IN_VAIN", "OTHER", "SOUND", "failed_requests", "queue", "ready", "reload", "the_page"]

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "page"}}
FAIL = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "it broke", "seed": 1}}
SOUND = {"1": EMPTY, "2": SAVE}
OTHER = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 9}},
    "2": SAVE,
}
BROKEN = {
    "1": EMPTY,
    "3": FAIL,
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}

# What the page asks for in vain on a real server, too, that has neither files of the user nor templates.
IN_VAIN = {
    "/user.css",
    "/api/userdata/user.css",
    "/api/userdata/comfy.templates.json",
    "/api/userdata?dir=subgraphs&recurse=true&split=false&full_info=true",
    "/api/userdata?dir=workflows&recurse=true&split=false&full_info=true",
    "/templates/index.json",
    "/templates/index_logo.json",
}


@asynccontextmanager
async def the_page(folder: Path, url: str) -> AsyncIterator[Page]:
    blank = folder / "blank.html"
    blank.write_text("<html data-drawn=yes>", encoding="utf-8")
    async with opened(blank) as page:
        await page.call("Network.setBlockedURLs", urls=["https://*"])  # news of comfy.org
        await page.call("Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)
        await page.call("Page.navigate", url=url)
        await ready(page)
        yield page


async def ready(page: Page) -> None:
    """The page has opened its first workflow, which it does last."""
    async with asyncio.timeout(60):
        while not await page.value("!!window.app?.extensionManager?.workflow?.activeWorkflow?.activeState"):
            await asyncio.sleep(0.1)


async def reload(page: Page) -> None:
    loads = len(page.events_of("Page.loadEventFired"))
    await page.call("Page.reload")
    async with asyncio.timeout(60):
        while len(page.events_of("Page.loadEventFired")) == loads:
            await asyncio.sleep(0.05)
    await ready(page)


def failed_requests(page: Page, url: str) -> set[str]:
    replies = [event["response"] for event in page.events_of("Network.responseReceived")]
    return {reply["url"].removeprefix(url) for reply in replies if reply["status"] >= 400}


async def queue(page: Page, graph: dict[str, Any]) -> None:
    await page.value(f"app.loadApiJson({json.dumps(graph)}, 'graph').then(() => app.queuePrompt(0)).then(() => 0)")
