"""Reads lines as others append them to a file, through rotation and truncation."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from comfyload.record.metrics.lines import Lines, ends_a_line
from comfyload.telemetry.source import NoReading

BLOCK = 1 << 16
"""Bytes read at once: some hundred rows, which the event loop then writes down without a pause."""

ROTATIONS = 20
GONE = 3
"""Failed attempts before the file counts as gone: after a rotation the next row creates it again."""


class LineReader:
    """Whole lines, in the order in which they were written, from the end that the file had at the start.

    A file that takes its place is read from its beginning, after all of the old one. Blocks: for a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._waiting: list[FileIO] = []
        self._lines = Lines()
        self._gone = 0

    def start(self, back: int = 0) -> None:
        """Go to the end, or so many bytes before it; a line that has begun by there is from before."""
        self._file = _open(self._path)
        if self._file is not None:
            begin = max(0, self._file.seek(0, os.SEEK_END) - back)
            self._file.seek(max(0, begin - 2))
            if begin and not ends_a_line(self._file.read(min(2, begin))):
                self._lines.skip_one()

    def lines(self, *, last: bool = False) -> tuple[list[bytes], bool]:
        """The next lines, up to a block of them, and whether there may be more at once.

        `last`: no time is left for a writer that has not noticed a rotation yet; otherwise the old file is left only
        at the call after the one that saw it.

        Raises:
            NoReading: the file does not exist now.
        """
        if self._file is None:
            self._file = _open(self._path)
            if self._file is None:
                raise NoReading("the file does not exist")
        block = self._read()
        if block:
            return [line.removesuffix(b"\n") for line in self._lines.feed(block)], True
        noticed = bool(self._waiting)
        if not noticed and self._is_replaced():
            self._waiting = self._since()  # held open from now on, however often it is rotated meanwhile
        if self._waiting and (noticed or last):
            self._change()
            return [], True
        self._gone = 0 if self._path.exists() else self._gone + 1
        if self._gone >= GONE:
            raise NoReading("the file is gone")
        return [], False

    def close(self) -> None:
        for file in (self._file, *self._waiting):
            if file is not None:
                file.close()
        self._file, self._waiting = None, []

    def _read(self) -> bytes:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # it was cut: written anew from its start
            self._file.seek(0)
            self._lines = Lines()
        return self._file.read(BLOCK)

    def _is_replaced(self) -> bool:
        """Whether another file has the name now."""
        assert self._file is not None
        try:
            now = self._path.stat()
        except OSError:
            return False
        held = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino)

    def _change(self) -> None:
        """Go over to the file that came after."""
        assert self._file is not None
        self._file.close()
        self._file = self._waiting.pop(0)
        self._lines = Lines()

    def _since(self) -> list[FileIO]:
        """The files that came after ours, oldest first: `.1` and so on are rotated ones, ours among them if it is."""
        assert self._file is not None
        held = os.fstat(self._file.fileno())
        between: list[Path] = []
        for number in range(1, ROTATIONS):
            path = self._path.with_name(f"{self._path.name}.{number}")
            try:
                found = path.stat()
            except OSError:
                between = []
                break
            if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                break
            between.append(path)
        else:
            between = []
        return [file for path in (*reversed(between), self._path) if (file := _open(path)) is not None]


def _open(path: Path) -> FileIO | None:
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None
