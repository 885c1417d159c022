"""Which server a job goes to, and when: places are given in the order in which they were asked for.

A server's backlog is counted in seconds: what our jobs there will take, and others' at the mean. A job goes where the
last job was of its workflow, so that models stay loaded, until that costs more than loading them elsewhere
[affinity with spill]. A job that waits on a server that stands still is taken back and sent to another.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from comfyload.record.model import Failure
from comfyload.record.stamps import believed
from comfyload.retry.breaker import Circuit
from comfyload.retry.expected import ServiceTimes
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from comfyload.comfy.client import ComfyClient
    from comfyload.comfy.inflight import Job
    from comfyload.record.model import Execution, Prompt, Server
    from comfyload.retry.policy import Breaker, Policy

__all__ = ["Ask", "Held", "Member", "Pool"]

SPILL_SWAPS = 2.0
"""How many times the cost of loading a workflow's models its home server may be behind the best."""

TICK_S = 1.0
SHED = Failure(kind="shed", message="no server could have it done by its deadline")
LOOK_AGAIN_S = (0.25, 2.0)
"""Bounds of the pause between two looks for a place, where no event tells that one came free."""


class Ask:
    """One job asked for, over all its attempts. `by`: its deadline, an instant; None: none."""

    def __init__(self, prompt: Prompt, began: float, policy: Policy) -> None:
        self.prompt = prompt
        self.began = began
        self.policy = policy
        self.by = None if policy.deadline_s is None else began + policy.deadline_s
        self.place: asyncio.Future[Member] | None = None
        self.avoid: set[Member] = set()
        """Servers that others are preferred to."""
        self.unfit: set[Member] = set()
        """Servers that lack what this job needs."""
        self.vram: float | None = None
        """More memory than this is preferred."""

    @property
    def workflow(self) -> str:
        return self.prompt.workflow


class Held:
    """A job of ours on a server: `after` is the workflow of the one put there before it."""

    def __init__(self, ask: Ask, after: str | None, predicted_s: float) -> None:
        self.ask = ask
        self.after = after
        self.predicted_s = predicted_s
        self.moved = False
        self.running_since: float | None = None


class Member:
    """One server of a pool, and what we put there."""

    def __init__(self, facts: Server, breaker: Breaker, clock: Callable[[], float], rng: Random) -> None:
        self.name = facts.url
        self.facts = facts
        self.circuit = Circuit(breaker, clock, rng, lambda: self.client.stream.connections)
        self.client: ComfyClient
        self.held: dict[str, Held] = {}
        self.last: str | None = None
        """The workflow of the job put there last, and when that was."""
        self.last_at = -math.inf
        self.remaining: int | None = None
        self.others = 0
        self.depth = 0
        self.sign = -math.inf
        """When something last moved there that we could see."""
        self.left: set[str] = set()
        """Ids that may be there and that nobody waits for."""
        self.unsure: set[str] = set()
        """Ids to be looked up before they are sent."""
        self.lacks: set[str] = set()
        """Workflows with a node that the server lacks."""

    @property
    def vram(self) -> float:
        sizes = (device.get("vram_total") for device in self.facts.devices)
        return max((float(size) for size in sizes if isinstance(size, int | float)), default=0.0)

    async def look(self, within_s: float) -> bool:
        """Count the prompts that a job sent now would find there; False: the server did not say."""
        # Counted before the question: a POST under way may be in the answer or not, and is taken for there.
        unseen = sum(1 for prompt_id in self.held if not self._accepted(prompt_id))
        told: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                told = await self.client.api.queue_remaining()
        seen = max(0, len(self.held) - unseen)
        self.others = 0 if told is None else max(0, told - seen)
        self.depth = len(self.held) if told is None else told + unseen
        return told is not None

    def job(self, prompt_id: str) -> Job | None:
        return self.client.inflight.get(prompt_id)

    def _accepted(self, prompt_id: str) -> bool:
        job = self.job(prompt_id)
        return job is not None and job.accepted


class Pool:
    """Gives places on its members, and looks after what waits and runs there. `run()` it beside.

    `never_s`: for how long no server may work until a job without a deadline is given up.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float], rng: Random, never_s: float) -> None:
        self.members: list[Member] = []
        self.times = ServiceTimes()
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._never_s = never_s
        self._waiting: list[Ask] = []
        self._stir = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        """Until cancelled, or closed."""
        tasks: dict[Member, asyncio.Task[None]] = {}
        try:
            while not self._closed:
                self._stir.clear()
                for member in self.members:
                    if member not in tasks:
                        tasks[member] = asyncio.create_task(self._look_after(member))
                if self._waiting:
                    await self._round()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause() if self._waiting else None):
                        await self._stir.wait()
        finally:
            self.close()
            await end_tasks(tasks.values())

    def add(self, member: Member) -> None:
        """Jobs may go there, too."""
        self.members.append(member)
        self.stir()

    def stir(self) -> None:
        """Something changed: a place may have come free."""
        self._stir.set()

    def close(self) -> None:
        """Give no more places; those who wait get none."""
        self._closed = True
        self.stir()
        for ask in self._waiting:
            if ask.place is not None:
                ask.place.cancel()

    # --- places

    async def place(self, ask: Ask) -> Member | Failure:
        """A server for the next attempt, or why there is none: no time is left, or no server works."""
        if self._closed:
            return SHED
        ask.place = asyncio.get_running_loop().create_future()
        self._waiting.append(ask)
        self.stir()
        try:
            while True:
                left = self._left_s(ask)
                if left <= 0.0:
                    return SHED
                if ask.by is None and all(member.circuit.broken_s >= self._never_s for member in self.members):
                    return Failure(kind="connect", message=f"no server has worked for {self._never_s:g} s")
                # What the job will need may be known better in a while than now.
                done, _ = await asyncio.wait([ask.place], timeout=min(left, LOOK_AGAIN_S[1]))
                if done:
                    return SHED if ask.place.cancelled() else ask.place.result()
        except asyncio.CancelledError:
            if ask.place.done() and not ask.place.cancelled():
                member = ask.place.result()
                self.release(member, ask.prompt.id)
                member.circuit.undecided()
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(ask)
            ask.place = None

    def release(self, member: Member, prompt_id: str, execution: Execution | None = None) -> Held | None:
        """The job is no longer there, or no longer waited for; what it took is learnt."""
        held = member.held.pop(prompt_id, None)
        took = None if execution is None else executed_s(execution)
        if held is not None and execution is not None and took is not None and execution.outcome == "completed":
            self.times.learn(held.ask.workflow, held.after, took)
        member.sign = self._clock()
        self.stir()
        return held

    def others_than(self, members: set[Member]) -> bool:
        """Whether there is a server beside these to which a job could go now."""
        return any(member not in members and member.circuit.state == "closed" for member in self.members)

    def _left_s(self, ask: Ask) -> float:
        """How long the job may still wait for a place, by what it takes on a server that does nothing else."""
        if ask.by is None:
            return math.inf
        needed = self.times.predict_s(ask.workflow, ask.workflow)
        # If it needs longer than any job has got, nothing would be sent any more, nor the estimate mended.
        return ask.by - self._clock() - (needed if ask.began + needed < ask.by else 0.0)

    def _pause(self) -> float:
        least, most = LOOK_AGAIN_S
        return min(most, max(least, self.times.mean_s * (0.5 + self._rng.random())))

    async def _round(self) -> None:
        """Give what places there are to those who wait, first come first served."""
        members = list(self.members)  # One may join while these are asked.
        asked = await asyncio.gather(*(self._usable(member) for member in members))
        usable = [member for member, yes in zip(members, asked, strict=True) if yes]
        most = self._policy.admission.depth
        for ask in list(self._waiting):
            usable = [member for member in usable if most is None or member.depth <= most]
            if not usable:
                return
            if ask.place is None or ask.place.done():
                continue
            member = self._choose(ask, usable)
            if member is None:
                continue
            if member.circuit.state == "due":
                member.circuit.trial()
                usable.remove(member)
            self.put(member, ask)
            ask.place.set_result(member)

    async def _usable(self, member: Member) -> bool:
        """Whether jobs may go there now; an open circuit's server is asked how it is first."""
        within_s = self._policy.connect_s
        if member.circuit.state == "due":
            alive = False
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    alive = await member.client.api.alive()
            if not alive:
                member.circuit.trip()
                return False
        elif member.circuit.state != "closed":
            return False
        hurried = any(ask.by is not None for ask in self._waiting)
        if self._policy.admission.depth is None and not hurried and len(self.members) == 1:
            return True
        if not await member.look(within_s):
            member.circuit.failed()
        return member.circuit.state in ("closed", "due")

    def _choose(self, ask: Ask, usable: list[Member]) -> Member | None:
        fit = [member for member in usable if member not in ask.unfit and self._has_room(member, ask)]
        for better in (
            [member for member in fit if member not in ask.avoid],
            [member for member in fit if ask.workflow not in member.lacks],
            [member for member in fit if ask.vram is not None and member.vram > ask.vram],
        ):
            both = [member for member in better if member in fit]
            fit = both or fit
        if not fit:
            return None
        # Of servers with as little to do, the one whose models have been in use the longest ago gives them up.
        best = min(fit, key=lambda member: (self.backlog_s(member), member.last_at))
        home = min((member for member in fit if member.last == ask.workflow), key=self.backlog_s, default=best)
        behind = self.backlog_s(home) - self.backlog_s(best)
        return home if behind <= SPILL_SWAPS * self.times.swap_s(ask.workflow) else best

    def _has_room(self, member: Member, ask: Ask) -> bool:
        if ask.by is None or (not member.held and not member.others):
            return True
        return self._clock() + self.backlog_s(member) + self.times.predict_s(ask.workflow, member.last) <= ask.by

    def backlog_s(self, member: Member) -> float:
        """Seconds of work before a job sent there now; while no time is known, jobs count as one second each."""
        now, unit = self._clock(), self.times.mean_s or 1.0
        total = member.others * unit
        for prompt_id, held in member.held.items():
            job = member.job(prompt_id)
            started = job.follow.started if job is not None else None
            total += max(0.0, (held.predicted_s or unit) - (0.0 if started is None else now - started))
        return total

    def put(self, member: Member, ask: Ask) -> None:
        """The job is sent there, or is there already."""
        predicted = self.times.predict_s(ask.workflow, member.last)
        if not member.held:
            member.sign = self._clock()
        member.held[ask.prompt.id] = Held(ask, member.last, predicted)
        member.last, member.last_at = ask.workflow, self._clock()
        member.depth += 1

    # --- what is there

    async def _look_after(self, member: Member) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if member.held:
                await self._end_the_hung(member)
                await self._take_back(member)
            if member.left and member.circuit.state == "closed":
                await clean(member)

    async def _end_the_hung(self, member: Member) -> None:
        liveness_s = self._policy.liveness_s
        if liveness_s is None:
            return
        for prompt_id, held in list(member.held.items()):
            job = member.job(prompt_id)
            if job is None or not job.accepted or job.end.done():
                continue
            since = job.follow.heard if job.follow.started is not None else held.running_since
            if since is None and self._clock() - self._sign(member) < liveness_s:
                continue
            if since is not None and self._clock() - since < liveness_s:
                continue
            # No event of it for so long, or none that could have come: the server says whether it runs.
            place = await member.client.api.whereabouts(job.prompt_id)
            if place != "running":
                held.running_since = None
            elif since is None:
                held.running_since = self._clock()
            else:
                text = f"it runs on {member.name}, and nothing of it moved for {liveness_s:g} s"
                member.client.drop(prompt_id, Failure(kind="hung", message=text))

    async def _take_back(self, member: Member) -> None:
        """Where the server stands still and another does not, what waits there is taken back to be sent elsewhere."""
        if not self.others_than({member}):
            return
        liveness_s = self._policy.liveness_s
        if member.circuit.state in ("closed", "half_open"):
            if liveness_s is None or self._clock() - self._sign(member) < liveness_s:
                return
            member.circuit.trip()
        for prompt_id, held in list(member.held.items()):
            job = member.job(prompt_id)
            waits = job is not None and job.accepted and job.follow.started is None and not job.end.done()
            if waits and await member.client.withdraw(prompt_id):
                held.moved = True

    def _sign(self, member: Member) -> float:
        return max(member.sign, member.client.inflight.last_event)


async def clean(member: Member) -> None:
    """Take off the server what nobody waits for any more and may still be there."""
    api = member.client.api
    for prompt_id in list(member.left):
        place = await api.whereabouts(prompt_id)
        if place == "pending":
            await api.delete([prompt_id])
        elif place == "running":
            await api.stop(prompt_id)
        elif place != "unknown":
            member.left.discard(prompt_id)


def executed_s(execution: Execution) -> float | None:
    """How long the server worked on it, by its own clock, or else by ours."""
    by_server = believed(execution).execution_ms
    if by_server is not None:
        return max(0, by_server) / 1000.0
    if execution.started is not None and execution.done is not None:
        return execution.done - execution.started
    return None
