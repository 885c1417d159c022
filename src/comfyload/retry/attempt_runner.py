"""One attempt of a job on one server: sent at most once, and followed until it is known what became of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from comfyload.comfy.reconcile import reconcile
from comfyload.record.model import Execution, Failure
from comfyload.retry.attempt_log import later_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.api import PromptState
    from comfyload.comfy.reconcile import LookUp
    from comfyload.comfy.timeouts import Timeouts
    from comfyload.retry.pool import Ask, Member

__all__ = ["AttemptRunner"]


class AttemptRunner:
    """Makes them, any number at once. `over` is set when nothing more shall be waited for."""

    def __init__(self, clock: Callable[[], float], timeouts: Timeouts) -> None:
        self.over = asyncio.Event()
        self._clock = clock
        self._timeouts = timeouts
        self._orphans: set[asyncio.Task[Execution]] = set()

    async def make(self, ask: Ask, member: Member) -> Execution:
        """Send the job to the server, where it may have been sent already, and see what comes of it."""
        execution = await self._follow(ask, member)
        ended = execution.server.end_ms is not None  # By an event; only its result is not known.
        if execution.server_state_after == "unknown" and (execution.outcome == "failed" or ended):
            return await self._clarify(ask, member, execution)
        return execution

    async def find(self, ask: Ask, members: list[Member]) -> tuple[Member, int, str] | None:
        """The server that has the job of an earlier process, the number of the last id it has there, and the id."""
        ids = [ask.prompt.id, *later_ids(ask.prompt.id)]
        places = [(member, number, name) for number, name in enumerate(ids, 1) for member in members]
        found = await asyncio.gather(*(self._look_up(ask, member, name) for member, _, name in places))
        there = [place for place, answer in zip(places, found, strict=True) if answer == "there"]
        return there[-1] if there else None

    async def places(self, ask: Ask, members: list[Member], within_s: float) -> dict[tuple[Member, int], PromptState]:
        """Where the job is, of each server and by the number of its id; of a server that is silent: unknown."""
        ids = [ask.prompt.id, *later_ids(ask.prompt.id)]

        async def one(member: Member, prompt_id: str) -> PromptState:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    return await member.client.api.prompt_state(prompt_id)
            return "unknown"

        keys = [(member, number) for member in members for number in range(1, len(ids) + 1)]
        found = await asyncio.gather(*(one(member, ids[number - 1]) for member, number in keys))
        return dict(zip(keys, found, strict=True))

    async def sleep(self, seconds: float) -> None:
        """Or until it is over."""
        if seconds > 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.over.wait()

    async def settled(self) -> None:
        """Every attempt has ended, also those that nobody waits for."""
        if self._orphans:
            await asyncio.wait(self._orphans)

    async def _follow(self, ask: Ask, member: Member) -> Execution:
        """The attempt itself; if we are cancelled meanwhile, the job is taken off the server behind our back."""
        prompt = ask.prompt
        task = asyncio.create_task(member.client.run(prompt, deadline=ask.deadline, tell=ask.tell))
        timeout_s = None if ask.deadline is None else ask.deadline - self._clock() + self._timeouts.cancel_s + 1.0
        try:
            await asyncio.wait([task], timeout=timeout_s)
        except asyncio.CancelledError:
            member.client.give_up(prompt.id, Failure(kind="cancelled", message="cancelled by us"))
            self._leave(task)
            raise
        if task.done():
            return task.result()
        # A server that answers nothing at all cannot hold us beyond the deadline.
        self._leave(task)
        late = Failure(kind="timeout", message="not done by its deadline, and the server does not answer")
        return Execution(outcome="timed_out", done=ask.deadline, failure=late, server_state_after="unknown")

    def _leave(self, task: asyncio.Task[Execution]) -> None:
        """Nobody waits for it any more; it ends before we do."""
        self._orphans.add(task)
        task.add_done_callback(self._orphans.discard)

    async def _clarify(self, ask: Ask, member: Member, execution: Execution) -> Execution:
        """The server may have the job and could not be asked: ask until it tells, then follow on."""
        failure = execution.failure
        place = await self._look_up(ask, member, ask.prompt.id)
        if place == "absent":
            return structs.replace(execution, server_state_after="absent")
        if place == "there":
            member.unsure.add(ask.prompt.id)
            followed = await self._follow(ask, member)
            return structs.replace(followed, sent=execution.sent, started=execution.started)
        late = ask.deadline is not None and self._clock() >= ask.deadline
        kind: Literal["timeout", "lost"] = "timeout" if late else "lost"
        said = failure.message if failure is not None else ""
        text = f"the server may have it, and could not be asked since: {said}"
        return structs.replace(
            execution,
            outcome="timed_out" if late else "lost",
            done=self._clock(),
            failure=Failure(kind=kind, message=text),
        )

    async def _look_up(self, ask: Ask, member: Member, prompt_id: str) -> LookUp:
        """Whether the server has the id; unknown: it did not tell in all the time that there is."""
        until = self._clock() + self._timeouts.unreachable_s
        until = until if ask.deadline is None else min(until, ask.deadline)
        return await reconcile(
            member.client.api,
            prompt_id,
            self._clock,
            lost_s=self._timeouts.lost_s,
            over=lambda: self.over.is_set() or self._clock() >= until,
            sleep=self.sleep,
        )
