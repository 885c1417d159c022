"""Decodes the files that people give: UTF-8 and UTF-16 are read; anything else is refused by name."""

import codecs
import zlib
from gzip import BadGzipFile, GzipFile
from io import BytesIO
from pathlib import Path
from typing import IO

from comfyload.errors import UsageError, file_errors

MOST_BYTES = 1 << 30
"""Of a file that a person means, a packed log unpacked; `/dev/zero` never ends."""
_BLOCK = 1 << 16

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GZIP = b"\x1f\x8b"
_NO_TEXT = (
    (_GZIP, "packed (gzip)", "unpack it first: gunzip FILE"),
    (b"BZh", "packed (bzip2)", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ", "packed (xz)", "unpack it first: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", "packed (zstd)", "unpack it first: unzstd FILE"),
    (b"PK\x03\x04", "a zip archive, as .xlsx and .ods are too", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "save it as CSV or plain text"),
    (b"\x89PNG", "a PNG picture", "give a text file; ComfyUI's 'Export (API)' writes one"),
    (b"\xff\xd8\xff", "a JPEG picture", "give a text file; ComfyUI's 'Export (API)' writes one"),
    (b"RIFF", "a picture or sound (RIFF)", "give a text file; ComfyUI's 'Export (API)' writes one"),
    (b"%PDF", "a PDF", "give a text file"),
)


def decode(content: bytes, source: str, error: type[UsageError] = UsageError) -> str:
    """The text of a file whose every letter counts: a graph, a table, a plan. A byte order mark is removed.

    UTF-8 and UTF-16 are read, each with a byte order mark or without one. `error` is the class of a refusal.

    Raises:
        UsageError: it is not text, or in another encoding, which cannot be detected for certain; the line is named.
    """
    mark, encoding = _encoding(content)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as failure:
        raise error(*_refusal(content, failure, source, encoding)) from None
    if "\0" in text:
        raise error(f"{source} is not a text file: it has NUL bytes in it", "save it as UTF-8")
    return text


def decode_log(content: bytes, source: str) -> str:
    """The text of a log: as `decode`, and packed with gzip, in Latin-1, with holes, or in several encodings by turns.

    What stands around a log's times may be in any encoding, as only the times are read.

    Raises:
        UsageError: it is packed in another way, or damaged.
    """
    if content.startswith(_GZIP):
        content = _unpacked(content, source)
    no_text = _no_text(content)
    if no_text is not None:
        raise UsageError(f"{source} is {no_text[0]}", no_text[1])
    mark, encoding = _encoding(content)
    if encoding == "utf-8" and b"\0" not in content:
        return _loose(content[len(mark) :])
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        text = ""
    if text and text.count("\n") == content.count(b"\n"):
        return text.replace("\0", "")
    # Lines in several encodings, as `>>` in a PowerShell makes them, with a mark of UTF-16 wherever one begins.
    return "\n".join(_loose(line.strip(b"\xff\xfe")) for line in content.split(b"\n"))


def read_bytes(path: Path, error: type[UsageError] = UsageError, hint: str = "give a file that can be read") -> bytes:
    """What is in a file that a user named.

    Raises:
        UsageError: it cannot be read, or does not end within `MOST_BYTES`; of the class `error`.
    """
    try:
        with file_errors(f"cannot read {path}", hint, error), path.open("rb") as file:
            content = read_within(file, MOST_BYTES)
    except ValueError as failure:  # a name with NUL in it
        raise error(f"cannot read {str(path)!r}: {failure}", hint) from None
    if content is None:
        raise error(f"{path} is larger than {MOST_BYTES >> 20} MiB", hint)
    return content


def read_within(file: IO[bytes] | GzipFile, most: int) -> bytes | None:
    """The rest of a file; None if it is longer than `most` bytes. Takes no more memory than there is to read."""
    blocks, size = [], 0
    while size <= most and (block := file.read(_BLOCK)):
        blocks.append(block)
        size += len(block)
    return b"".join(blocks) if size <= most else None


def read_text(file: str | Path) -> str:
    """The text of a file that a user named, as `decode` reads it.

    Raises:
        UsageError: it cannot be read, or is not text in UTF-8 or UTF-16.
    """
    return decode(read_bytes(Path(file)), str(file))


def _encoding(content: bytes) -> tuple[bytes, str]:
    """The byte order mark that it begins with, or nothing, and the encoding to try."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return mark, encoding
    return b"", _unmarked(content)


def _unmarked(content: bytes) -> str:
    """UTF-16 without a mark is known by ASCII's NULs, which are at every other byte and nowhere else."""
    if b"\0" not in content:
        return "utf-8"
    first, second = content[::2].count(0), content[1::2].count(0)
    least = len(content) // 8  # one letter in four is ASCII; JSON, TOML, CSV and logs have more
    if second > least and first * 50 <= second:
        return "utf-16-le"
    return "utf-16-be" if first > least and second * 50 <= first else "utf-8"


def _refusal(content: bytes, failure: UnicodeDecodeError, source: str, encoding: str) -> tuple[str, str]:
    """Why a file cannot be decoded, and what to do."""
    no_text = _no_text(content)
    if no_text is not None:
        return f"{source} is {no_text[0]}, not a text file", no_text[1]
    if encoding != "utf-8":
        return f"{source} begins as {encoding.upper()} and cannot be read as such", "save it as UTF-8"
    if b"\0" in content:
        return f"{source} is not a text file: it has NUL bytes in it", "save it as UTF-8"
    byte = failure.object[failure.start : failure.start + 1]
    line = failure.object.count(b"\n", 0, failure.start) + 1
    letter = byte.decode("cp1252", "replace")
    meant = f", which in Windows-1252 is {letter!r}" if letter.isprintable() and letter != "\ufffd" else ""
    return f"{source}, line {line} is not UTF-8: it has the byte 0x{byte[0]:02X}{meant}", "save it as UTF-8"


def _no_text(content: bytes) -> tuple[str, str] | None:
    """The kind of a file by its first bytes, and what to do; None: it may be text."""
    found = next(((kind, hint) for magic, kind, hint in _NO_TEXT if content.startswith(magic)), None)
    if found is None:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return found
    return None


def _loose(content: bytes) -> str:
    """UTF-8, or else Latin-1, in which every byte is a letter. A hole, left by copytruncate, is NULs."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\0", "")


def _unpacked(content: bytes, source: str) -> bytes:
    """All members of a gzip file."""
    try:
        with GzipFile(fileobj=BytesIO(content)) as file:
            unpacked = read_within(file, MOST_BYTES)
    except EOFError:
        raise UsageError(f"{source} is a gzip file that is cut short", "copy it again") from None
    except (BadGzipFile, zlib.error):
        raise UsageError(f"{source} is a gzip file that is damaged", "copy it again") from None
    if unpacked is None:
        raise UsageError(f"{source} holds more than {MOST_BYTES >> 30} GiB", "cut out the hours that you mean")
    return unpacked
