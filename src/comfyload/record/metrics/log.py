"""The instrumentation log (`comfyui_metrics.ndjson`): its rows, and those between two instants.

The probe in ComfyUI and applications write the same file, so that a line that is not a JSON object is counted, not
refused.
"""

import heapq
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.bounds import instant
from comfyload.record.codec import MOST_LEVELS, encode, within_levels
from comfyload.record.metrics.files import LogFiles

TIME_KEYS = ("timestamp", "time", "ts", "t")
ERROR_LEVELS = ("error", "critical", "fatal")
TEXT_KEYS = ("error", "exception", "message", "msg", "event")

OURS = "comfyload."
"""The prefix of the events in our own rows."""

MILLISECONDS_FROM = 1e11
"""A larger Unix time is in milliseconds: as seconds it would be the year 5138."""


LOOK_BACK = 1000
"""Rows that are held to put those of several writers in order; a probe's come up to a second after they happened."""

_HALVES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")
"""Halves of a character that stand alone, which JSON can hold and UTF-8 cannot."""

_NEIGHBOURS = timedelta(seconds=5)
"""How much the rows of several writers may be out of order."""

_TIMELESS_BYTES = 2000
"""Bytes of an unreadable line that are kept."""


class LogRow(Struct, frozen=True, kw_only=True):
    """One row. `utc` None: it has no readable time. `error`: the error's text; None: the row is not an error.

    `t`: seconds of the run, where the row lies in a run's own log.
    """

    utc: datetime | None
    raw: dict[str, Any]
    error: str | None
    prompt_id: str | None
    t: float | None = None

    @property
    def event(self) -> str:
        """The name of the event; "" if the row has none."""
        value = self.raw.get("event")
        return value if isinstance(value, str) else ""

    @property
    def context(self) -> dict[str, Any]:
        """The fields that an application added."""
        value = self.raw.get("context")
        return value if isinstance(value, dict) else {}

    @property
    def seq(self) -> tuple[str, int] | None:
        """The start of the server and the number of the row in it, which only the probe gives; None: another's row."""
        return _seq(self.raw)

    @property
    def of_the_probe_itself(self) -> bool:
        """Whether it is about the probe, not about the server under test."""
        return self.event.startswith("probe.")

    @property
    def of_the_harness(self) -> bool:
        """Whether comfyload wrote it: it repeats records of a run, and is not from the server's side."""
        return self.seq is None and self.event.startswith(OURS)


class LogSlice(Struct, kw_only=True):
    """The rows of a window, and what else the log held.

    `lines`: all that are not empty; `begins` and `ends` are the first and last time of any row. `unread`: lines that
    may be of the window and are not a JSON object, the first of them in `first_unread` ("line 7: …"). `untimed`:
    errors without a time and a prompt that may be of it.
    """

    rows: list[LogRow] = []
    lines: int = 0
    begins: datetime | None = None
    ends: datetime | None = None
    unread: int = 0
    first_unread: str | None = None
    untimed: int = 0
    first_untimed: str | None = None


def read_log(path: Path, since: datetime, until: datetime, prompt_ids: Collection[str] = frozenset()) -> LogSlice:
    """The rows from `since` to `until`, both included and on the log writer's clock, in the order of the files.

    Rotated files are read as far back as `since`. A row without a time is kept if it names one of `prompt_ids`. A last
    line that is being written is not read.

    Raises:
        RunFilesError: the log cannot be read.
    """
    found = LogSlice()
    found.rows += (row for _, row in _sorted_out(path, [(since, until)], prompt_ids, found) if row is not None)
    return found


def write_slice(
    path: Path | None,
    target: Path,
    windows: Sequence[tuple[datetime, datetime]],
    prompt_ids: Collection[str] = frozenset(),
    more: Iterable[dict[str, Any]] = (),
) -> int:
    """Copy the lines of all windows to the new file `target`, then the rows of `more` that are not among them.

    Our own row about a job is left out if a line of the log names its prompt.

    Lines in UTF-8 are copied byte for byte. Unreadable lines that may be of a window are kept, so that the doubt stays
    visible. Returns how many lines were written. `path` None: there is no log.

    Raises:
        RunFilesError: the log cannot be read, or the target cannot be written or is there.
    """
    written, met, prompts = 0, set[tuple[str, int] | bytes](), set[str | None]()
    try:
        with target.open("xb") as file:
            for line, row in () if path is None else _sorted_out(path, windows, prompt_ids, LogSlice()):
                file.write(line if line.endswith(b"\n") else line + b"\n")
                written += 1
                if row is not None:
                    met.add(key_of_row(row.raw))
                    prompts.add(row.prompt_id)
            for raw in more:
                row = log_row(raw)
                if (key := key_of_row(raw)) not in met and not (row.of_the_harness and row.prompt_id in prompts):
                    met.add(key)
                    file.write(encode(raw) + b"\n")
                    written += 1
    except RunFilesError:
        target.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise RunFilesError(f"cannot write {target}: {error.strerror or error}") from None
    return written


def _sorted_out(
    path: Path, windows: Sequence[tuple[datetime, datetime]], prompt_ids: Collection[str], tally: LogSlice
) -> Iterator[tuple[bytes, LogRow | None]]:
    """The lines of the windows with their rows, and unreadable lines that may be of one; counts go to `tally`."""
    timeless = _Timeless(windows, tally)
    with closing(LogFiles(path, since=min((since for since, _ in windows), default=None))) as files:
        for place, line in files.lines():
            row = row_of_line(line)
            if not line.strip() or (row is None and not line.endswith(b"\n")):
                continue
            tally.lines += 1
            if row is None:
                timeless.add(f"{place}: {line[:80].decode(errors='replace').rstrip()}", line, is_row=False)
            elif row.utc is None and row.error is not None and row.prompt_id is None:
                timeless.add(place, line, is_row=True)
            else:
                if row.utc is not None:
                    yield from timeless.until(row.utc)
                    tally.begins, tally.ends = tally.begins or row.utc, row.utc
                if _within(row, windows, prompt_ids):
                    yield line, row
    yield from timeless.until(None)


class _Timeless:
    """Lines that have no time: they are of another time than a window only if their neighbours on both sides are."""

    def __init__(self, windows: Sequence[tuple[datetime, datetime]], tally: LogSlice) -> None:
        self._windows = [(since - _NEIGHBOURS, until + _NEIGHBOURS) for since, until in windows]
        self._tally = tally
        self._before: datetime | None = None
        self._held: list[bytes] = []
        self._counts, self._firsts = [0, 0], ["", ""]

    def add(self, text: str, line: bytes, *, is_row: bool) -> None:
        self._firsts[is_row] = self._firsts[is_row] or text
        self._counts[is_row] += 1
        if len(self._held) < LOOK_BACK:
            self._held.append(line[:_TIMELESS_BYTES])

    def until(self, after: datetime | None) -> Iterator[tuple[bytes, None]]:
        """Decide about the lines since the last row with a time; `after` None: the log has ended."""
        tally, before, self._before = self._tally, self._before, after
        if any(self._counts) and any(self._may_be(window, before, after) for window in self._windows):
            tally.unread += self._counts[0]
            tally.first_unread = tally.first_unread or self._firsts[0] or None
            tally.untimed += self._counts[1]
            tally.first_untimed = tally.first_untimed or self._firsts[1] or None
            yield from ((line, None) for line in self._held)
        self._held, self._counts, self._firsts = [], [0, 0], ["", ""]

    @staticmethod
    def _may_be(window: tuple[datetime, datetime], before: datetime | None, after: datetime | None) -> bool:
        since, until = window
        earlier = after is not None and after < since and (before is None or before < since)
        later = before is not None and before > until and (after is None or after > until)
        return not (earlier or later)


def row_of_line(line: bytes) -> LogRow | None:
    """The row of a line, also of a run's own log, which wraps the row; None: it is not a JSON object."""
    raw = object_of_line(line)
    if raw is None:
        return None
    inside = raw.get("row")
    if isinstance(inside, dict) and raw.keys() == {"t", "source", "row"}:
        t = raw["t"]
        return log_row(inside, t=instant(t) if isinstance(t, int | float) else None)
    return log_row(raw)


def object_of_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None: it is not one. It can be written again as JSON.

    Bytes that are not UTF-8, and halves of characters, are replaced: the fields that count are ASCII.
    """
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:  # Python writes NaN and Infinity, which are not JSON; such rows are worth keeping
            text = line.decode("utf-8", "replace").removeprefix("\ufeff")
            found = json.loads(_HALVES.sub(r"\\ufffd", text) if _HALVES.search(text) else text)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) and (len(line) < MOST_LEVELS or within_levels(found)) else None


def key_of_row(raw: dict[str, Any]) -> tuple[str, int] | bytes:
    """The key that identifies a row: boot and number of a probe's row, the whole content of others."""
    return _seq(raw) or encode(raw, "sorted")


def log_row(raw: dict[str, Any], *, t: float | None = None) -> LogRow:
    """The row of a JSON object."""
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
        """Hold the row, which `arrived` at that instant of any clock; yields rows that need not be held any longer."""
        self._before = self._before if row.utc is None else row.utc.timestamp()
        self._count += 1
        heapq.heappush(self._held, (self._before, self._count, arrived, row))
        while len(self._held) > self._look_back:
            yield heapq.heappop(self._held)[3]

    def rest(self, arrived_until: float = math.inf) -> Iterator[LogRow]:
        """What is held, in order, up to the first that arrived later than this."""
        while self._held and self._held[0][2] <= arrived_until:
            yield heapq.heappop(self._held)[3]


def _seq(raw: dict[str, Any]) -> tuple[str, int] | None:
    boot, number = raw.get("boot"), raw.get("seq")
    if not isinstance(boot, str) or not isinstance(number, int) or isinstance(number, bool):
        return None
    return boot, number


def _within(row: LogRow, windows: Sequence[tuple[datetime, datetime]], prompt_ids: Collection[str]) -> bool:
    if row.utc is None:
        return row.prompt_id in prompt_ids
    return any(since <= row.utc <= until for since, until in windows)


def _utc(value: object) -> datetime | None:
    """ISO 8601 (without an offset it is UTC), or Unix seconds or milliseconds, also as text; None: nothing of these."""
    try:
        if isinstance(value, str):
            try:
                time = datetime.fromisoformat(value.strip())
                return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            except ValueError:
                value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return datetime.fromtimestamp(value / 1000 if abs(value) >= MILLISECONDS_FROM else value, UTC)
    except (OverflowError, OSError, ValueError):  # NaN, or a time near the year 1 or 9999, which has no equal in UTC
        return None


def _error(raw: dict[str, Any]) -> str | None:
    """The text of the error in a row; None: it has none. An interruption or a warning of the probe is not an error."""
    marked = any(_word(raw.get(key)) in ERROR_LEVELS for key in ("status", "level"))
    warning_of_the_probe = _word(raw.get("event")).startswith("probe.") and _word(raw.get("level")) == "warning"
    if not marked and (_word(raw.get("status")) == "interrupted" or warning_of_the_probe):
        return None
    if not (marked or raw.get("error") or raw.get("exception")):
        return None
    value = next((raw[key] for key in TEXT_KEYS if raw.get(key)), "an error without a text")
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _word(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""
