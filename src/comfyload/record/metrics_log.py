"""The instrumentation log (`comfyui_metrics.ndjson`): what its rows say, and those between two instants.

The probe in ComfyUI and applications write it side by side, so it is read with patience: what is no JSON object is
counted, not refused.
"""

from __future__ import annotations

import heapq
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.metrics_files import LogFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

__all__ = ["InOrder", "LogRow", "LogSlice", "log_row", "read_log", "row_of_line", "write_slice"]

TIME_KEYS = ("timestamp", "time", "ts", "t")
ERROR_LEVELS = ("error", "critical", "fatal")
TEXT_KEYS = ("error", "exception", "message", "msg", "event")

MILLISECONDS_FROM = 1e11
"""A Unix time from here on is in milliseconds: as seconds it would be the year 5138."""


LOOK_BACK = 1000
"""Rows that are held to put those of several writers in order; a probe's come up to a second after they happened."""


class LogRow(Struct, frozen=True, kw_only=True):
    """One row. `utc` None: it has no time that can be read. `error`: its text, where the row tells of an error.

    `t`: seconds of the run, where the row lies in a run's own log.
    """

    utc: datetime | None
    raw: dict[str, Any]
    error: str | None
    prompt_id: str | None
    t: float | None = None

    @property
    def event(self) -> str:
        """What happened; "" where the row does not say."""
        value = self.raw.get("event")
        return value if isinstance(value, str) else ""

    @property
    def context(self) -> dict[str, Any]:
        """What an application added."""
        value = self.raw.get("context")
        return value if isinstance(value, dict) else {}

    @property
    def seq(self) -> tuple[str, int] | None:
        """The start of the server and the number of the row in it, which only the probe gives; None: another's row."""
        boot, number = self.raw.get("boot"), self.raw.get("seq")
        return (boot, number) if isinstance(boot, str) and isinstance(number, int) else None

    @property
    def of_the_probe_itself(self) -> bool:
        """Whether it tells of the instrument, not of the server under test."""
        return self.event.startswith("probe.")


class LogSlice(Struct, frozen=True, kw_only=True):
    """The rows of a window, and what else the log held.

    `other_lines`: lines that are no JSON object, the first of them in `first_other` ("line 7: …"). `without_time`:
    rows left out because no time can be read and no job of the run is named. `outside`: rows of another time.
    """

    rows: list[LogRow]
    other_lines: int
    first_other: str | None
    without_time: int
    outside: int


def read_log(path: Path, since: datetime, until: datetime, prompt_ids: Collection[str] = frozenset()) -> LogSlice:
    """The rows from `since` to `until`, both included and on the log writer's clock, in the order of the files.

    Rotated files are read as far back as `since`. A row without a time is kept if it names one of `prompt_ids`. A last
    line that is torn is not read.

    Raises:
        RunFilesError: the log cannot be read.
    """
    rows: list[LogRow] = []
    other_lines = without_time = outside = 0
    first_other = None
    for place, line in _lines(path, since):
        row = row_of_line(line)
        if row is None:
            if line.strip() and line.endswith(b"\n"):
                other_lines += 1
                first_other = first_other or f"{place}: {line[:80].decode(errors='replace').rstrip()}"
            continue
        if _within(row, [(since, until)], prompt_ids):
            rows.append(row)
        elif row.utc is None:
            without_time += 1
        else:
            outside += 1
    return LogSlice(
        rows=rows, other_lines=other_lines, first_other=first_other, without_time=without_time, outside=outside
    )


def write_slice(
    path: Path,
    target: Path,
    windows: Sequence[tuple[datetime, datetime]],
    prompt_ids: Collection[str] = frozenset(),
) -> int:
    """Copy the lines of all windows to the new file `target`, byte for byte; returns how many.

    Raises:
        RunFilesError: the log cannot be read, or the target cannot be written or is there.
    """
    copied = 0
    try:
        with target.open("xb") as file:
            for _, line in _lines(path, min((since for since, _ in windows), default=None)):
                row = row_of_line(line)
                if row is not None and _within(row, windows, prompt_ids):
                    file.write(line)
                    copied += 1
    except RunFilesError:
        target.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise RunFilesError(f"cannot write {target}: {error.strerror or error}") from None
    return copied


def row_of_line(line: bytes) -> LogRow | None:
    """What a line of a log says, also of a run's own, which has the row in an envelope; None: it is no JSON object."""
    raw = _object(line)
    if raw is None:
        return None
    inside = raw.get("row")
    if isinstance(inside, dict) and raw.keys() == {"t", "source", "row"}:
        t = raw["t"]
        return log_row(inside, t=float(t) if isinstance(t, int | float) else None)
    return log_row(raw)


def log_row(raw: dict[str, Any], *, t: float | None = None) -> LogRow:
    """What a row says."""
    times = (_utc(raw[key]) for key in TIME_KEYS if key in raw)
    context = raw.get("context")
    named = raw.get("prompt_id") or (context.get("prompt_id") if isinstance(context, dict) else None)
    return LogRow(
        utc=next((time for time in times if time is not None), None),
        raw=raw,
        error=_error(raw),
        prompt_id=named if isinstance(named, str) else None,
        t=t,
    )


class InOrder:
    """Puts rows of several writers in the order of their times, within a bounded look-back.

    A row without a time stays behind the one before it.
    """

    def __init__(self, look_back: int = LOOK_BACK) -> None:
        self._look_back = look_back
        self._held: list[tuple[float, int, float, LogRow]] = []
        self._count = 0
        self._before = 0.0

    def add(self, row: LogRow, arrived: float = 0.0) -> Iterator[LogRow]:
        """Hold the row, which `arrived` at that instant of any clock; gives those that are held no longer."""
        self._before = self._before if row.utc is None else row.utc.timestamp()
        self._count += 1
        heapq.heappush(self._held, (self._before, self._count, arrived, row))
        while len(self._held) > self._look_back:
            yield heapq.heappop(self._held)[3]

    def rest(self, arrived_until: float = math.inf) -> Iterator[LogRow]:
        """What is held, in order, up to the first that arrived later than this."""
        while self._held and self._held[0][2] <= arrived_until:
            yield heapq.heappop(self._held)[3]


def _lines(path: Path, since: datetime | None) -> Iterator[tuple[str, bytes]]:
    with LogFiles(path, since=since) as files:
        yield from files.lines()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        found = json.loads(line)  # Python writes NaN and Infinity, which are no JSON; its errors are worth keeping
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _within(row: LogRow, windows: Sequence[tuple[datetime, datetime]], prompt_ids: Collection[str]) -> bool:
    if row.utc is None:
        return row.prompt_id in prompt_ids
    return any(since <= row.utc <= until for since, until in windows)


def _utc(value: object) -> datetime | None:
    """ISO 8601 (without an offset it is UTC), or Unix seconds or milliseconds, also as text."""
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value.strip())
        except ValueError:
            try:
                return _unix(float(value))
            except ValueError:
                return None
        # A time near the year 1 or 9999 has no equal in UTC.
        try:
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except OverflowError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _unix(value)
    return None


def _unix(number: float) -> datetime | None:
    try:
        seconds = float(number)
        seconds = seconds / 1000 if abs(seconds) >= MILLISECONDS_FROM else seconds
        return datetime.fromtimestamp(seconds, UTC) if math.isfinite(seconds) else None
    except (OverflowError, OSError, ValueError):
        return None


def _error(raw: dict[str, Any]) -> str | None:
    """The text of the error that a row tells of. What was interrupted is none, nor is a warning of the probe."""
    marked = any(_word(raw.get(key)) in ERROR_LEVELS for key in ("status", "level"))
    if not marked and (_word(raw.get("status")) == "interrupted" or _warning_of_the_probe(raw)):
        return None
    if not (marked or raw.get("error") or raw.get("exception")):
        return None
    value = next((raw[key] for key in TEXT_KEYS if raw.get(key)), "an error without a text")
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _warning_of_the_probe(raw: dict[str, Any]) -> bool:
    return _word(raw.get("event")).startswith("probe.") and _word(raw.get("level")) == "warning"


def _word(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""
