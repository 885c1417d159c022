"""Writes an application's own rows to the instrumentation log, which the probe in ComfyUI writes too.

The caller has work of its own: nothing is raised, nothing is waited for, and a failure is logged once through
`logging`. Only the standard library is loaded.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from comfyload.record.metrics.files import DEFAULT_LOG, VARIABLE

if sys.platform != "win32":
    import fcntl


TEXT_LIMIT = 2000
"""Characters of one text."""

ENTRIES_LIMIT, DEPTH_LIMIT = 100, 8
"""Of a list or a mapping, and of lists in lists: a tensor's values are not context."""

MAX_MB, MAX_AGE_H, KEEP = (64.0, 0.001, 1e6), (168.0, 0.001, 1e6), (5.0, 0.0, 1000.0)
"""When the log is rotated (MiB, hours) and how many older files are kept: the default, and the bounds of the variables.

The probe in ComfyUI has the same values, since any writer may rotate the log.
"""

_HEAD = 1 << 16
"""Bytes in which the first row is searched."""

_STALE_LOCK_S = 10.0
"""Where files cannot be locked, a lock of this age is one that a dead process left."""

_BEING_WRITTEN_S = 0.2

_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class StageTimer:
    """A part of an application's work under way; one row is written when it ends. For `with` and `async with`."""

    def __init__(
        self, event: str, prompt_id: str | None, log: str | os.PathLike[str] | None, context: dict[str, object]
    ) -> None:
        self._event, self._prompt_id, self._log, self._context = event, prompt_id, log, context
        self._began = time.perf_counter()

    def note(self, *, prompt_id: str | None = None, **context: object) -> None:
        """Add fields that become known during the work."""
        self._prompt_id = prompt_id if prompt_id is not None else self._prompt_id
        self._context |= context

    def __enter__(self) -> StageTimer:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        # A cancelled task and Ctrl-C are not errors of the work.
        status = "ok" if error is None else "error" if isinstance(error, Exception) else "interrupted"
        _write(
            self._log,
            event=self._event,
            status=status,
            error=error,
            duration_ms=round(1000 * (time.perf_counter() - self._began), 3),
            prompt_id=self._prompt_id,
            context=self._context,
        )

    async def __aenter__(self) -> StageTimer:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.__exit__(kind, error, at)


def stage(
    event: str, *, prompt_id: str | None = None, log: str | os.PathLike[str] | None = None, **context: object
) -> StageTimer:
    """Time a part of an application's work: `with stage("render", page=3) as s:` writes one row when the block ends.

    The row has the status `ok`, `error` if an exception passes through, or `interrupted` if the block was cancelled.
    `log`: the file; without it `$COMFYUI_METRICS_LOG`, else infra/observability/comfyui_metrics.ndjson where that
    folder is there.
    """
    return StageTimer(event, prompt_id, log, context)


def log_event(
    event: str,
    *,
    status: str = "ok",
    error: str | BaseException | None = None,
    duration_ms: float | None = None,
    prompt_id: str | None = None,
    log: str | os.PathLike[str] | None = None,
    **context: object,
) -> None:
    """Write one row at once. With an `error` the status is `error` unless another is given. `log`: as of `stage`."""
    status = "error" if error is not None and status == "ok" else status
    _write(log, event=event, status=status, error=error, duration_ms=duration_ms, prompt_id=prompt_id, context=context)


def _write(
    log: str | os.PathLike[str] | None,
    *,
    event: str,
    status: str,
    error: str | BaseException | None,
    duration_ms: float | None,
    prompt_id: str | None,
    context: dict[str, object],
) -> None:
    row: dict[str, object] = {"event": event, "status": status, "error": error}
    if isinstance(error, BaseException):
        row["error"] = None if status == "interrupted" else _text(error) or type(error).__name__
        row["exception"] = type(error).__name__
    now = datetime.now(UTC)
    row["duration_ms"] = duration_ms
    row["timestamp"] = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    row["context"] = context if prompt_id is None else {**context, "prompt_id": prompt_id}
    target = log or os.environ.get(VARIABLE, "").strip() or DEFAULT_LOG
    try:
        # Halves of pairs, which names of files can hold, become `\udce9`, which is their escape in JSON too.
        line = json.dumps(_plain(row), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        append(Path(target).expanduser(), line, now, make_folder=target is not DEFAULT_LOG)
    except (OSError, ValueError, RuntimeError) as failed:  # a path with a zero byte; a home that nobody has
        _warn_once(str(target), str(failed))


@lru_cache(maxsize=64)
def _warn_once(log: str, reason: str) -> None:
    hint = f"; ${VARIABLE} names the log" if log == str(DEFAULT_LOG) else ""
    logging.getLogger("comfyload").warning("rows for the instrumentation log %s are lost: %s%s", log, reason, hint)


# --- what is written


def _plain(value: object, depth: int = 0) -> object:
    """The value as JSON; any other object becomes its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and type(value) is int:
        return value if abs(value) < 1 << 63 else _text(value)  # readers in other languages have no longer ones
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, dict | list | tuple) and depth < DEPTH_LIMIT:
        entries = list(value.items() if isinstance(value, dict) else value)[:ENTRIES_LIMIT]
        if isinstance(value, dict):
            return {_text(key): _plain(entry, depth + 1) for key, entry in entries}
        return [_plain(entry, depth + 1) for entry in entries]
    return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises, the work goes on
        text = f"a {type(value).__name__} without a text"
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


# --- where it is written


def append(
    path: Path, row: bytes, now: datetime | None, *, make_folder: bool = False, locked_by_us: bool | None = None
) -> None:
    """Append the row, or several, in one write. The file is opened each time, so that it is always the current one.

    `now` None: the log is not rotated for its age. `locked_by_us`: whether we hold the log's lock, without which it is
    not rotated; None: the lock is tried.

    Raises:
        OSError: they are not written, or not whole.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, _APPEND, 0o644)
    try:
        if _is_full(descriptor, len(row), now) and _rotate(path, len(row), now, locked_by_us):
            os.close(descriptor)
            descriptor = -1
            descriptor = os.open(path, _APPEND, 0o644)
        if _is_torn(descriptor):
            row = b"\n" + row
        if (written := os.write(descriptor, row)) < len(row):
            os.write(descriptor, row[written:])  # a nearly full disk takes part of a row; this raises
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _is_full(descriptor: int, more: int, now: datetime | None) -> bool:
    """Whether the row would make the file too large, or its first row is too old."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return False
    if size + more > _setting(f"{VARIABLE}_MAX_MB", *MAX_MB) * 2**20:
        return True
    if now is None:
        return False
    first = _first_time(descriptor)
    return first is not None and now - first > timedelta(hours=_setting(f"{VARIABLE}_MAX_AGE_H", *MAX_AGE_H))


def _first_time(descriptor: int) -> datetime | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    line, end, _ = os.read(descriptor, _HEAD).partition(b"\n")
    try:
        time = datetime.fromisoformat(json.loads(line)["timestamp"]) if end else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC)


def _is_torn(descriptor: int) -> bool:
    """Whether the file ends within a line, which a crash or a full disk left: not one that is just being written."""
    status = os.fstat(descriptor)
    if status.st_size == 0 or time.time() - status.st_mtime < _BEING_WRITTEN_S:
        return False
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) not in (b"\n", b"")


def _rotate(path: Path, more: int, now: datetime | None, locked_by_us: bool | None) -> bool:
    """Rename the log and its older files by one, and delete the oldest; False: another process does it.

    Then the row goes to the file as it is, without a wait.
    """
    with locked(path) if locked_by_us is None else nullcontext(locked_by_us) as ours:
        if not ours:
            return False
        with os.fdopen(os.open(path, _APPEND, 0o644), "rb") as file:
            if not _is_full(file.fileno(), more, now):  # another has done it between our look and our lock
                return True
        keep = int(_setting(f"{VARIABLE}_KEEP", *KEEP))
        for number in range(keep, 0, -1):
            younger = Path(f"{path}.{number - 1}") if number > 1 else path
            with suppress(FileNotFoundError):
                younger.replace(f"{path}.{number}")
        if keep == 0:
            path.unlink(missing_ok=True)
        return True


@contextmanager
def locked(path: Path, *, within_s: float = 0.0) -> Iterator[bool]:
    """Whether `<log>.lock` could be had, at once or within so many seconds; it is given back at the end."""
    lock = Path(f"{path}.lock")
    until = time.monotonic() + within_s
    while (descriptor := _try_to_lock(lock)) is None and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
            if sys.platform == "win32":
                with suppress(OSError):
                    lock.unlink()


def _try_to_lock(lock: Path) -> int | None:
    """The open lock file; None: another process has it. On Windows, who creates the file has it."""
    if sys.platform == "win32":
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > _STALE_LOCK_S:
                lock.unlink()
        with suppress(OSError):
            return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        return None
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _setting(name: str, default: float, lowest: float, highest: float) -> float:
    """A number from the environment; an invalid one, or one out of bounds, counts as not given."""
    try:
        value = float(os.environ.get(name, ""))
    except ValueError:
        return default
    return value if lowest <= value <= highest else default
