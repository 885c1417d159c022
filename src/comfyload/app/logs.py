"""`logs`: the instrumentation log, or a run's own, shown, filtered and followed."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, structs

from comfyload.errors import RunFilesError, UsageError
from comfyload.judge.columns.ledger import clean
from comfyload.record.metrics.files import DEFAULT_LOG, VARIABLE, LogFiles, older_files, project_log
from comfyload.record.metrics.log import InOrder, LogRow, row_of_line
from comfyload.record.metrics.prompts import ByPrompt
from comfyload.record.run import LOG, MANIFEST, RunReader
from comfyload.report.log_text import node_of
from comfyload.report.logs import LogTally, Printer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LogQuery", "Where", "instant", "locate", "print_log"]

T = TypeVar("T")

NAME = DEFAULT_LOG.name
POLL_S = 0.25

HOLD_S = 1.0
"""How long a row that came is held while following, so that an earlier one of another writer can go before it."""

FIRST_SHOWN = 10
"""Rows, or prompts, that are shown before following begins, as by tail."""

_REMEMBERED = 20_000
"""Rows of the probe by their number: a run's log may have one twice, as the probe told it and as the log had it."""


class LogQuery(Struct, frozen=True, kw_only=True):
    """What is asked for. `older` None: older files only as far back as `since` asks."""

    errors: bool = False
    events: list[str] = []
    prompt: str | None = None
    node: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    samples: bool = False
    older: bool | None = None
    follow: bool = False
    by_prompt: bool = False


class Where(Struct, frozen=True, kw_only=True):
    """A log. `began`: when the run began, where it is a run's own."""

    path: Path
    began: datetime | None = None


def locate(target: Path | None, *, follow: bool) -> Where:
    """The log that is meant: a file, that of a run or a baseline, or without a name the usual one.

    Raises:
        RunFilesError: there is none.
    """
    named = os.environ.get(VARIABLE, "").strip()
    path = target or (Path(named).expanduser() if named else project_log() or DEFAULT_LOG)
    if path.is_dir():
        return _in_folder(path)
    if path.name == LOG and (path.parent / MANIFEST).is_file():
        return _in_folder(path.parent)
    if not (path.exists() or older_files(path) or follow):
        why = "" if target else f", which ${VARIABLE} names" if named else f", and ${VARIABLE} is not set"
        raise RunFilesError(f"there is no log at {path}{why}", "name its file, or a run directory: comfyload logs FILE")
    return Where(path=path)


def instant(flag: str, text: str) -> datetime:
    """`30s`, `10m`, `2h` or `3d` ago, or an instant in ISO 8601; without an offset it is local time.

    Raises:
        UsageError: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhd])", text.strip())
    try:
        if ago:
            return datetime.now(UTC) - float(ago[1]) * timedelta(
                seconds={"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]]
            )
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        hint = "write 30s, 10m, 2h or 3d, or an instant such as 2026-11-23T14:00"
        raise UsageError(f"invalid {flag} {clean(text, 60)!r}", hint) from None


def print_log(where: Where, query: LogQuery, printer: Printer) -> None:
    """Print the rows that are asked for in the order of their times, and at the end what they come to.

    Following goes on until Ctrl-C, which is its ordinary end.

    Raises:
        RunFilesError: the log cannot be read.
    """
    shown = _Shown(where, query, printer)
    older = query.since is not None if query.older is None else query.older
    try:
        with _opened(where.path, query, older, printer) as files:
            shown.present(files)
            while query.follow:
                printer.flush()
                time.sleep(POLL_S)
                shown.since_then(files)
    except KeyboardInterrupt:
        if not query.follow:
            raise
    printer.end(
        shown.tally, [path.name for path in older_files(where.path)] if query.older is None and not older else []
    )


def _in_folder(folder: Path) -> Where:
    """The log of a run, or the one that a baseline keeps."""
    if (folder / LOG).is_file():
        return Where(path=folder / LOG, began=datetime.fromisoformat(RunReader(folder).manifest.started_utc))
    if (folder / NAME).is_file():
        return Where(path=folder / NAME)
    if (folder / MANIFEST).is_file():
        hint = "runs have one where the server has the probe, or with --metrics-log"
        raise RunFilesError(f"{folder} has no log of its own", hint)
    raise RunFilesError(f"{folder} holds neither {NAME} nor a run", "name a log's file, or a run directory")


def _opened(path: Path, query: LogQuery, older: bool, printer: Printer) -> LogFiles:
    """The files; while following, those that are not there yet are waited for."""
    if query.follow and not path.exists():
        printer.say(f"{path} is not there yet; waiting for it.")
        while not path.exists():
            time.sleep(POLL_S)
    return LogFiles(path, since=None if query.older else query.since, older=older)


class _Shown:
    """Rows on their way from the files to the printer."""

    def __init__(self, where: Where, query: LogQuery, printer: Printer) -> None:
        self.tally = LogTally()
        self._began, self._query, self._printer = where.began, query, printer
        self._order = InOrder()
        self._prompts = ByPrompt(self._chosen)
        self._met: dict[tuple[str, int], None] = {}

    def present(self, files: LogFiles) -> None:
        """What is there by now."""
        query = self._query
        last = FIRST_SHOWN if query.last is None and query.follow and query.since is None else query.last
        rows = self._rows(files.lines(growing=query.follow))
        if query.by_prompt:
            for group in _last(self._prompts.of(rows, keep_open=query.follow), last):
                self._printer.prompt(group, self.tally)
        else:
            for row in _last(filter(self._chosen, rows), last):
                self._printer.row(row, self.tally)

    def since_then(self, files: LogFiles) -> None:
        """What has come, but for what is held for a moment."""
        now = time.monotonic()
        self._print(self._rows(files.lines(growing=True), now, now - HOLD_S), now, now - HOLD_S)

    def close(self) -> None:
        """What is still held, when following has been ended."""
        self._print(self._order.rest(), 0.0, float("inf"))
        self.tally.without_prompt = self._prompts.without

    def _print(self, rows: Iterable[LogRow], now: float, ended_until: float) -> None:
        """Rows as they come; prompts that had ended by then, so that an application's last row is with them."""
        for row in rows:
            if self._query.by_prompt:
                for group in self._prompts.add(row, now):
                    self._printer.prompt(group, self.tally)
            elif self._chosen(row):
                self._printer.row(row, self.tally)
        for group in self._prompts.ended(ended_until):
            self._printer.prompt(group, self.tally)

    def _rows(
        self, lines: Iterable[tuple[str, bytes]], arrived: float = 0.0, until: float = float("inf")
    ) -> Iterator[LogRow]:
        """The rows of a time and a prompt that are asked for, in order."""
        for place, line in lines:
            row = row_of_line(line)
            if row is None:
                if line.strip() and line.endswith(b"\n"):
                    self.tally.no_row(place, line)
            elif not self._met_before(row):
                if row.utc is None and row.t is not None and self._began is not None:
                    row = structs.replace(row, utc=self._began + timedelta(seconds=row.t))
                if self._is_asked_for(row):
                    yield from self._order.add(row, arrived)
        yield from self._order.rest(until)

    def _met_before(self, row: LogRow) -> bool:
        if row.seq is None:
            return False
        if row.seq in self._met:
            return True
        self._met[row.seq] = None
        if len(self._met) > _REMEMBERED:
            del self._met[next(iter(self._met))]
        return False

    def _is_asked_for(self, row: LogRow) -> bool:
        query = self._query
        if row.utc is None and not (query.since is None and query.until is None):
            self.tally.without_time += 1
            return False
        if row.utc is not None and (
            (query.since is not None and row.utc < query.since) or (query.until is not None and row.utc > query.until)
        ):
            return False
        if query.prompt is not None and not (row.prompt_id or "").startswith(query.prompt):
            return False
        self.tally.rows += 1
        if row.event == "sample" and not (query.samples or "sample" in query.events):
            self.tally.samples += 1
            return False
        return True

    def _chosen(self, row: LogRow) -> bool:
        query = self._query
        return (
            (not query.errors or row.error is not None)
            and (not query.events or any(fnmatchcase(row.event, event) for event in query.events))
            and (query.node is None or node_of(row) == query.node)
        )


def _last(values: Iterable[T], number: int | None) -> Iterable[T]:
    return values if number is None else deque(values, maxlen=number)
