"""The instrumentation log, row by row as it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from comfyload.record.metrics.log import log_row, object_of_line
from comfyload.record.model import LogLine, Observation
from comfyload.telemetry.line_reader import LineReader
from comfyload.telemetry.source import NoReading, Readings, Source
from comfyload.telemetry.thread import Thread

if TYPE_CHECKING:
    from comfyload.telemetry.probe import Probe

HELD = 20_000
"""Most rows of the probe that are held back until the probe itself has delivered them."""


_UNREAD, _NO_JSON = "lines of ", "that are no JSON object"


def unread_lines(observations: Sequence[Observation]) -> str | None:
    """What a run noted about lines of its log that cannot be read; None: nothing."""
    begin = f"{MetricsLog.name}: {_UNREAD}"
    texts = (one.text for one in observations if one.code == "telemetry" and one.text.startswith(begin))
    return next((text.removeprefix(f"{MetricsLog.name}: ") for text in texts if _NO_JSON in text), None)


class _Part(Struct, frozen=True):
    rows: list[dict[str, Any]]
    more: bool
    missing: str
    """Why no line was read; "" if lines were."""


class MetricsLog(Source):
    """Rows that an application wrote, and rows of the probe that the probe itself has not delivered.

    After a crash the probe's last rows are only in the log.
    """

    name = "log"
    interval_s = 1.0
    timeout_s = 10.0

    def __init__(self, path: Path, clock: Callable[[], float], probe: Probe) -> None:
        self._path = path
        self._probe = probe
        self._follow = LineReader(path)
        self._thread = Thread("log", self._part, clock, self._follow.close)
        self._held: deque[dict[str, Any]] = deque()
        self._clock = clock
        self._started = self._last = False
        self._ended = 0.0
        self._others, self._first_other = 0, ""
        self._found = self._has_rows = False

    @property
    def present(self) -> bool:
        """Whether rows came from it."""
        return self._has_rows

    async def open(self) -> None:
        """Rows are read from the file's present end on."""
        await self._thread.ask()

    async def read(self) -> Readings:
        answer = await self._thread.ask()
        part = answer.value
        stale = self._last and answer.began < self._ended  # a reading that began before the end is not the last
        if part.missing and not self._found:
            # The server creates the file with its first row; if it never does, `finish` notes it.
            return Readings(read=False, more=stale)
        if part.missing:
            raise NoReading(part.missing)
        self._found = True
        lines = [LogLine(t=None, source="log", row=row) for row in self._sifted(part.rows)]
        return Readings(lines=lines, t=answer.began, took_s=answer.took_s, more=part.more or stale)

    async def finish(self) -> Readings:
        if not self._last:
            self._last, self._ended = True, self._clock()
        try:
            readings = await self.read()
        except NoReading as missing:
            readings = Readings(notes=[str(missing)])
        if readings.more:
            return readings
        left = [row for row in self._held if not self._delivered(row)]
        self._held.clear()
        lines = [*readings.lines, *(LogLine(t=None, source="log", row=row) for row in left)]
        return msgspec.structs.replace(readings, lines=lines, notes=[*readings.notes, *self._notes()])

    def close(self) -> None:
        self._thread.close()

    def _notes(self) -> list[str]:
        notes = []
        if not self._found:
            notes.append(f"{self._path} was never there")
        if self._others:
            notes.append(f"{_UNREAD}{self._path.name} {_NO_JSON}: {self._others}, such as {self._first_other!r}")
        return notes

    def _sifted(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows to keep now; the probe's own are held until it is known whether the probe itself delivers them."""
        kept = []
        for row in rows:
            if log_row(row).of_the_harness:  # a run wrote it, this one or another; its records hold as much
                continue
            self._has_rows = True
            if _of_probe(row):
                self._held.append(row)
            else:
                kept.append(row)
        while self._held and (self._delivered(self._held[0]) or len(self._held) > HELD):
            row = self._held.popleft()
            if not self._delivered(row):
                kept.append(row)
        return kept

    def _delivered(self, row: dict[str, Any]) -> bool:
        return self._probe.has_taken(row["boot"], row["seq"])

    def _part(self) -> _Part:
        """Some lines, decoded; called in the thread."""
        try:
            if not self._started:
                self._started = True
                self._follow.start()
                return _Part([], False, "")
            lines, more = self._follow.lines(last=self._last)
        except NoReading as missing:
            return _Part([], False, str(missing))
        rows = []
        for line in lines:
            row = object_of_line(line)
            if row is not None:
                rows.append(row)
            elif line.strip():
                self._others += 1
                self._first_other = self._first_other or line[:80].decode(errors="replace").rstrip()
        return _Part(rows, more, "")


def _of_probe(row: dict[str, Any]) -> bool:
    seq = row.get("seq")
    return isinstance(row.get("boot"), str) and isinstance(seq, int) and not isinstance(seq, bool)
