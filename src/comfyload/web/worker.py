"""One process that computes for all tabs, so that none of them holds the server up; the last answers are kept."""

import asyncio
import hashlib
import secrets
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from msgspec import Struct

from comfyload.errors import ComfyloadError, OwnFault, RunFilesError
from comfyload.record.codec import encode
from comfyload.web.computing import Computing, ProcessEnded

KEPT = 32
"""Answers that are kept."""
MOST_WAITING = 64
"""Computations that are under way or wait; one more is refused."""
LARGEST_KEPT = 4 << 20
"""Bytes of an answer that is kept."""
JSON = "application/json; charset=utf-8"


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
        self._process: Computing | None = None
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
            with suppress(ProcessEnded):  # the first computation begins another one
                await self._ask(f"{__name__}:load")

    def close(self) -> None:
        """End the process, whatever it computes; it is gone when this returns."""
        for task in self._under_way.values():
            task.cancel()
        self._drop()
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
                    found: Answer = await self._ask(f"{__name__}:computed", compute, arguments)
                except ProcessEnded:
                    self._drop()
                else:
                    return found
        return refusal(500, "the process that computes it has died twice", "is there enough memory for it?")

    async def _ask(self, name: str, *arguments: Any) -> Any:
        process = self._process = self._process or Computing()
        try:
            return await asyncio.to_thread(process.ask, (name, arguments))
        except asyncio.CancelledError:
            self._drop()  # else the next one would get this one's answer
            raise

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


def _key(compute: Compute, arguments: tuple[Any, ...]) -> Key:
    return compute, arguments


# --- in the other process


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


def load() -> None:
    """Import what most computations need."""
    for module in ("run_views", "kept_views", "job_files"):
        import_module(f"{__package__}.{module}")
