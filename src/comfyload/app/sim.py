"""`sim`: serve a simulated ComfyUI until interrupted."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress

from comfyload.errors import UsageError
from comfyload.sim import Server
from comfyload.sim.http import serve

CACHES = ("ram", "classic", "lru", "none")


async def serve_sim(*, port: int, speed: float, cache: str, probe: bool) -> None:
    """Serve on loopback until SIGINT or SIGTERM. The address is printed on standard output, for scripts to read.

    Raises:
        UsageError: the port is taken, or there is no such cache mode.
    """
    if cache not in CACHES:
        raise UsageError(f"unknown --cache {cache!r}", f"choose one of {', '.join(CACHES)}")
    stop = asyncio.Event()
    with suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Server(speed=speed, cache=cache, probe=probe) as server, AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serve(server, port=port))
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise UsageError(f"cannot listen on port {port}: {reason}", "give another --port, or 0") from None
        print(url, flush=True)  # noqa: T201 - the one thing this command says
        await stop.wait()
