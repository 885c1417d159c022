"""Writes a run's rows to the project's own instrumentation log as they come, for `tail -f`.

A thread of its own writes, so that a slow disk holds up no job. The probe, an application or another run may write the
same file, so a row that is there already is not written again.
"""

import logging
import queue
import threading
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

from comfyload.record.codec import encode
from comfyload.record.metrics.files import identity, older_files
from comfyload.record.metrics.lines import Lines
from comfyload.record.metrics.log import key_of_row, object_of_line
from comfyload.record.metrics.writer import append, locked

HOLD_S = 0.25
"""How long a row waits: the probe's ring gets it before the probe's file does, and that file may be this one."""
LOOK_BACK = 1 << 20
"""Bytes of the log's end that are read first: a run that is resumed gets rows for a second time."""
WAITING = 20_000
"""Rows that may wait for the disk, and rows of the log that are remembered."""
CLOSE_S = 2.0
"""How long the end of a run waits for the last rows to be written."""
_BLOCK = 1 << 16

Row = dict[str, Any]


class LiveLog:
    """Rows for the log at `path`, whose folder exists. Nothing is raised: a failure to write is logged once."""

    def __init__(self, path: Path, *, hold_s: float = HOLD_S) -> None:
        self._path = path
        self._hold_s = hold_s
        self._rows: queue.SimpleQueue[Row | bytes | None] = queue.SimpleQueue()
        self._there = _There(path)
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="live log", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Write the row soon, unless the log has it. Takes about a microsecond and never waits."""
        if self._rows.qsize() < WAITING:  # beyond that the disk hangs
            self._rows.put(row)

    def put_own(self, row: Row) -> None:
        """The same for a row of ours, which nobody else writes."""
        if self._rows.qsize() < WAITING:
            self._rows.put(encode(row))

    def close(self) -> None:
        """Wait for a moment until all is written."""
        self._rows.put(None)
        self._thread.join(self._hold_s + CLOSE_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._rows.get()]
            if batch[0] is not None:
                time.sleep(self._hold_s)
            while not self._rows.empty():
                batch.append(self._rows.get())
            ended = None in batch
            try:
                self._write([row for row in batch if row is not None])
            except OSError as error:
                self._warn(error)

    def _write(self, rows: list[Row | bytes]) -> None:
        """Append the rows that the log lacks, in one write; no other run writes between the check and the write."""
        if not rows:
            return
        with locked(self._path, within_s=1.0) as ours:
            self._there.look()
            new = [row if isinstance(row, bytes) else encode(row) for row in rows if self._there.lacks(row)]
            if new:
                lines = b"\n".join([*new, b""])
                append(self._path, lines, None, locked_by_us=ours)  # its age does not end a `tail -f` begun before
                self._there.appended(len(lines))  # now the file is known, should another rotate it

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            logging.getLogger("comfyload").warning(
                "the run's rows are not in %s: %s; they are in the run directory", self._path, error.strerror or error
            )


class _There:
    """Which rows the log already holds, as far as it was read; the file is not kept open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = Lines()
        self._file: tuple[int, int] | None = None
        self._at = 0
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()
        self._begun = False

    def lacks(self, row: Row | bytes) -> bool:
        """Remember a row; False if it was there. One that is encoded is ours, and was not."""
        if isinstance(row, bytes):
            return True
        found = key_of_row(row)
        key = blake2b(found if isinstance(found, bytes) else repr(found).encode(), digest_size=16).digest()
        if key in self._recent or key in self._older:
            return False
        if len(self._recent) >= WAITING // 2:
            self._older, self._recent = self._recent, set()
        self._recent.add(key)
        return True

    def appended(self, size: int) -> None:
        """We wrote so many bytes, the rows of which are remembered; what others wrote at the same time is read."""
        status = self._path.stat()
        if identity(status) == self._file and status.st_size == self._at + size:
            self._at += size
        else:
            self.look()

    def look(self) -> None:
        """Read what others have written since the last look, through a rotation."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._begun = True
            return
        now = identity(status)
        if not self._begun:
            self._begun, self._file, self._at = True, now, max(0, status.st_size - LOOK_BACK)
            if self._at:
                self._lines.skip_one()
        elif now != self._file or status.st_size < self._at:
            for older in older_files(self._path):
                if now != self._file and identity(older.stat()) == self._file:
                    self._read(older)
            self._lines, self._file, self._at = Lines(), now, 0
        self._read(self._path)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._at)
            while block := file.read(_BLOCK):
                self._at += len(block)
                for row in map(object_of_line, self._lines.feed(block)):
                    if row is not None:
                        self.lacks(row)
