"""A TCP proxy that makes a network bad on purpose: delay, throttling, resets, refusals, silence.

It stands between a client and any server, a real one too, and changes nothing but when bytes arrive, and whether.
"""

import asyncio
import contextlib
import random
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Literal, Self

from msgspec import Struct

from comfyload.tasks import end_tasks

Alteration = Callable[[bytes], bytes]

_CHUNK = 1 << 14
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST instead of FIN."""


class Trouble(Struct, frozen=True, kw_only=True):
    """What is wrong with the network now. All off by default.

    `delay_s`, and up to `jitter_s` more, for each piece of each direction, in order. `bytes_per_s`: as much in each
    direction of each connection. `reset`: share of connections that are cut, after up to `reset_after_bytes` of what
    comes back, and `how`: by RST; by FIN, amid a reply; by FIN towards the client alone, whose bytes still arrive; or
    never, only that nothing more comes. `lose_reply`: share of connections whose request arrives, and that are cut
    before its reply. `refuse`: no new connection. `silent`: nothing passes in either direction, and nothing is closed.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    reset: float = 0.0
    reset_after_bytes: int = 2000
    how: Literal["reset", "close", "half_close", "stall"] = "reset"
    lose_reply: float = 0.0
    refuse: bool = False
    silent: bool = False


class Proxy:
    """`async with Proxy(host, port, rng) as proxy:` listens on `proxy.url`; `proxy.trouble` may change at any time.

    Attributes:
        resets: how many connections it cut, or found broken.
    """

    def __init__(self, host: str, port: int, rng: random.Random, trouble: Trouble = Trouble()) -> None:  # noqa: B008
        self._host, self._port, self._rng = host, port, rng
        self.trouble = trouble
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self.url = ""
        self.resets = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close on the loop's next turn

    def cut(self) -> None:
        """Reset every connection that is open, the event streams too."""
        self.resets += len(self._writers) // 2  # each connection has two
        for writer in list(self._writers):
            self._reset(writer)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            if self.trouble.refuse:
                raise ConnectionRefusedError
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            self._reset(writer)
            return
        self._writers |= {writer, back}
        pumps = [
            asyncio.create_task(self._pump(reader, back)),
            asyncio.create_task(self._pump(there, writer, self._cut_after(), self._alteration())),
        ]
        try:
            for pump in asyncio.as_completed(pumps):
                if await pump:
                    self.resets += 1
                    await self._end_amid(pumps, back, reader, writer)
                    break
        finally:
            self._writers -= {writer, back}
            for one in (writer, back):
                with contextlib.suppress(OSError):
                    one.close()
            await end_tasks(pumps)

    async def _end_amid(
        self, pumps: list[asyncio.Task[bool]], back: StreamWriter, reader: StreamReader, writer: StreamWriter
    ) -> None:
        """End a connection in the middle of what comes back."""
        await end_tasks(pumps)
        back.transport.abort()
        how = self.trouble.how
        if how == "reset":
            self._reset(writer)
        elif how != "close":
            with contextlib.suppress(OSError):
                if how == "half_close":
                    writer.write_eof()
                while await reader.read(_CHUNK):  # until the client has had enough
                    pass

    def _alteration(self) -> Alteration:
        """What the pieces that come back on a new connection become: as they are."""
        return lambda piece: piece

    def _cut_after(self) -> int | None:
        """After how many bytes of what comes back this connection is cut; None: it is not."""
        if self._rng.random() < self.trouble.lose_reply:
            return 0
        if self._rng.random() < self.trouble.reset:
            return self._rng.randrange(self.trouble.reset_after_bytes)
        return None

    async def _pump(
        self, reader: StreamReader, writer: StreamWriter, cut_after: int | None = None, alter: Alteration = bytes
    ) -> bool:
        """Pass bytes on until the end; True if the connection is to be cut, or one of its sides broke."""
        passed = 0
        try:
            while piece := await reader.read(_CHUNK):
                if cut_after is not None and passed + len(piece) > cut_after:
                    return True
                await self._hold(len(piece))
                if writer.is_closing():
                    break
                writer.write(alter(piece))
                await writer.drain()
                passed += len(piece)
            if not writer.is_closing() and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            return True
        return False

    async def _hold(self, size: int) -> None:
        while self.trouble.silent:  # noqa: ASYNC110 - `trouble` is set from outside, by plain assignment
            await asyncio.sleep(0.02)
        trouble = self.trouble
        wait = trouble.delay_s + trouble.jitter_s * self._rng.random()
        if trouble.bytes_per_s:
            wait += size / trouble.bytes_per_s
        if wait:
            await asyncio.sleep(wait)

    def _reset(self, writer: StreamWriter) -> None:
        found = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
