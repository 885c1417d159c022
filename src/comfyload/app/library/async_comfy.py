"""A connection for programs with an event loop: run a workflow, fetch its files."""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from msgspec import structs

from comfyload.app.library.given import Graph, changed, prompt_of, read
from comfyload.app.library.loop_thread import refuse_after_fork
from comfyload.app.library.made import download_all, files_of, in_order_of
from comfyload.comfy.examine import refuse_deadly
from comfyload.comfy.identify import identify
from comfyload.comfy.wire.calls import Transport
from comfyload.errors import ComfyloadError, NotComfyUI, NotLetIn, ServerUnreachable, UsageError
from comfyload.record.job_events import JobEvent, Progress
from comfyload.record.model import Execution, Failure, Server
from comfyload.record.policy import Policy
from comfyload.retry.client import RetryingClient
from comfyload.workflow import Workflow

T = TypeVar("T")
SLACK_S = 1.0
"""How much longer than its deadline a call may take, so that the job can be removed from the server."""
ENTER_S = 20.0
"""How long a server may take to be identified."""
NOBODY_S = 120.0
"""How long a job without a deadline waits for a server that has never answered."""
TRY_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses before a server that did not answer is tried again; the last one repeats."""


class EventCallback:
    """Calls a program's `on_event` with each event of one job, until `over`. Its first error is logged."""

    def __init__(self, on_event: Callable[[JobEvent], object], workflow: Workflow) -> None:
        self.over = False
        self._on_event = on_event
        self._workflow = workflow
        self._logged = False

    def __call__(self, event: JobEvent) -> None:
        if self.over:
            return
        if isinstance(event, Progress) and event.node in self._workflow.graph:
            event = structs.replace(event, node_class=self._workflow.class_of(event.node))
        try:
            self._on_event(event)
        except Exception:
            if not self._logged:
                self._logged = True
                logging.getLogger("comfyload").warning("on_event failed; the job goes on", exc_info=True)


class AsyncComfy:
    """Runs workflows; any number at once. `left_out`: servers that have not answered yet, and why."""

    def __init__(self, client: RetryingClient, policy: Policy, clock: Callable[[], float]) -> None:
        self.left_out: dict[str, str] = {}
        self._client = client
        self._policy = policy
        self.clock = clock
        """On which the instants of executions are."""
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._transports: dict[str, Transport] = {}
        self._facts: list[Server] = []
        self._answered = asyncio.Event()
        self._over = False
        self._calls: set[asyncio.Task[Any]] = set()
        self._later: list[asyncio.Task[None]] = []
        self.kept_open_by: object = None
        """Keeps the connection open while a program refers to this object only."""
        self._numbers = itertools.count()
        self._of_key: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(
        self,
        workflow: Graph | str | Path,
        *,
        seed: int | None = None,
        set: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
        key: str | None = None,
        on_event: Callable[[JobEvent], object] | None = None,
    ) -> Execution:
        """Run a workflow to its end. A job that fails raises nothing: the result says how it ended.

        `workflow`: a graph in API format, JSON text of one, or a path. `seed`: for every seed that a run would vary.
        `set`: values by `NODE.INPUT`, NODE being an id or a title. `deadline_s`: from now, over all attempts, and at
        most `SLACK_S` more; None: the policy's. `key`: names the job, so that it is not sent to a server that has it
        from an earlier call, of any process, unless it failed there or was stopped. Calls with the same key on one
        connection run one after the other. `on_event` is called on this loop with each event of the job; its errors
        are logged.

        Raises:
            UsageError: the workflow is not valid, or has no such input or seed, or would kill the server's worker; or
                the connection was opened in another process or loop, or a server supports no keys.
        """
        self._check_caller()
        limit_s = self.limit_s(deadline_s)
        graph = changed(read(workflow), seed, set or {})
        tell = None if on_event is None else EventCallback(on_event, graph)
        try:
            execution = await self._within(self._run(graph, key, limit_s, tell), limit_s)
        except TimeoutError:
            late = Failure(kind="timeout", message="not done by its deadline, and the server does not answer")
            return Execution(outcome="timed_out", done=self.clock(), failure=late, server_state_after="unknown")
        finally:
            if tell is not None:
                tell.over = True
        return in_order_of(graph.graph, execution)

    async def fetch(
        self, execution: Execution, *, previews: bool = False, deadline_s: float | None = None
    ) -> list[tuple[str, bytes]]:
        """The files of a job, in the order of the graph's nodes: each with its `type/subfolder/name`.

        `previews`: also those in `temp`, which the server keeps until it is restarted. `deadline_s`: as in `run`.

        Raises:
            ComfyloadError: one could not be downloaded, after several attempts or by the deadline.
        """
        self._check_caller()
        limit_s = self.limit_s(deadline_s)
        transport = self._transport_of(execution)
        try:
            return await self._within(
                download_all(transport, files_of(execution, previews=previews)), limit_s, leave=False
            )
        except TimeoutError:
            raise ComfyloadError(f"the files did not come within {limit_s:g} s", "is the server reachable?") from None

    def limit_s(self, deadline_s: float | None) -> float | None:
        """The deadline of a call: the given one, else the policy's.

        Raises:
            UsageError: it is not positive.
        """
        if deadline_s is not None and not deadline_s > 0.0:
            raise UsageError("deadline_s is not positive", "give seconds, or nothing")
        return self._policy.deadline_s if deadline_s is None else deadline_s

    # --- one call

    async def _run(
        self, graph: Workflow, key: str | None, limit_s: float | None, tell: EventCallback | None
    ) -> Execution:
        began = self.clock()
        if not self._answered.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(NOBODY_S if limit_s is None else limit_s):
                    await self._answered.wait()
        if self._over:
            left = Failure(kind="cancelled", message="cancelled by us")
            return Execution(outcome="cancelled", done=self.clock(), failure=left)
        if not self._transports:
            why = "; ".join(self.left_out.values())
            failure = Failure(kind="connect", message=f"no server has answered: {why}")
            return Execution(outcome="failed", done=self.clock(), failure=failure)
        if key is not None and not all(facts.client_prompt_id for facts in self._facts):
            raise UsageError("a ComfyUI older than 0.3.45 assigns ids of its own and supports no keys", "leave key out")
        await refuse_deadly(next(iter(self._transports.values())), graph)
        prompt = prompt_of(graph, next(self._numbers), key)
        alone = self._of_key.setdefault(prompt.id, asyncio.Lock())  # two of one id would take each other's events
        try:
            async with asyncio.timeout(None if limit_s is None else limit_s - (self.clock() - began)):
                await alone.acquire()
        except TimeoutError:
            late = Failure(kind="timeout", message="not done by its deadline: another call with its key is under way")
            return Execution(outcome="timed_out", done=self.clock(), failure=late)
        try:
            left_s = None if limit_s is None else limit_s - (self.clock() - began)
            return await self._client.run(prompt, deadline_s=left_s, keyed=key is not None, tell=tell)
        finally:
            alone.release()

    async def _within(self, call: Coroutine[Any, Any, T], limit_s: float | None, *, leave: bool = True) -> T:
        """The result of the call; TimeoutError: none within the limit and the slack. `leave`: it then goes on."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task], timeout=None if limit_s is None else limit_s + SLACK_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        if not leave:
            task.cancel()
        raise TimeoutError

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio logs an error that nobody waits for any more

    def _check_caller(self) -> None:
        refuse_after_fork(self._pid)
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("this connection was opened on another event loop", "open it on the loop that uses it")

    def _transport_of(self, execution: Execution) -> Transport:
        name = execution.attempts[-1].server if execution.attempts else next(iter(self._transports), "")
        transport = self._transports.get(name)
        if transport is None:
            missing = f"{name} is not among the servers that have answered" if name else "no server has answered"
            raise ComfyloadError(f"{missing} on this connection", "is it running?")
        return transport

    # --- servers

    async def enter(self, servers: Mapping[str, Transport], *, wait: bool) -> None:
        """Identify all servers at once, and keep trying those that do not answer.

        `wait`: `run` will wait for a server, so that this waits no longer than the policy's `connect_s`.

        Raises:
            ServerUnreachable: none answers; with `wait`, only if each is not a ComfyUI or refuses us.
        """
        self.left_out |= {name: f"{name} has not answered yet" for name in servers}
        attempts = {name: asyncio.create_task(self._try(name, servers[name])) for name in servers}
        self._later = [
            asyncio.create_task(self._try_again(name, servers[name], first)) for name, first in attempts.items()
        ]
        await asyncio.wait(attempts.values(), timeout=self._policy.connect_s if wait else None)
        errors = [first.result() for first in attempts.values() if first.done()]
        final = [e for e in errors if e is not None and (not wait or isinstance(e, NotComfyUI | NotLetIn))]
        if len(final) == len(servers):
            raise final[0]

    async def leave(self) -> None:
        """Stop trying servers; jobs that wait for one are cancelled."""
        self._over = True
        self._answered.set()
        for task in self._later:
            task.cancel()
        if self._later:
            await asyncio.wait(self._later)

    async def _try(self, name: str, transport: Transport) -> ServerUnreachable | None:
        """Use the server if it answers; else return the error."""
        try:
            async with asyncio.timeout(ENTER_S):
                facts = await identify(transport, name, [])
        except ServerUnreachable as error:
            self.left_out[name] = str(error)
            return error
        except TimeoutError:
            self.left_out[name] = f"{name} did not answer within {ENTER_S:g} s"
            return ServerUnreachable(f"no ComfyUI at {self.left_out[name]}", "is ComfyUI running?")
        await self._client.join(transport, facts)
        self._transports[name] = transport
        self._facts.append(facts)
        self.left_out.pop(name, None)
        self._answered.set()
        return None

    async def _try_again(self, name: str, transport: Transport, first: asyncio.Task[ServerUnreachable | None]) -> None:
        if await first is None:
            return
        for pause in itertools.chain(TRY_AGAIN_S, itertools.repeat(TRY_AGAIN_S[-1])):
            await asyncio.sleep(pause)
            if await self._try(name, transport) is None:
                return
