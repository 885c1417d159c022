"""ComfyUI's own page, on the simulator: it loads, queues a graph, shows its picture and a failure, and keeps its files.

The page comes with the package comfyui-frontend-package.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from comfyload.app.sim import page_folder
from comfyload.sim import Server
from comfyload.sim.http import serve
from tests.browser.chromium import Page
from tests.browser.comfyui import BROKEN, IN_VAIN, SOUND, failed_requests, queue, reload, the_page
from tests.browser.tab import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


def see(folder: Path, look: Callable[[Page, Server, str], Awaitable[None]]) -> None:
    """Look at the page on a simulator of its own; nothing in it may be amiss that is not on a real server."""
    frontend = page_folder("auto")
    if frontend is None:
        pytest.skip("comfyui-frontend-package is not installed")

    async def main() -> None:
        async with Server(speed=20, frontend=frontend) as server, serve(server) as url, the_page(folder, url) as page:
            await look(page, server, url)
            assert failed_requests(page, url) <= IN_VAIN
            assert page.events_of("Runtime.exceptionThrown") == []

    asyncio.run(main())


def test_a_graph_is_queued_runs_and_shows_its_picture(tmp_path: Path) -> None:
    async def look(page: Page, server: Server, url: str) -> None:
        assert await page.value("Object.keys(LiteGraph.registered_node_types).length") > 40
        await queue(page, SOUND)
        await until(page, "app.nodeOutputs['2']?.images?.length")
        assert await page.value("app.nodeOutputs['2'].images[0].filename") == "page_00001_.png"
        await until(page, "app.rootGraph.nodes.find((n) => n.type === 'SaveImage').imgs?.[0]?.naturalWidth")
        assert [truth.outcome for truth in server.truth] == ["completed"]
        assert server.truth[0].client_id == await page.value("app.api.clientId")
        jobs = await page.value("app.api.getHistory(10)")
        assert [(job["status"], job["preview_output"]["filename"]) for job in jobs] == [
            ("completed", "page_00001_.png")
        ]

    see(tmp_path, look)


def test_a_failed_job_is_told_with_its_node(tmp_path: Path) -> None:
    async def look(page: Page, server: Server, url: str) -> None:
        await queue(page, BROKEN)
        await until(page, "app.lastExecutionError")
        error = json.loads(await page.value("JSON.stringify(app.lastExecutionError)"))
        assert (error["node_type"], error["exception_type"]) == ("SimFail", "RuntimeError")
        await until(page, "document.body.innerText.includes('Fail failed')")
        assert [truth.outcome for truth in server.truth] == ["failed"]

    see(tmp_path, look)


def test_a_workflow_and_a_setting_are_there_after_a_reload(tmp_path: Path) -> None:
    async def look(page: Page, server: Server, url: str) -> None:
        stored = (
            "app.api.storeUserData('workflows/a b.json', {nodes: []}).then((r) => r.status)"
            ".then((s) => app.api.storeSetting('Comfy.Test', [1]).then(() => s))"
        )
        assert await page.value(stored) == 200
        await reload(page)
        listed = "app.api.listUserDataFullInfo('workflows').then((found) => found.map((f) => [f.path, f.size]))"
        assert await page.value(listed) == [["a b.json", 12]]
        assert await page.value("app.api.getSetting('Comfy.Test')") == [1]
        assert (
            await page.value("app.api.moveUserData('workflows/a b.json', 'workflows/c.json').then((r) => r.status)")
            == 200
        )
        assert await page.value("app.api.deleteUserData('workflows/c.json').then((r) => r.status)") == 204
        assert await page.value(listed) == []

    see(tmp_path, look)
