"""One growing file, of which only what was appended is read. It is open only while it is read, and never written."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from comfyload.record.journal import MOST_LINE_BYTES, open_plain

BLOCK = 1 << 19
"""Bytes read at once."""


class Tail:
    """`offset`: up to where whole lines were handed out. `size`: of the file, when it was looked at last.

    `too_long`: lines that were passed over, as none of ours is so long.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = self.size = 0
        self.too_long = 0
        self.changed_at = 0.0
        """When the file was written last, Unix seconds."""
        self._identity: tuple[int, int] | None = None
        self._skipping = False

    def look(self) -> bool:
        """Look at the file. Whether it is another one than was read, or lost what was read: then begin anew."""
        try:
            found = self.path.stat()
        except (OSError, ValueError):
            self.size = 0
            return self.offset > 0
        identity = found.st_dev, found.st_ino
        if self.offset and (identity != self._identity or found.st_size < self.offset):
            return True
        self.size, self.changed_at, self._identity = found.st_size, found.st_mtime, identity
        return False

    @property
    def behind(self) -> bool:
        """Whether something was appended that has not been read; perhaps only a part of a line."""
        return self.size > self.offset

    def read(self) -> tuple[int, bytes]:
        """The next whole lines, with the last one's end, and where they begin; none if no whole line is there."""
        try:
            return self._read()
        except OSError:
            return self.offset, b""

    def _read(self) -> tuple[int, bytes]:
        begin, size = self.offset, BLOCK
        with open_plain(self.path) as file:
            file.seek(begin)
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


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines of a file that begin there, without their ends; empty where none is whole, no more where it fails."""
    try:
        with open_plain(path) as file:
            for offset in offsets:
                file.seek(offset)
                line = file.readline(MOST_LINE_BYTES + 1)
                yield line[:-1] if line.endswith(b"\n") else b""
    except OSError:
        return
