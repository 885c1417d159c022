"""The probe's ring buffer: what the server's own process saw, read while the run goes on, on the run's clock."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.wire import Request, TransportError, decode_json
from comfyload.record.bounds import Instant, Number, instant
from comfyload.record.codec import within_levels
from comfyload.record.model import LogLine, Sample
from comfyload.telemetry.offset import Exchange, Offset, best_of, better
from comfyload.telemetry.rows import SampleRows, number
from comfyload.telemetry.source import NoReading, NotAvailable, Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import Reply

__all__ = ["Probe"]

T = TypeVar("T")

PAGE = 250
"""Rows taken at once: the event loop, which measures, is held up for no more than a millisecond or two."""

PAGES_AT_ONCE = 8
"""Pages taken without a pause: two thousand rows a second are more than a server writes."""

PAGE_BYTES = 4 << 20

EXCHANGES = 5
MEASURE_EVERY_S = 30.0
WAITS_S = (0.15, 0.1, 0.2, 0.4)
"""Pauses before the probe is asked at the end: its writer numbers rows ten times a second, so that the last are a
little late. After the first, it is asked again only while a prompt of which it told has not ended in its rows."""

TOKEN = "it asks for a token: --header X-Comfyload-Token=env:NAME"


class _Clock(Struct):
    boot: str
    mono_s: Instant
    seq: Number


class _Events(Struct):
    boot: str
    next: Number
    rows: list[dict[str, Any]]
    missed: Number = 0


class Probe:
    """Reads every row from the start of the run on, or from after `since` (boot and seq) of a run that is resumed."""

    name = "probe"
    interval_s = 1.0
    patience_s = 20.0

    def __init__(self, transport: Transport, clock: Callable[[], float], since: tuple[str, int] | None = None) -> None:
        self._transport = transport
        self._clock = clock
        self._since = since
        self._boot = ""
        self._after = 0
        self._first: Offset | None = None
        self._offset = Offset(seconds=0.0, error_s=0.0, at=0.0)
        self._measure_at = 0.0
        self._told = False
        self._rows = SampleRows()
        self._taken: list[tuple[str, int, int]] = []
        self._under_way: set[str] = set()
        self._missed = self._waited = 0
        self._full = False
        self._pages = 0
        self._begun = -math.inf

    @property
    def present(self) -> bool:
        """Whether it was found."""
        return bool(self._boot)

    def has_taken(self, boot: str, seq: int) -> bool:
        """Whether this row was read, or is one from before the run."""
        return any(boot == known and first <= seq <= last for known, first, last in self._taken)

    async def open(self) -> None:
        clock, offset = await self._measured()
        self._offset = self._first = offset
        boot, seq = self._since or (clock.boot, clock.seq)
        self._taken.append((boot, 0, seq))
        self._boot, self._after = boot, seq
        self._begun = clock.mono_s if self._since is None else -math.inf

    async def read(self) -> Readings:
        if self._clock() >= self._measure_at:
            clock, offset = await self._measured()
            if clock.boot == self._boot:
                self._offset, self._told = better(self._offset, offset), False
        events = await self._events()
        notes = []
        if events.boot != self._boot:
            clock, offset = await self._measured()
            if clock.boot != events.boot:
                raise NoReading("the server's process changes faster than it can be asked")
            # From here on nothing waits: what was read and where it is remembered belong together.
            notes.append("the server's process is another than before; its rows are read from their start")
            self._boot, self._offset, self._first, self._begun = events.boot, offset, offset, -math.inf
            self._rows, self._under_way, self._told = SampleRows(), set(), False
        values = {} if self._told else self._about_clock()
        self._told = True
        return self._take(events, values, notes)

    async def finish(self) -> Readings:
        if not self._full:
            await asyncio.sleep(WAITS_S[self._waited])
            self._waited += 1
        began = self._clock()
        readings = await self.read()
        took_s = self._clock() - began
        more = readings.more or (bool(self._under_way) and self._waited < len(WAITS_S))
        notes = list(readings.notes)
        if not more and self._missed:
            notes.append(
                f"{self._missed} rows had left its ring before they were read: COMFYLOAD_PROBE_RING makes it longer"
            )
        return msgspec.structs.replace(readings, more=more, notes=notes, t=began, took_s=took_s)

    def close(self) -> None:
        """There is nothing to close."""

    def _take(self, events: _Events, values: dict[str, float | None], notes: list[str]) -> Readings:
        samples: list[Sample] = []
        lines: list[LogLine] = []
        for row in events.rows[:PAGE]:
            if not within_levels(row):
                continue
            mono_s, event = number(row.get("mono_s")), row.get("event")
            if mono_s is not None and mono_s < self._begun:  # numbered late: it is from before the run
                continue
            t = None if mono_s is None else instant(mono_s + self._offset.seconds)
            if event == "sample":
                if t is not None and mono_s is not None:
                    samples += self._rows.samples(row, t, mono_s)
                continue
            if event == "prompt.ended" and t is not None:
                samples += self._rows.peak(row, t)
            self._follow(event, row.get("prompt_id"))
            lines.append(LogLine(t=t, source="probe", row=row))
        if events.rows:
            first = number(events.rows[0].get("seq"))
            self._took(events.boot, events.next if first is None else int(first), events.next)
        self._missed += events.missed
        self._after, self._full = events.next, len(events.rows) >= PAGE
        self._pages = self._pages + 1 if self._full else 0
        more = self._full and self._pages % PAGES_AT_ONCE > 0
        return Readings(values=values, samples=samples, lines=lines, notes=notes, more=more)

    def _took(self, boot: str, first: int, last: int) -> None:
        known, begin, end = self._taken[-1]
        if known == boot and first == end + 1:
            self._taken[-1] = boot, begin, last
        else:
            self._taken.append((boot, first, last))

    def _follow(self, event: object, prompt_id: object) -> None:
        if event in ("prompt.queued", "prompt.started"):
            self._under_way.add(str(prompt_id))
        elif event == "prompt.ended":
            self._under_way.discard(str(prompt_id))

    def _about_clock(self) -> dict[str, float | None]:
        first = self._first or self._offset
        return {"clock_error_s": self._offset.error_s, "clock_drift_s": self._offset.seconds - first.seconds}

    async def _measured(self) -> tuple[_Clock, Offset]:
        """The last of some exchanges, and the offset by the best of those that the same process answered."""
        exchanges: list[Exchange] = []
        clock: _Clock | None = None
        while len(exchanges) < EXCHANGES:
            sent = self._clock()
            reply = await self._get("clock")
            received = self._clock()
            answer = self._decoded(reply, _Clock)
            if clock is not None and answer.boot != clock.boot:
                exchanges.clear()
            clock = answer
            exchanges.append(Exchange(sent=sent, received=received, theirs=answer.mono_s))
        assert clock is not None
        self._measure_at = self._clock() + MEASURE_EVERY_S
        return clock, best_of(exchanges)

    async def _events(self) -> _Events:
        path = f"events?after={self._after}&limit={PAGE}&boot={self._boot}"
        return self._decoded(await self._get(path), _Events)

    async def _get(self, path: str) -> Reply:
        try:
            request = Request(method="GET", path=f"comfyload/v1/{path}", timeout_s=10, most_bytes=PAGE_BYTES)
            reply = await self._transport.call(request)
        except TransportError as error:
            raise NoReading(str(error)) from None
        if reply.status == 200:
            return reply
        if reply.status in (401, 403):
            raise NoReading(TOKEN)
        if reply.status == 404 and not self.present:
            raise NotAvailable
        raise NoReading(f"it answers HTTP {reply.status}")

    def _decoded(self, reply: Reply, shape: type[T]) -> T:
        try:
            return decode_json(reply.body, shape)
        except msgspec.MsgspecError:
            if self.present:
                raise NoReading("its answer is not a probe's") from None
            raise NotAvailable from None  # something else answers any path, as a proxy with a page of its own does
