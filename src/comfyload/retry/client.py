"""A client that tries again, by a policy: on one server or several, each job once unless nobody can know.

Every attempt is a `ComfyClient`'s: it posts at most once, and takes off the server what it gives up. Between attempts
this one asks the server what became of an id before it sends it again, and never sends what a server may have.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import structs

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.patience import Patience
from comfyload.errors import UsageError
from comfyload.record.model import Attempt, Execution, Failure, Prompt
from comfyload.retry.budget import Bucket
from comfyload.retry.classes import Signatures, classify, never_sent
from comfyload.retry.policy import rule_of, wait_s
from comfyload.retry.pool import Ask, Member, Pool, clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Sequence
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from comfyload.comfy.api import Whereabouts
    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Observation, Server
    from comfyload.retry.breaker import Circuit
    from comfyload.retry.policy import FailureClass, Policy

__all__ = ["RetryingClient", "later_ids"]

LATER_IDS = 8


def later_ids(prompt_id: str) -> list[str]:
    """Under which ids a job may be sent again after its first, in their order."""
    return [_id_of(prompt_id, number) for number in range(2, LATER_IDS + 2)]


def _id_of(first: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{first}/{number}"))


class _Story:
    """What became of one job so far."""

    def __init__(self, first: str, *, always: bool) -> None:
        self.first = first
        self.always = always
        self.number = 1
        self.attempts: list[Attempt] = []
        self.last: Execution | None = None
        self.ended: dict[FailureClass, int] = {}
        self.charged = 0
        self.waiting_since = 0.0
        self.node_failures: list[Failure] = []

    def close(self, execution: Execution) -> Execution:
        """The account of the job, `execution` being its end."""
        told_by_itself = len(self.attempts) == 1 and execution is self.last and not self.always
        return execution if told_by_itself else structs.replace(execution, attempts=self.attempts)


class RetryingClient:
    """A `Client` for one server or several. Made by `RetryingClient.open`; `run` may be called at once any number of
    times.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        rng: Random,
        patience: Patience,
        never_s: float,
        stack: AsyncExitStack,
        open_one: Callable[[Transport, Member], AbstractAsyncContextManager[ComfyClient]],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._patience = patience
        self._pool = Pool(policy, clock, rng, never_s)
        self._stack = stack
        self._open_one = open_one
        self._bucket = Bucket(policy.budget)
        self._signatures = Signatures()
        self._abandoned: Failure | None = None
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self._under_way = 0
        self._orphans: set[asyncio.Task[Execution]] = set()
        self._maybe_there: Container[str] = frozenset()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        servers: Sequence[tuple[Transport, Server]],
        policy: Policy,
        clock: Callable[[], float],
        *,
        rng: Random,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        fetch: bool = False,
        observe: Callable[[Observation], None] = lambda _: None,
        on_queue: Callable[[float, int], None] = lambda _t, _n: None,
        maybe_there: frozenset[str] = frozenset(),
        forgotten: bool = False,
    ) -> AsyncIterator[RetryingClient]:
        """Open a client to each server, then yield; on leaving, nothing of ours stays in their queues.

        The arguments that `ComfyClient.open` has too mean the same; `on_queue` is told the sum over the servers. A
        `job_s` of `patience` limits each attempt. What was sent to a server that is out of reach for the policy's
        `liveness_s` counts as lost, and may run twice if that server comes back with its queue.

        Raises:
            UsageError: no server, or a policy that only a simulation can follow.
        """
        if not servers:
            raise UsageError("no server is given", "name at least one")
        if not (policy.cancel and policy.lookup):
            raise UsageError(
                "a policy without cancel or lookup is for comparison in a simulation only",
                "leave both true: a server would run jobs that nobody waits for, or twice",
            )
        never_s = patience.gone_s
        gone_s = patience.gone_s if policy.liveness_s is None else min(patience.gone_s, policy.liveness_s)
        patience = structs.replace(patience, submit_s=policy.submit_s, gone_s=gone_s)
        async with AsyncExitStack() as stack:

            def open_one(transport: Transport, member: Member) -> AbstractAsyncContextManager[ComfyClient]:
                return ComfyClient.open(
                    transport,
                    member.facts,
                    clock,
                    patience=patience,
                    fetch=fetch,
                    observe=observe,
                    on_queue=client._hear(member, on_queue),
                    maybe_there=member.unsure,
                    forgotten=forgotten,
                )

            client = cls(policy, clock, rng, patience, never_s, stack, open_one)
            for transport, facts in servers:
                await client.join(transport, facts)
            client._maybe_there = maybe_there
            beside = asyncio.create_task(client._pool.run())
            try:
                yield client
            finally:
                await client._end()
                beside.cancel()
                with suppress(asyncio.CancelledError):
                    await beside
                if client._orphans:
                    await asyncio.wait(client._orphans)
                await asyncio.gather(*(clean(member) for member in client._pool.members))

    async def join(self, transport: Transport, facts: Server) -> None:
        """One server more, from now on."""
        member = Member(facts, self._policy.breaker, self._clock, self._rng)
        member.client = await self._stack.enter_async_context(self._open_one(transport, member))
        self._pool.add(member)

    @property
    def clients(self) -> list[ComfyClient]:
        """The client of each server, in the order given."""
        return [member.client for member in self._pool.members]

    async def run(self, prompt: Prompt, *, deadline_s: float | None = None) -> Execution:
        """See one job to its end, within `deadline_s` from now (None: the policy's). Never raises for what servers do.

        What it gives back tells of the last attempt; `attempts` of each, if there were several, or several servers.
        """
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._see(prompt, deadline_s)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _see(self, prompt: Prompt, deadline_s: float | None) -> Execution:
        began = self._clock()
        policy = self._policy if deadline_s is None else structs.replace(self._policy, deadline_s=deadline_s)
        ask = Ask(prompt, began, policy)
        story = _Story(prompt.id, always=len(self._pool.members) > 1)
        story.waiting_since = began
        self._bucket.first()
        there = await self._find(ask, story)
        while True:
            member = there or await self._pool.place(ask)
            if self._abandoned is not None:
                if isinstance(member, Member):
                    self._pool.release(member, ask.prompt.id)
                ended = Execution(outcome="cancelled", done=self._clock(), failure=self._abandoned)
                return story.close(self._let_go(ask, ended))
            if isinstance(member, Failure):
                return self._let_go(ask, self._not_sent(story, member))
            execution, class_ = await self._attempt(ask, member, story)
            if class_ is None:
                for failure in story.node_failures:
                    self._signatures.passed(ask.workflow, failure)
                return story.close(execution)
            if class_ == "moved":
                ask.avoid = {member}
            elif not await self._again(ask, member, story, execution, class_):
                return story.close(execution)
            self._next(ask, story, execution)
            there = None

    async def abandon(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel everything of ours, on every server, and send nothing more."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._abandoned = Failure(kind=kind, message=message)
        self._over.set()
        self._pool.close()
        await asyncio.gather(*(client.abandon(kind) for client in self.clients))

    async def _end(self) -> None:
        """What is under way is abandoned, and given the time to say so."""
        if self._under_way:
            await self.abandon()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience.cancel_s + 5.0):
                    await self._idle.wait()
        self._pool.close()

    # --- one attempt

    async def _attempt(
        self, ask: Ask, member: Member, story: _Story
    ) -> tuple[Execution, FailureClass | Literal["moved"] | None]:
        """Send the job once to this server and see what comes of it; "moved": it was taken back unrun."""
        prompt, sent_at = ask.prompt, self._clock()
        execution = await self._run(ask, member)
        ended = execution.server.end_ms is not None  # By an event; only its result is not known.
        if execution.left_on_server == "unknown" and (execution.outcome == "failed" or ended):
            execution = await self._clarify(ask, member, execution)
        held = self._pool.release(member, prompt.id, execution)
        member.unsure.discard(prompt.id)
        if execution.left_on_server == "unknown":
            member.left.add(prompt.id)
        story.last = execution
        story.always = story.always or len(self._pool.members) > 1
        story.attempts.append(
            Attempt(
                server=member.name,
                prompt_id=prompt.id,
                outcome=execution.outcome,
                sent=execution.sent,
                done=execution.done,
                failure=execution.failure,
                executed_ms=_executed_ms(execution),
                waited_s=max(0.0, sent_at - story.waiting_since),
            )
        )
        story.waiting_since = self._clock()
        if held is not None and held.moved and execution.outcome == "cancelled":
            member.circuit.undecided()
            return execution, "moved"
        class_ = self._class(ask, execution)
        _judge(member.circuit, class_, execution)
        return execution, class_

    async def _run(self, ask: Ask, member: Member) -> Execution:
        """The attempt itself; if we are cancelled meanwhile, the job is taken off the server behind our back."""
        prompt = ask.prompt
        task = asyncio.create_task(member.client.run(prompt, by=ask.by))
        patience = None if ask.by is None else ask.by - self._clock() + self._patience.cancel_s + 1.0
        try:
            await asyncio.wait([task], timeout=patience)
        except asyncio.CancelledError:
            member.client.drop(prompt.id, Failure(kind="cancelled", message="cancelled by us"))
            self._pool.release(member, prompt.id)
            member.circuit.undecided()
            self._leave(task)
            raise
        if task.done():
            return task.result()
        # A server that answers nothing at all cannot hold us beyond the deadline.
        self._leave(task)
        late = Failure(kind="timeout", message="not done by its deadline, and the server does not answer")
        return Execution(outcome="timed_out", done=ask.by, failure=late, left_on_server="unknown")

    def _leave(self, task: asyncio.Task[Execution]) -> None:
        """Nobody waits for it any more; it ends before we do."""
        self._orphans.add(task)
        task.add_done_callback(self._orphans.discard)

    async def _clarify(self, ask: Ask, member: Member, execution: Execution) -> Execution:
        """The server may have the job and could not be asked: ask until it tells, then follow on."""
        prompt_id, failure = ask.prompt.id, execution.failure
        place = await self._whereabouts(ask, member, prompt_id)
        if place == "absent":
            return structs.replace(execution, left_on_server="absent")
        if place == "there":
            member.unsure.add(prompt_id)
            followed = await self._run(ask, member)
            return structs.replace(followed, sent=execution.sent, started=execution.started)
        late = ask.by is not None and self._clock() >= ask.by
        kind: Literal["timeout", "lost"] = "timeout" if late else "lost"
        said = failure.message if failure is not None else ""
        text = f"the server may have it, and could not be asked since: {said}"
        return structs.replace(
            execution,
            outcome="timed_out" if late else "lost",
            done=self._clock(),
            failure=Failure(kind=kind, message=text),
        )

    async def _whereabouts(self, ask: Ask, member: Member, prompt_id: str) -> Literal["there", "absent", "gone"]:
        """Whether the server has the prompt: only two answers some time apart are a no; gone: none in all our time."""
        until, pause, absent_since = self._all_our_time(ask), 0.1, None
        while self._clock() < until and self._abandoned is None:
            place = await member.client.api.whereabouts(prompt_id)
            now = self._clock()
            if place == "absent":
                absent_since = now if absent_since is None else absent_since
                if now - absent_since >= self._patience.lost_s:
                    return "absent"
            elif place != "unknown":
                return "there"
            await self._sleep(pause)
            pause = min(2.0 * pause, 1.0)
        return "gone"

    def _all_our_time(self, ask: Ask) -> float:
        until = self._clock() + self._patience.gone_s
        return until if ask.by is None else min(until, ask.by)

    async def _find(self, ask: Ask, story: _Story) -> Member | None:
        """The server that has the job of an earlier process, under the last id that it had there; None: not known."""
        if ask.prompt.id not in self._maybe_there:
            return None
        members = list(self._pool.members)
        later = list(enumerate(later_ids(ask.prompt.id), 2))[::-1]
        for pause in (0.0, self._patience.lost_s):  # Only two answers some time apart are a no.
            await self._sleep(pause)
            for number, prompt_id in later:
                for member in members:
                    if await self._told(ask, member, prompt_id) not in ("absent", "unknown"):
                        ask.prompt = structs.replace(ask.prompt, id=prompt_id)
                        story.number, story.always = number, True
                        return self._found(ask, member)
        if len(members) == 1:
            members[0].unsure.add(ask.prompt.id)  # Its client looks for it before it sends it.
            return None
        for member in members:
            if await self._whereabouts(ask, member, ask.prompt.id) == "there":
                return self._found(ask, member)
        return None

    def _found(self, ask: Ask, member: Member) -> Member:
        """The job is there already: it is looked up, not sent, and looked after like what is sent."""
        member.unsure.add(ask.prompt.id)
        self._pool.put(member, ask)
        return member

    async def _told(self, ask: Ask, member: Member, prompt_id: str) -> Whereabouts:
        """Where the prompt is there: asked until the server says, or all our time is over."""
        until, pause = self._all_our_time(ask), 0.1
        while True:
            place = await member.client.api.whereabouts(prompt_id)
            if place != "unknown" or self._clock() >= until or self._abandoned is not None:
                return place
            await self._sleep(pause)
            pause = min(2.0 * pause, 1.0)

    def _let_go(self, ask: Ask, execution: Execution) -> Execution:
        """The end of a job that gets no place; one of an earlier process is taken off where it may be."""
        prompt_id = ask.prompt.id
        unsure = [member for member in self._pool.members if prompt_id in member.unsure]
        for member in unsure:
            member.left.add(prompt_id)
        return structs.replace(execution, left_on_server="unknown") if unsure else execution

    # --- between attempts

    def _class(self, ask: Ask, execution: Execution) -> FailureClass | None:
        class_ = classify(execution)
        failure = execution.failure
        if class_ != "transient" or failure is None:
            return class_
        again = self._signatures.deterministic(ask.workflow, ask.prompt.id, failure)
        return "deterministic" if again else class_

    async def _again(self, ask: Ask, member: Member, story: _Story, execution: Execution, class_: FailureClass) -> bool:
        """Wait for the next attempt, and prepare it; False: there is none."""
        rule, failure = rule_of(self._policy, class_), execution.failure
        story.ended[class_] = story.ended.get(class_, 0) + 1
        story.charged += rule.charged
        if class_ == "transient" and failure is not None:
            story.node_failures.append(failure)
        if class_ == "missing":
            ask.unfit.add(member)
            if failure is not None and failure.kind == "missing_node":
                member.lacks.add(ask.workflow)
            if len(ask.unfit) == len(self._pool.members):
                return False
        if class_ in ("submit_unknown", "server_error") and not member.facts.client_prompt_id:
            return False  # It gives ids of its own, so that nobody can know whether it has the job.
        if rule.elsewhere:
            ask.avoid.add(member)
        elsewhere = rule.elsewhere and self._pool.others_than(ask.avoid)
        if not elsewhere:
            ask.avoid = {member} if rule.elsewhere else set()
        wait = wait_s(
            ask.policy,
            class_,
            story.ended[class_],
            self._clock() - ask.began,
            0.0 if elsewhere else self._rng.random(),
            None if elsewhere or failure is None else failure.retry_after_s,
            story.charged,
        )
        if wait is None or (rule.charged and not self._bucket.take()):
            return False
        if rule.free_memory:
            ask.vram = member.vram
            with suppress(TimeoutError):
                async with asyncio.timeout(self._policy.connect_s):
                    await member.client.api.free()
        await self._sleep(0.0 if elsewhere else wait)
        return True

    def _next(self, ask: Ask, story: _Story, execution: Execution) -> None:
        """The prompt of the next attempt: under the same id only if no server has ever had it by that."""
        prompt_id = ask.prompt.id
        if not never_sent(execution):
            story.number += 1
            prompt_id = _id_of(story.first, story.number)
        extra = msgspec.json.decode(ask.prompt.extra_data) if ask.prompt.extra_data else {}
        extra["comfyload"] = {"attempt": len(story.attempts) + 1, "retry_of": story.first}
        ask.prompt = structs.replace(ask.prompt, id=prompt_id, extra_data=json.dumps(extra).encode())

    def _not_sent(self, story: _Story, why: Failure) -> Execution:
        """The job gets no place any more: how its last attempt failed, or, if it was not refused any, why."""
        last = story.last
        if last is not None and last.failure is not None and last.failure.kind != "cancelled":
            return story.close(structs.replace(last, done=self._clock()))
        return story.close(Execution(outcome="failed", done=self._clock(), failure=why))

    async def _sleep(self, seconds: float) -> None:
        """Or until everything is abandoned."""
        if seconds > 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._over.wait()

    def _hear(self, member: Member, on_queue: Callable[[float, int], None]) -> Callable[[float, int], None]:
        def heard(t: float, remaining: int) -> None:
            if remaining != member.remaining:
                member.remaining, member.sign = remaining, t
                self._pool.stir()
            on_queue(t, sum(each.remaining or 0 for each in self._pool.members))

        return heard


def _judge(circuit: Circuit, class_: FailureClass | None, execution: Execution) -> None:
    """What the end of an attempt tells of its server."""
    asked_to_wait = None if execution.failure is None else execution.failure.retry_after_s
    if class_ in ("hung", "cuda") or (class_ == "lost" and execution.left_on_server == "unknown"):
        circuit.trip()
    elif class_ == "busy" and asked_to_wait is not None:
        circuit.rest(asked_to_wait)
    elif class_ in ("connect", "submit_unknown", "server_error", "busy"):
        circuit.failed()
    elif class_ in ("lost", "deadline", "other"):
        circuit.undecided()
    else:
        circuit.succeeded()


def _executed_ms(execution: Execution) -> int | None:
    times = execution.server
    if times.start_ms is None or times.end_ms is None:
        return None
    return times.end_ms - times.start_ms
