"""Holds a prompt back while the server's queue, with the prompts of all clients, is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from comfyload.comfy.api import Api
from comfyload.tasks import within

POLL_S = 1.0
"""How often the queue's length is read while no event reports it."""

STOPPED = "the run was stopped while it was held back: the server's queue was full"


class Room:
    """Room in the server's queue: there is some while fewer than `most` prompts wait or run there.

    `drops`: a prompt that finds no room is not sent at all. `stopped`: whether the run must send no more. `on_full`:
    called with the queue's length when a prompt begins to wait. Only one prompt at a time may wait here and be sent,
    since the length as read is valid for one.
    """

    def __init__(
        self,
        most: int,
        *,
        drops: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        on_full: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._most = most
        self._drops = drops
        self._stopped = stopped
        self._on_full = on_full
        self._change = asyncio.Event()
        self.last_full: float | None = None
        """The instant at which the queue was last found full."""

    def changed(self) -> None:
        """An event reported the length of the queue: a prompt that waits reads it again."""
        self._change.set()

    async def wait(self, api: Api, clock: Callable[[], float], over: Callable[[], bool]) -> str:
        """Wait until there is room, or `over()`, and return ""; else return why the prompt must not be sent.

        A server that does not report the length counts as one with room; its fault shows in the next call.
        """
        waiting = False
        while not over():
            self._change.clear()
            length = await api.queue_remaining()
            if length is None or length < self._most or over():
                break
            self.last_full = clock()
            if not waiting:
                waiting = True
                self._on_full(length)
            if self._stopped():
                return STOPPED
            if self._drops:
                return f"the server's queue held {length} prompts when it was due"
            await within(POLL_S, self._change.wait(), False)
        return ""
