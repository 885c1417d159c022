"""`logs`: the instrumentation log, or a run's own, shown, filtered and followed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct, structs

from comfyload.record.flag import Flag
from comfyload.record.metrics.files import LogFiles, older_files
from comfyload.record.metrics.log import InOrder, LogRow, row_of_line
from comfyload.report.log_text import node_of
from comfyload.report.logs import LogTally, Printer

if TYPE_CHECKING:
    from comfyload.app.log_place import LogPlace

ROWS = "Which rows"
POLL_S = 0.25

HOLD_S = 1.0
"""How long a new row is held while following, so that an earlier one of another writer can go before it."""

FIRST_SHOWN = 10
"""Rows that are shown before following begins, as by tail."""

_REMEMBERED = 20_000
"""Rows of the probe by their number: a run's log may hold one twice, from the probe and from the log."""


class LogQuery(Struct, frozen=True, kw_only=True):
    """Which rows to show. `older` None: older files only as far back as `since`."""

    errors: Annotated[bool, Flag("--errors", "", "Only errors.", ROWS)] = False
    events: Annotated[
        list[str] | None, Flag("--event", "GLOB", "Only these events, such as 'prompt.*'. Repeatable.", ROWS)
    ] = None
    prompt: Annotated[str | None, Flag("--prompt", "ID", "Only prompts whose id begins with this.", ROWS)] = None
    node: Annotated[str | None, Flag("--node", "ID", "Only this node.", ROWS)] = None
    since: Annotated[
        datetime | None, Flag("--since", "WHEN", "From 10m, 2h or 3d ago, or an instant in ISO 8601.", ROWS)
    ] = None
    until: Annotated[datetime | None, Flag("--until", "WHEN", "Up to this time, written as for --since.", ROWS)] = None
    last: Annotated[
        int | None,
        Flag(
            "--last", "N", "Only the last N rows.", ROWS, least=1, default="all; with --follow and without --since 10"
        ),
    ] = None
    samples: Annotated[bool, Flag("--samples", "", "Also readings of GPU and process, two rows a second.", ROWS)] = (
        False
    )
    older: Annotated[
        bool | None,
        Flag(
            "--rotated/--no-rotated",
            "",
            "Also older files: FILE.1 and so on.",
            ROWS,
            default="as far back as --since needs",
        ),
    ] = None


def print_log(place: LogPlace, query: LogQuery, printer: Printer, *, follow: bool = False) -> None:
    """Print the chosen rows in the order of their times, and at the end how many there were.

    `follow`: also rows that are still to come, until Ctrl-C, which is the ordinary end of that.

    Raises:
        RunFilesError: the log cannot be read.
    """
    rows = _Rows(place.began, query)
    older = query.since is not None if query.older is None else query.older
    try:
        if follow:
            _wait_for(place.path, printer)
        with closing(LogFiles(place.path, since=None if query.older else query.since, older=older)) as files:
            last = FIRST_SHOWN if query.last is None and follow and query.since is None else query.last
            chosen: Iterable[LogRow] = rows.chosen(files.lines(growing=follow))
            for row in chosen if last is None else deque(chosen, maxlen=last):
                printer.row(row, rows.tally)
            while follow:
                printer.flush()
                time.sleep(POLL_S)
                now = time.monotonic()
                for row in rows.chosen(files.lines(growing=True), now, now - HOLD_S):
                    printer.row(row, rows.tally)
    except KeyboardInterrupt:
        if not follow:
            raise
    left = [path.name for path in older_files(place.path)] if query.older is None and not older else []
    printer.end(rows.tally, left)


def _wait_for(file: Path, printer: Printer) -> None:
    if not file.exists():
        printer.say(f"Waiting for {file}, which does not exist yet.")
    while not file.exists():
        time.sleep(POLL_S)


class _Rows:
    """Reads rows from lines and chooses those of the query. `began`: of a run whose own log this is."""

    def __init__(self, began: datetime | None, query: LogQuery) -> None:
        self.tally = LogTally()
        self._began, self._query = began, query
        self._order = InOrder()
        self._met: dict[tuple[str, int], None] = {}

    def chosen(
        self, lines: Iterable[tuple[str, bytes]], arrived: float = 0.0, until: float = float("inf")
    ) -> Iterator[LogRow]:
        """The rows of the query, in order, but for those that arrived after `until` of any clock."""
        for place, line in lines:
            row = row_of_line(line)
            if row is None:
                if line.strip() and line.endswith(b"\n"):
                    self.tally.no_row(place, line)
            elif not self._met_before(row):
                if row.utc is None and row.t is not None and self._began is not None:
                    row = structs.replace(row, utc=self._began + timedelta(seconds=row.t))
                if self._in_scope(row):
                    yield from filter(self._matches, self._order.add(row, arrived))
        yield from filter(self._matches, self._order.rest(until))

    def _met_before(self, row: LogRow) -> bool:
        if row.seq is None:
            return False
        if row.seq in self._met:
            return True
        self._met[row.seq] = None
        if len(self._met) > _REMEMBERED:
            del self._met[next(iter(self._met))]
        return False

    def _in_scope(self, row: LogRow) -> bool:
        """Whether the row is of the time and the prompt; counts it."""
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
        if row.event == "sample" and not (query.samples or "sample" in (query.events or ())):
            self.tally.samples += 1
            return False
        return True

    def _matches(self, row: LogRow) -> bool:
        query = self._query
        return (
            (not query.errors or row.error is not None)
            and (not query.events or any(fnmatchcase(row.event, event) for event in query.events))
            and (query.node is None or node_of(row) == query.node)
        )
