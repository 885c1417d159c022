"""Splits the bytes of a log into lines, each in UTF-8, whatever its encoding was.

A log has several writers: PowerShell's `>>` and `Tee-Object` append UTF-16 to what others write in UTF-8, and a crash
leaves a torn line, or a block of zero bytes. So every line is decoded on its own, and a broken line ends where the next
one can be recognized.
"""

import re
from collections.abc import Iterator

LINE_LIMIT = 8 * 2**20
"""Bytes; a longer line is not a log row but another file by mistake, and is not held in memory."""

_CUT = b" (cut)\n"
_ROW = re.compile(rb'\n?(?:\xef\xbb\xbf)?\{"[\w.$-]{1,60}" ?:')
"""The beginning of a row in UTF-8, after a torn line in UTF-16; by chance two signs of Chinese are `{"` too."""
_ROW_UTF16 = b'{\0"\0'
_ENDS_UTF8 = re.compile(rb'\n|\0\0|(?=\{\0"\0)')
_ZEROS = re.compile(rb"\0*")


class Lines:
    """Takes bytes as they come, gives whole lines with their `\\n`; of one beyond the limit only the beginning."""

    def __init__(self) -> None:
        self._rest = b""
        self._skip = False

    def skip_one(self) -> None:
        """Leave out what comes before the next line: its beginning was not read."""
        self._skip = True

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that are whole by now."""
        data, self._rest = self._rest + block, b""
        if b"\0" in data:
            lines = list(self._mixed(data, last=False))
        else:
            *whole, self._rest = data.split(b"\n")
            lines = [line + b"\n" for line in whole]
        lines = [line if len(line) <= LINE_LIMIT else line[:80] + _CUT for line in lines]
        if self._skip and lines:
            del lines[0]
            self._skip = False
        if len(self._rest) > LINE_LIMIT:
            if not self._skip:
                lines.append(self._rest[:80] + _CUT)
            self._rest, self._skip = b"", True
        return lines

    def end(self) -> list[bytes]:
        """The last line if it has no end; no more bytes will come."""
        data, self._rest = self._rest, b""
        if not data or self._skip:
            return []
        return list(self._mixed(data, last=True)) if b"\0" in data else [data]

    def _mixed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """Lines of a block in which there are zero bytes."""
        at = 0
        while at < len(data):
            if len(data) - at < 4 and not last and b"\n" not in data[at:]:
                break
            kind, begin = _kind(data, at)
            end, after = _end(data, kind, begin)
            if end is None and not last:
                break
            line = data[begin:end]
            at = len(data) if after is None else after
            if kind == "zeros":
                if len(line) > 1:  # one alone is the second half of a line's end
                    yield b"(%d zero bytes)\n" % len(line)
                continue
            if kind != "utf-8":
                line = line.decode(kind, "replace").encode("utf-8", "replace")
            yield line if end is None or line.endswith(b"\n") else line + b"\n"
        self._rest = data[at:]


def ends_a_line(tail: bytes) -> bool:
    """Whether the last bytes of a file are the end of a line."""
    return tail.endswith((b"\n", b"\n\0"))


def _kind(data: bytes, at: int) -> tuple[str, int]:
    """The encoding of the line at `at`, and where it begins, after a byte order mark."""
    head = data[at : at + 4]
    if head[:2] == b"\xff\xfe" and head[3:] == b"\0":
        return "utf-16-le", at + 2
    if head[:2] == b"\xfe\xff" and head[2:3] == b"\0":
        return "utf-16-be", at + 2
    if head[:1] == b"\0":
        big = len(head) == 4 and head[1] and not head[2] and head[3]
        return ("utf-16-be" if big else "zeros"), at
    return ("utf-16-le" if head[1:2] == b"\0" else "utf-8"), at


def _end(data: bytes, kind: str, begin: int) -> tuple[int | None, int | None]:
    """Where the line's text ends, its own end included, and where the next begins; None: it has no end yet."""
    if kind == "zeros":
        found = _ZEROS.match(data, begin)
        assert found is not None
        return found.end(), found.end()
    if kind == "utf-8":
        found = _ENDS_UTF8.search(data, begin)
        if found is None:
            return None, None
        return (found.end(), found.end()) if found[0] == b"\n" else (found.start(), found.start())
    return _end_of_utf16(data, kind, begin)


def _end_of_utf16(data: bytes, kind: str, begin: int) -> tuple[int | None, int | None]:
    newline = b"\n\0" if kind == "utf-16-le" else b"\0\n"
    own = data.find(newline, begin)
    while own >= 0 and (own - begin) % 2:
        own = data.find(newline, own + 1)
    until = len(data) if own < 0 else own
    if (found := _ROW.search(data, begin, until)) is not None:
        until = found.start()
    other = data.find(_ROW_UTF16, begin, until)
    while other >= 0 and (other - begin) % 2 == (kind == "utf-16-be"):  # a row within the row, in step with it
        other = data.find(_ROW_UTF16, other + 1, until)
    ends = [at for at in (found.start() if found else -1, other, data.find(b"\0\0\0", begin, until)) if at > begin]
    if not ends:
        return (None, None) if own < 0 else (own + 2, own + 2)
    end = min(ends)
    if data.startswith(b"\0\0\0", end):
        end += (end - begin) % 2  # the first of these zeros is half of the sign before it
    return end, end + data.startswith(b"\n", end)
