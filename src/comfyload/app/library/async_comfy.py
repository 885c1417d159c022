"""A connection's verbs for programs with an event loop: run a workflow, fetch what it made."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from comfyload.app.library.given import Graph, changed, prompt_of, read
from comfyload.app.library.listener import EventCallback
from comfyload.app.library.loop_thread import refuse_after_fork
from comfyload.app.library.made import download_all, files_of, in_order_of
from comfyload.comfy.examine import refuse_deadly
from comfyload.comfy.identify import identify
from comfyload.errors import ComfyloadError, NotComfyUI, NotLetIn, ServerUnreachable, UsageError
from comfyload.record.job_events import JobEvent
from comfyload.record.model import Execution, Failure

if TYPE_CHECKING:
    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Server
    from comfyload.retry.client import RetryingClient
    from comfyload.retry.policy import Policy
    from comfyload.workflow import Workflow

__all__ = ["SLACK_S", "AsyncComfy"]

T = TypeVar("T")
SLACK_S = 1.0
"""How much longer than its deadline a call may take: the time in which a job is taken off the server."""
ENTER_S = 20.0
"""How long a server may take to say who it is."""
NOBODY_S = 120.0
"""How long a job without a deadline waits for a server that has never answered."""
ASK_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses before a server that did not answer is asked again; from then on the last."""


class AsyncComfy:
    """Runs workflows; any number at once. `left_out`: servers that have not answered yet, and why."""

    def __init__(self, client: RetryingClient, policy: Policy, clock: Callable[[], float]) -> None:
        self.left_out: dict[str, str] = {}
        self._client = client
        self._policy = policy
        self._clock = clock
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._transports: dict[str, Transport] = {}
        self._facts: list[Server] = []
        self._answered = asyncio.Event()
        self._over = False
        self._calls: set[asyncio.Task[Any]] = set()
        self._later: list[asyncio.Task[None]] = []
        self.kept_open_by: object = None
        """What would close the connection once nothing refers to it: a program may keep only this object."""
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
        """Run a workflow to its end, and tell what happened; how a job fails is told by the value, not raised.

        `workflow`: a graph in API format, JSON text of one, or a path. `seed`: for every seed that a run would vary.
        `set`: values by `NODE.INPUT`, NODE being an id or a title. `deadline_s`: from now, over all attempts, and at
        most `SLACK_S` more; None: the policy's. `key`: names the job, so that a server which has it from an earlier
        call, of any process, is not sent it again; one that failed or was stopped is. Calls with the same key on one
        connection go one after the other. `on_event` is called on this loop with what happens to the job; an error of
        it goes to the log.

        Raises:
            UsageError: the workflow is none, or has no such input or seed, or would kill the server's worker; or the
                connection was opened in another process or loop, or a server keeps no key.
        """
        self._here()
        limit_s = self.limit_s(deadline_s)
        graph = changed(read(workflow), seed, set or {})
        tell = None if on_event is None else EventCallback(on_event, graph)
        try:
            execution = await self._within(self._see(graph, key, limit_s, tell), limit_s)
        except TimeoutError:
            late = Failure(kind="timeout", message="not done by its deadline, and the server does not answer")
            return Execution(outcome="timed_out", done=self._clock(), failure=late, server_state_after="unknown")
        finally:
            if tell is not None:
                tell.over = True
        return in_order_of(graph.graph, execution)

    async def fetch(
        self, execution: Execution, *, previews: bool = False, deadline_s: float | None = None
    ) -> list[tuple[str, bytes]]:
        """The files that a job made, in the order of the graph's nodes: each with its `type/subfolder/name`.

        `previews`: also those in `temp`, which the server keeps until it is restarted. `deadline_s`: as in `run`.

        Raises:
            ComfyloadError: one could not be had, after several tries or by the deadline.
        """
        self._here()
        limit_s = self.limit_s(deadline_s)
        transport = self._transport_of(execution)
        try:
            return await self._within(
                download_all(transport, files_of(execution, previews=previews)), limit_s, leave=False
            )
        except TimeoutError:
            raise ComfyloadError(f"the files did not come within {limit_s:g} s", "is the server reachable?") from None

    def limit_s(self, deadline_s: float | None) -> float | None:
        """What bounds a call.

        Raises:
            UsageError: it is not positive.
        """
        if deadline_s is not None and not deadline_s > 0.0:
            raise UsageError("deadline_s is not positive", "give seconds, or nothing")
        return self._policy.deadline_s if deadline_s is None else deadline_s

    # --- one call

    async def _see(
        self, graph: Workflow, key: str | None, limit_s: float | None, tell: EventCallback | None
    ) -> Execution:
        began = self._clock()
        if not self._answered.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(NOBODY_S if limit_s is None else limit_s):
                    await self._answered.wait()
        if self._over:
            left = Failure(kind="cancelled", message="cancelled by us")
            return Execution(outcome="cancelled", done=self._clock(), failure=left)
        if not self._transports:
            why = "; ".join(self.left_out.values())
            failure = Failure(kind="connect", message=f"no server has answered: {why}")
            return Execution(outcome="failed", done=self._clock(), failure=failure)
        if key is not None and not all(facts.client_prompt_id for facts in self._facts):
            raise UsageError("a ComfyUI older than 0.3.45 gives ids of its own, and keeps no key", "leave key out")
        await refuse_deadly(next(iter(self._transports.values())), graph)
        prompt = prompt_of(graph, next(self._numbers), key)
        alone = self._of_key.setdefault(prompt.id, asyncio.Lock())  # two of one id would take each other's events
        try:
            async with asyncio.timeout(None if limit_s is None else limit_s - (self._clock() - began)):
                await alone.acquire()
        except TimeoutError:
            late = Failure(kind="timeout", message="not done by its deadline: another call with its key is under way")
            return Execution(outcome="timed_out", done=self._clock(), failure=late)
        try:
            left_s = None if limit_s is None else limit_s - (self._clock() - began)
            return await self._client.run(prompt, deadline_s=left_s, keyed=key is not None, tell=tell)
        finally:
            alone.release()

    async def _within(self, call: Coroutine[Any, Any, T], limit_s: float | None, *, leave: bool = True) -> T:
        """What comes of the call; TimeoutError: nothing within the limit and the slack. `leave`: it then goes on."""
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
            task.exception()  # Else asyncio logs an error that nobody waits for any more.

    def _here(self) -> None:
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
        """Ask all servers at once who they are, and go on asking those that do not answer.

        `wait`: `run` will wait for a server, so that this waits no longer than the policy's `connect_s`.

        Raises:
            ServerUnreachable: none answers; with `wait`, only if each is no ComfyUI or does not let us in.
        """
        self.left_out |= {name: f"{name} has not answered yet" for name in servers}
        asked = {name: asyncio.create_task(self._ask(name, servers[name])) for name in servers}
        self._later = [
            asyncio.create_task(self._ask_again(name, servers[name], first)) for name, first in asked.items()
        ]
        await asyncio.wait(asked.values(), timeout=self._policy.connect_s if wait else None)
        errors = [first.result() for first in asked.values() if first.done()]
        in_vain = [e for e in errors if e is not None and (not wait or isinstance(e, NotComfyUI | NotLetIn))]
        if len(in_vain) == len(servers):
            raise in_vain[0]

    async def leave(self) -> None:
        """Wait for no server any more; jobs that do are cancelled."""
        self._over = True
        self._answered.set()
        for task in self._later:
            task.cancel()
        if self._later:
            await asyncio.wait(self._later)

    async def _ask(self, name: str, transport: Transport) -> ServerUnreachable | None:
        """Use the server if it answers; else why not."""
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

    async def _ask_again(self, name: str, transport: Transport, first: asyncio.Task[ServerUnreachable | None]) -> None:
        if await first is None:
            return
        for pause in itertools.chain(ASK_AGAIN_S, itertools.repeat(ASK_AGAIN_S[-1])):
            await asyncio.sleep(pause)
            if await self._ask(name, transport) is None:
                return
