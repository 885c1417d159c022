"""A client that tries again, by a policy: on one server or several, each job once unless nobody can know.

Every attempt is a `ComfyClient`'s: it posts at most once, and takes off the server what it gives up. Between attempts
this one asks the server what became of an id before it sends it again, and never sends what a server may have.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import UsageError
from comfyload.record.job_events import Retrying
from comfyload.record.model import Execution, Failure, Prompt
from comfyload.retry.attempt_log import AttemptLog, id_of
from comfyload.retry.attempt_runner import AttemptRunner
from comfyload.retry.classify import KnownFailures, classify
from comfyload.retry.policy import rule_of
from comfyload.retry.pool import Ask, Member, Pool, clean
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Sequence
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from comfyload.comfy.room import Room
    from comfyload.comfy.transport import Transport
    from comfyload.record.job_events import JobEvent
    from comfyload.record.model import Observation, Server
    from comfyload.retry.policy import FailureClass, Policy

__all__ = ["RetryingClient"]


class RetryingClient:
    """A `Client` for one server or several. Made by `RetryingClient.open`; `run` may be called at once any number of
    times.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        rng: Random,
        timeouts: Timeouts,
        never_s: float,
        stack: AsyncExitStack,
        open_one: Callable[[Transport, Member], AbstractAsyncContextManager[ComfyClient]],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._draw = rng.random
        self._timeouts = timeouts
        self._pool = Pool(policy, clock, rng, never_s)
        self._stack = stack
        self._open_one = open_one
        self._known_failures = KnownFailures()
        self._abandoned: Failure | None = None
        self._idle = asyncio.Event()
        self._under_way = 0
        self._attempts = AttemptRunner(clock, timeouts)
        self._unconfirmed_ids: Container[str] = frozenset()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        servers: Sequence[tuple[Transport, Server]],
        policy: Policy,
        clock: Callable[[], float],
        *,
        rng: Random,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        fetch: bool = False,
        observe: Callable[[Observation], None] = lambda _: None,
        on_queue: Callable[[float, int], None] = lambda _t, _n: None,
        unconfirmed_ids: frozenset[str] = frozenset(),
        server_restarted: bool = False,
        room: Room | None = None,
    ) -> AsyncIterator[RetryingClient]:
        """Open a client to each server, then yield; on leaving, nothing of ours stays in their queues. More may `join`.

        The arguments that `ComfyClient.open` has too mean the same; `on_queue` is told the sum over the servers. A
        `job_s` of `timeouts` limits each attempt. What was sent to a server that is out of reach for the policy's
        `liveness_s` counts as lost, and may run twice if that server comes back with its queue.

        Raises:
            UsageError: a policy that only a simulation can follow.
        """
        if not (policy.cancel and policy.lookup):
            raise UsageError(
                "a policy without cancel or lookup is for comparison in a simulation only",
                "leave both true: a server would run jobs that nobody waits for, or twice",
            )
        never_s = timeouts.unreachable_s
        unreachable_s = (
            timeouts.unreachable_s if policy.liveness_s is None else min(timeouts.unreachable_s, policy.liveness_s)
        )
        timeouts = structs.replace(timeouts, submit_s=policy.submit_s, unreachable_s=unreachable_s)
        async with AsyncExitStack() as stack:

            def open_one(transport: Transport, member: Member) -> AbstractAsyncContextManager[ComfyClient]:
                return ComfyClient.open(
                    transport,
                    member.facts,
                    clock,
                    timeouts=timeouts,
                    fetch=fetch,
                    observe=observe,
                    on_queue=client._hear(member, on_queue),
                    unconfirmed_ids=member.unsure,
                    server_restarted=server_restarted,
                    room=room,
                )

            client = cls(policy, clock, rng, timeouts, never_s, stack, open_one)
            for transport, facts in servers:
                await client.join(transport, facts)
            client._unconfirmed_ids = unconfirmed_ids
            beside = asyncio.create_task(client._pool.run())
            try:
                yield client
            finally:
                await client._end()
                await end_tasks([beside])
                await client._attempts.settled()
                await asyncio.gather(*(clean(member) for member in client._pool.members))

    async def join(self, transport: Transport, facts: Server) -> None:
        """One server more, from now on."""
        member = Member(facts, self._policy.breaker, self._draw)
        member.client = await self._stack.enter_async_context(self._open_one(transport, member))
        self._pool.add(member)

    @property
    def clients(self) -> list[ComfyClient]:
        """The client of each server, in the order given."""
        return [member.client for member in self._pool.members]

    async def run(
        self,
        prompt: Prompt,
        *,
        deadline_s: float | None = None,
        keyed: bool = False,
        tell: Callable[[JobEvent], None] | None = None,
    ) -> Execution:
        """See one job to its end, within `deadline_s` from now (None: the policy's). Never raises for what servers do.

        `keyed`: whoever uses this id means this job, so that one which a server has, waiting, running or done, is
        followed; one that failed there or was stopped is sent again. `tell` is called with what happens to it.
        What it gives back tells of the last attempt; `attempts` of each, if there were several, or several servers.
        """
        self._under_way += 1
        self._idle.clear()
        try:
            policy = self._policy if deadline_s is None else structs.replace(self._policy, deadline_s=deadline_s)
            return await self._see(Ask(prompt, self._clock(), policy, tell), keyed)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _see(self, ask: Ask, keyed: bool) -> Execution:
        story = AttemptLog(ask.prompt.id, ask.began, told=len(self._pool.members) > 1)
        self._pool.dispatcher.budget.first()
        there = await (self._of_that_key(ask, story) if keyed else self._earlier(ask, story))
        while True:
            member = there or await self._pool.place(ask)
            if self._abandoned is not None:
                if isinstance(member, Member):
                    self._pool.release(member, ask.prompt.id)
                ended = Execution(outcome="cancelled", done=self._clock(), failure=self._abandoned)
                return story.close(self._let_go(ask, ended))
            if isinstance(member, Failure):
                return self._let_go(ask, story.no_place(member, self._clock()))
            execution, class_ = await self._attempt(ask, member, story)
            if class_ is None:
                for failure in story.node_failures:
                    self._known_failures.passed(ask.workflow, failure)
                return story.close(execution)
            if class_ == "moved":
                ask.avoid = {member}
                _tell(ask, story, execution, 0.0)
            elif keyed and there is not None and execution.outcome == "failed":
                pass  # It was somebody else's attempt, perhaps stopped as it was found: this call's is yet to come.
            elif not await self._again(ask, member, story, execution, class_):
                return story.close(execution)
            ask.send_as(story.next_prompt(ask.prompt, execution))
            there = None

    async def cancel_all(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel everything of ours, on every server, and send nothing more."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._abandoned = Failure(kind=kind, message=message)
        self._attempts.over.set()
        self._pool.close()
        await asyncio.gather(*(client.cancel_all(kind) for client in self.clients))

    async def _end(self) -> None:
        """What is under way is abandoned, and given the time to say so."""
        if self._under_way:
            await self.cancel_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeouts.cancel_s + 5.0):
                    await self._idle.wait()
        self._pool.close()

    # --- one attempt

    async def _attempt(
        self, ask: Ask, member: Member, story: AttemptLog
    ) -> tuple[Execution, FailureClass | Literal["moved"] | None]:
        """Send the job once to this server and see what comes of it; "moved": it was taken back unrun."""
        prompt_id, sent_at = ask.prompt.id, self._clock()
        try:
            execution = await self._attempts.make(ask, member)
        except BaseException:  # Whatever it is, the place must not stay taken.
            self._pool.release(member, prompt_id)
            raise
        held = self._pool.release(member, prompt_id, execution)
        for each in self._pool.members:
            each.unsure.discard(prompt_id)
        if execution.server_state_after == "unknown":
            member.left.add(prompt_id)
        story.told = story.told or len(self._pool.members) > 1
        story.add(member.name, prompt_id, execution, sent_at, self._clock())
        if held is not None and held.moved and execution.outcome == "cancelled":
            return execution, "moved"
        class_ = self._class(ask, execution)
        failure = execution.failure
        member.circuit.ended(
            class_,
            self._clock(),
            unreachable=execution.server_state_after == "unknown",
            retry_after_s=None if failure is None else failure.retry_after_s,
            own_fault=failure is not None and failure.kind == "generator",
        )
        return execution, class_

    async def _earlier(self, ask: Ask, story: AttemptLog) -> Member | None:
        """The server that has the job of an earlier process, where it is looked after like what is sent; None: not
        known, and whoever gets it looks before it sends.
        """
        if ask.prompt.id not in self._unconfirmed_ids:
            return None
        found = await self._attempts.find(ask, list(self._pool.members))
        if found is None:
            for member in self._pool.members:
                member.unsure.add(ask.prompt.id)
            return None
        return self._follow_on(ask, story, *found)

    async def _of_that_key(self, ask: Ask, story: AttemptLog) -> Member | None:
        """The server that has the job of that key; None: none is known to, or it failed there and is sent again."""
        limits = [self._policy.connect_s, *([] if ask.deadline is None else [max(0.0, ask.deadline - self._clock())])]
        places = await self._attempts.places(ask, list(self._pool.members), min(limits))
        known = {key: place for key, place in places.items() if place not in ("absent", "unknown")}
        alive = [key for key, place in known.items() if place in ("pending", "running", "finished")]
        if alive:
            member, number = max(alive, key=lambda key: key[1])
            return self._follow_on(ask, story, member, number, id_of(ask.prompt.id, number))
        if known:
            story.number = 1 + max(number for _, number in known)
            ask.send_as(structs.replace(ask.prompt, id=id_of(story.first, story.number)))
        for (member, _), place in places.items():
            if place == "unknown":
                member.unsure.add(ask.prompt.id)
        return None

    def _follow_on(self, ask: Ask, story: AttemptLog, member: Member, number: int, prompt_id: str) -> Member:
        """The job is on that server under that id, sent by somebody before us."""
        story.number, story.told = number, story.told or number > 1
        ask.send_as(structs.replace(ask.prompt, id=prompt_id))
        member.unsure.add(prompt_id)
        self._pool.put(member, ask)
        return member

    def _let_go(self, ask: Ask, execution: Execution) -> Execution:
        """The end of a job that gets no place; one of an earlier process is taken off where it may be."""
        unsure = [member for member in self._pool.members if ask.prompt.id in member.unsure]
        for member in unsure:
            member.left.add(ask.prompt.id)
        return structs.replace(execution, server_state_after="unknown") if unsure else execution

    # --- between attempts

    def _class(self, ask: Ask, execution: Execution) -> FailureClass | None:
        class_ = classify(execution)
        failure = execution.failure
        if class_ != "transient" or failure is None:
            return class_
        again = self._known_failures.deterministic(ask.workflow, ask.prompt.id, failure)
        return "deterministic" if again else class_

    async def _again(
        self, ask: Ask, member: Member, story: AttemptLog, execution: Execution, class_: FailureClass
    ) -> bool:
        """Wait for the next attempt, and prepare it; False: there is none."""
        failure = execution.failure
        if class_ == "transient" and failure is not None:
            story.node_failures.append(failure)
        if class_ == "missing" and failure is not None and failure.kind == "missing_node":
            member.lacks.add(ask.workflow)
        if class_ in ("submit_unknown", "server_error") and not member.facts.client_prompt_id:
            return False  # It gives ids of its own, so that nobody can know whether it has the job.
        asked_s = None if failure is None else failure.retry_after_s
        wait = self._pool.dispatcher.retry_in_s(ask, member, class_, self._pool.members, self._clock(), asked_s)
        if wait is None:
            return False
        _tell(ask, story, execution, wait)
        if rule_of(self._policy, class_).free_memory:
            ask.vram = member.vram
            with suppress(TimeoutError):
                async with asyncio.timeout(self._policy.connect_s):
                    await member.client.api.free()
        await self._attempts.sleep(wait)
        return True

    def _hear(self, member: Member, on_queue: Callable[[float, int], None]) -> Callable[[float, int], None]:
        def heard(t: float, remaining: int) -> None:
            if remaining != member.remaining:
                member.remaining, member.sign = remaining, t
                self._pool.notify()
            on_queue(t, sum(each.remaining or 0 for each in self._pool.members))

        return heard


def _tell(ask: Ask, story: AttemptLog, execution: Execution, wait_s: float) -> None:
    """Whoever listens hears that the job is sent again."""
    if ask.tell is not None:
        why = execution.failure or Failure(kind="lost")
        attempt = len(story.attempts) + 1
        ask.tell(Retrying(attempt=attempt, why=why.kind, message=why.message, wait_s=wait_s))
