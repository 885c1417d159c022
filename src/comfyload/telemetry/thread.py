"""A thread for readings that block, so that the event loop, which measures, never waits for them."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Thread", "TimedAnswer"]

T = TypeVar("T")


class TimedAnswer(Struct, Generic[T], frozen=True):
    """What the work came to, when it began and how long it took, by the thread's own look at the clock."""

    value: T
    began: float
    took_s: float


class Thread(Generic[T]):
    """Does one piece of work each time it is asked.

    A daemon, and not one of asyncio's pool, for which the interpreter would wait at its end: a driver that hangs must
    not keep a run from ending.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], T],
        clock: Callable[[], float],
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._at_end = at_end
        self._asked: queue.SimpleQueue[asyncio.Future[TimedAnswer[T] | Exception] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: asyncio.Future[TimedAnswer[T] | Exception] | None = None

    async def ask(self) -> TimedAnswer[T]:
        """The next answer. Work that was not waited for to its end is not begun anew: its answer comes first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"telemetry {self._name}", daemon=True)
            self._thread.start()
        if self._under_way is None:
            self._under_way = asyncio.get_running_loop().create_future()
            self._asked.put(self._under_way)
        answer = await asyncio.shield(self._under_way)
        self._under_way = None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Let the thread end, when it is done with what it does; `at_end` is called in it."""
        self._asked.put(None)

    def _run(self) -> None:
        while (future := self._asked.get()) is not None:
            began = self._clock()
            answer: TimedAnswer[T] | Exception
            try:
                value = self._work()
                answer = TimedAnswer(value, began, self._clock() - began)
            except Exception as error:  # noqa: BLE001 - it belongs to who asked
                answer = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, answer)
        self._at_end()


def _settle(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)
