"""The page in a gateway, loaded when somebody first opens it: it takes more memory than the gateway itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from comfyload.web.answers import HEADERS, PAGE, UI, Route, answer

if TYPE_CHECKING:
    from comfyload.web.gateways import Inside
    from comfyload.web.server import Dashboard


class PageOnDemand:
    """The routes under which the page stands. `may`: whether a caller that was let in may see it. `page`: the folder of
    its files; None: our own.
    """

    def __init__(self, runs: Path, archive: Path, may: Callable[[web.Request], bool], page: Path | None = None) -> None:
        self._runs = runs
        self._archive = archive
        self._may = may
        self._page = page
        self._loading = asyncio.Lock()
        self._made: tuple[Dashboard, web.UrlDispatcher] | None = None
        self._inside: Inside | None = None

    def routes(self, inside: Inside) -> list[Route]:
        """All that is below the page, for a gateway whose console is `inside`."""
        self._inside = inside
        return [("*", PAGE, self._answer), ("*", f"{UI}/{{path:.*}}", self._answer)]

    async def close(self) -> None:
        """End what goes on for open tabs."""
        if self._made is not None:
            await self._made[0].close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        async with self._loading:
            _, router = self._made = self._made or await self._load()
        match = await router.resolve(request)
        if match.http_exception is not None:
            found = answer({"error": "there is nothing of that name", "hint": ""}, match.http_exception.status)
            found.headers.update(HEADERS)
            return found
        match.add_app(request.app)
        # Of the inner router: the names in the path are there. The web server keeps what it gave out before.
        request._cache.pop("match_info", None)
        request._match_info = match
        return await match.handler(request)

    async def _load(self) -> tuple[Dashboard, web.UrlDispatcher]:
        """In a thread: it takes a second, in which the gateway goes on."""
        server = await asyncio.to_thread(import_module, "comfyload.web.server")
        options = server.DashboardOptions(
            runs=self._runs, archive=self._archive, in_gateway=True, page=self._page or server.FOLDER
        )
        found: Dashboard = server.Dashboard(options, self._may)
        router = web.UrlDispatcher()
        for method, path, handler in found.routes(self._inside):
            router.add_route(method, path, handler)
        return found, router


@asynccontextmanager
async def page_on_demand(
    runs: Path, archive: Path, may: Callable[[web.Request], bool], page: Path | None = None
) -> AsyncIterator[PageOnDemand]:
    """The page over the ledger of a gateway; see `PageOnDemand`."""
    found = PageOnDemand(runs, archive, may, page)
    try:
        yield found
    finally:
        await found.close()
