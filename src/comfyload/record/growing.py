"""A journal while it is written: whole lines are appended, and a file that is full is followed by the next.

No file is renamed or written again, so that whoever reads one meanwhile needs no other one to understand it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from comfyload.record.journal import part, parts

PART_BYTES = 256 << 20
"""What a file of a journal holds, about: some 200,000 jobs."""
_LATER = 16
"""If no next file can be begun, the present one grows by one part in so many before it is tried again."""
_BLOCK = 1 << 16


class GrowingJournal:
    """`most`: bytes of a file, about. `before_second`: called before a second file is begun; may raise OSError."""

    def __init__(self, path: Path, most: float, before_second: Callable[[], None]) -> None:
        """Go on with the last file of the journal at `path`, or begin the first.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._before_second = before_second
        self._number = max(1, len(parts(path)))
        self._before: list[Path] = []
        """Files that we wrote before the present one."""
        self._descriptor = _open_append(part(path, self._number))
        self._size = os.fstat(self._descriptor).st_size
        self._most = self._limit = most

    def append(self, line: bytearray) -> None:
        """Hand a whole line to the kernel, or nothing of it.

        Raises:
            OSError: the disk does not take it.
        """
        if self._size and self._size + len(line) > self._most:
            self._follow()
        _write_whole(self._descriptor, line)
        self._size += len(line)

    def close(self) -> OSError | None:
        """Flush all that was written to the disk, and close; what the disk did not take.

        Only now, as that may take seconds, for which no job must wait.
        """
        earlier = [_flush(partial(_open_append, path)) for path in self._before]
        failed = [*earlier, _flush(lambda: self._descriptor)]
        return next((error for error in failed if error is not None), None)

    def _follow(self) -> None:
        """Begin the next file. Where that fails, as without a descriptor, a line counts for more than a file's size."""
        try:
            if self._number == 1:
                self._before_second()
            descriptor = _open_append(part(self._path, self._number + 1))
        except OSError:
            self._most = self._size + self._limit / _LATER
            return
        os.close(self._descriptor)
        self._descriptor, self._size, self._most = descriptor, 0, self._limit
        self._before.append(part(self._path, self._number))
        self._number += 1


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last whole line of a journal.

    Raises:
        OSError: it cannot be read or written.
    """
    with parts(path)[-1].open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        file.truncate(end)


def _write_whole(descriptor: int, line: bytearray) -> None:
    """Write the whole line, or nothing of it: a part would spoil the next line once there is room again."""
    written = 0
    try:
        while written < len(line):  # a nearly full disk takes part of a line; the next attempt raises
            written += os.write(descriptor, line[written:] if written else line)
    except OSError:
        if written:
            with suppress(OSError):
                os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_END) - written)
        raise


def _flush(opened: Callable[[], int]) -> OSError | None:
    """Flush a file to the disk and close it."""
    try:
        descriptor = opened()
    except OSError as error:
        return error
    try:
        os.fsync(descriptor)
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    return None


def _open_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
