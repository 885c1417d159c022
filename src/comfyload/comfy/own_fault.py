"""Tells faults of the machine that the load comes from apart from faults of the server."""

import errno
import re
import socket
from collections.abc import Callable, Iterator

from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request, Transport, TransportError

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

_REFUSED = (errno.ECONNREFUSED, 10061)


def own_fault(error: BaseException) -> str:
    """What this machine lacked, in words; "" if the error is not a fault of this machine."""
    for each in _chain(error):
        if isinstance(each, socket.gaierror):
            return f"it cannot resolve the server's name ({(each.strerror or str(each)).lower()})"
        if isinstance(each, OSError) and (number := _number_of(each)) in _WORDS:
            return _WORDS[number]
    return ""


def nothing_listens(error: BaseException) -> bool:
    """Whether the address was reached and no process listens there."""
    return any(isinstance(each, OSError) and _number_of(each) in _REFUSED for each in _chain(error))


def _number_of(error: OSError) -> int | None:
    if error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]", str(error))  # several attempts in one error: their numbers are in the text
    return int(found[1]) if found else None


def _chain(error: BaseException, depth: int = 8) -> Iterator[BaseException]:
    """The error and its causes."""
    yield error
    if error.__cause__ is not None and depth > 0:
        yield from _chain(error.__cause__, depth - 1)


class FaultReporter:
    """A transport that calls `on_own` for each fault of this machine, whatever the caller does about it, and `on_reply`
    for each reply.
    """

    def __init__(self, transport: Transport, on_own: Callable[[str], None], on_reply: Callable[[], None]) -> None:
        self._transport = transport
        self._on_own = on_own
        self._on_reply = on_reply

    async def call(self, request: Request) -> Reply:
        try:
            reply = await self._transport.call(request)
        except TransportError as error:
            raise self._reported(error) from None
        self._on_reply()
        return reply

    async def download(self, path: str, timeout_s: float) -> Download:
        try:
            read = await self._transport.download(path, timeout_s)
        except TransportError as error:
            raise self._reported(error) from None
        self._on_reply()
        return read

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        try:
            await self._transport.events(client_id, on_frame)
        except TransportError as error:
            raise self._reported(error) from None

    def _reported(self, error: TransportError) -> TransportError:
        if error.ours:
            self._on_own(str(error).removeprefix(OURS))
        return error
