"""Which server a job goes to, and when: places are given in the order in which they were asked for.

Which server that is, `decide` says; here the servers are asked how they are. A job that waits on a server that stands
still is taken back and sent to another.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from comfyload.record.model import Failure
from comfyload.record.stamps import believed
from comfyload.retry.decide import LOOK_AGAIN_S, Backend, Dispatcher, PendingJob, others_than
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from comfyload.comfy.client import ComfyClient
    from comfyload.comfy.inflight import Job
    from comfyload.record.job_events import JobEvent
    from comfyload.record.model import Execution, Prompt, Server
    from comfyload.retry.decide import Assignment
    from comfyload.retry.policy import Breaker, Policy

__all__ = ["Ask", "Member", "Pool"]

TICK_S = 1.0
SLOW_S = 0.5
"""How long a round waits for a server's answer."""
NO_TIME_S = 1e-3
"""Less than this is not waited for: a clock may be too coarse to tell when it has passed."""
SHED = Failure(kind="shed", message="no server could have it done by its deadline")


class Ask(PendingJob):
    """One job asked for, over all its attempts. `tell` is called with what happens to it."""

    def __init__(
        self, prompt: Prompt, began: float, policy: Policy, tell: Callable[[JobEvent], None] | None = None
    ) -> None:
        super().__init__(prompt.id, prompt.workflow, began, policy)
        self.tell = tell
        self.prompt = prompt
        self.place: asyncio.Future[Member] | None = None

    def send_as(self, prompt: Prompt) -> None:
        """Under this id it is sent from now on."""
        self.prompt, self.id = prompt, prompt.id


class Member(Backend):
    """One server of a pool, and what we put there."""

    def __init__(self, facts: Server, breaker: Breaker, draw: Callable[[], float]) -> None:
        super().__init__(breaker, draw, lambda: self.client.stream.connections)
        self.name = facts.url
        self.facts = facts
        sizes = (device.get("vram_total") for device in facts.devices)
        self.vram = max((float(size) for size in sizes if isinstance(size, int | float)), default=0.0)
        self.client: ComfyClient
        self.remaining: int | None = None
        self.sign = -math.inf
        """When something last moved there that we could see."""
        self.left: set[str] = set()
        """Ids that may be there and that nobody waits for."""
        self.unsure: set[str] = set()
        """Ids to be looked up before they are sent."""

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

    def note_starts(self) -> None:
        """Which of ours run, by the events that came."""
        for prompt_id, held in self.held.items():
            if held.started is None:
                job = self.job(prompt_id)
                if job is not None and job.tracker.started is not None:
                    self.started(prompt_id, job.tracker.started)

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
        self.dispatcher = Dispatcher(policy, rng.random)
        self._policy = policy
        self._clock = clock
        self._never_s = never_s
        self._waiting: list[Ask] = []
        self._stir = asyncio.Event()
        self._closed = False
        self._asked: dict[Member, asyncio.Task[bool]] = {}
        """Servers that are being asked how they are."""

    async def run(self) -> None:
        """Until cancelled, or closed."""
        tasks: dict[Member, asyncio.Task[None]] = {}
        try:
            while not self._closed:
                self._stir.clear()
                for member in self.members:
                    if member not in tasks:
                        tasks[member] = asyncio.create_task(self._supervise(member))
                if self._waiting:
                    await self._round()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.dispatcher.pause_s() if self._waiting else None):
                        await self._stir.wait()
        finally:
            self.close()
            await end_tasks([*tasks.values(), *self._asked.values()])

    def add(self, member: Member) -> None:
        """Jobs may go there, too."""
        self.members.append(member)
        self.notify()

    def notify(self) -> None:
        """Something changed: a place may have come free."""
        self._stir.set()

    def close(self) -> None:
        """Give no more places; those who wait get none."""
        self._closed = True
        self.notify()
        for ask in self._waiting:
            if ask.place is not None:
                ask.place.cancel()

    # --- places

    async def place(self, ask: Ask) -> Member | Failure:
        """A server for the next attempt, or why there is none: no time is left, or no server works."""
        if self._closed:
            return SHED
        ask.place = asyncio.get_running_loop().create_future()
        since = self._clock()
        self._waiting.append(ask)
        self.notify()
        try:
            while True:
                now = self._clock()
                left = self.dispatcher.left_s(ask, now)
                if left < NO_TIME_S:
                    return SHED
                if ask.deadline is None and self._none_works(ask, now, since):
                    return Failure(kind="connect", message=f"no server has worked for {self._never_s:g} s")
                # What the job will need may be known better in a while than now.
                done, _ = await asyncio.wait([ask.place], timeout=min(left, LOOK_AGAIN_S[1]))
                if done:
                    return SHED if ask.place.cancelled() else ask.place.result()
        except asyncio.CancelledError:
            if ask.place.done() and not ask.place.cancelled():
                member = ask.place.result()
                self.release(member, ask.prompt.id)
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(ask)
            ask.place = None

    def release(self, member: Member, prompt_id: str, execution: Execution | None = None) -> Assignment | None:
        """The job is no longer there, or no longer waited for; what it took is learnt."""
        completed = execution is not None and execution.outcome == "completed"
        held = self.dispatcher.release(prompt_id, member, executed_s(execution) if execution and completed else None)
        member.sign = self._clock()
        self.notify()
        return held

    async def _round(self) -> None:
        """Give what places there are to those who wait, first come first served."""
        usable = await self._ask_all()
        for member in usable:
            member.note_starts()
        waiting = [ask for ask in self._waiting if ask.place is not None and not ask.place.done()]
        now = self._clock()
        for ask, member in self.dispatcher.assign(waiting, usable, now):
            if len(member.held) == 1:
                member.sign = now
            if ask.place is not None:
                ask.place.set_result(member)

    async def _ask_all(self) -> list[Member]:
        """Those to which jobs may go. One that is slow to answer holds up no other: it is for a later round."""
        others = [member for member in self.members if member not in self._asked]
        new = {member: asyncio.create_task(self._usable(member)) for member in others}
        self._asked |= new
        if new:
            _, slow = await asyncio.wait(new.values(), timeout=SLOW_S)
            for look in slow:
                look.add_done_callback(lambda _: self.notify())
        answered = {member: look for member, look in self._asked.items() if look.done()}
        for member in answered:
            del self._asked[member]
        return [member for member, look in answered.items() if look.result()]

    async def _usable(self, member: Member) -> bool:
        """Whether jobs may go there now; an open circuit's server is asked how it is first."""
        within_s = self._policy.connect_s
        state = member.circuit.state(self._clock())
        if state == "due":
            alive = False
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    alive = await member.client.api.alive()
            if not alive:
                member.circuit.trip(self._clock())
                return False
        elif state != "closed":
            return False
        hurried = any(ask.deadline is not None for ask in self._waiting)
        if self._policy.admission.depth is None and not hurried and len(self.members) == 1:
            return True
        if not await member.look(within_s):
            member.circuit.failed(self._clock())
        return member.circuit.state(self._clock()) in ("closed", "due")

    def _none_works(self, ask: Ask, now: float, since: float) -> bool:
        """Whether no server that could run the job has worked for so long; one that may be tried again is tried."""
        return all(
            member in ask.unfit
            or (member.circuit.broken_s(now) >= self._never_s and member.circuit.hopeless(now, since))
            for member in self.members
        )

    def put(self, member: Member, ask: Ask) -> None:
        """The job is there already."""
        if not member.held:
            member.sign = self._clock()
        self.dispatcher.put(ask, member, self._clock())

    # --- what is there

    async def _supervise(self, member: Member) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if member.held:
                await self._end_the_hung(member)
                await self._take_back(member)
            if member.left and member.circuit.state(self._clock()) == "closed":
                await clean(member)

    async def _end_the_hung(self, member: Member) -> None:
        liveness_s = self._policy.liveness_s
        if liveness_s is None:
            return
        for prompt_id, held in list(member.held.items()):
            job = member.job(prompt_id)
            if job is None or not job.accepted or job.end.done():
                continue
            since = job.tracker.last_event if job.tracker.started is not None else held.running_since
            if since is None and self._clock() - self._sign(member) < liveness_s:
                continue
            if since is not None and self._clock() - since < liveness_s:
                continue
            # No event of it for so long, or none that could have come: the server says whether it runs.
            place = await member.client.api.prompt_state(job.prompt_id)
            if place != "running":
                held.running_since = None
            elif since is None:
                held.running_since = self._clock()
            else:
                text = f"it runs on {member.name}, and nothing of it moved for {liveness_s:g} s"
                member.client.give_up(prompt_id, Failure(kind="hung", message=text))

    async def _take_back(self, member: Member) -> None:
        """Where the server stands still and another does not, what waits there is taken back to be sent elsewhere."""
        now = self._clock()
        if not others_than({member}, self.members, now):
            return
        liveness_s = self._policy.liveness_s
        if member.circuit.resting or member.circuit.state(now) in ("closed", "half_open"):
            if liveness_s is None or now - self._sign(member) < liveness_s:
                return
            member.circuit.trip(now)
        for prompt_id, held in list(member.held.items()):
            job = member.job(prompt_id)
            waits = job is not None and job.accepted and job.tracker.started is None and not job.end.done()
            if waits and await member.client.recall(prompt_id):
                held.moved = True

    def _sign(self, member: Member) -> float:
        return max(member.sign, member.client.inflight.last_event)


async def clean(member: Member) -> None:
    """Take off the server what nobody waits for any more and may still be there."""
    api = member.client.api
    for prompt_id in list(member.left):
        place = await api.prompt_state(prompt_id)
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
