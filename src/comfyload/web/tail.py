"""One growing journal, of which only what was appended is read. Its files are open only while they are read.

A place in a journal of several files is an offset in all of them, one after the other.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

from comfyload.record.journal import MOST_LINE_BYTES, open_plain, part, parts

BLOCK = 1 << 19
"""Bytes read at once."""


class Tail:
    """`offset`: up to where whole lines were handed out. `size`: of all files, when they were looked at last.

    `too_long`: lines that were passed over, as none of ours is so long, or as they have no end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = self.size = 0
        self.too_long = 0
        self.changed_at = 0.0
        """When it was written last, Unix seconds."""
        self._number, self._begin = 1, 0
        """Of the file that is read, and its place in the whole."""
        self._identity: tuple[int, int] | None = None
        self._skipping = False

    def look(self) -> bool:
        """Look at it. Whether it is another one than was read, or lost what was read: then begin anew."""
        try:
            found = self._file.stat()
        except (OSError, ValueError):
            self.size = self._begin
            return self.offset > 0
        identity, read = (found.st_dev, found.st_ino), self.offset - self._begin
        if read and (identity != self._identity or found.st_size < read):
            return True
        self.size, self.changed_at, self._identity = self._begin + found.st_size, found.st_mtime, identity
        number = self._number
        while (later := _status(part(self.path, number := number + 1))) is not None:
            self.size, self.changed_at = self.size + later.st_size, later.st_mtime
        return False

    @property
    def _file(self) -> Path:
        return part(self.path, self._number)

    @property
    def behind(self) -> bool:
        """Whether something was appended that has not been read; perhaps only a part of a line."""
        return self.size > self.offset

    def read(self) -> tuple[int, bytes]:
        """The next whole lines, with the last one's end, and where they begin; none if no whole line is there."""
        try:
            followed = _status(part(self.path, self._number + 1)) is not None  # then this file grows no more
            before = self.offset
            begin, block = self._read()
            while followed and self.offset == before and not self._skipping:
                self._go_on()
                followed = _status(part(self.path, self._number + 1)) is not None
                before = self.offset
                begin, block = self._read()
            return begin, block
        except OSError:
            return self.offset, b""

    def _go_on(self) -> None:
        """Go to the next file; a line that has no end is passed over."""
        end = self._begin + self._file.stat().st_size
        self.too_long += end > self.offset
        self._number, self._begin, self._identity = self._number + 1, end, None
        self.offset = end

    def _read(self) -> tuple[int, bytes]:
        begin, size = self.offset, BLOCK
        with open_plain(self._file) as file:
            file.seek(begin - self._begin)
            block = file.read(size)
            if self._skipping:
                return self.offset, self._skip(block)
            while b"\n" not in block and len(block) == size:
                if size > MOST_LINE_BYTES:
                    self.too_long += 1
                    self._skipping = True
                    return begin, self._skip(block)
                more = file.read(3 * size)
                block, size = block + more, 4 * size
        end = block.rfind(b"\n") + 1
        self.offset = begin + end
        return begin, block[:end]

    def _skip(self, block: bytes) -> bytes:
        """Pass over the rest of a line that is too long."""
        end = block.find(b"\n")
        self._skipping = end < 0
        self.offset += len(block) if end < 0 else end + 1
        return b""


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines of a journal that begin there, without their ends; empty where none is whole, none where it fails."""
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(open_plain(file)) for file in parts(path)]
            sizes = [os.fstat(file.fileno()).st_size for file in files]
            begins = [0, *accumulate(sizes[:-1])]
            for offset in offsets:
                place = bisect_right(begins, offset) - 1
                files[place].seek(offset - begins[place])
                line = files[place].readline(MOST_LINE_BYTES + 1)
                yield line[:-1] if line.endswith(b"\n") else b""
    except OSError:
        return
