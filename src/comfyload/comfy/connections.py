"""The open connections to one server: kept between requests, bounded in number, the one used last is used next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from comfyload.comfy.connection import HttpConnection

MAX_CONNECTIONS = 64
KEEP_ALIVE_S = 60.0
"""How long an unused connection is kept."""


class NoConnection(Exception):
    """None was free in time, or the transport is closed; the text says which."""


class Connections:
    """`connect` opens one more; `connect_s` limits how long that may take, None: nothing but the caller's deadline."""

    def __init__(self, connect: Callable[[], Awaitable[HttpConnection]], connect_s: float | None) -> None:
        self._connect = connect
        self._connect_s = connect_s
        self._loop = asyncio.get_running_loop()
        self._open: set[HttpConnection] = set()
        self._opening = 0
        self._unused: list[HttpConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def take(self, deadline: float) -> HttpConnection:
        """A connection for one request, which is given back afterwards. `deadline`: an instant of the loop's clock.

        Raises:
            NoConnection: there is none by then.
            NotConnected: the server cannot be reached.
        """
        while True:
            if self._closed:
                raise NoConnection("the connection is closed")
            if connection := self.unused():
                return connection
            if len(self._open) + self._opening < MAX_CONNECTIONS:
                return await self._another(deadline)
            await self._one_given_back(deadline)

    def give_back(self, connection: HttpConnection) -> None:
        """A request has ended, well or not."""
        if connection.usable and not self._closed:
            self._unused.append(connection)
        else:
            self._drop(connection)
        self._wake_one()

    async def close(self) -> None:
        """Close all; requests under way fail."""
        self._closed = True
        for connection in self._open:
            connection.abort()
        while self._waiting:
            self._wake_one()
        await asyncio.sleep(0)  # sockets are closed in the loop's next round

    def unused(self) -> HttpConnection | None:
        """One that is open and free now, to be used as one that was taken."""
        while self._unused:
            connection = self._unused.pop()
            if connection.usable and connection.idle_since > self._loop.time() - KEEP_ALIVE_S:
                return connection
            self._drop(connection)
        return None

    async def _another(self, deadline: float) -> HttpConnection:
        self._opening += 1
        connection = None
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(self._connect_s):
                connection = await self._connect()
        except TimeoutError:
            raise NoConnection("no connection in time") from None
        finally:
            self._opening -= 1
            if connection is None:
                self._wake_one()
        self._open.add(connection)
        if self._closed:
            connection.abort()
        return connection

    async def _one_given_back(self, deadline: float) -> None:
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        late = self._loop.call_at(deadline, _end, waiting)
        try:
            await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # its turn is the next one's now
                self._wake_one()
            raise
        finally:
            late.cancel()

    def _wake_one(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _drop(self, connection: HttpConnection) -> None:
        connection.abort()
        self._open.discard(connection)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(NoConnection("no connection in time"))
