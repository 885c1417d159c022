"""Keeps a prompt of ours back while the server's queue is as long as it may be, whoever's prompts are in it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.api import Api

__all__ = ["Room"]

ASK_EVERY_S = 1.0
"""How often the server is asked anew while nothing is heard of its queue."""

STOPPED = "the run was stopped while it was held back: the server's queue was full"


class Room:
    """Room in the server's queue: free while fewer than `most` prompts wait or run there.

    `drops`: what finds no room is not sent at all. `stopped`: whether no more is to be sent. `on_full`: told, once for
    each time, that the queue is full. The length is asked for before every prompt, so that those who ask must do it one
    at a time, until their prompt is in the queue.
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
        self._changed = asyncio.Event()
        self.last_full: float | None = None
        """The instant at which the queue was last found full."""

    def heard(self) -> None:
        """The server told something of its queue."""
        self._changed.set()

    async def wait(self, api: Api, clock: Callable[[], float], over: Callable[[], bool]) -> str:
        """Return once there is room, or it is over; else why the prompt is not to be sent.

        A server that cannot be asked is taken for one with room: what is wrong with it shows when the prompt is sent.
        """
        told = False
        while not over():
            self._changed.clear()
            length = await api.queue_remaining()
            if length is None or length < self._most or over():
                break
            self.last_full = clock()
            if not told:
                told = True
                self._on_full(length)
            if self._stopped():
                return STOPPED
            if self._drops:
                return f"the server's queue held {length} prompts when it was due"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), ASK_EVERY_S)
        return ""
