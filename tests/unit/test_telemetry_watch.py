"""Sources beside a run, on virtual time: instants, silence, and an end that nothing holds up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from comfyload import clock
from comfyload.record.model import LogLine, Observation, Sample
from comfyload.telemetry.collector import BEGIN_S, FINISH_S, Collector
from comfyload.telemetry.source import NoReading, NotAvailable, Readings


class Received:
    """What a watch handed on."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.lines: list[LogLine] = []
        self.observations: list[Observation] = []

    def values(self, name: str) -> list[tuple[float, float | None]]:
        return [(round(sample.t, 6), sample.value) for sample in self.samples if sample.name == name]

    @property
    def said(self) -> list[str]:
        return [observation.text for observation in self.observations]


class Scripted:
    """A source whose readings are what a function of their number gives."""

    name = "scripted"
    timeout_s = 3.0

    def __init__(
        self,
        reading: Callable[[int], Awaitable[Readings]],
        interval_s: float = 0.5,
        opening: Callable[[], Awaitable[None]] | None = None,
        left: Callable[[], Awaitable[Readings]] | None = None,
    ) -> None:
        self.interval_s = interval_s
        self._reading = reading
        self._opening = opening
        self._left = left
        self.readings = 0
        self.closed = False

    async def open(self) -> None:
        if self._opening is not None:
            await self._opening()

    async def read(self) -> Readings:
        self.readings += 1
        return await self._reading(self.readings)

    async def finish(self) -> Readings:
        return Readings(read=False) if self._left is None else await self._left()

    def close(self) -> None:
        self.closed = True


async def number(n: int) -> Readings:
    return Readings(values={"n": n})


def watched(*sources: Scripted, seconds: float) -> tuple[Received, float]:
    """Collector for so long; returns what was told and how long the end took."""
    received = Received()

    async def main() -> float:
        run = clock.stopwatch()
        watch = Collector(
            sources,
            run,
            emit=received.samples.append,
            emit_log=received.lines.append,
            note=received.observations.append,
        )
        await watch.begin()
        await asyncio.sleep(seconds - run())
        before = run()
        await watch.end()
        return run() - before

    return received, clock.run_virtual(main())


def test_readings_are_made_at_multiples_of_the_interval_from_the_start() -> None:
    received, ended = watched(Scripted(number), seconds=2.2)
    assert received.values("n") == [(0.0, 1), (0.5, 2), (1.0, 3), (1.5, 4), (2.0, 5)]
    assert received.values("read_s") == [(t, 0.0) for t in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert ended == 0.0


def test_a_late_reading_leaves_instants_out_and_bunches_none() -> None:
    async def slow_once(n: int) -> Readings:
        await asyncio.sleep(1.2 if n == 2 else 0.0)
        return Readings(values={"n": n})

    received, _ = watched(Scripted(slow_once), seconds=2.9)
    assert received.values("n") == [(0.0, 1), (0.5, 2), (2.0, 3), (2.5, 4)]
    assert dict(received.values("read_s"))[0.5] == pytest.approx(1.2)


def test_a_source_that_fails_is_unknown_under_every_name_and_tried_with_growing_pauses() -> None:
    async def fails(n: int) -> Readings:
        if n > 2:
            raise NoReading("the cable is out")
        return Readings(values={"a": n, "b": 2 * n})

    source = Scripted(fails)
    received, _ = watched(source, seconds=20)
    unknown = [t for t, value in received.values("a") if value is None]
    assert unknown == [t for t, value in received.values("b") if value is None]
    assert unknown == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert received.said == ["scripted: the cable is out"]
    assert received.observations[0].code == "telemetry"
    assert received.observations[0].t == 1.0


def test_a_source_that_comes_back_is_read_on_its_instants_again() -> None:
    async def gap(n: int) -> Readings:
        if n == 2:
            raise NoReading("busy")
        return Readings(values={"n": n})

    received, _ = watched(Scripted(gap), seconds=3)
    assert received.values("n") == [(0.0, 1), (0.5, None), (1.5, 3), (2.0, 4), (2.5, 5)]


def test_a_bug_in_a_source_is_said_with_its_name_and_ends_no_run() -> None:
    async def broken(n: int) -> Readings:
        raise KeyError("power")

    received, _ = watched(Scripted(broken), Scripted(number, 1.0), seconds=2.5)
    assert received.said == ["scripted: KeyError: 'power'"]
    assert [t for t, _ in received.values("n")] == [0.0, 1.0, 2.0]


def test_a_source_that_hangs_holds_up_neither_start_nor_end() -> None:
    async def hangs(n: int) -> Readings:
        await asyncio.sleep(1e9)
        return Readings()

    async def never() -> None:
        await asyncio.sleep(1e9)

    begun = Scripted(number, opening=never)
    received, ended = watched(Scripted(hangs), begun, seconds=4)
    assert received.said == ["scripted: no answer in time", "scripted: no answer in time"]
    assert ended == 0.0
    assert begun.closed

    async def starts() -> float:
        run = clock.stopwatch()
        watch = Collector([Scripted(number, opening=never)], run, emit=print, emit_log=print, note=print)
        await watch.begin()
        began = run()
        await watch.end()
        return began

    assert clock.run_virtual(starts()) == BEGIN_S


def test_what_is_left_to_tell_is_waited_for_within_bounds() -> None:
    parts = iter([Readings(lines=[LogLine(t=1.0, source="probe", row={"n": 1})], more=True), Readings(notes=["gap"])])

    async def two() -> Readings:
        await asyncio.sleep(0.1)
        return next(parts)

    received, ended = watched(Scripted(number, left=two), seconds=1)
    assert ended == pytest.approx(0.2)
    assert [line.row for line in received.lines] == [{"n": 1}]
    assert received.said == ["scripted: gap"]

    async def hangs() -> Readings:
        await asyncio.sleep(1e9)
        return Readings()

    received, ended = watched(Scripted(number, left=hangs), seconds=1)
    assert ended == pytest.approx(FINISH_S)
    assert received.said == ["scripted: its last readings at the end of the run are missing: no answer in time"]


def test_what_is_not_there_is_never_asked_and_not_spoken_of() -> None:
    async def absent() -> None:
        raise NotAvailable

    source = Scripted(number, opening=absent)
    received, _ = watched(source, seconds=100)
    assert (source.readings, received.samples, received.said) == (0, [], [])


def test_a_value_that_was_never_known_is_unknown_once_and_one_that_was_each_time() -> None:
    async def partly(n: int) -> Readings:
        return Readings(values={"never": None, "once": 1.0 if n == 1 else float("nan")})

    received, _ = watched(Scripted(partly), seconds=1.8)
    assert received.values("never") == [(0.0, None)]
    assert received.values("once") == [(0.0, 1.0), (0.5, None), (1.0, None), (1.5, None)]


def test_a_disk_that_is_full_is_no_silence_of_a_source() -> None:
    def full(_: Sample) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        watch = Collector([Scripted(number)], clock.stopwatch(), emit=full, emit_log=print, note=print)
        await watch.begin()
        await asyncio.sleep(1)
        await watch.end()

    with pytest.raises(OSError, match="No space"):
        clock.run_virtual(main())
