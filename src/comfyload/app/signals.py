"""The signals by which a supervisor directs a service: stop, and read the configuration again."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal

Signal = Literal["stop", "reload", "ended"]


class Signals:
    """SIGINT and SIGTERM ask to stop, SIGHUP to reload. After two stops the next one kills, as it would without us."""

    def __init__(self) -> None:
        self._queue = deque[Signal]()
        self._came = asyncio.Event()
        self._stops = 0

    def __enter__(self) -> Signals:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, self._stop)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._put, "reload")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._release()

    async def next(self, ended: asyncio.Task[Any]) -> Signal:
        """The next order; "ended": the task has ended before."""
        while not self._queue:
            if ended.done():
                return "ended"
            self._came.clear()
            came = asyncio.create_task(self._came.wait())
            await asyncio.wait([came, ended], return_when=asyncio.FIRST_COMPLETED)
            came.cancel()
        return self._queue.popleft()

    def _stop(self) -> None:
        self._stops += 1
        self._put("stop")
        if self._stops == 2:
            self._release()

    def _put(self, order: Signal) -> None:
        self._queue.append(order)
        self._came.set()

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            with suppress(NotImplementedError, AttributeError):
                loop.remove_signal_handler(getattr(signal, name))
