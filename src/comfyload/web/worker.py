"""One process that computes for all tabs, so that none of them holds the server up; the last answers are kept."""

import asyncio
import hashlib
import multiprocessing
import os
import secrets
import signal
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from msgspec import Struct

from comfyload.errors import ComfyloadError, OwnFault, RunFilesError
from comfyload.record.codec import encode

KEPT = 32
"""Answers that are kept."""
MOST_WAITING = 64
"""Computations that are under way or wait; one more is refused."""
LARGEST_KEPT = 4 << 20
"""Bytes of an answer that is kept."""
JSON = "application/json; charset=utf-8"
_NICE = 5
"""A run that is measured on this machine comes first."""


class Answer(Struct, frozen=True, kw_only=True):
    """What goes out over HTTP. `took_s`: how long it was computed."""

    status: int = 200
    kind: str = JSON
    body: bytes = b""
    took_s: float = 0.0


class NotThere(RunFilesError):
    """There is no such run or baseline."""


class Busy(Exception):
    """Too many computations wait."""


Compute = str
"""A function that returns an Answer, such as `comfyload.web.run_views:run_answer`. It is named, since only the other
process has what its module imports: to load that takes a second.
"""
Key = tuple[str, tuple[Any, ...]]


def as_json(value: object, status: int = 200) -> Answer:
    """An answer of JSON types."""
    return Answer(status=status, body=encode(value))


def refusal(status: int, error: str, hint: str = "", **more: Any) -> Answer:
    """An answer that says what is wrong, and what to do."""
    return as_json({"error": error, "hint": hint, **more}, status)


class Worker:
    """Computes one thing after the other, each once however many ask for it.

    Whoever asks may leave: the computation goes on, and the next one who asks has it. A process that has died is
    replaced. `folder`: for files that it makes.
    """

    def __init__(self) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="comfyload-")
        self.folder = Path(self._files.name)
        self._pool: ProcessPoolExecutor | None = None
        self._pid: int | None = None
        self._turn = asyncio.Lock()
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._under_way: dict[Key, asyncio.Task[Answer]] = {}
        self._salt = secrets.token_hex(8)

    def tag(self, compute: Compute, *arguments: Any) -> str:
        """An ETag of the answer: another one for other arguments, and after a restart."""
        return hashlib.sha256(f"{self._salt} {_key(compute, arguments)}".encode("utf-8", "surrogatepass")).hexdigest()[
            :32
        ]

    async def answer(self, compute: Compute, *arguments: Any, keep: bool = True) -> Answer:
        """What the function returns for these arguments. They hold the state of the files that it reads, so that an
        answer that is kept is never an old one.

        Raises:
            Busy: too many computations wait.
        """
        key = _key(compute, arguments)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MOST_WAITING:
                raise Busy
            task = asyncio.create_task(self._in_turn(compute, arguments))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done, keep))
        return await asyncio.shield(task)

    async def start(self) -> None:
        """Load what the computations need, so that the first one does not wait for it."""
        async with self._turn:
            with suppress(BrokenProcessPool):  # the first computation begins another one
                await asyncio.get_running_loop().run_in_executor(await self._begin(), _load)

    def close(self) -> None:
        """End the process, whatever it computes."""
        for task in self._under_way.values():
            task.cancel()
        self._drop_pool()
        self._files.cleanup()

    def _ended(self, key: Key, task: asyncio.Task[Answer], keep: bool) -> None:
        del self._under_way[key]
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result()
        if keep and answer.status < 500 and len(answer.body) <= LARGEST_KEPT:
            self._kept[key] = answer
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    async def _in_turn(self, compute: Compute, arguments: tuple[Any, ...]) -> Answer:
        async with self._turn:
            for _ in range(2):
                try:
                    return await self._once(compute, arguments)
                except BrokenProcessPool:
                    self._drop_pool()
        return refusal(500, "the process that computes it has died twice", "is there enough memory for it?")

    async def _once(self, compute: Compute, arguments: tuple[Any, ...]) -> Answer:
        pool = await self._begin()
        return await asyncio.get_running_loop().run_in_executor(pool, computed, compute, arguments)

    async def _begin(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_prepare)
        if self._pid is None:
            self._pid = await asyncio.get_running_loop().run_in_executor(self._pool, os.getpid)
        return self._pool

    def _drop_pool(self) -> None:
        pool, pid, self._pool, self._pid = self._pool, self._pid, None, None
        if pool is None:
            return
        if pid is not None:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        pool.shutdown(wait=False, cancel_futures=True)


def computed(compute: Compute, arguments: tuple[Any, ...]) -> Answer:
    """The function's answer; an error of ours is an answer too."""
    began = time.monotonic()
    try:
        answer: Answer = resolve_name(compute)(*arguments)
    except OwnFault:
        raise
    except ComfyloadError as error:
        answer = refusal(404 if isinstance(error, NotThere) else 422, error.message, error.hint)
    return Answer(status=answer.status, kind=answer.kind, body=answer.body, took_s=time.monotonic() - began)


def _key(compute: Compute, arguments: tuple[Any, ...]) -> Key:
    return compute, arguments


# --- in the other process


def _prepare() -> None:
    """Ctrl-C is for the server, which ends this process; a server that was killed ends it as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICE)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _load() -> None:
    for module in ("run_views", "kept_views", "job_files"):
        import_module(f"{__package__}.{module}")
