"""Servers for tests over real sockets: the simulator in a process of its own, and some that are no ComfyUI."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from comfyload.sim import Server
from comfyload.sim.http import serve
from tests.support.commands import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def simulator(speed: float = 20.0, cache: str = "ram") -> Iterator[str]:
    """`comfyload sim` on a free port; ended with the context."""
    with serving("sim", "--port", "0", "--speed", str(speed), "--cache", cache) as url:
        yield url


@contextmanager
def fronted(urls: Sequence[str], *words: str) -> Iterator[str]:
    """`comfyload gateway` before these servers, on a free port; its ledger goes with it."""
    servers = [word for url in urls for word in ("--server", url)]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("gateway", *servers, "--ledger", folder, "--port", "0", *words) as url,
    ):
        yield url


@contextmanager
def threaded(main: Callable[[asyncio.Event, Callable[[Any], None]], Awaitable[None]]) -> Iterator[Any]:
    """Run `main(stop, ready)` on a loop in a thread; yields what it hands to `ready`."""
    handed: list[Any] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    is_ready = threading.Event()

    def ready(value: Any) -> None:
        handed.append(value)
        is_ready.set()

    async def body() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await main(stop, ready)

    thread = threading.Thread(target=lambda: asyncio.run(body()))
    thread.start()
    try:
        assert is_ready.wait(10), "the server did not start"
        yield handed[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@contextmanager
def answering(handler: Handler, *, ssl: Any = None, host: str = "127.0.0.1") -> Iterator[str]:
    """Any path, any method, one handler; yields the URL."""

    async def main(stop: asyncio.Event, ready: Callable[[Any], None]) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0, ssl_context=ssl)
        await site.start()
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        ready(f"http{'s' if ssl else ''}://{shown}:{port}")
        await stop.wait()
        await runner.cleanup()

    with threaded(main) as url:
        yield url


@contextmanager
def in_thread(server: Callable[[], Server], base_path: str = "") -> Iterator[tuple[str, Server]]:
    """A simulated server with faults of one's choice, on a loop of its own; yields its URL and itself."""

    async def main(stop: asyncio.Event, ready: Callable[[Any], None]) -> None:
        simulated = server()
        async with simulated, serve(simulated, base_path=base_path) as url:
            ready((url, simulated))
            await stop.wait()

    with threaded(main) as pair:
        yield pair
