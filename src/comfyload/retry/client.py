"""A client for one server or several, which retries by a policy; each job is executed once unless nobody can know.

Every attempt is a `ComfyClient`'s: it posts at most once, and removes from the server what it gives up. Between
attempts an id is looked up on the server before it is sent again; a prompt that a server may have is never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import Literal

from msgspec import structs

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.wire.calls import Transport
from comfyload.errors import UsageError
from comfyload.record.job_events import JobEvent
from comfyload.record.model import Execution, Failure, Observation, Prompt, Server
from comfyload.record.policy import FailureClass, Policy
from comfyload.retry.attempt_runner import AttemptRunner
from comfyload.retry.classify import KnownFailures, classify
from comfyload.retry.dispatch import Dispatching
from comfyload.retry.pending import PendingPrompt
from comfyload.retry.policy import ONCE, attempts_left, rule_in_words, rule_of
from comfyload.retry.pool import Health, Pool, ServerBackend, clean
from comfyload.tasks import end_tasks, within

LEAVING_S = 0.05
"""How often it is looked whether a job, or the jobs of a server, have ended."""

_MOVED = "moved: taken back before it ran, as another server is free"

_UNKNOWN = Failure(kind="lost")
"""Why an attempt failed that does not say why."""

_GIVEN_UP = Failure(kind="cancelled", message="given up before it was sent again")
"""Why a job failed whose last attempt does not say why."""


class RetryingClient:
    """A client for one server or several, made by `RetryingClient.open`; `run` may be called any number of times at
    once.
    """

    def __init__(
        self,
        policy: Policy | None,
        clock: Callable[[], float],
        rng: Random,
        options: ClientOptions,
        stack: AsyncExitStack,
        dispatching: Dispatching | None,
    ) -> None:
        never_s = options.timeouts.unreachable_s
        self._once = policy is None
        self._timeouts = options.timeouts
        if policy is None:
            policy = ONCE
        else:
            unreachable_s = never_s if policy.liveness_s is None else min(never_s, policy.liveness_s)
            self._timeouts = structs.replace(options.timeouts, submit_s=policy.submit_s, unreachable_s=unreachable_s)
        self._policy = policy
        self._clock = clock
        self._draw = rng.random
        self._options = options
        self._by_events = dispatching is not None
        rule = dispatching or Dispatching()
        self._pool = Pool(policy, clock, rng, never_s, dispatching=rule, once=self._once, on_broken=self._on_broken)
        self._stack = stack
        self._known_failures = KnownFailures()
        self._abandoned: Failure | None = None
        self._idle = asyncio.Event()
        self._under_way = 0
        self._leaves_jobs = False
        self._jobs: dict[str, PendingPrompt] = {}
        self._attempts = AttemptRunner(clock, self._timeouts, once=self._once)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        servers: Sequence[tuple[Transport, Server]],
        policy: Policy | None,
        clock: Callable[[], float],
        *,
        rng: Random,
        options: ClientOptions = ClientOptions(),  # noqa: B008 - frozen
        dispatching: Dispatching | None = None,
    ) -> AsyncIterator[RetryingClient]:
        """Open a client to each server, then yield; on leaving, none of our jobs stays there. More may `join`.

        `policy` None: each job is sent once, and ends as it does there. `dispatching`: the rule by which jobs go to
        servers; queues are then known by events, so that no call precedes a job. None: by where its models are loaded.
        `on_queue` gets the sum over the servers. A `job_s` of `timeouts` limits each attempt. A prompt on a server that
        is out of reach for the policy's `liveness_s` counts as lost, and may run twice if that server comes back with
        its queue.

        Raises:
            UsageError: the policy can only be simulated.
        """
        if policy is not None and not (policy.cancel and policy.lookup):
            raise UsageError(
                "a policy without cancel or lookup is for comparison in a simulation only",
                "leave both true: a server would run jobs that nobody waits for, or twice",
            )
        async with AsyncExitStack() as stack:
            client = cls(policy, clock, rng, options, stack, dispatching)
            for transport, facts in servers:
                await client.join(transport, facts)
            pool = asyncio.create_task(client._pool.run())
            try:
                yield client
            finally:
                if not client._leaves_jobs:
                    await client._end()
                await end_tasks([pool])
                await client._attempts.settled()
                if not client._leaves_jobs:
                    await asyncio.gather(*(clean(backend) for backend in client._pool.backends))

    async def join(self, transport: Transport, facts: Server) -> None:
        """Use another server from now on."""
        backend = ServerBackend(facts, self._policy.breaker, self._draw)
        backend.by_events = self._by_events
        own = self._options.of_one(
            timeouts=self._timeouts,
            observe=partial(self._observe, facts.name),
            on_queue=partial(self._queue_changed, backend),
            unconfirmed_ids=backend.unconfirmed_ids,
        )
        await self._stack.enter_async_context(backend.stack)
        backend.client = await backend.stack.enter_async_context(ComfyClient.open(transport, facts, self._clock, own))
        self._pool.add(backend)

    def adopt(self, policy: Policy) -> None:
        """Follow this policy from now on; jobs under way keep that with which they began, and servers that joined
        before keep their `submit_s`.
        """
        self._policy = policy
        self._timeouts = structs.replace(self._timeouts, submit_s=policy.submit_s)
        self._pool.adopt(policy)

    def health(self, server: str) -> Health | None:
        """How the server of that name stands; None: it has not joined."""
        return self._pool.health(server)

    def drain(self, server: str, drained: bool = True) -> None:
        """Send no more jobs to the server of that name, or send them again. Those that wait there are taken back as
        soon as another server can run them; the running one goes on.
        """
        for backend in self._pool.backends:
            if backend.name == server:
                backend.drained = drained
        self._pool.notify()

    async def leave(self, server: str, within_s: float) -> bool:
        """Use the server no more, once none of our jobs is there; False: some still are after so many seconds."""
        self.drain(server)
        until = self._clock() + within_s
        for backend in [backend for backend in self._pool.backends if backend.name == server]:
            while backend.held:
                if self._clock() >= until:
                    return False
                await asyncio.sleep(LEAVING_S)
            self._pool.remove(backend)
            await backend.stack.aclose()
        return True

    def leave_jobs(self) -> None:
        """From now on our jobs stay on their servers when this is left, for another process that knows their ids."""
        self._leaves_jobs = True
        for client in self.clients:
            client.leaves_jobs = True

    @property
    def clients(self) -> list[ComfyClient]:
        """The client of each server, in the order given."""
        return [backend.client for backend in self._pool.backends]

    async def run(
        self,
        prompt: Prompt,
        *,
        deadline_s: float | None = None,
        keyed: bool = False,
        tell: Callable[[JobEvent], None] | None = None,
        not_on: Collection[str] = (),
    ) -> Execution:
        """Run one job to its end, within `deadline_s` from now (None: the policy's). Never raises for what servers do.

        `keyed`: the id stands for this job in every process, so that a prompt of this id that a server has, waiting,
        running or done, is followed; one that failed there or was stopped is sent again. `tell` is called with each
        event of the job. `not_on`: servers that lack what it needs. The result is the last attempt's; its `attempts`
        has each, if there were several, or several servers.
        """
        self._under_way += 1
        self._idle.clear()
        try:
            policy = self._policy if deadline_s is None else structs.replace(self._policy, deadline_s=deadline_s)
            pending = self._jobs[prompt.id] = PendingPrompt(prompt, self._clock(), policy, tell)
            never = {*not_on, *self._pool.dispatcher.dispatching.not_on.get(prompt.workflow, ())}
            pending.unfit |= {backend for backend in self._pool.backends if backend.name in never}
            return await self._run(pending, keyed)
        finally:
            self._jobs.pop(prompt.id, None)
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _run(self, pending: PendingPrompt, keyed: bool) -> Execution:
        log = pending.log
        self._pool.dispatcher.budget.first()
        there = await (self._holder_of_key(pending) if keyed else self._earlier(pending))
        while True:
            backend = there or await self._pool.assign(pending)
            abandoned = pending.abandoned or self._abandoned
            if abandoned is not None or pending.given_up:
                if isinstance(backend, ServerBackend):
                    self._pool.release(backend, pending.prompt.id)
                backend = _GIVEN_UP
            if abandoned is not None:
                ended = Execution(outcome="cancelled", done=self._clock(), failure=abandoned)
                return log.close(self._unassigned(pending, ended))
            if isinstance(backend, Failure):
                return self._unassigned(pending, log.no_place(backend, self._clock()))
            execution, class_ = await self._attempt(pending, backend)
            if class_ is None:
                for failure in log.node_failures:
                    self._known_failures.passed(pending.workflow, failure)
                return log.close(execution)
            if class_ == "moved":
                pending.avoid = {backend}
                pending.tell_retrying(execution.failure or _UNKNOWN, 0.0, backend.name, _MOVED)
            elif keyed and there is not None and execution.outcome == "failed":
                pass  # an attempt of another call, perhaps stopped since it was found: this call makes its own
            elif not await self._again(pending, backend, execution, class_):
                return log.close(execution)
            pending.send_as(log.next_prompt(pending.prompt, execution))
            there = None

    async def cancel(self, prompt_id: str) -> None:
        """Cancel the job of that first id, wherever it is, and wait for its end; `run` returns how it ended."""
        pending = self._jobs.get(prompt_id)
        if pending is None:
            return
        pending.abandoned = Failure(kind="cancelled", message="cancelled by us")
        pending.over.set()
        while self._jobs.get(prompt_id) is pending:
            self._pool.withdraw(pending)
            for client in self.clients:
                client.give_up(pending.prompt.id, pending.abandoned)
            await asyncio.sleep(LEAVING_S)

    def hurry(self, prompt_id: str) -> bool:
        """Send the job of that first id again as soon as a server is free, without the policy's pause; False: it does
        not wait to be sent again.
        """
        pending = self._jobs.get(prompt_id)
        if pending is None or not pending.failed:
            return False
        pending.over.set()
        return True

    def give_up(self, prompt_id: str) -> bool:
        """Send the job of that first id no more: `run` returns its last failure. False: it does not wait to be sent
        again.
        """
        pending = self._jobs.get(prompt_id)
        if pending is None or not pending.failed:
            return False
        pending.given_up = True
        pending.over.set()
        self._pool.withdraw(pending)
        return True

    def room(self, not_on: Collection[str] = ()) -> int:
        """How many more jobs would get a server now, of those with that `not_on`; negative: some wait already."""
        return self._pool.room(not_on)

    def works(self, server: str) -> bool:
        """Whether the server of that name takes jobs, as far as is known."""
        now = self._clock()
        return any(backend.name == server and backend.circuit.state(now) != "open" for backend in self._pool.backends)

    def learn(self, workflow: str, seconds: float) -> None:
        """A job of that workflow took a server so long, as an earlier process saw it."""
        self._pool.dispatcher.times.learn(workflow, workflow, seconds)

    def held(self, server: str) -> int:
        """Our jobs on the server of that name."""
        return sum(len(backend.held) for backend in self._pool.backends if backend.name == server)

    def expected_s(self, workflow: str) -> float:
        """What a job of that workflow takes on a server that has its models; 0 where nothing is known."""
        return self._pool.dispatcher.times.cautious_s(workflow)

    def variance(self, work_s: float) -> float:
        """Of what so many seconds of expected work take."""
        return self._pool.dispatcher.times.variance(work_s)

    def backlog_s(self) -> list[float]:
        """Of each server that takes jobs: seconds of work there."""
        now = self._clock()
        return [
            self._pool.dispatcher.backlog_s(backend, now)
            for backend in self._pool.backends
            if not backend.drained and backend.circuit.state(now) != "open"
        ]

    async def cancel_all(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel all our prompts, on every server, and send no more."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._abandoned = Failure(kind=kind, message=message)
        self._attempts.over.set()
        for pending in self._jobs.values():
            pending.over.set()
        self._pool.close()
        await asyncio.gather(*(client.cancel_all(kind) for client in self.clients))

    async def _end(self) -> None:
        """Cancel the jobs under way and wait a moment for their ends."""
        if self._under_way:
            await self.cancel_all()
            await within(self._timeouts.cancel_s + 5.0, self._idle.wait(), False)
        self._pool.close()

    # --- one attempt

    async def _attempt(
        self, pending: PendingPrompt, backend: ServerBackend
    ) -> tuple[Execution, FailureClass | Literal["moved"] | None]:
        """Send the job once to this server and follow it to its end; "moved": it was taken back before it ran."""
        prompt_id, sent_at, log = pending.prompt.id, self._clock(), pending.log
        pending.tell_sending(backend.name)
        try:
            execution = await self._attempts.make(pending, backend)
        except BaseException:  # the server must not stay occupied
            self._pool.release(backend, prompt_id)
            raise
        held = self._pool.release(backend, prompt_id, execution)
        for each in self._pool.backends:
            each.unconfirmed_ids.discard(prompt_id)
        if execution.server_state_after == "unknown":
            backend.leftovers.add(prompt_id)
        log.listed = log.listed or len(self._pool.backends) > 1
        log.add(backend.name, prompt_id, execution, sent_at, self._clock())
        if held is not None and held.moved and execution.outcome == "cancelled":
            return execution, "moved"
        class_, failure = classify(execution), execution.failure or _UNKNOWN
        if class_ == "transient":
            again = self._known_failures.deterministic(pending.workflow, prompt_id, failure)
            class_ = "deterministic" if again else class_
        backend.circuit.ended(
            class_,
            self._clock(),
            unreachable=execution.server_state_after == "unknown",
            retry_after_s=failure.retry_after_s,
            own_fault=failure.kind == "generator",
        )
        return execution, class_

    async def _earlier(self, pending: PendingPrompt) -> ServerBackend | None:
        """The server that has the job of an earlier process; None: not known, so that it is looked up before it is
        sent.
        """
        if pending.prompt.id not in self._options.unconfirmed_ids:
            return None
        found = await self._attempts.find(pending, list(self._pool.backends))
        if found is None:
            for backend in self._pool.backends:
                backend.unconfirmed_ids.add(pending.prompt.id)
            return None
        return self._follow_on(pending, *found)

    async def _holder_of_key(self, pending: PendingPrompt) -> ServerBackend | None:
        """The server that has the job of that key; None: none is known, or it failed there and is sent again."""
        within_s = min(self._policy.connect_s, max(0.0, pending.deadline - self._clock()))
        states = await self._attempts.states(pending, list(self._pool.backends), within_s)
        known = {key: state for key, state in states.items() if state not in ("absent", "unknown")}
        alive = [key for key, state in known.items() if state in ("pending", "running", "finished")]
        if alive:
            return self._follow_on(pending, *max(alive, key=lambda key: key[1]))
        if known:
            pending.send_under(1 + max(number for _, number in known))
        for (backend, _), state in states.items():
            if state == "unknown":
                backend.unconfirmed_ids.add(pending.prompt.id)
        return None

    def _follow_on(self, pending: PendingPrompt, backend: ServerBackend, number: int) -> ServerBackend:
        """Follow the job that is on that server under the id of that number, sent before this call."""
        pending.log.listed = pending.log.listed or number > 1
        pending.send_under(number)
        backend.unconfirmed_ids.add(pending.id)
        self._pool.put(backend, pending)
        return backend

    def _unassigned(self, pending: PendingPrompt, execution: Execution) -> Execution:
        """The end of a job that gets no server; one of an earlier process is removed where it may be."""
        unconfirmed = [backend for backend in self._pool.backends if pending.prompt.id in backend.unconfirmed_ids]
        for backend in unconfirmed:
            backend.leftovers.add(pending.prompt.id)
        return structs.replace(execution, server_state_after="unknown") if unconfirmed else execution

    # --- between attempts

    async def _again(
        self, pending: PendingPrompt, backend: ServerBackend, execution: Execution, class_: FailureClass
    ) -> bool:
        """Wait for the next attempt, and prepare it; False: there is none."""
        failure = execution.failure or _UNKNOWN
        if class_ == "transient":
            pending.log.node_failures.append(failure)
        if class_ == "missing" and failure.kind == "missing_node":
            backend.lacks.add(pending.workflow)
        if class_ in ("submit_unknown", "server_error") and not backend.facts.client_prompt_id:
            return False  # it assigns ids of its own, so that nobody can know whether it has the job
        wait = self._pool.dispatcher.retry_in_s(
            pending, backend, class_, self._pool.backends, self._clock(), failure.retry_after_s
        )
        if wait is None:
            return False
        left = attempts_left(pending.policy, class_, pending.ended[class_], pending.charged)
        rule, of = rule_in_words(self._policy, class_), len(pending.log.attempts) + left
        pending.failed = True
        pending.tell_retrying(failure, wait, backend.name, rule, of)
        if rule_of(self._policy, class_).free_memory:
            pending.vram = backend.vram
            await within(self._policy.connect_s, backend.client.api.free(), False)
        if wait > 0.0:
            await within(wait, pending.over.wait(), False)
        if pending.abandoned is None and self._abandoned is None:
            pending.over.clear()  # the next wait is not ended by what ended this one
        return True

    def _observe(self, server: str, observation: Observation) -> None:
        """Pass on what was noticed of a server, with its name if it has one."""
        if server:
            observation = structs.replace(observation, server=server, text=f"{server}: {observation.text}")
        self._options.observe(observation)

    def _on_broken(self, backend: ServerBackend, since: float) -> None:
        if len(self._pool.backends) > 1:
            text = f"it was found not to work {since:.1f} s into the run, and got no jobs while another server could"
            self._observe(backend.facts.name, Observation(t=since, code="server_out", text=text))

    def _queue_changed(self, backend: ServerBackend, t: float, remaining: int) -> None:
        if remaining != backend.remaining:
            backend.remaining, backend.last_change = remaining, t
            self._pool.notify()
        if self._pool.dispatcher.dispatching.on_queue is not None:
            self._pool.dispatcher.dispatching.on_queue(backend.facts.name, t, remaining)
        self._options.on_queue(t, sum(each.remaining or 0 for each in self._pool.backends))
