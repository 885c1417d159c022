"""Reads the probe's ring buffer during the run: rows of the server's own process, converted to the run's clock."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import Reply, Transport, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.record.bounds import Instant, Number, finite, instant
from comfyload.record.codec import within_levels
from comfyload.record.model import LogLine, Sample
from comfyload.telemetry.rows import SampleRows
from comfyload.telemetry.source import NoReading, NotAvailable, Readings, Source

T = TypeVar("T")

PAGE = 250
"""Rows taken at once: the event loop, which measures, is held up for no more than a millisecond or two."""

PAGES_AT_ONCE = 8
"""Pages taken without a pause: two thousand rows a second are more than a server writes."""

PAGE_BYTES = 4 << 20

EXCHANGES = 5
MEASURE_EVERY_S = 30.0
WAITS_S = (0.15, 0.1, 0.2, 0.4)
"""Pauses before the readings at the end: the probe numbers its rows ten times a second, so that the last are a little
late. After the first pause, it is read again only while a prompt in its rows has no end there."""

DRIFT = 1e-4
"""Most by which two machines' clocks differ in rate; two clocks of one machine do not."""

TOKEN = "it requires a token: --header X-Comfyload-Token=env:NAME"


class _Clock(Struct):
    boot: str
    mono_s: Instant
    seq: Number


class _Events(Struct):
    boot: str
    next: Number
    rows: list[dict[str, Any]]
    missed: Number = 0


class Offset(Struct, frozen=True, kw_only=True):
    """An instant of theirs plus `seconds` is one of ours, to within `error_s`; measured `at`, on our clock."""

    seconds: float
    error_s: float
    at: float


def offset_of(sent: float, received: float, theirs: float) -> Offset:
    """From one question, sent and answered on our clock: the middle of its round trip is off by half of it at most."""
    middle = (sent + received) / 2
    return Offset(seconds=middle - theirs, error_s=(received - sent) / 2, at=middle)


def better(held: Offset, new: Offset) -> Offset:
    """The newer one, unless the older one's error is smaller even with the drift since then."""
    aged = held.error_s + DRIFT * max(0.0, new.at - held.at)
    return new if new.error_s <= aged else held


class Probe(Source):
    """Reads every row from the start of the run on, or after `since` (boot and seq) of a run that is resumed."""

    name = "probe"
    interval_s = 1.0
    timeout_s = 20.0

    def __init__(self, transport: Transport, clock: Callable[[], float], since: tuple[str, int] | None = None) -> None:
        self._api = api_of(transport)
        self._clock = clock
        self._since = since
        self._boot = ""
        self._after = 0
        self._first: Offset | None = None
        self._offset = Offset(seconds=0.0, error_s=0.0, at=0.0)
        self._measure_at = 0.0
        self._clock_noted = False
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
                self._offset, self._clock_noted = better(self._offset, offset), False
        path = f"events?after={self._after}&limit={PAGE}&boot={self._boot}"
        events = self._decoded(await self._get(path), _Events)
        notes = []
        if events.boot != self._boot:
            clock, offset = await self._measured()
            if clock.boot != events.boot:
                raise NoReading("the server's process changes faster than it can be read")
            # No await from here on: the rows and the place up to which they are read must change together.
            notes.append("the server's process is another than before; its rows are read from their start")
            self._boot, self._offset, self._first, self._begun = events.boot, offset, offset, -math.inf
            self._rows, self._under_way, self._clock_noted = SampleRows(), set(), False
        values: dict[str, float | None] = {}
        if not self._clock_noted:
            offset, self._clock_noted = self._offset, True
            drift_s = offset.seconds - (self._first or offset).seconds
            values = {"clock_error_s": offset.error_s, "clock_drift_s": drift_s}
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

    def _take(self, events: _Events, values: dict[str, float | None], notes: list[str]) -> Readings:
        samples: list[Sample] = []
        lines: list[LogLine] = []
        for row in events.rows[:PAGE]:
            if not within_levels(row):
                continue
            mono_s, event = finite(row.get("mono_s")), row.get("event")
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
            first = finite(events.rows[0].get("seq"))
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

    async def _measured(self) -> tuple[_Clock, Offset]:
        """The last answer, and the offset by the shortest exchange with the same process."""
        found: list[tuple[_Clock, Offset]] = []
        while len(found) < EXCHANGES:
            sent = self._clock()
            reply = await self._get("clock")
            received = self._clock()
            clock = self._decoded(reply, _Clock)
            if found and clock.boot != found[-1][0].boot:
                found.clear()
            found.append((clock, offset_of(sent, received, clock.mono_s)))
        self._measure_at = self._clock() + MEASURE_EVERY_S
        return found[-1][0], min((offset for _, offset in found), key=lambda offset: offset.error_s)

    async def _get(self, path: str) -> Reply:
        try:
            reply = await self._api.probe(path, 10.0, PAGE_BYTES)
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
            raise NotAvailable from None  # something that answers every path, such as a proxy's own page
