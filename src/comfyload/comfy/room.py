"""Holds a prompt back while the server's queue, with the prompts of all clients, is full."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from comfyload.comfy.api import Api
from comfyload.tasks import within

POLL_S = 1.0
"""How often the queue's length is read while no event reports it."""

STOPPED = "the run was stopped while it was held back: the server's queue was full"


@dataclass(eq=False)
class Room:
    """Room in the server's queue: there is some while fewer than `most` prompts wait or run there.

    `drops`: a prompt that finds no room is not sent at all. `stopped`: whether the run must send no more. `on_full`:
    called with the queue's length when a prompt begins to wait. `last_full`: the instant at which the queue was last
    found full. Only one prompt at a time may wait here and be sent, since the length as read is valid for one.
    """

    most: int
    _: KW_ONLY
    drops: bool = False
    stopped: Callable[[], bool] = lambda: False
    on_full: Callable[[int], None] = lambda _: None
    last_full: float = -math.inf
    change: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        """An event reported the length of the queue: a prompt that waits reads it again."""
        self.change.set()

    async def wait(self, api: Api, clock: Callable[[], float], over: Callable[[], bool]) -> str:
        """Wait until there is room, or `over()`, and return ""; else return why the prompt must not be sent.

        A server that does not report the length counts as one with room; its fault shows in the next call.
        """
        waiting = False
        while not over():
            self.change.clear()
            length = await api.queue_remaining()
            if length is None or length < self.most or over():
                break
            self.last_full = clock()
            if not waiting:
                waiting = True
                self.on_full(length)
            if self.stopped():
                return STOPPED
            if self.drops:
                return f"the server's queue held {length} prompts when it was due"
            await within(POLL_S, self.change.wait(), False)
        return ""
