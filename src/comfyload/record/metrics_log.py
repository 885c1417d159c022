"""The instrumentation log (`comfyui_metrics.ndjson`): its rows between two instants, read without holding the file.

Whatever writes that log is not ours, so it is read with patience: what is no JSON object is counted, not refused.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from comfyload.errors import RunFilesError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

__all__ = ["LogRow", "LogSlice", "read_log", "write_slice"]

TIME_KEYS = ("timestamp", "time", "ts", "t")
ERROR_LEVELS = ("error", "critical", "fatal")
TEXT_KEYS = ("error", "exception", "message", "msg", "event")

LINE_LIMIT = 8 * 2**20
"""Bytes; a longer line is no log row but another file by mistake, and is not held in memory."""

MILLISECONDS_FROM = 1e11
"""A Unix time from here on is in milliseconds: as seconds it would be the year 5138."""


class LogRow(Struct, frozen=True, kw_only=True):
    """One row. `utc` None: it has no time that can be read. `error`: its text, where the row tells of an error."""

    utc: datetime | None
    raw: dict[str, Any]
    error: str | None
    prompt_id: str | None


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
    """The rows from `since` to `until`, both included and on the log writer's clock, in the order of the file.

    A row without a time is kept if it names one of `prompt_ids`. A last line that is torn is not read.

    Raises:
        RunFilesError: the log cannot be read.
    """
    rows: list[LogRow] = []
    other_lines = without_time = outside = 0
    first_other = None
    for number, line in _lines(path):
        raw = _object(line)
        if raw is None:
            if line.strip() and line.endswith(b"\n"):
                other_lines += 1
                first_other = first_other or f"line {number}: {line[:80].decode(errors='replace').rstrip()}"
            continue
        row = _row(raw)
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
            for _, line in _lines(path):
                raw = _object(line)
                if raw is not None and _within(_row(raw), windows, prompt_ids):
                    file.write(line)
                    copied += 1
    except RunFilesError:
        target.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise RunFilesError(f"cannot write {target}: {error.strerror or error}") from None
    return copied


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, from 1; of one that is too long only the beginning, which is no JSON."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_LIMIT):
                number += 1
                if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                    while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                        pass
                    line = line[:80] + b" (cut)\n"
                yield number, line
    except OSError as error:
        raise RunFilesError(f"cannot read the log {path}: {error.strerror or error}") from None


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


def _row(raw: dict[str, Any]) -> LogRow:
    times = (_utc(raw[key]) for key in TIME_KEYS if key in raw)
    context = raw.get("context")
    named = raw.get("prompt_id") or (context.get("prompt_id") if isinstance(context, dict) else None)
    return LogRow(
        utc=next((time for time in times if time is not None), None),
        raw=raw,
        error=_error(raw),
        prompt_id=named if isinstance(named, str) else None,
    )


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
    """The text of the error that a row tells of."""
    marked = any(_word(raw.get(key)) in ERROR_LEVELS for key in ("status", "level"))
    if not (marked or raw.get("error") or raw.get("exception")):
        return None
    value = next((raw[key] for key in TEXT_KEYS if raw.get(key)), "an error without a text")
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _word(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""
