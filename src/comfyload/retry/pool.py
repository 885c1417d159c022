"""Assigns jobs to servers, in the order in which the jobs came.

`decide` chooses the server; here the state of the servers is read. A job that waits on a server that does not make
progress is taken back and sent to another.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from random import Random
from typing import Literal

from msgspec import Struct

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.inflight import Job
from comfyload.record.model import Execution, Failure, Server
from comfyload.record.policy import Breaker, Policy
from comfyload.record.stamps import believed
from comfyload.retry.decide import LOOK_AGAIN_S, Assignment, Backend, Dispatcher, others_than
from comfyload.retry.dispatch import Dispatching
from comfyload.retry.pending import PendingPrompt
from comfyload.tasks import end_tasks, within

TICK_S = 1.0
SLOW_S = 0.5
"""How long a round of assignments waits for a server's answer."""
NO_TIME_S = 1e-3
"""Shorter waits are left out: a clock may be too coarse for them."""
SHED = Failure(kind="shed", message="no server could have it done by its deadline")


class ServerBackend(Backend):
    """One server of a pool, its client, and our jobs there."""

    def __init__(self, facts: Server, breaker: Breaker, draw: Callable[[], float]) -> None:
        super().__init__(breaker, draw, lambda: self.client.stream.connections, facts.url)
        self.facts = facts
        sizes = (device.get("vram_total") for device in facts.devices)
        self.vram = max((float(size) for size in sizes if isinstance(size, int | float)), default=0.0)
        self.client: ComfyClient
        self.stack = AsyncExitStack()
        """Closes the client."""
        self.remaining: int | None = None
        """The length of its queue, as the last event has it."""
        self.by_events = False
        """Whether its queue need not be read while events tell how long it is."""
        self.reported = False
        """Whether it was reported that it does not work."""
        self.last_change = -math.inf
        """When the last change there was noticed."""
        self.leftovers: set[str] = set()
        """Ids that may be there and that nobody waits for."""
        self.unconfirmed_ids: set[str] = set()
        """Ids to be looked up before they are sent."""

    async def look(self, within_s: float) -> bool:
        """Count the prompts that a job sent now would find there; False: the server did not answer."""
        # Counted before the call: a POST under way may be in the answer or not, and counts as there.
        jobs = [self.job(prompt_id) for prompt_id in self.held]
        posting = sum(1 for job in jobs if job is None or not job.accepted)
        streamed = self.by_events and self.client.stream.connected and self.remaining is not None
        remaining = self.remaining if streamed else await within(within_s, self.client.api.queue_remaining(), None)
        accepted = max(0, len(self.held) - posting)
        self.others = 0 if remaining is None else max(0, remaining - accepted)
        self.depth = len(self.held) if remaining is None else remaining + posting
        if streamed:  # the event of a job that was accepted a moment ago may be on its way
            self.depth = max(self.depth, len(self.held))
        return remaining is not None

    def note_starts(self) -> None:
        """Note which of our jobs run, by their events."""
        for prompt_id, held in self.held.items():
            if held.started is None:
                job = self.job(prompt_id)
                if job is not None and job.tracker.started is not None:
                    self.started(prompt_id, job.tracker.started)

    def job(self, prompt_id: str) -> Job | None:
        return self.client.inflight.get(prompt_id)


class Health(Struct, frozen=True, kw_only=True):
    """How a server stands. `broken_s`: for how long nothing has worked there. `jobs`: ours there, of which `running`
    have begun. `others`: prompts of others, when it was last looked at.
    """

    circuit: Literal["closed", "open", "due", "half_open"]
    broken_s: float
    jobs: int
    running: int
    others: int


class Pool:
    """Assigns jobs to its backends, and supervises the jobs there while `run()` runs.

    `never_s`: how long all servers may fail before a job without a deadline is given up. `once`: each job is sent to
    one server and stays there. It does not wait for one: where none works, it is sent to one that does not. `on_broken`
    takes a server that does not work, and since when.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        rng: Random,
        never_s: float,
        *,
        dispatching: Dispatching,
        once: bool,
        on_broken: Callable[[ServerBackend, float], None],
    ) -> None:
        self.backends: list[ServerBackend] = []
        self.dispatcher = Dispatcher(policy, rng.random, dispatching)
        self._once = once
        self._on_broken = on_broken
        self._policy = policy
        self._clock = clock
        self._never_s = never_s
        self._waiting: dict[PendingPrompt, asyncio.Future[ServerBackend]] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._looks: dict[ServerBackend, asyncio.Task[bool]] = {}
        """Servers whose state is being read."""

    async def run(self) -> None:
        """Until cancelled, or closed."""
        tasks: dict[ServerBackend, asyncio.Task[None]] = {}
        try:
            while not self._closed:
                self._changed.clear()
                for backend in self.backends:
                    if backend not in tasks:
                        tasks[backend] = asyncio.create_task(self._supervise(backend))
                if self._waiting:
                    await self._round()
                await within(self.dispatcher.pause_s() if self._waiting else None, self._changed.wait(), False)
        finally:
            self.close()
            await end_tasks([*tasks.values(), *self._looks.values()])

    def add(self, backend: ServerBackend) -> None:
        self.backends.append(backend)
        self.notify()

    def remove(self, backend: ServerBackend) -> None:
        """Supervise it no more; it must hold none of our jobs."""
        self.backends.remove(backend)

    def adopt(self, policy: Policy) -> None:
        """Assign by this policy from now on."""
        self._policy = policy
        self.dispatcher.adopt(policy)
        for backend in self.backends:
            backend.circuit.rules = policy.breaker
        self.notify()

    def health(self, server: str) -> Health | None:
        """How the server of that name stands; None: there is none."""
        now = self._clock()
        for backend in self.backends:
            if backend.name == server:
                return Health(
                    circuit=backend.circuit.state(now),
                    broken_s=backend.circuit.broken_s(now),
                    jobs=len(backend.held),
                    running=sum(held.started is not None for held in backend.held.values()),
                    others=backend.others,
                )
        return None

    def room(self, not_on: Collection[str]) -> int:
        """How many more jobs would get a server now, of those that cannot run on some; below 0: some wait already."""
        most, now, free = self._policy.admission.depth, self._clock(), 0
        for backend in self.backends:
            if backend.drained or backend.name in not_on:
                continue
            state = backend.circuit.state(now)
            if state == "closed":
                free += 1 if most is None else max(0, most + 1 - len(backend.held))
            elif state == "due":
                free += not backend.held
        return free - sum(not assigned.done() for assigned in self._waiting.values())

    def withdraw(self, pending: PendingPrompt) -> None:
        """The job no longer waits for a server: it gets none."""
        assigned = self._waiting.get(pending)
        if assigned is not None:
            assigned.cancel()

    def notify(self) -> None:
        """Something changed: a server may have become free."""
        self._changed.set()

    def close(self) -> None:
        """Assign no more jobs; those that wait get no server."""
        self._closed = True
        self.notify()
        for assigned in self._waiting.values():
            assigned.cancel()

    # --- places

    async def assign(self, pending: PendingPrompt) -> ServerBackend | Failure:
        """A server for the next attempt, or why there is none: no time is left, or no server works."""
        if self._closed or pending.given_up:
            return SHED
        since = self._clock()
        assigned = self._waiting[pending] = asyncio.get_running_loop().create_future()
        self.notify()
        try:
            while True:
                now = self._clock()
                left = self.dispatcher.left_s(pending, now)
                if left < NO_TIME_S:
                    return SHED
                if pending.deadline == math.inf and self._none_works(pending, now, since):
                    return Failure(kind="connect", message=f"no server has worked for {self._never_s:g} s")
                # The estimate of what the job needs may improve meanwhile.
                done, _ = await asyncio.wait([assigned], timeout=min(left, LOOK_AGAIN_S[1]))
                if done:
                    return SHED if assigned.cancelled() else assigned.result()
        except asyncio.CancelledError:
            if assigned.done() and not assigned.cancelled():
                self.release(assigned.result(), pending.prompt.id)
            raise
        finally:
            del self._waiting[pending]

    def release(self, backend: ServerBackend, prompt_id: str, execution: Execution | None = None) -> Assignment | None:
        """The job is no longer there, or no longer waited for; its execution time is learnt."""
        completed = execution is not None and execution.outcome == "completed"
        held = self.dispatcher.release(prompt_id, backend, executed_s(execution) if execution and completed else None)
        backend.last_change = self._clock()
        self.notify()
        return held

    async def _round(self) -> None:
        """Assign the jobs that wait, first come first served."""
        usable = await self._usable_backends()
        for backend in usable:
            backend.note_starts()
        now = self._clock()
        for pending, backend in self.dispatcher.assign(self._unassigned(), usable, now):
            self._give(pending, backend, now)
        if self._once:
            for pending in self._unassigned():
                left = [backend for backend in self.backends if backend not in pending.unfit]
                if left and not self._looks.keys() & set(left):  # all have answered, or failed to
                    backend = self.dispatcher.dispatching.choose(left)
                    self.dispatcher.put(pending, backend, now)
                    self._give(pending, backend, now)

    def _unassigned(self) -> list[PendingPrompt]:
        return [pending for pending, assigned in self._waiting.items() if not assigned.done()]

    def _give(self, pending: PendingPrompt, backend: ServerBackend, now: float) -> None:
        if len(backend.held) == 1:
            backend.last_change = now
        self._waiting[pending].set_result(backend)

    async def _usable_backends(self) -> list[ServerBackend]:
        """The servers to which jobs may go now. One that answers slowly is left to a later round."""
        others = [backend for backend in self.backends if backend not in self._looks]
        new = {backend: asyncio.create_task(self._usable(backend)) for backend in others}
        self._looks |= new
        if new:
            _, slow = await asyncio.wait(new.values(), timeout=SLOW_S)
            for look in slow:
                look.add_done_callback(lambda _: self.notify())
        answered = {backend: look for backend, look in self._looks.items() if look.done()}
        for backend in answered:
            del self._looks[backend]
        return [backend for backend, look in answered.items() if look.result()]

    async def _usable(self, backend: ServerBackend) -> bool:
        """Whether jobs may go there now; after an open circuit the server must first answer again."""
        within_s, most = self._policy.connect_s, self._policy.admission.depth
        state = backend.circuit.state(self._clock())
        if backend.drained or state not in ("closed", "due") or (most is not None and len(backend.held) > most):
            return False
        if state == "due" and not await within(within_s, backend.client.api.alive(), False):
            backend.circuit.trip(self._clock())
            return False
        hurried = any(pending.deadline < math.inf for pending in self._waiting)
        if most is None and not hurried and len(self.backends) == 1:
            return True
        if not await backend.look(within_s):
            lost = self._once and not backend.client.stream.connected
            (backend.circuit.trip if lost else backend.circuit.failed)(self._clock())
            self._note_broken(backend)
            if self._once:
                return False
        return backend.circuit.state(self._clock()) in ("closed", "due")

    def _none_works(self, pending: PendingPrompt, now: float, since: float) -> bool:
        """Whether all servers that could run the job have failed for `never_s` and none may be tried again."""
        return all(
            backend in pending.unfit
            or (backend.circuit.broken_s(now) >= self._never_s and backend.circuit.hopeless(now, since))
            for backend in self.backends
        )

    def put(self, backend: ServerBackend, pending: PendingPrompt) -> None:
        """Note that the job is there already."""
        if not backend.held:
            backend.last_change = self._clock()
        self.dispatcher.put(pending, backend, self._clock())

    # --- what is there

    async def _supervise(self, backend: ServerBackend) -> None:
        while backend in self.backends:
            await asyncio.sleep(TICK_S)
            self._note_broken(backend)
            if backend.held:
                await self._end_the_hung(backend)
                if not self._once:
                    await self._take_back(backend)
            if backend.leftovers and backend.circuit.state(self._clock()) == "closed":
                await clean(backend)

    def _note_broken(self, backend: ServerBackend) -> None:
        """Report once that a server does not work, with the instant since which it does not."""
        since = backend.circuit.broken_since
        if since is not None and not backend.reported:
            self._on_broken(backend, since)
        backend.reported = since is not None

    async def _end_the_hung(self, backend: ServerBackend) -> None:
        liveness_s = self._policy.liveness_s
        if liveness_s is None:
            return
        for prompt_id, held in list(backend.held.items()):
            job = backend.job(prompt_id)
            if job is None or not job.accepted or job.end.done():
                continue
            since = job.tracker.last_event if job.tracker.started is not None else held.running_since
            if self._clock() - (self._last_change(backend) if since is None else since) < liveness_s:
                continue
            # No event of it for so long, or none can come: the server knows whether it runs.
            state = await backend.client.api.prompt_state(job.prompt_id)
            if state != "running":
                held.running_since = None
            elif since is None:
                held.running_since = self._clock()
            else:
                text = f"it runs on {backend.name} without progress for {liveness_s:g} s"
                backend.client.give_up(prompt_id, Failure(kind="hung", message=text))

    async def _take_back(self, backend: ServerBackend) -> None:
        """Take back the jobs that wait on a server without progress, if another server could run them."""
        now = self._clock()
        if not others_than({backend}, self.backends, now):
            return
        liveness_s = self._policy.liveness_s
        if not backend.drained and (backend.circuit.resting or backend.circuit.state(now) in ("closed", "half_open")):
            if liveness_s is None or now - self._last_change(backend) < liveness_s:
                return
            backend.circuit.trip(now)
        for prompt_id, held in list(backend.held.items()):
            job = backend.job(prompt_id)
            waits = job is not None and job.accepted and job.tracker.started is None and not job.end.done()
            if waits and await backend.client.recall(prompt_id):
                held.moved = True

    def _last_change(self, backend: ServerBackend) -> float:
        return max(backend.last_change, backend.client.inflight.last_event)


async def clean(backend: ServerBackend) -> None:
    """Remove from the server the prompts that nobody waits for any more."""
    api = backend.client.api
    for prompt_id in list(backend.leftovers):
        state = await api.prompt_state(prompt_id)
        if state == "pending":
            await api.delete([prompt_id])
        elif state == "running":
            await api.stop(prompt_id)
        elif state != "unknown":
            backend.leftovers.discard(prompt_id)


def executed_s(execution: Execution) -> float | None:
    """How long the server worked on it, by its own clock, or else by ours."""
    by_server = believed(execution).execution_ms
    if by_server is not None:
        return max(0, by_server) / 1000.0
    if execution.started is not None and execution.done is not None:
        return execution.done - execution.started
    return None
