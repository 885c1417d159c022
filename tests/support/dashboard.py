"""A dashboard that listens, over runs in a folder; for tabs, and for calls as no proper browser makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from comfyload.app.gateway_port import listening
from comfyload.web.server import Dashboard, DashboardOptions, app_of, dashboard
from tests.support.gateway_port import Answer, spoken

UI = "/comfyload/ui"
WS = f"{UI}/ws"
JSON = "Content-Type: application/json"
CSP_OF_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@dataclass
class Page:
    """A dashboard at `url`. `token`: that of its actions."""

    url: URL
    dashboard: Dashboard
    session: aiohttp.ClientSession
    folder: Path
    token: str = ""

    async def raw(self, sent: bytes) -> Answer:
        """The answer to these bytes."""
        return await spoken(self.url, sent)

    async def ask(self, path: str, *more: str, method: str = "GET", body: bytes | None = None) -> Answer:
        """The answer to a request for the path as it is written here. `more`: lines of headers."""
        host = [] if any(line.lower().startswith("host:") for line in more) else [f"Host: {self.url.authority}"]
        size = [] if body is None else [f"Content-Length: {len(body)}"]
        lines = [f"{method} {path} HTTP/1.1", *host, *size, *more, "", ""]
        return await self.raw("\r\n".join(lines).encode("utf-8", "surrogateescape") + (body or b""))

    async def act(self, path: str, value: object, *more: str) -> Answer:
        """As the page does it: with its token."""
        lines = (JSON, f"X-Comfyload-Token: {self.token}", *more)
        return await self.ask(f"{UI}/{path}", *lines, method="POST", body=json.dumps(value).encode())

    @asynccontextmanager
    async def tab(self, **headers: str) -> AsyncIterator[Tab]:
        async with self.session.ws_connect(self.url.with_path(WS), headers=headers, max_msg_size=0) as socket:
            yield Tab(socket)


class Tab:
    """A socket of the page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def next(self, within_s: float = 10.0) -> Any:
        """The next frame: its JSON; of a binary one its head, and its columns under `columns`."""
        message = await self.socket.receive(within_s)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        size = int.from_bytes(message.data[:4], "little")
        return {**json.loads(message.data[4 : 4 + size]), "columns": message.data[4 + size :], "offset": 4 + size}

    async def watch(self, number: int, view: str, **params: Any) -> Any:
        """The first state of a watch."""
        await self.say(watch=number, view=view, params=params)
        while (found := await self.next()).get("watch") != number:
            pass
        return found


@asynccontextmanager
async def page(folder: Path, **options: Any) -> AsyncIterator[Page]:
    """A dashboard on a free port; its runs are in `folder`/runs."""
    static = folder / "static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "index.html").write_text("<!doctype html><title>page</title>", encoding="utf-8")
    (static / "js").mkdir(exist_ok=True)
    (static / "js" / "app.js").write_text("// " + "x" * 2000, encoding="utf-8")
    given = {"runs": folder / "runs", "archive": folder / "archive", "page": static, "port": 0, **options}
    chosen = DashboardOptions(**given)
    async with (
        dashboard(chosen) as found,
        listening(app_of(found, chosen), "127.0.0.1", 0, None) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        made = Page(URL(url), found, session, folder)
        bearer = {"Authorization": f"Bearer {chosen.token}"} if chosen.token else {}
        async with session.get(made.url.with_path(f"{UI}/session"), headers=bearer) as reply:
            made.token = (await reply.json())["token"]
        yield made
        await found.feed.close()
        await asyncio.sleep(0)
