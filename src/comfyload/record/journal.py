"""Reads the files of a run directory, whatever happened to them: plain files only, within bounds.

A journal is one file, or several that follow each other: `records.ndjson`, `records.2.ndjson` and so on, of which all
but the last are full. It is read line by line. A torn last line, which a crash leaves, is ignored; any other unreadable
line is damage, which raises an error, or is counted where the rest is salvaged.
"""

import errno
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.codec import UNREADABLE, decode
from comfyload.text_files import read_within

T = TypeVar("T")

RECORDS = "records.ndjson"

MOST_LINE_BYTES = 64 << 20
"""None of our lines is longer, since a server's replies, of which records are made, are bounded too."""
_BLOCK = 1 << 15
"""Bytes read at once: decoding a block of lines in one call costs half of decoding them one by one. Larger blocks cost
more again, since the garbage collector looks through all that is decoded and not used yet."""
_TOO_LONG = f"it is longer than {MOST_LINE_BYTES >> 20} MiB"
_NO_END = "it has no end, and another file follows"
_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<number>[2-9]|[1-9][0-9]{1,3})(?P<suffix>\.ndjson)")


class Damage(Struct):
    """The unreadable lines of a journal: how many, the number of the first, and what is wrong with it.

    No lines: the file itself cannot be read.
    """

    lines: int = 0
    first: int = 0
    why: str = ""

    def add(self, number: int, why: str) -> None:
        if not self.lines:
            self.first, self.why = number, why
        self.lines += 1


def open_plain(path: Path) -> BinaryIO:
    """The file, opened for reading. A FIFO or a device, which might never end, is refused.

    Raises:
        OSError: it cannot be opened, or is not a plain file.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name with NUL in it, or a lone surrogate
        raise OSError(errno.EINVAL, str(error), None) from None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a directory" if stat.S_ISDIR(mode) else "it is not a plain file", str(path))
    return path.open("rb")


def read_whole(path: Path, most: int) -> bytes:
    """The contents of a plain file.

    Raises:
        OSError: it cannot be read, is not a plain file, or holds more than `most` bytes.
    """
    with open_plain(path) as file:
        content = read_within(file, most)
    if content is None:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return content


def part(path: Path, number: int) -> Path:
    """The file of that number, from 1, of the journal at `path`."""
    return path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def journal_of(name: str) -> str:
    """The name of the journal to which a file of that name belongs; its own name if it is no later part."""
    found = _NUMBERED.fullmatch(name)
    return name if found is None else found["stem"] + found["suffix"]


def parts(path: Path) -> list[Path]:
    """The files of a journal, in order, up to the last that is there; of those before it one may be missing."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return [path]
    numbers = [int(found["number"]) for name in names if (found := _part_of(name, path.name)) is not None]
    return [part(path, number) for number in range(1, max(numbers, default=1) + 1)]


def _part_of(name: str, journal: str) -> re.Match[str] | None:
    """The parts of the name, if it is that of a later file of the journal."""
    found = _NUMBERED.fullmatch(name)
    return found if found is not None and found["stem"] + found["suffix"] == journal else None


def read_journal(
    path: Path, decoder: msgspec.json.Decoder[T], salvage: Damage | None = None, *, last: bool = True
) -> Iterator[Iterable[T]]:
    """The values of the whole lines of one file of a journal, several at once. With `salvage` damage is skipped, and
    added to it. `last`: no other file follows.

    Raises:
        RunFilesError: it cannot be read, or a line is damaged; the line is named.
    """
    before = 0
    try:
        with open_plain(path) as file:
            for whole in _blocks(file, last=last):
                if isinstance(whole, str):
                    before += 1
                    _damaged(path, before, whole, salvage)
                    continue
                count = len(whole) - len(whole.replace(b"\n", b"")) + 1  # a fifth of what `count` takes
                try:
                    values = decoder.decode_lines(whole)
                except UNREADABLE:
                    values = []
                as_many = len(values) == count
                yield values if as_many else _decode_each(path, whole, before, decoder, salvage)
                before += count
    except OSError as error:
        if salvage is None:
            raise RunFilesError(f"cannot read {path}: {error.strerror or error}", _rest(path)) from None
        salvage.why = salvage.why or f"{error.strerror or error}"


def _blocks(file: BinaryIO, *, last: bool) -> Iterator[bytes | str]:
    """Whole lines, several at once, without the last line's end; for one that cannot be read, why."""
    pieces: list[bytes] = []
    size, too_long = 0, False
    while block := file.read(_BLOCK):
        if too_long:
            _, newline, block = block.partition(b"\n")
            if not newline:
                continue
            too_long = False
        head, newline, rest = block.rpartition(b"\n")
        if newline:
            yield b"".join([*pieces, head])
            pieces, size = [], 0
        pieces.append(rest)
        size += len(rest)
        if size > MOST_LINE_BYTES:
            yield _TOO_LONG
            pieces, size, too_long = [], 0, True
    if size and not last:
        yield _NO_END


def _decode_each(
    path: Path, whole: bytes, before: int, decoder: msgspec.json.Decoder[T], salvage: Damage | None
) -> Iterator[T]:
    """The values line by line, which can name the damaged one: `before` lines went in earlier blocks."""
    for number, line in enumerate(whole.split(b"\n"), before + 1):
        try:
            value = decode(line, decoder)
        except msgspec.MsgspecError as error:
            _damaged(path, number, str(error), salvage)
        else:
            yield value


def _damaged(path: Path, number: int, why: str, salvage: Damage | None) -> None:
    if salvage is None:
        raise RunFilesError(f"{path}, line {number} is damaged: {why}", _rest(path)) from None
    salvage.add(number, why)


def _rest(path: Path) -> str:
    return f"comfyload show --salvage {path.parent} reads the rest"
