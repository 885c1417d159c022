"""One process at a time in a run directory: a lock of the operating system, which ends with its holder."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.codec import encode

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK))
_BYTE = 1 << 30
"""The byte that is locked on Windows, where a locked byte cannot be read: far behind the file's text."""
_TRIES = 100
_LOOK_S = 0.02
"""How long a process that only looks whether the directory is in use (`is_taken`) may hold its lock, at most."""


class Holder(Struct):
    """Who is at work in a directory, as it signed."""

    pid: int
    host: str
    since: str


@contextmanager
def alone_in(path: Path) -> Iterator[str | None]:
    """Lock the directory, which is made if missing, for this process. Yields None, or why it cannot be locked.

    The lock file is removed at the end. If the process dies, the lock ends, whether the file is left or not.

    Raises:
        RunFilesError: another process is at work in it.
    """
    file = path / LOCK
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = _taken(file)
    except OSError as error:
        yield f"{path} cannot be locked ({(error.strerror or str(error)).lower()}): do not use it from a second process"
        return
    try:
        yield None
    finally:
        if sys.platform == "win32":  # an open file cannot be removed
            os.close(descriptor)
        with suppress(OSError):
            file.unlink()
        if sys.platform != "win32":
            os.close(descriptor)


def is_taken(path: Path) -> bool:
    """Whether a process is at work in the directory."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        _lock(descriptor)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(descriptor)
    return False


def held_by(path: Path) -> Holder | None:
    """Who is at work in the directory; None: nobody, or one who did not sign."""
    try:
        return msgspec.json.decode((path / LOCK).read_bytes(), type=Holder) if is_taken(path) else None
    except (OSError, msgspec.MsgspecError):
        return None


def _taken(file: Path) -> int:
    """The locked file. If its last holder removed it between our opening and our locking, try again."""
    refused = False
    for _ in range(_TRIES):
        descriptor = _opened(file)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _TAKEN:
                raise
            if refused:
                raise _in_use(file) from None
            refused = True
            time.sleep(_LOOK_S)
            continue
        if _is(descriptor, file):
            with suppress(OSError):  # a full disk: the lock holds, only its holder has no name
                _sign(descriptor)
            return descriptor
        os.close(descriptor)
    raise _in_use(file)


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:  # of another user: it can be locked all the same
        return os.open(file, os.O_RDONLY)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, encode(Holder(os.getpid(), socket.gethostname(), since)) + b"\n")


def _in_use(file: Path) -> RunFilesError:
    try:
        holder = msgspec.json.decode(file.read_bytes(), type=Holder)
        who = f"process {holder.pid} on {holder.host} has been at work in it since {holder.since}"
    except (OSError, msgspec.MsgspecError):
        who = "another process is at work in it"
    return RunFilesError(f"{file.parent} is in use: {who}", "wait until it has ended, or end it")
