"""The files of the instrumentation log: the one that is written, and the older ones `FILE.1`, `FILE.2`, …

Rotation may happen while they are read: `FILE` becomes `FILE.1` and so on, and a new `FILE` begins. Open files stay
open, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import glob
import gzip
import os
import time
import zlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.metrics.lines import Lines, ends_a_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from io import BufferedReader

    Opened = BufferedReader | gzip.GzipFile

VARIABLE = "COMFYUI_METRICS_LOG"
"""The environment variable that names the log."""

DEFAULT_LOG = Path("infra/observability/comfyui_metrics.ndjson")
"""The default path of the log, from the root of a project."""

_BLOCK = 1 << 16
_PACKED = b"\x1f\x8b"
_UNPACKABLE = b"(what follows cannot be unpacked)\n"

_BEING_WRITTEN_S = 2.0
"""A last line without its end is torn if the file was written no later than so long ago."""

_SLACK_S = 60.0
"""How much a file's own time may be before that of its last row."""


class LogFiles:
    """The lines of a log and of its older files, oldest first; a second call of `lines` gives those that are new.

    `since` None: with `older`, all older files; else those that were still written then. The log itself is always read;
    with `from_end` only what is written from now on, for which it need not exist yet.
    """

    def __init__(
        self, path: Path, *, since: datetime | None = None, older: bool = True, from_end: bool = False
    ) -> None:
        """Open them.

        Raises:
            RunFilesError: the log cannot be read.
        """
        self._path = path
        self._open: deque[tuple[str, Opened]] = deque()
        self._begin()
        try:
            self._open_newer(older_files(path) if older and not from_end else [], since)
            if from_end:
                self._go_to_end()
        except OSError as error:
            self.close()
            if not (from_end and isinstance(error, FileNotFoundError)):
                raise RunFilesError(f"cannot read the log {path}: {error.strerror or error}") from None

    def lines(self, *, growing: bool = False) -> Iterator[tuple[str, bytes]]:
        """Each line and where it is, as "line 7"; of one that is too long only the beginning, which is not JSON.

        A last line without its end comes too, with an end if nobody is writing it; unless the log is `growing`: then it
        is kept until the rest has come. A file that was rotated is left at the next call, as its writers may not have
        noticed yet.

        Raises:
            RunFilesError: the log cannot be read.
        """
        with file_errors(f"cannot read the log {self._path}"):
            if growing and not self._open:
                self._open_newer([], None)
            while self._open:
                name, file = self._open[0]
                yield from self._whole_lines(name, file)
                if growing and len(self._open) == 1:
                    if self._began_again(file):
                        continue
                    self._look_for_newer(file)
                    return
                written = len(self._open) > 1 or os.fstat(file.fileno()).st_mtime < time.time() - _BEING_WRITTEN_S
                for line in self._lines.end():
                    yield self._place(name, self._number + 1), line + b"\n" if written else line
                self._leave_first()

    def _begin(self) -> None:
        self._lines, self._ready, self._number, self._broken = Lines(), deque[bytes](), 0, False

    def _whole_lines(self, name: str, file: Opened) -> Iterator[tuple[str, bytes]]:
        block = b"begin"
        while block:
            while self._ready:
                line = self._ready.popleft()
                place = self._place(name, self._number + 1)
                self._number += line.endswith(b"\n")
                yield place, line
            try:
                block = b"" if self._broken else file.read1(_BLOCK)
            except (EOFError, zlib.error, gzip.BadGzipFile):  # a packed file that is torn, or damaged
                self._broken = True
                self._ready.extend([*self._lines.end(), _UNPACKABLE])
            else:
                self._ready.extend(self._lines.feed(block))

    def _place(self, name: str, number: int) -> str:
        return f"line {number}" if name == self._path.name else f"{name}, line {number}"

    def _began_again(self, file: Opened) -> bool:
        """Whether the file was cut; then it is read from its beginning."""
        if isinstance(file, gzip.GzipFile) or os.fstat(file.fileno()).st_size >= file.tell():
            return False
        file.seek(0)
        self._begin()
        return True

    def _look_for_newer(self, file: Opened) -> None:
        """Open the files that came after ours, if the name stands for another one by now."""
        ours = identity(os.fstat(file.fileno()))
        if _identity_of(self._path) in (ours, None):  # None: between the renaming and the first row of the new file
            return
        names = older_files(self._path)
        at = next((n for n, older in enumerate(names) if _identity_of(older) == ours), len(names))
        self._open_newer(names[at:], None)

    def _go_to_end(self) -> None:
        """Leave out what is there; a line that has begun by now is from before."""
        _, file = self._open[0]
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 2))
        if end and not ends_a_line(file.read(2)):
            self._lines.skip_one()

    def _open_newer(self, older: list[Path], since: datetime | None) -> None:
        """Open the log and `older` files, newest first: a file that is renamed meanwhile is met twice, not missed."""
        met = {identity(os.fstat(file.fileno())) for _, file in self._open}
        at = len(self._open)
        missing = None
        for path in (self._path, *reversed(older)):
            try:
                file = _opened(path)
            except FileNotFoundError as error:
                missing = missing or error
                continue
            status = os.fstat(file.fileno())
            old = since is not None and path != self._path and status.st_mtime < since.timestamp() - _SLACK_S
            if old or identity(status) in met:
                file.close()
                continue
            met.add(identity(status))
            self._open.insert(at, (path.name, file))
        if not self._open and missing is not None:
            raise missing

    def _leave_first(self) -> None:
        self._open.popleft()[1].close()
        self._begin()

    def close(self) -> None:
        while self._open:
            self._leave_first()


def project_log() -> Path | None:
    """The log of the project that the working directory lies in, whether it is there or not; None: it lies in none.

    A project has a folder `infra/observability`; the nearest one counts. One above the working directory must have the
    same owner: another user's folder in /tmp gets none of our rows.
    """
    try:
        if DEFAULT_LOG.parent.is_dir():
            return DEFAULT_LOG
        here = Path.cwd()
        owner = here.stat().st_uid
        for above in here.parents:
            folder = above / DEFAULT_LOG.parent
            if folder.is_dir() and folder.stat().st_uid == owner:
                return above / DEFAULT_LOG
    except OSError:  # the working directory is gone, or a folder above it is not readable
        pass
    return None


def older_files(path: Path) -> list[Path]:
    """`FILE.5` … `FILE.1`, as far as they are there, oldest first; each may be packed, as `FILE.2.gz`."""
    found = []
    for other in path.parent.glob(f"{glob.escape(path.name)}.*"):
        number = other.name.removeprefix(f"{path.name}.").removesuffix(".gz")
        if number.isascii() and number.isdigit() and number[0] != "0":
            found.append((int(number), other))
    return [other for _, other in sorted(found, reverse=True)]


def _opened(path: Path) -> Opened:
    """The file, unpacked where it is packed."""
    file = path.open("rb")
    if file.read(len(_PACKED)) == _PACKED:
        file.close()
        return gzip.GzipFile(path)
    file.seek(0)
    return file


def identity(status: os.stat_result) -> tuple[int, int]:
    """What a file keeps when it is renamed."""
    return status.st_dev, status.st_ino


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        return identity(path.stat())
    except OSError:
        return None
