"""Writes a file that a user names: a plain file as a whole; a device, a pipe or an open descriptor directly."""

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from comfyload.errors import UsageError, file_errors

HINT = "name a file in a folder you can write"
_BLOCK = 4096
_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/self/fd)/(\d+)")
_NAMED = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


@contextmanager
def written_aside(path: Path, hint: str = HINT) -> Iterator[Path]:
    """A temporary file that replaces `path` as a whole when the block ends without an error, and is removed otherwise.

    A link is followed, and stays. A device, a pipe, an open descriptor (`/dev/fd/63`) and `-`, which is standard
    output, are written to, not replaced.

    Raises:
        UsageError: it cannot be written there.
        BrokenPipeError: the reader of the pipe has gone.
    """
    target = Path(os.path.realpath(path))
    plain = _descriptor(path) is None and _is_plain(target)
    beside = plain and target.parent.is_dir() and os.access(target.parent, os.W_OK | os.X_OK)
    folder = target.parent if beside else Path(tempfile.gettempdir())
    aside = folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield aside
        if plain and aside.parent == target.parent:
            _put(aside, target)
        else:
            _pour(aside, path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", hint) from None
    finally:
        with suppress(OSError):  # it is gone if all went well, and never was if the folder is missing
            aside.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that a user names, as `written_aside` does."""
    with written_aside(path) as aside:
        aside.write_bytes(content)


def replace_file(path: Path, content: bytes) -> None:
    """Write one of our files so that a reader sees the old content or the new, never a part.

    Raises:
        OSError: it cannot be written there.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        _sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_target(flag: str, path: Path) -> None:
    """Check before the work, not after it, that `path` can be written; the folder is made.

    Raises:
        UsageError: it cannot.
    """
    if _descriptor(path) is not None:
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{flag} {path} is a directory", "name a file")
    if target.is_socket():
        raise UsageError(f"{flag} {path} is a socket", HINT)
    with file_errors(f"{flag} {path}", HINT, UsageError):
        if not _is_plain(target) or target.exists():
            if not os.access(target, os.W_OK):
                raise PermissionError(0, "permission denied")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _probe(target.parent)


def check_folder(flag: str, folder: Path) -> None:
    """Check that files can be written to a folder, which need not exist yet.

    Raises:
        UsageError: they cannot.
    """
    there = Path(os.path.realpath(folder))
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        _probe(there)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{flag} {folder}: nothing can be written in {there} ({why})", "name a folder you can write"
        ) from None


def is_stdout(path: Path | None) -> bool:
    """Whether what is written there goes to standard output."""
    return path is not None and _descriptor(path) == 1


def _descriptor(path: Path) -> int | None:
    """The open file that the path names: opening it again would start from its beginning."""
    text = str(path)
    found = _DESCRIPTOR.fullmatch(text)
    return int(found[1]) if found is not None else _NAMED.get(text)


def _is_plain(target: Path) -> bool:
    """Whether it is a plain file, or nothing yet."""
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except OSError:
        return True


def _probe(folder: Path) -> None:
    """Write a file and remove it, which is surer than permissions. It is not empty, since that fits on a full disk."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(_BLOCK))


def _put(aside: Path, target: Path) -> None:
    """Replace the file, its permissions kept; a file that is a mount point is written in place."""
    _sync(aside)
    with suppress(OSError):
        aside.chmod(stat.S_IMODE(target.stat().st_mode))
    try:
        aside.replace(target)
    except OSError:
        if not target.exists():
            raise
        _pour(aside, target)


def _sync(file: Path) -> None:
    """Without this, a power cut after the renaming may leave an empty file."""
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def _pour(aside: Path, path: Path) -> None:
    with aside.open("rb") as source, _opened(path) as sink:
        shutil.copyfileobj(source, sink)
        sink.flush()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    number = _descriptor(path)
    if number == 1:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as file:
        yield file
