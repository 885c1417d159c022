"""`sim`: serve a simulated ComfyUI until interrupted."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

from comfyload.errors import UsageError
from comfyload.sim import Server
from comfyload.sim.http import serve

PAGE_PACKAGE = "comfyui_frontend_package"
CACHES = ("ram", "classic", "lru", "none")


async def serve_sim(*, port: int, speed: float, cache: str, frontend: str, probe: bool) -> None:
    """Serve on loopback until SIGINT or SIGTERM. The address is printed on standard output, for scripts to read.

    Raises:
        UsageError: the port is taken, there is no such cache mode, or no page in the folder `frontend`.
    """
    if cache not in CACHES:
        raise UsageError(f"unknown --cache {cache!r}", f"choose one of {', '.join(CACHES)}")
    stop = asyncio.Event()
    with suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    page = page_folder(frontend)
    async with Server(speed=speed, cache=cache, frontend=page, probe=probe) as server, AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serve(server, port=port))
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise UsageError(f"cannot listen on port {port}: {reason}", "give another --port, or 0") from None
        print(url, flush=True)  # noqa: T201 - the one thing this command says
        await stop.wait()


def page_folder(frontend: str) -> Path | None:
    """The folder of ComfyUI's page; for `auto` that of the installed package, or None.

    Raises:
        UsageError: there is no page in the folder.
    """
    if frontend == "auto":
        found = find_spec(PAGE_PACKAGE)
        return None if found is None or found.origin is None else Path(found.origin).parent / "static"
    if not (Path(frontend) / "index.html").is_file():
        raise UsageError(f"no index.html in {frontend}", "give --frontend the folder of ComfyUI's page, or auto")
    return Path(frontend)
