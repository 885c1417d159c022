"""Handlers of the dashboard behind its own guard, without the rest of it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from comfyload.web.answers import MOST_BODY, Route, guarded

TOKEN = "t" * 32


class Page:
    """What a page of ours can call."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self._client = client

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        async with self._client.get(URL(f"/comfyload/ui/{path}", encoded=True), params=query) as reply:
            return reply.status, await reply.json()

    async def post(self, path: str, body: object, **more: Any) -> tuple[int, Any]:
        headers = {"X-Comfyload-Token": TOKEN}
        async with self._client.post(f"/comfyload/ui/{path}", json=body, headers=headers, **more) as reply:
            return reply.status, await reply.json()

    async def post_bytes(self, path: str, body: bytes) -> tuple[int, Any]:
        headers = {"X-Comfyload-Token": TOKEN, "Content-Type": "application/json"}
        async with self._client.post(f"/comfyload/ui/{path}", data=io.BytesIO(body), headers=headers) as reply:
            return reply.status, await reply.json()


@asynccontextmanager
async def page_of(routes: Sequence[Route]) -> AsyncIterator[Page]:
    """A page that calls these handlers."""
    app = web.Application(client_max_size=MOST_BODY)
    for method, path, handler in routes:
        app.router.add_route(method, path, guarded(handler, TOKEN, lambda _: True))
    async with TestClient(TestServer(app)) as client:
        yield Page(client)
