"""The open connections to one server: kept between requests, bounded in number, the one used last is used next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from comfyload.comfy.connection import HttpConnection
from comfyload.comfy.incoming import Broken

MAX_CONNECTIONS = 64
KEEP_ALIVE_S = 60.0
"""How long an unused connection is kept."""


class Connections:
    """`connect` opens one more; `connect_s` limits how long that may take, None: nothing but the caller's deadline."""

    def __init__(self, connect: Callable[[], Awaitable[HttpConnection]], connect_s: float | None) -> None:
        self._connect = connect
        self._connect_s = connect_s
        self._open: set[HttpConnection] = set()
        self._opening = 0
        self._unused: list[HttpConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.closed = False

    async def take(self, deadline: float) -> HttpConnection:
        """A connection for one request; it is given back afterwards.

        Raises:
            TimeoutError: there is none by `deadline`, an instant of the loop's clock.
            NotConnected: the server cannot be reached.
        """
        if not self._waiting and (connection := self._used_last()):
            return connection
        async with asyncio.timeout_at(deadline):
            while len(self._open) + self._opening >= MAX_CONNECTIONS:
                await self._one_given_back()
                if connection := self._used_last():
                    return connection
            self._opening += 1
            try:
                async with asyncio.timeout(self._connect_s):
                    connection = await self._connect()
            except BaseException:
                self._wake_one()
                raise
            finally:
                self._opening -= 1
        self._open.add(connection)
        return connection

    def give_back(self, connection: HttpConnection) -> None:
        """A request has ended, well or not."""
        if connection.usable and not self.closed:
            self._unused.append(connection)
        else:
            self._drop(connection)
        self._wake_one()

    async def close(self) -> None:
        """Close all; requests under way fail."""
        self.closed = True
        for connection in self._open:
            connection.abort()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(Broken("closed by us"))
        await asyncio.sleep(0)  # sockets are closed in the loop's next round

    def _used_last(self) -> HttpConnection | None:
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while self._unused:
            connection = self._unused.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            self._drop(connection)
        return None

    async def _one_given_back(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # the turn that it was given is another's now
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _drop(self, connection: HttpConnection) -> None:
        connection.abort()
        self._open.discard(connection)
