"""Faults of the machine that the load comes from: told from those of a server, which they would be blamed on."""

from __future__ import annotations

import errno
import re
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from comfyload.comfy.wire import TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import Download, Reply, Request

__all__ = ["OURS", "Witnessed", "own_fault"]

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
"""By the system's number; those of five digits are of Windows, which tells the others by the usual ones."""


def own_fault(error: BaseException) -> str:
    """What this machine lacked, in words; "" if the error is none of its own."""
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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made of: aiohttp keeps the system's own under a name of its own."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = getattr(each, "os_error", None)
        left += [each.__cause__, inner if isinstance(inner, BaseException) else None]


class Witnessed:
    """A transport that tells `on_own` of each fault of this machine, whoever asked and whatever becomes of it."""

    def __init__(self, transport: Transport, on_own: Callable[[str], None]) -> None:
        self._transport = transport
        self._on_own = on_own

    async def call(self, request: Request) -> Reply:
        try:
            return await self._transport.call(request)
        except TransportError as error:
            self._tell(error)
            raise

    async def download(self, path: str, timeout_s: float) -> Download:
        try:
            return await self._transport.download(path, timeout_s)
        except TransportError as error:
            self._tell(error)
            raise

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[AsyncIterator[str | bytes]]:
        try:
            async with self._transport.events(client_id) as frames:
                yield frames
        except TransportError as error:
            self._tell(error)
            raise

    def _tell(self, error: TransportError) -> None:
        if error.ours:
            self._on_own(str(error).removeprefix(OURS))
