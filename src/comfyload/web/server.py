"""The dashboard on a socket: the page, what it watches, what it asks, and what it does.

The same routes stand in a gateway, whose guard has let the caller in by then.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from comfyload import clock
from comfyload.app.gateway_options import is_loopback
from comfyload.app.gateway_port import listening
from comfyload.app.signals import Signals
from comfyload.comfy.address import redacted
from comfyload.gateway import paths
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.guard import AccessGuard, Denied
from comfyload.gateway.login import LOGIN, admitted, login, refusal
from comfyload.tasks import end_tasks
from comfyload.web.actions import Actions
from comfyload.web.advice import Advice
from comfyload.web.answers import HEADERS, MOST_BODY, PAGE, UI, Handler, Route, answer, guarded
from comfyload.web.feed import Feed
from comfyload.web.files import FOLDER, PageFiles
from comfyload.web.gateways import Gateways, Inside
from comfyload.web.outputs import Outputs
from comfyload.web.processes import Processes
from comfyload.web.results import Results
from comfyload.web.runs import Runs
from comfyload.web.servers import Servers
from comfyload.web.start import Starting
from comfyload.web.views import Views
from comfyload.web.worker import Worker

LOOK_S = 1.0


class DashboardOptions(Struct, frozen=True, kw_only=True):
    """What the dashboard shows, and to whom. `token`: what a caller must know; None: whoever reaches it may look and
    act. `gateway_token`: that of a gateway among the servers. `hosts`: names by which it is called. `in_gateway`: it
    stands in a gateway, and shows its ledger. `quit_after_s`: it ends when no tab has been open for so long.
    """

    runs: Path
    archive: Path
    servers: Sequence[ServerConfig] = ()
    gateway_token: str = ""
    host: str = "127.0.0.1"
    port: int = 8288
    hosts: Sequence[str] = ()
    token: str | None = None
    in_gateway: bool = False
    quit_after_s: float | None = None
    page: Path = FOLDER


class Dashboard:
    """The routes and what stands behind them. `may`: whether a caller that was let in may see everything.

    What is advised and what is exported take long, and a page must not wait for them: each has a process of its own,
    from when it is first needed.
    """

    def __init__(self, options: DashboardOptions, may: Callable[[web.Request], bool]) -> None:
        self._options = options
        self._may = may
        self._worker, self._adviser, self._exporter = Worker(), Worker(), Worker()
        self._token, self._version = secrets.token_urlsafe(32), version("comfyload")
        self._files = PageFiles(options.page)
        processes = Processes()
        self._runs = Runs(options.runs, options.archive)
        self._results = Results(self._runs.path_of, options.archive, self._worker, self._exporter)
        self._advice = Advice(self._results.path_of, self._runs.inside, options.archive, self._adviser)
        self._actions = Actions(self._runs, processes, options.servers)
        self._outputs = Outputs(self._runs, options.servers)
        self._starting = Starting(options.runs, options.servers, options.archive, processes.hold, self._runs.options)
        self._gateways = Gateways(options.servers, options.gateway_token)
        inside = self._gateways.servers if options.in_gateway else None
        self._servers = Servers(options.servers, options.gateway_token, inside)
        more = {"gateway": self._gateways.view, "servers": self._servers.view}
        self.feed = Feed(Views(self._runs, options.runs, processes, self._results.live_summary, more).table())

    async def start(self) -> None:
        """Load what computes pages, so that the first does not wait for it."""
        await self._worker.start()

    async def close(self) -> None:
        """Close all sockets and connections, and end what is computed."""
        try:
            await self.feed.close()
            await self._runs.close()
            await self._advice.close()
            await self._servers.close()
        finally:
            for worker in (self._worker, self._adviser, self._exporter):
                worker.close()

    def routes(self, inside: Inside | None = None) -> list[Route]:
        """All of them, each guarded. `inside`: of the gateway that they stand in, which answers its API itself."""
        self._gateways.inside = self._outputs.inside = inside
        found: list[Route] = [
            ("GET", PAGE, self._files.index),
            ("GET", f"{UI}/static/{{name:.+}}", self._files.file),
            ("GET", f"{UI}/session", self._session),
            ("GET", f"{UI}/ws", self.feed.socket),
            *self._outputs.routes(UI),
            *self._servers.routes(),
        ]
        by_run = [*self._results.routes(), *self._advice.routes()]
        found += [(method, path, self._fresh(handler)) for method, path, handler in by_run]
        if inside is None:  # a gateway's servers are for its jobs, and no load test's
            found += [*self._actions.routes(UI), *self._starting.routes(), *self._gateways.routes()]
        return [(method, path, guarded(handler, self._token, self._may)) for method, path, handler in found]

    def _fresh(self, handler: Handler) -> Handler:
        """The handler, with the list of runs as it is now."""

        @wraps(handler)
        async def with_list(request: web.Request) -> web.StreamResponse:
            await self._runs.entries()
            return await handler(request)

        return with_list

    async def _session(self, _: web.Request) -> web.Response:
        """What the page must know first; the token is for its actions."""
        options = self._options
        made = answer(
            {
                "token": self._token,
                "version": self._version,
                "gateway": options.in_gateway,
                "folder": str(options.runs),
                "archive": str(options.archive),
                "servers": [{"name": one.name, "url": redacted(one.url)} for one in options.servers],
            }
        )
        made.headers["Cache-Control"] = "no-store"
        return made


@asynccontextmanager
async def dashboard(
    options: DashboardOptions, may: Callable[[web.Request], bool] = lambda _: True
) -> AsyncIterator[Dashboard]:
    """The dashboard at work, without a socket."""
    found = Dashboard(options, may)
    try:
        yield found
    finally:
        await found.close()


def app_of(found: Dashboard, options: DashboardOptions) -> web.Application:
    """The dashboard by itself, behind a guard of its own."""
    tokens = None if options.token is None else {"": options.token}
    guard = AccessGuard(tokens, options.hosts, loopback=is_loopback(options.host), guarded="dashboard")

    @web.middleware
    async def let_in(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD", "POST"):
            return web.Response(status=405)
        if paths.parts_of(request.raw_path.partition("?")[0]) is None:
            return web.Response(status=400, text="400: Bad Request")
        try:
            admitted(request, guard)
        except Denied as denied:
            if denied.status != 401 or request.path != LOGIN:
                return refusal(request, denied)
        return await handler(request)

    async def to_page(_: web.Request) -> web.Response:
        return web.Response(status=303, headers={"Location": PAGE})

    async def nothing_there(_: web.Request) -> web.Response:
        return answer({"error": "there is nothing of that name", "hint": ""}, 404)

    async def log_in(request: web.Request) -> web.StreamResponse:
        return await login(request, guard)

    app = web.Application(client_max_size=MOST_BODY, middlewares=[let_in])
    for path in ("/", PAGE.rstrip("/")):
        app.router.add_get(path, to_page)
    for method in ("GET", "POST"):
        app.router.add_route(method, LOGIN, log_in)
    for method, path, handler in found.routes():
        app.router.add_route(method, path, handler)
    app.router.add_route("*", "/{path:.*}", nothing_there)
    app.on_response_prepare.append(_protect)
    return app


async def serve_dashboard(options: DashboardOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until nobody has looked for long. `say` gets the address once it listens.

    Raises:
        UsageError: it cannot listen there.
    """
    with Signals() as signals:
        async with AsyncExitStack() as stack:
            found = await stack.enter_async_context(dashboard(options))
            url = await stack.enter_async_context(listening(app_of(found, options), options.host, options.port, None))
            say(f"{url}{PAGE}")
            warm = asyncio.create_task(found.start())
            stack.push_async_callback(end_tasks, [warm])
            unwatched = asyncio.create_task(_unwatched(found.feed, options.quit_after_s))
            stack.push_async_callback(end_tasks, [unwatched])
            while await signals.next(unwatched) == "reload":
                pass
            await found.feed.close()


async def _unwatched(feed: Feed, after_s: float | None) -> None:
    """Wait until no tab has been open for so long; None: for ever."""
    if after_s is None:
        await asyncio.Event().wait()
    began = clock.now()
    while after_s is not None:
        await asyncio.sleep(min(LOOK_S, after_s))
        since = feed.idle_since(began)
        if since is not None and clock.now() - since >= after_s:
            return


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
