"""The instrumentation log, row by row as it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from comfyload.errors import RunFilesError
from comfyload.record.metrics.files import LogFiles
from comfyload.record.metrics.log import LogRow, log_row, object_of_line
from comfyload.record.model import LogLine, Observation
from comfyload.telemetry.source import NoReading, Readings, Source
from comfyload.telemetry.thread import Thread

if TYPE_CHECKING:
    from comfyload.telemetry.probe import Probe

HELD = 20_000
"""Most rows of the probe that are held back until the probe itself has delivered them."""

AT_ONCE = 500
"""Lines read at once, which the event loop then writes down without a pause."""

GONE = 3
"""Looks after which a file counts as gone: after a rotation the next row creates it again."""

_UNREAD, _NO_JSON = "lines of ", "that are no JSON object"


def unread_lines(observations: Sequence[Observation]) -> str | None:
    """What a run noted about lines of its log that cannot be read; None: nothing."""
    begin = f"{MetricsLog.name}: {_UNREAD}"
    texts = (one.text for one in observations if one.code == "telemetry" and one.text.startswith(begin))
    return next((text.removeprefix(f"{MetricsLog.name}: ") for text in texts if _NO_JSON in text), None)


_Part = tuple[list[LogRow], bool, str]
"""Rows, whether there are more, and why no line was read; "" if lines were."""


class MetricsLog(Source):
    """Rows that an application wrote, and rows of the probe that the probe itself has not delivered.

    After a crash the probe's last rows are only in the log.
    """

    name = "log"
    interval_s = 1.0
    timeout_s = 10.0

    def __init__(self, path: Path, clock: Callable[[], float], probes: Sequence[Probe]) -> None:
        self._path = path
        self._probes = probes
        self._files: LogFiles | None = None
        self._thread = Thread("log", self._part, clock, self._close_files)
        self._held: deque[LogRow] = deque()
        self._clock = clock
        self._last = False
        self._ended = 0.0
        self._looks_without_file = 0
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
        rows, more, missing = answer.value
        stale = self._last and answer.began < self._ended  # a reading that began before the end is not the last
        if missing and not self._found:
            # The server creates the file with its first row; if it never does, `finish` notes it.
            return Readings(read=False, more=stale)
        if missing:
            raise NoReading(missing)
        self._found = True
        lines = _lines(self._sifted(rows))
        return Readings(lines=lines, t=answer.began, took_s=answer.took_s, more=more or stale)

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
        notes = [] if self._found else [f"{self._path} was never there"]
        if self._others:
            notes.append(f"{_UNREAD}{self._path.name} {_NO_JSON}: {self._others}, such as {self._first_other!r}")
        lines = [*readings.lines, *_lines(left)]
        return msgspec.structs.replace(readings, lines=lines, notes=[*readings.notes, *notes])

    def close(self) -> None:
        self._thread.close()

    def _sifted(self, rows: list[LogRow]) -> list[LogRow]:
        """The rows to keep now; the probe's own are held until it is known whether the probe itself delivers them."""
        kept: list[LogRow] = []
        for row in rows:
            if row.of_the_harness:  # a run wrote it, this one or another; its records hold as much
                continue
            self._has_rows = True
            (kept if row.seq is None else self._held).append(row)
        while self._held and (self._delivered(self._held[0]) or len(self._held) > HELD):
            row = self._held.popleft()
            if not self._delivered(row):
                kept.append(row)
        return kept

    def _delivered(self, row: LogRow) -> bool:
        return row.seq is not None and any(probe.has_taken(*row.seq) for probe in self._probes)

    def _part(self) -> _Part:
        """Some lines, decoded; called in the thread."""
        try:
            if self._files is None:
                self._files = LogFiles(self._path, from_end=True)
                return [], False, ""
            looks = 2 if self._last else 1  # no time is left for a writer that has not noticed a rotation yet
            found = chain.from_iterable(self._files.lines(growing=True) for _ in range(looks))
            lines = [line for _, line in islice(found, AT_ONCE)]
        except RunFilesError as error:
            return [], False, str(error)
        self._looks_without_file = 0 if lines or self._path.exists() else self._looks_without_file + 1
        if self._looks_without_file >= GONE:
            return [], False, "the file is gone"
        objects = [(line, object_of_line(line)) for line in lines if line.strip()]
        others = [line for line, raw in objects if raw is None]
        if others and not self._first_other:
            self._first_other = others[0][:80].decode(errors="replace").rstrip()
        self._others += len(others)
        return [log_row(raw) for _, raw in objects if raw is not None], len(lines) == AT_ONCE, ""

    def _close_files(self) -> None:
        if self._files is not None:
            self._files.close()


def _lines(rows: Sequence[LogRow]) -> list[LogLine]:
    return [LogLine(t=None, source="log", row=row.raw) for row in rows]
