"""Reads the sources during a run, each at its own interval; none of them can hold the run up."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from msgspec import structs

from comfyload.record.bounds import value as bounded
from comfyload.record.model import LogLine, Observation, Sample
from comfyload.telemetry.source import NoReading, NotAvailable, Readings, Source

T = TypeVar("T")

MOST_NOTES = 1000
"""Different texts of a source that are noted; a server may put numbers that change into its errors."""

BEGIN_S = 1.0
"""How long the first job waits for sources that do not open."""

FINISH_S = 2.0
"""How long the end of a run waits for a source's last readings."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between attempts at a source that gives no answer; each pause is twice the one before."""


class Collector:
    """Reads every source on absolute instants: multiples of its interval from the start of the run.

    A reading that is late leaves instants out, and never bunches them. `clock` gives seconds of the run.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        clock: Callable[[], float],
        *,
        emit: Callable[[Sample], None],
        emit_log: Callable[[LogLine], None],
        note: Callable[[Observation], None],
    ) -> None:
        self._readers = [_Reader(source, clock, emit, emit_log, note) for source in sources]
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Start; returns when every source is open or cannot be opened, and after a second in any case."""
        self._tasks = [asyncio.create_task(one.run()) for one in self._readers]
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_S):
                for one in self._readers:
                    await one.settled.wait()

    async def end(self, *, finish: bool = True) -> None:
        """Stop; with `finish`, after the last readings of each source, in the order of the sources."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for one in self._readers:
                if finish and one.open:
                    await one.finish()
        finally:
            for one in self._readers:
                one.source.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


@dataclass(eq=False)
class _Reader:
    """Reads one source. It knows whether the source is open, and the names of its readings so far."""

    source: Source
    clock: Callable[[], float]
    emit: Callable[[Sample], None]
    emit_log: Callable[[LogLine], None]
    observe: Callable[[Observation], None]
    open: bool = False

    def __post_init__(self) -> None:
        self.settled = asyncio.Event()
        self._names: dict[str, bool] = {}
        self._noted: set[str] = set()

    async def run(self) -> None:
        interval, number, pause = self.source.interval_s, 0, 0.0
        while True:
            try:
                await self._round(self.source.read)
                pause, due = 0.0, math.floor(self.clock() / interval) + 1
            except NotAvailable as absent:
                self.open = False
                self._note(str(absent))
                return
            except NoReading as missing:
                t = self.clock()
                for name in list(self._names):
                    self._sample(t, name, None)
                self._note(str(missing))
                pause = min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                due = math.ceil((self.clock() + pause) / interval)
            finally:
                self.settled.set()
            number = max(number + 1, due)
            await asyncio.sleep(max(0.0, number * interval - self.clock()))

    async def finish(self) -> None:
        """The source's last readings, within a bounded time."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self._round(self.source.finish)
        except NotAvailable:
            return
        except (NoReading, TimeoutError) as error:
            self._note(f"its last readings at the end of the run are missing: {str(error) or 'no answer in time'}")

    async def _round(self, read: Callable[[], Awaitable[Readings]]) -> None:
        if not self.open:
            await self._call(self.source.open)
            self.open = True
            self.settled.set()
        more = True
        while more:
            began = self.clock()
            readings = await self._call(read)
            self._take(readings, began)
            more = readings.more

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """The source's answer. Any error in a source counts as a missing reading: it must not end the run."""
        try:
            async with asyncio.timeout(self.source.timeout_s):
                return await call()
        except (NotAvailable, NoReading):
            raise
        except TimeoutError:
            raise NoReading("no answer in time") from None
        except Exception as error:  # noqa: BLE001 - it is noted, with its name
            raise NoReading(f"{type(error).__name__}: {error}") from None

    def _take(self, readings: Readings, began: float) -> None:
        """Emit what was read without awaiting anything, so that a reading is taken whole or not at all."""
        t = began if readings.t is None else readings.t
        for name, value in readings.values.items():
            self._sample(t, name, value)
        if readings.read:
            took = self.clock() - began if readings.took_s is None else readings.took_s
            self.emit(Sample(t=t, source=self.source.name, name="read_s", value=took))
        for sample in readings.samples:
            self._sample(sample.t, sample.name, sample.value)
        server = self.source.name.partition("@")[2]
        for line in readings.lines:
            self.emit_log(structs.replace(line, server=server) if server else line)
        for note in readings.notes:
            self._note(note)

    def _sample(self, t: float, name: str, value: float | None) -> None:
        """A name without a value so far is emitted as unknown once; one that had a value, each time."""
        value = bounded(value)
        known = self._names.get(name)
        if value is None and known is False:
            return
        self._names[name] = bool(known) or value is not None
        self.emit(Sample(t=t, source=self.source.name, name=name, value=value))

    def _note(self, text: str) -> None:
        if text and text not in self._noted and len(self._noted) < MOST_NOTES:
            self._noted.add(text)
            self.observe(Observation(t=self.clock(), code="telemetry", text=f"{self.source.name}: {text}"))
