"""How rows get from whoever emits them to the ring and to the file, without ever making the emitter wait.

The emitter appends to a deque. One thread empties it ten times a second: it numbers the rows, encodes them, keeps the
newest in memory, hands each to whoever folds over them, and writes them to the file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from .rows import Entry, encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .logfile import LogFile

__all__ = ["Journal"]

PERIOD_S = 0.1
TELLS_AGAIN_S = 10.0
STOP_PATIENCE_S = 2.0

_log = logging.getLogger("comfyload_probe")


class Journal:
    """The rows of one server process, in the order in which they were accepted."""

    def __init__(
        self,
        boot: str,
        *,
        ring_rows: int,
        buffer_rows: int,
        file: LogFile | None,
        fold: Callable[[dict[str, Any], float], None] | None = None,
        each_round: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is written before `start()`.

        Args:
            fold: is given each row, and when it happened by the wall clock.
            each_round: is called ten times a second, also when there are no rows.
        """
        self.boot = boot
        self.refused = 0
        """Rows that found the buffer full."""
        self.errors = 0
        """Rows that could not be encoded or folded."""
        self.last_seq = 0
        self._buffer: deque[Entry] = deque()
        self._buffer_rows = buffer_rows
        self._ring: deque[bytes] = deque(maxlen=ring_rows)
        self._file = file
        self._fold = fold
        self._each_round = each_round
        self._lock = threading.Lock()  # between the writing thread and those who read the ring; no emitter takes it
        self._wake = threading.Event()
        self._stopping = False
        self._emptied = threading.Condition()
        self._rounds = 0
        self._thread: threading.Thread | None = None
        self._told_refused = 0
        self._told_at = -TELLS_AGAIN_S

    @property
    def dropped(self) -> int:
        """Rows that are missing in the file: refused, or not written because the file could not be."""
        return self.refused + (0 if self._file is None else self._file.unwritten)

    @property
    def log_bytes(self) -> int | None:
        """Size of the file as last seen; None where there is none."""
        return None if self._file is None else self._file.size

    def put(self, entry: Entry) -> bool:
        """Accept it, or count it as refused; takes about a microsecond and never waits."""
        if len(self._buffer) >= self._buffer_rows:
            self.refused += 1
            return False
        self._buffer.append(entry)
        return True

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="comfyload probe: journal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is there, for at most two seconds, and end the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_PATIENCE_S)

    def flush(self, patience_s: float = STOP_PATIENCE_S) -> bool:
        """Wait until what was accepted before is in ring and file; False if that takes too long."""
        with self._emptied:
            wanted = self._rounds + 2  # the round under way may have passed the newest row already
            until = time.perf_counter() + patience_s
            while self._rounds < wanted and time.perf_counter() < until:
                self._wake.set()
                self._emptied.wait(PERIOD_S)
            return self._rounds >= wanted

    def rows(self, after: int, limit: int) -> tuple[list[bytes], int, int]:
        """Lines numbered above `after`, at most `limit`; the last one's number; how many before them are lost."""
        with self._lock:
            first = self.last_seq - len(self._ring) + 1
            skip = max(0, after + 1 - first)
            lines = list(islice(self._ring, skip, skip + limit))
            missed = max(0, first - 1 - after)
        return lines, first + skip + len(lines) - 1 if lines else after, missed

    def _run(self) -> None:
        while True:
            self._wake.wait(PERIOD_S)
            self._wake.clear()
            last = self._stopping
            try:
                self._empty()
            except Exception:  # noqa: BLE001 - the server's work does not depend on ours
                self.errors += 1
                if self.errors == 1:
                    _log.exception("a round of writing failed; the rows of it may be lost")
            with self._emptied:
                self._rounds += 1
                self._emptied.notify_all()
            if last:
                break
        if self._file is not None:
            self._file.close()

    def _empty(self) -> None:
        for _ in range(len(self._buffer)):
            self._accept(self._buffer.popleft())
        self._tell_of_gaps()
        if self._each_round is not None:
            self._each_round()

    def _accept(self, entry: Entry) -> None:
        try:
            row, line = encoded(entry, self.boot, self.last_seq + 1)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            self.errors += 1
            if self.errors == 1:
                _log.warning("a row %s has no JSON and is left out: %s", entry.event, error)
            return
        with self._lock:
            self._ring.append(line)
            self.last_seq += 1
        if self._fold is not None:
            try:
                self._fold(row, entry.unix_s)
            except Exception as error:  # noqa: BLE001 - a view of the rows may fail, the rows go on
                self.errors += 1
                if self.errors == 1:
                    _log.warning("a row %s could not be counted: %r", entry.event, error)
        if self._file is not None:
            self._file.write(line, entry.unix_s)

    def _tell_of_gaps(self) -> None:
        now = time.perf_counter()
        if self.refused > self._told_refused and now - self._told_at >= TELLS_AGAIN_S:
            lost, self._told_refused, self._told_at = self.refused - self._told_refused, self.refused, now
            self._problem(
                "warning", f"{lost} rows were dropped: more than {self._buffer_rows} were waiting to be written"
            )
        if self._file is not None and (said := self._file.news()) is not None:
            self._problem(*said)

    def _problem(self, level: str, error: str) -> None:
        _log.log(logging.ERROR if level == "error" else logging.WARNING, "%s", error)
        fields = {"level": level, "error": error}
        self._accept(Entry("probe.problem", time.perf_counter(), time.time(), fields))
