"""The instrumentation log, row by row as it grows."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from comfyload.record.metrics.log import log_row, object_of_line
from comfyload.record.model import LogLine
from comfyload.telemetry.line_reader import LineReader
from comfyload.telemetry.source import NoReading, Readings
from comfyload.telemetry.thread import Thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comfyload.record.model import Observation
    from comfyload.telemetry.probe import Probe

__all__ = ["MetricsLog", "unread_lines"]

HELD = 20_000
"""Rows of the probe that are held back until it has told them itself, at most."""


_UNREAD, _NO_JSON = "lines of ", "that are no JSON object"


def unread_lines(observations: Sequence[Observation]) -> str | None:
    """What a run noticed of lines of its log that it could not read."""
    begin = f"{MetricsLog.name}: {_UNREAD}"
    texts = (one.text for one in observations if one.code == "telemetry" and one.text.startswith(begin))
    return next((text.removeprefix(f"{MetricsLog.name}: ") for text in texts if _NO_JSON in text), None)


class _Part(Struct, frozen=True):
    rows: list[dict[str, Any]]
    more: bool
    silent: str


class MetricsLog:
    """Rows that an application wrote, and the probe's own where these did not come from the probe already.

    What the probe wrote before a crash, and nobody could ask it for any more, is in the log.
    """

    name = "log"
    interval_s = 1.0
    patience_s = 10.0

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
        self._found = self._told_rows = False

    @property
    def present(self) -> bool:
        """Whether it has told rows."""
        return self._told_rows

    async def open(self) -> None:
        """Rows count from the file's present end on."""
        await self._thread.ask()

    async def read(self) -> Readings:
        answer = await self._thread.ask()
        part = answer.value
        stale = self._last and answer.began < self._ended  # a look from before the end is not the last
        if part.silent and not self._found:
            # The server makes the file with its first row; if it never does, the end says so.
            return Readings(asked=False, more=stale)
        if part.silent:
            raise NoReading(part.silent)
        self._found = True
        lines = [LogLine(t=None, source="log", row=row) for row in self._sifted(part.rows)]
        return Readings(lines=lines, t=answer.began, took_s=answer.took_s, more=part.more or stale)

    async def finish(self) -> Readings:
        if not self._last:
            self._last, self._ended = True, self._clock()
        try:
            readings = await self.read()
        except NoReading as silent:
            readings = Readings(notes=[str(silent)])
        if readings.more:
            return readings
        left = [row for row in self._held if not self._told(row)]
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
        """The rows to keep now; those that the probe wrote wait until it is known whether it tells them itself."""
        kept = []
        for row in rows:
            if log_row(row).of_the_harness:  # a run wrote it, this one or another; its records tell as much
                continue
            self._told_rows = True
            if _of_probe(row):
                self._held.append(row)
            else:
                kept.append(row)
        while self._held and (self._told(self._held[0]) or len(self._held) > HELD):
            row = self._held.popleft()
            if not self._told(row):
                kept.append(row)
        return kept

    def _told(self, row: dict[str, Any]) -> bool:
        return self._probe.has_taken(row["boot"], row["seq"])

    def _part(self) -> _Part:
        """In the thread: some lines, decoded."""
        try:
            if not self._started:
                self._started = True
                self._follow.start()
                return _Part([], False, "")
            lines, more = self._follow.lines(last=self._last)
        except NoReading as silent:
            return _Part([], False, str(silent))
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
