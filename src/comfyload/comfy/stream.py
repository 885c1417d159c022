"""The event stream: one WebSocket per server, always drained, opened again under a new client id when it is lost.

A reader that stalls blocks a real server for everybody, so nothing here waits for a consumer. A client id is never used
twice: the server would unregister the new socket when it notices the end of the old one.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from comfyload.comfy.wire.calls import OnFrame, Transport, TransportError
from comfyload.tasks import within

RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 5.0


class EventStream:
    """Messages of the current socket go to `on_frame`; `on_lost(reason)` is called when a socket ends."""

    def __init__(self, transport: Transport, on_frame: OnFrame, on_lost: Callable[[str], None]) -> None:
        self._transport = transport
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._settled = asyncio.Event()
        self.client_id = str(uuid.uuid4())
        self.connected = False
        self.connections = 0
        self.refused_s = 0.0
        """For how long every attempt to connect has found that nothing listens at the server's address."""
        self._refused_since = math.inf

    async def first_attempt(self, timeout_s: float = 5.0) -> None:
        """Wait until the socket is open or has failed to open once, at most `timeout_s`."""
        await within(timeout_s, self._settled.wait(), False)

    def _pass_on(self, frame: bytes, is_text: bool) -> None:
        if not self.connected:
            # The first message: from here on the server routes this client id's events to us.
            self.connected = True
            self.connections += 1
            self.answered()
            self._settled.set()
        self._on_frame(frame, is_text)

    def answered(self) -> None:
        """Something listens at the server's address, whatever the last attempt to connect has found."""
        self.refused_s, self._refused_since = 0.0, math.inf

    async def run(self) -> None:
        """Read until cancelled."""
        pause = RECONNECT_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began, refused = loop.time(), False
            try:
                await self._transport.events(self.client_id, self._pass_on)
                reason = "the server closed the event stream"
            except TransportError as error:
                reason, refused = str(error), error.refused
            finally:
                was_connected, self.connected = self.connected, False
            self._refused_since = min(self._refused_since, loop.time()) if refused else math.inf
            self.refused_s = max(0.0, loop.time() - self._refused_since)
            self.client_id = str(uuid.uuid4())
            if was_connected or not self._settled.is_set():
                self._on_lost(reason)
            self._settled.set()
            if was_connected and loop.time() - began > RECONNECT_MOST_S:
                pause = RECONNECT_FIRST_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_MOST_S)


@asynccontextmanager
async def frames_of(transport: Transport, client_id: str) -> AsyncIterator[AsyncIterator[tuple[bytes, bool]]]:
    """The messages of a socket one by one, for a reader that may stop: each, and whether it is text.

    Raises:
        TransportError: the socket cannot be opened, or broke; once the messages before it are read.
    """
    arrived = asyncio.Queue[tuple[bytes, bool] | None]()
    listening = asyncio.create_task(
        transport.events(client_id, lambda frame, is_text: arrived.put_nowait((frame, is_text)))
    )
    listening.add_done_callback(lambda _: arrived.put_nowait(None))

    async def each() -> AsyncIterator[tuple[bytes, bool]]:
        while (frame := await arrived.get()) is not None:
            yield frame
        await listening

    try:
        yield each()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
