"""Workflows as requests of Locust: a user whose tasks run them on a ComfyUI and follow each job to its end.

Locust puts gevent's calls in the place of Python's blocking ones. The client is asyncio's: it lives on a loop in a
thread of the operating system, one for all users of a process. A greenlet hands it a job and waits; the others go on.
The loop is uvloop's, which waits for sockets and looks names up without Python's library, so there is none on Windows.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from random import randrange
from typing import Any, ClassVar, TypeVar, get_args
from weakref import WeakKeyDictionary

import gevent
import uvloop
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original
from locust import User
from locust.env import Environment

from comfyload.app.library.async_comfy import AsyncComfy
from comfyload.app.library.connect import Connection
from comfyload.app.library.given import Graph, read
from comfyload.app.library.parts import parts_of
from comfyload.comfy.address import parse_headers, parse_server
from comfyload.comfy.http import Http
from comfyload.errors import JobFailed, ServerUnreachable, UsageError
from comfyload.record.model import Execution, Failure
from comfyload.record.policy import Breaker, FailureClass, Policy, Rule
from comfyload.retry.policy import decode
from comfyload.text_files import read_text
from comfyload.workflow.seeds import find_seeds

__all__ = ["SENT_ONCE", "ComfyJobs", "ComfyUser"]

T = TypeVar("T")
SENT_ONCE = Policy(
    attempts=1,
    breaker=Breaker(failures=1_000_000_000),
    classes={name: Rule(retry=False) for name in get_args(FailureClass)},
)
"""No job is sent again, and none is held back because others failed: Locust sees each failure of the server."""


class ComfyUser(User):  # type: ignore[misc]  # Locust has no types here
    """A Locust user with a `client` that runs workflows: `self.client.run("portrait.json", seed=7)`.

    `host`: the ComfyUI, given as to every user of Locust. `policy`: a Policy or the path of a `retry.json`, to measure
    jobs together with their retries. `headers` go with every call; a value `env:NAME` is read from the environment.
    """

    abstract = True
    policy: ClassVar[Policy | str | Path] = SENT_ONCE
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if not self.host:
            raise UsageError("the user has no host", "give the ComfyUI's address: --host http://127.0.0.1:8188")
        policy = self.policy if isinstance(self.policy, Policy) else decode(read_text(str(self.policy)).encode())
        url, headers = parse_server(self.host), parse_headers([f"{name}={text}" for name, text in self.headers.items()])
        opens = partial(Http.connect, url, headers, connect_s=policy.connect_s)
        shared = _shared(environment, (self.host, id(self.policy), *self.headers.items()))
        shared.connects = lambda: Connection([opens], policy, wait=False)
        self.client = ComfyJobs(shared, environment.events.request.fire, self.context)


class ComfyJobs:
    """Runs workflows for one user, and fires Locust's `request` event for each job and each part of it."""

    def __init__(
        self, shared: "SharedConnection", fire: Callable[..., None], context: Callable[[], dict[str, Any]]
    ) -> None:
        self._shared = shared
        self._fire = fire
        self._context = context

    def run(
        self,
        workflow: Graph | str | Path,
        *,
        name: str | None = None,
        seed: int | None = None,
        set: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
    ) -> Execution:
        """As `comfyload.connect(…).run`. A job that does not complete is a failure of its row `total`.

        `name`: of its rows; None: the workflow's. `seed`: None: a new one for each job, else the server's cache would
        do the work; a job that ran no node is in rows of its own, `NAME (cached)`.

        Raises:
            UsageError: the workflow is not valid, or has no such input or seed.
        """
        graph = read(workflow)
        label = name or graph.name
        if seed is None and find_seeds(graph):
            seed = randrange(1 << 32)
        try:
            loop, comfy = self._shared.entered()
        except ServerUnreachable as error:
            self._fire_part("total", label, 0.0, error)
            return Execution(outcome="failed", failure=Failure(kind="connect", message=str(error)))
        called = comfy.clock()
        execution = loop.run(comfy.run(workflow, seed=seed, set=set, deadline_s=deadline_s))
        problem: JobFailed | None = None
        try:
            execution.raise_for_failure()
        except JobFailed as error:
            problem = error
        if execution.outcome == "completed" and not execution.nodes:
            label += " (cached)"
        for part, seconds in parts_of(execution, called, comfy.clock()).items():
            self._fire_part(part, label, seconds, problem if part == "total" else None)
        return execution

    def fetch(self, execution: Execution, *, previews: bool = False) -> list[tuple[str, bytes]]:
        """As `comfyload.connect(…).fetch`: the job's files. It is no request of Locust."""
        loop, comfy = self._shared.entered()
        return loop.run(comfy.fetch(execution, previews=previews))

    def _fire_part(self, part: str, label: str, seconds: float, problem: Exception | None) -> None:
        self._fire(
            request_type=part,
            name=label,
            response_time=1000.0 * seconds,
            response_length=0,
            exception=problem,
            context=self._context(),
        )


class SharedConnection:
    """The connection of all users of one kind in a process, opened by the first job and closed when the test ends."""

    connects: Callable[[], Connection]

    def __init__(self) -> None:
        self._alone = BoundedSemaphore()
        self._open: tuple[GreenletLoop, Connection, AsyncComfy] | None = None

    def entered(self) -> tuple["GreenletLoop", AsyncComfy]:
        """It, opened, and the loop on which it lives.

        Raises:
            ServerUnreachable: there is no ComfyUI at the address.
        """
        with self._alone:
            if self._open is None:
                loop, connection = GreenletLoop(), self.connects()
                try:
                    self._open = loop, connection, loop.run(connection.__aenter__())
                except BaseException:
                    loop.close()
                    raise
            loop, _, comfy = self._open
            return loop, comfy

    def close(self, **_of_event: object) -> None:
        """Remove jobs of ours from the server that nobody waits for any more, and end the thread."""
        with self._alone:
            if self._open is not None:
                loop, connection, _ = self._open
                self._open = None
                loop.run(connection.__aexit__())
                loop.close()


class GreenletLoop:
    """An event loop in a thread of the operating system; greenlets of the thread that makes it wait for its results."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        made = AsyncResult()
        get_original("_thread", "start_new_thread")(self._serve, (made,))
        self._loop: asyncio.AbstractEventLoop = made.get()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and return its result. If the wait ends otherwise, as by a kill, it is cancelled."""
        ended = AsyncResult()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(coroutine))
            tasks[0].add_done_callback(partial(self._hand_over, ended))

        self._loop.call_soon_threadsafe(start)
        try:
            task: asyncio.Task[T] = ended.get()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            raise
        return task.result()

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self, made: AsyncResult) -> None:
        loop = uvloop.new_event_loop()
        self._hand_over(made, loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _hand_over(self, to: AsyncResult, what: object) -> None:
        """Set a result in the thread of the greenlets."""
        self._hub.loop.run_callback_threadsafe(to.set, what)


_OF_TESTS: "WeakKeyDictionary[Environment, dict[object, SharedConnection]]" = WeakKeyDictionary()


def _shared(environment: Environment, kind: object) -> SharedConnection:
    """The connection of this kind in a test; it is closed when the test stops, and at the latest when Locust quits."""
    of_test = _OF_TESTS.setdefault(environment, {})
    if kind not in of_test:
        of_test[kind] = shared = SharedConnection()
        environment.events.test_stop.add_listener(shared.close)
        environment.events.quitting.add_listener(shared.close)
    return of_test[kind]
