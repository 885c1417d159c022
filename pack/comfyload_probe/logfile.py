"""The log file: one write a row, rotation shared with its other writers, and what to do when the disk refuses."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LogFile"]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LOCK_PATIENCE_S = 1.0
STALE_LOCK_S = 10.0
_fcntl: Any = None if os.name == "nt" else import_module("fcntl")
_FIRST_LINE = 64 * 1024


class LogFile:
    """A file that rows are appended to, from one thread. Nothing here raises an OSError."""

    def __init__(
        self, path: Path, *, max_bytes: int, max_age_s: float, keep: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Nothing is opened before the first row.

        Args:
            clock: monotonic; it times how long a file that refuses is left alone.
        """
        self.path = path
        self.unwritten = 0
        """Rows that are not in the file."""
        self.size: int | None = None
        """Bytes, as last seen."""
        self._max_bytes, self._max_age_s, self._keep = max_bytes, max_age_s, keep
        self._clock = clock
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._begun_s: float | None = None
        self._torn = False
        self._pause_s = 0.0
        self._again_at = 0.0
        self._lost_now = 0
        self._not_rotated_until = 0.0
        self._told_of_rotation = False
        self._news: list[tuple[str, str]] = []

    def write(self, line: bytes, unix_s: float) -> bool:
        """Append the line, at `unix_s` of the wall clock; False if it is not in the file."""
        if self._pause_s and self._clock() < self._again_at:
            return self._lose()
        try:
            self._ready(len(line), unix_s)
            self._append(line)
        except OSError as error:
            self._fails(error)
            return self._lose()
        if self._pause_s:
            self._news.append(
                ("warning", f"the log {self.path.name} can be written again; {self._lost_now} rows are not in it")
            )
            self._pause_s, self._lost_now = 0.0, 0
        return True

    def news(self) -> tuple[str, str] | None:
        """Level and text of something that the log's reader should know, once each."""
        return self._news.pop(0) if self._news else None

    def close(self) -> None:
        """Give the descriptor back; the next row opens it again."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = self._identity = self._begun_s = None

    def _lose(self) -> bool:
        self.unwritten += 1
        self._lost_now += 1
        return False

    def _fails(self, error: OSError) -> None:
        self.close()
        if not self._pause_s:
            why = error.strerror or type(error).__name__
            self._news.append(
                ("error", f"the log {self.path.name} cannot be written: {why}; rows go to memory alone, tried again")
            )
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._again_at = self._clock() + self._pause_s

    def _ready(self, needed: int, unix_s: float) -> None:
        """Have the right file open: the one that bears the name now, with room for so many bytes."""
        size = self._look()
        full = size > 0 and size + needed > self._max_bytes
        old = self._begun_s is not None and unix_s - self._begun_s > self._max_age_s
        if (full or old) and self._clock() >= self._not_rotated_until:
            self._rotate(needed, unix_s)
            self._look()
        if self._begun_s is None:
            self._begun_s = unix_s

    def _look(self) -> int:
        """Open the file if another bears the name than the one that is open; its size in bytes."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            status = None
        if self._descriptor is None or status is None or (status.st_dev, status.st_ino) != self._identity:
            self.close()
            status = self._open()
        self.size = status.st_size
        return status.st_size

    def _open(self) -> os.stat_result:
        with suppress(FileExistsError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_dev, status.st_ino)
        self._begun_s = _first_row_s(self._descriptor) if status.st_size else None
        self._torn = status.st_size > 0 and not _ends_line(self._descriptor, status.st_size)
        return status

    def _append(self, line: bytes) -> None:
        assert self._descriptor is not None
        whole = b"\n" + line if self._torn else line
        written = os.write(self._descriptor, whole)
        if written < len(
            whole
        ):  # a disk that filled up in the middle of a row: the next one begins on a line of its own
            self._torn = True
            raise OSError(28, "only a part of a row could be written")
        self._torn = False
        self.size = (self.size or 0) + written

    def _rotate(self, needed: int, unix_s: float) -> None:
        try:
            with _locked(self.path.with_name(f"{self.path.name}.lock")):
                # Another process may have rotated while we waited: what counts is the file that bears the name now.
                size = self._look()
                old = self._begun_s is not None and unix_s - self._begun_s > self._max_age_s
                if size > 0 and (size + needed > self._max_bytes or old):
                    self.close()
                    self._move()
                    self._told_of_rotation = False
        except OSError as error:
            self._not_rotated_until = self._clock() + LONGEST_PAUSE_S
            if not self._told_of_rotation:
                self._told_of_rotation = True
                why = error.strerror or error
                self._news.append(("warning", f"the log {self.path.name} cannot be rotated: {why}; it grows on"))

    def _move(self) -> None:
        if self._keep == 0:
            self.path.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._older(number).replace(self._older(number + 1))
        self.path.replace(self._older(1))

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _first_row_s(descriptor: int) -> float | None:
    """When the file's first row happened, in seconds of the wall clock; None if it does not say."""
    try:
        first = os.pread(descriptor, _FIRST_LINE, 0).split(b"\n", 1)[0]
        said = json.loads(first)["timestamp"]
        return datetime.fromisoformat(said.replace("Z", "+00:00")).timestamp()  # noqa: FURB162 - Python 3.10 knows no Z
    except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError):
        return None


def _ends_line(descriptor: int, size: int) -> bool:
    return not hasattr(os, "pread") or os.pread(descriptor, 1, size - 1) == b"\n"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of the log's writers.

    Raises:
        TimeoutError: somebody else holds it for longer than a second.
    """
    until = time.perf_counter() + LOCK_PATIENCE_S
    while (descriptor := _try_to_lock(path)) is None:
        if time.perf_counter() >= until:
            raise TimeoutError(11, "another writer holds its lock")
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(descriptor)
        if _fcntl is None:
            path.unlink(missing_ok=True)


def _try_to_lock(path: Path) -> int | None:
    """The lock file's descriptor; None while another writer holds it. Without fcntl, who creates the file holds it."""
    if _fcntl is None:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_LOCK_S:  # its holder died
                    path.unlink()
            return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
