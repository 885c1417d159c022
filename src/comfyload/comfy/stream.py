"""The event stream: one WebSocket per server, always drained, opened again under a new client id when it is lost.

A reader that stalls blocks a real server for everybody, so nothing here waits for a consumer. A client id is never used
twice: the server would unregister the new socket when it notices the end of the old one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from comfyload.comfy.wire.calls import Transport, TransportError
from comfyload.tasks import within

RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 5.0


class EventStream:
    """Frames of the current socket go to `on_frame(frame)`; `on_lost(reason)` is called when a socket ends."""

    def __init__(
        self, transport: Transport, on_frame: Callable[[str | bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._settled = asyncio.Event()
        self.client_id = str(uuid.uuid4())
        self.connected = False
        self.connections = 0

    async def first_attempt(self, timeout_s: float = 5.0) -> None:
        """Wait until the socket is open or has failed to open once, at most `timeout_s`."""
        await within(timeout_s, self._settled.wait(), False)

    async def run(self) -> None:
        """Read until cancelled."""
        pause = RECONNECT_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with self._transport.events(self.client_id) as frames:
                    async for frame in frames:
                        if not self.connected:
                            # The first message: from here on the server routes this client id's events to us.
                            self.connected = True
                            self.connections += 1
                            self._settled.set()
                        self._on_frame(frame)
                reason = "the server closed the event stream"
            except TransportError as error:
                reason = str(error)
            finally:
                was_connected, self.connected = self.connected, False
            self.client_id = str(uuid.uuid4())
            if was_connected or not self._settled.is_set():
                self._on_lost(reason)
            self._settled.set()
            if was_connected and loop.time() - began > RECONNECT_MOST_S:
                pause = RECONNECT_FIRST_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_MOST_S)
