"""A headless Chromium, spoken to by its DevTools protocol: enough to open a file and ask what it drew."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

__all__ = ["Page", "chromium", "opened"]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--hide-scrollbars"),
)


def chromium() -> str:
    """Its path; the test is skipped where there is none, and fails in CI, which installs one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    if os.environ.get("CI"):
        pytest.fail("CI has no Chromium: the page is not looked at")
    pytest.skip("no Chromium")


class Page:
    """One tab. `events` are what the browser told of it, in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._loaded = asyncio.Event()
        self.reading = asyncio.ensure_future(self._read())

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(reply, 15)
        assert "error" not in answer, answer
        return dict(answer.get("result", {}))

    async def value(self, expression: str) -> Any:
        """What the expression comes to; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, file: Path) -> None:
        """Open the file, and wait until its charts are drawn."""
        await self.call("Page.navigate", url=file.as_uri())
        async with asyncio.timeout(15):
            await self._loaded.wait()
        await self.drawn()

    async def drawn(self) -> None:
        await self.value(
            "new Promise((ok) => { const look = () => document.documentElement.dataset.drawn ? ok() : "
            "setTimeout(look, 20); look(); })"
        )

    async def look(self, *, width: int, scheme: str = "light", height: int = 900) -> None:
        """A window so wide, with that colour scheme; charts have been fitted to it when this returns."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)
        await self.value("delete document.documentElement.dataset.drawn, dispatchEvent(new Event('resize')), 0")
        await self.drawn()

    def events_of(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] == method]

    async def _read(self) -> None:
        async for message in self._socket:
            received = message.json()
            if "id" in received:
                self._replies.pop(received["id"]).set_result(received)
            else:
                self.events.append(received)
                if received["method"] == "Page.loadEventFired":
                    self._loaded.set()


@asynccontextmanager
async def opened(file: Path, *, before: str = "") -> AsyncIterator[Page]:
    """The file in a new browser with an empty profile, `before` run ahead of its scripts; ended with the context."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            line = b""
            while b"DevTools listening on" not in line:
                line = await asyncio.wait_for(process.stderr.readline(), 15)
                assert line, "Chromium ended at once"
            port = line.decode().split("/")[2]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{port}/json/list") as reply:
                    tabs = await reply.json()
                url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(url, max_msg_size=2**28) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Network", "Log"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
                    await page.open(file)
                    yield page
                    page.reading.cancel()
        finally:
            process.terminate()
            await process.wait()
