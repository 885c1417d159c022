"""Tells faults of the machine that the load comes from apart from faults of the server."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from comfyload.comfy.wire.calls import Download, Reply, Request, Transport, TransportError

OURS = "this machine: "
"""How the message of such a fault begins."""

_WORDS = {
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "too many open files"),
    **dict.fromkeys((errno.EADDRNOTAVAIL, 10049), "no port is left to connect from"),
    **dict.fromkeys((errno.ENOBUFS, 10055), "no buffer space is left for sockets"),
    **dict.fromkeys((errno.ENETDOWN, 10050), "its network is down"),
    errno.ENOMEM: "it has no memory left",
    errno.ENOSPC: "no space is left on a disk",
    getattr(errno, "EDQUOT", errno.ENOSPC): "a disk quota is used up",
}
"""By the system's number; numbers of five digits are Windows', which uses the usual ones for the others."""


def own_fault(error: BaseException) -> str:
    """What this machine lacked, in words; "" if the error is not a fault of this machine."""
    for each in _chain(error):
        if isinstance(each, socket.gaierror):
            return f"it cannot resolve the server's name ({(each.strerror or str(each)).lower()})"
        if isinstance(each, OSError):
            number = each.errno
            if number is None:  # several attempts in one error: their numbers are only in the text
                found = re.search(r"\[Errno (\d+)\]", str(each))
                number = int(found[1]) if found else None
            if number in _WORDS:
                return _WORDS[number]
    return ""


def _chain(error: BaseException, depth: int = 8) -> Iterator[BaseException]:
    """The error and its causes; aiohttp keeps the system's error in an attribute of its own."""
    yield error
    for inner in (getattr(error, "os_error", None), error.__cause__):
        if isinstance(inner, BaseException) and depth > 0:
            yield from _chain(inner, depth - 1)


class FaultReporter:
    """A transport that calls `on_own` for each fault of this machine, whatever the caller does about it."""

    def __init__(self, transport: Transport, on_own: Callable[[str], None]) -> None:
        self._transport = transport
        self._on_own = on_own

    async def call(self, request: Request) -> Reply:
        with self._reporting():
            return await self._transport.call(request)

    async def download(self, path: str, timeout_s: float) -> Download:
        with self._reporting():
            return await self._transport.download(path, timeout_s)

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[AsyncIterator[str | bytes]]:
        with self._reporting():
            async with self._transport.events(client_id) as frames:
                yield frames

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            if error.ours:
                self._on_own(str(error).removeprefix(OURS))
            raise
