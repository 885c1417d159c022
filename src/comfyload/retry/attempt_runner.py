"""Runs one attempt of a job on one server: sent at most once, and followed until its outcome is known."""

import asyncio
import math
from collections.abc import Callable
from typing import Literal

from msgspec import structs

from comfyload.comfy.reconcile import LookUp, reconcile
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.wire.queue import PromptState
from comfyload.record.model import Execution, Failure
from comfyload.retry.attempt_log import LATER_IDS, id_of
from comfyload.retry.pending import PendingPrompt
from comfyload.retry.pool import ServerBackend
from comfyload.tasks import within


class AttemptRunner:
    """Runs attempts, any number at once. `over` is set when all waits must end. `once`: a job has one id and one
    attempt, which ends as its client says.
    """

    def __init__(self, clock: Callable[[], float], timeouts: Timeouts, *, once: bool = False) -> None:
        self._once = once
        self.over = asyncio.Event()
        self._clock = clock
        self._timeouts = timeouts
        self._orphans: set[asyncio.Task[Execution]] = set()

    async def make(self, pending: PendingPrompt, backend: ServerBackend) -> Execution:
        """Send the job to the server, which may have it already, and follow it to its end."""
        execution = await self._follow(pending, backend)
        ended = execution.server.end_ms is not None  # by an event; only its result is not known
        if not self._once and execution.server_state_after == "unknown" and (execution.outcome == "failed" or ended):
            return await self._clarify(pending, backend, execution)
        return execution

    async def find(self, pending: PendingPrompt, backends: list[ServerBackend]) -> tuple[ServerBackend, int] | None:
        """The server that has the job of an earlier process, and the number of the last id that it has there."""
        keys = _every_id(backends, 1 if self._once else LATER_IDS + 1)
        found = await asyncio.gather(
            *(self._look_up(pending, backend, id_of(pending.prompt.id, number)) for backend, number in keys)
        )
        there = [key for key, answer in zip(keys, found, strict=True) if answer == "there"]
        return there[-1] if there else None

    async def states(
        self, pending: PendingPrompt, backends: list[ServerBackend], within_s: float
    ) -> dict[tuple[ServerBackend, int], PromptState]:
        """The state of the job on each server, by the number of its id; of a server without an answer: unknown."""
        keys = _every_id(backends, LATER_IDS + 1)
        late: PromptState = "unknown"
        states = (backend.client.api.prompt_state(id_of(pending.prompt.id, number)) for backend, number in keys)
        found = await asyncio.gather(*(within(within_s, state, late) for state in states))
        return dict(zip(keys, found, strict=True))

    async def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until it is over."""
        if seconds > 0.0:
            await within(seconds, self.over.wait(), False)

    async def settled(self) -> None:
        """Wait until every attempt has ended, also those that nobody waits for."""
        if self._orphans:
            await asyncio.wait(self._orphans)

    async def _follow(self, pending: PendingPrompt, backend: ServerBackend) -> Execution:
        """The attempt itself; if it is cancelled, the job is removed from the server in the background."""
        prompt = pending.prompt
        task = asyncio.create_task(backend.client.run(prompt, deadline=pending.deadline, tell=pending.tell))
        timeout_s = pending.deadline - self._clock() + self._timeouts.cancel_s + 1.0
        try:
            await asyncio.wait([task], timeout=None if timeout_s == math.inf else timeout_s)
        except asyncio.CancelledError:
            if backend.client.leaves_jobs:
                task.cancel()
                raise
            backend.client.give_up(prompt.id, Failure(kind="cancelled", message="cancelled by us"))
            self._leave(task)
            raise
        if task.done():
            return task.result()
        # A server without any answer must not hold the caller beyond the deadline.
        self._leave(task)
        late = Failure(kind="timeout", message="not done by its deadline, and the server does not answer")
        return Execution(outcome="timed_out", done=pending.deadline, failure=late, server_state_after="unknown")

    def _leave(self, task: asyncio.Task[Execution]) -> None:
        """Let the attempt end by itself; `settled` waits for it."""
        self._orphans.add(task)
        task.add_done_callback(self._orphans.discard)

    async def _clarify(self, pending: PendingPrompt, backend: ServerBackend, execution: Execution) -> Execution:
        """The server may have the job and did not answer: look it up until it is known, then follow it on."""
        failure = execution.failure
        found = await self._look_up(pending, backend, pending.prompt.id)
        if found == "absent":
            return structs.replace(execution, server_state_after="absent")
        if found == "there":
            backend.unconfirmed_ids.add(pending.prompt.id)
            followed = await self._follow(pending, backend)
            return structs.replace(followed, sent=execution.sent, started=execution.started)
        late = self._clock() >= pending.deadline
        kind: Literal["timeout", "lost"] = "timeout" if late else "lost"
        why = failure.message if failure is not None else ""
        text = f"the server may have it, and has not answered since: {why}"
        return structs.replace(
            execution,
            outcome="timed_out" if late else "lost",
            done=self._clock(),
            failure=Failure(kind=kind, message=text),
        )

    async def _look_up(self, pending: PendingPrompt, backend: ServerBackend, prompt_id: str) -> LookUp:
        """Whether the server has the id; unknown: it did not answer in time."""
        until = min(self._clock() + self._timeouts.unreachable_s, pending.deadline)
        return await reconcile(
            backend.client.api,
            prompt_id,
            self._clock,
            lost_s=self._timeouts.lost_s,
            over=lambda: self.over.is_set() or self._clock() >= until,
            gone=lambda: backend.client.stream.refused_s >= self._timeouts.refused_s,
            sleep=self.sleep,
        )


def _every_id(backends: list[ServerBackend], ids: int) -> list[tuple[ServerBackend, int]]:
    """Each of so many ids that a job may have, by its number, on each server."""
    return [(backend, number) for number in range(1, ids + 1) for backend in backends]
