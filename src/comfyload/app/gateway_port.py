"""The gateway's port: where it listens, and which connections it does not keep."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from comfyload.app.run.descriptors import raise_limit
from comfyload.errors import UsageError
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

HEAD_S = 30.0
"""How long a new connection may take to say what it wants."""

LOOK_S = 1.0
KEEP_ALIVE_S = 300.0


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, tls_files: tuple[str, str] | None
) -> AsyncIterator[str]:
    """Serve the application; yields its address.

    Raises:
        UsageError: it cannot listen there, or the files are not a certificate and its key.
    """
    raise_limit()
    tls = None if tls_files is None else _tls(*tls_files)
    runner = web.AppRunner(app, access_log=None, logger=_logger(), shutdown_timeout=1.0, keepalive_timeout=KEEP_ALIVE_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls, backlog=1024).start()
        except OSError as error:
            text = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise UsageError(text.lower(), "give another --port, or 0") from None
        watch = asyncio.create_task(_close_the_silent(runner))
        try:
            name = f"[{host}]" if ":" in host else host
            yield f"http{'s' if tls else ''}://{name}:{runner.addresses[0][1]}"
        finally:
            await end_tasks([watch])
    finally:
        await runner.cleanup()


async def _close_the_silent(runner: web.AppRunner) -> None:
    """Close connections on which no request came within HEAD_S: each holds a descriptor and some memory."""
    since: dict[RequestHandler, float] = {}
    while runner.server is not None:
        now = asyncio.get_running_loop().time()
        silent = [each for each in runner.server.connections if not each._request_count]
        since = {each: since.get(each, now) for each in silent}
        for each, at in since.items():
            if now - at >= HEAD_S:
                each.force_close()
        await asyncio.sleep(LOOK_S)


def _tls(certificate: str, key: str) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        text = f"cannot use the certificate {certificate} with the key {key}: {error.strerror or error}"
        raise UsageError(text, "give PEM files that belong together") from None
    return tls


def _logger() -> logging.Logger:
    """What goes wrong in a request of ours, but not what a client wrote that is no HTTP: it may hold its token."""
    found = logging.getLogger("comfyload.gateway.port")
    found.filters.clear()
    faults = (HttpProcessingError, web.RequestPayloadError)
    found.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], faults)))
    return found
