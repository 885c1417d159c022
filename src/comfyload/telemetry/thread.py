"""A thread for readings that block, so that the event loop, which measures, never waits for them."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from msgspec import Struct

from comfyload.telemetry.source import Readings, Source

T = TypeVar("T")


class TimedAnswer(Struct, Generic[T], frozen=True):
    """The result of the work, when it began and how long it took, by the clock as the thread read it."""

    value: T
    began: float
    took_s: float


class Thread(Generic[T]):
    """Does one piece of work per request.

    A daemon thread, and not one of asyncio's pool, for which the interpreter waits when it exits: a driver that hangs
    must not keep a run from ending.
    """

    def __init__(
        self, name: str, work: Callable[[], T], clock: Callable[[], float], at_end: Callable[[], None] = lambda: None
    ) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._at_end = at_end
        self._requests: queue.SimpleQueue[asyncio.Future[TimedAnswer[T] | Exception] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: asyncio.Future[TimedAnswer[T] | Exception] | None = None

    async def ask(self) -> TimedAnswer[T]:
        """The next answer. Work that an earlier caller abandoned is not begun again: its answer comes first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"telemetry {self._name}", daemon=True)
            self._thread.start()
        if self._under_way is None:
            self._under_way = asyncio.get_running_loop().create_future()
            self._requests.put(self._under_way)
        answer = await asyncio.shield(self._under_way)
        self._under_way = None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Let the thread end after its present work; `at_end` is called in it."""
        self._requests.put(None)

    def _run(self) -> None:
        while (future := self._requests.get()) is not None:
            began = self._clock()
            answer: TimedAnswer[T] | Exception
            try:
                value = self._work()
                answer = TimedAnswer(value, began, self._clock() - began)
            except Exception as error:  # noqa: BLE001 - it is raised in the caller
                answer = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, answer)
        self._at_end()


class ThreadSource(Source):
    """A source whose readings are values, read in a thread by `_values`."""

    def __init__(self, clock: Callable[[], float], at_end: Callable[[], None] = lambda: None) -> None:
        self._thread = Thread(self.name, self._values, clock, at_end)

    async def open(self) -> None:
        """The first reading: shares and rates count from it."""
        await self._thread.ask()

    async def read(self) -> Readings:
        answer = await self._thread.ask()
        return Readings(values=answer.value, t=answer.began, took_s=answer.took_s)

    def close(self) -> None:
        self._thread.close()

    def _values(self) -> dict[str, float | None]:
        raise NotImplementedError


def _settle(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)
