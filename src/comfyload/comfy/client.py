"""The client: takes a prompt to a ComfyUI server and follows it to its end, whatever happens on the way.

Events tell when a job ended, the server's history tells how. Where events cannot come (the stream was lost, or hangs
for everybody because of one stuck reader), the watch asks the history for the oldest jobs instead.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from comfyload.comfy.api import Api
from comfyload.comfy.ending import Ending
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.link import Link
from comfyload.comfy.noticed import Noticed
from comfyload.comfy.own_fault import Witnessed
from comfyload.comfy.poller import HistoryPoller
from comfyload.comfy.stream import EventStream
from comfyload.comfy.submit import LATE, Submit
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.tracker import PromptTracker
from comfyload.record.model import Execution, Failure
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterator

    from comfyload.comfy.inflight import Job
    from comfyload.comfy.room import Room
    from comfyload.comfy.transport import Transport
    from comfyload.record.job_events import JobEvent
    from comfyload.record.model import Observation, Prompt, Server

__all__ = ["Client", "ComfyClient"]

MAX_SUBMITS = 48
"""POSTs under way at once, below the connection limit, so that `sent` is when a POST leaves and not when it queues."""


class Client(Protocol):
    """One verb. A retrying client and a pool of servers are Clients that hold Clients."""

    async def run(self, prompt: Prompt) -> Execution: ...


class ComfyClient:
    """A `Client` for one server. Made by `ComfyClient.open`; `run` may be called any number of times at once."""

    def __init__(
        self,
        transport: Transport,
        server: Server,
        clock: Callable[[], float],
        *,
        timeouts: Timeouts,
        fetch: bool,
        observe: Callable[[Observation], None],
        on_queue: Callable[[float, int], None],
        unconfirmed_ids: Container[str],
        server_restarted: bool,
        room: Room | None = None,
    ) -> None:
        noticed = Noticed(clock, observe)
        transport = Witnessed(transport, noticed.fault_of_ours)
        self._clock = clock
        self._emit_queue = on_queue
        self._unconfirmed_ids = unconfirmed_ids
        self._room = room
        self._submits = asyncio.Semaphore(MAX_SUBMITS if room is None else 1)
        self._fault: BaseException | None = None
        """What a task beside the jobs ended with: none of them can be followed any more."""
        self.api = Api(transport, server, noticed.unread)
        self.inflight = InFlight(clock, self._on_queue, server.url, noticed.unread)
        self.stream = EventStream(transport, self.inflight.on_frame, noticed.stream_lost)
        self._watch = HistoryPoller(self.api, self.inflight, self.stream, clock, timeouts=timeouts, note=noticed.note)
        self._link = Link(
            transport=transport,
            api=self.api,
            inflight=self.inflight,
            stream=self.stream,
            clock=clock,
            timeouts=timeouts,
            noticed=noticed,
        )
        self._submit = Submit(self._link, room=room, server_restarted=server_restarted)
        self._ending = Ending(self._link, fetch=fetch)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        transport: Transport,
        server: Server,
        clock: Callable[[], float],
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        fetch: bool = False,
        observe: Callable[[Observation], None] = lambda _: None,
        on_queue: Callable[[float, int], None] = lambda _t, _n: None,
        unconfirmed_ids: Container[str] = frozenset(),
        server_restarted: bool = False,
        room: Room | None = None,
    ) -> AsyncIterator[ComfyClient]:
        """Open the event stream, then yield the client; on leaving, nothing of ours stays in the server's queue.

        Prompts whose ids are in `unconfirmed_ids` may have been sent by an earlier process: they are looked up first.
        `server_restarted`: the server was restarted since, so that one it does not know may have run, and is not sent
        again.
        `room`: prompts are sent only while it has some, one after the other.
        """
        client = cls(
            transport,
            server,
            clock,
            timeouts=timeouts,
            fetch=fetch,
            observe=observe,
            on_queue=on_queue,
            unconfirmed_ids=unconfirmed_ids,
            server_restarted=server_restarted,
            room=room,
        )
        tasks = [asyncio.create_task(client.stream.run()), asyncio.create_task(client._watch.run())]
        for task in tasks:
            task.add_done_callback(client._on_end_of_task)
        try:
            await client.stream.first_attempt()
            yield client
        finally:
            try:
                await client._ending.clear_up()
            finally:
                await end_tasks(tasks)

    async def run(
        self, prompt: Prompt, *, deadline: float | None = None, tell: Callable[[JobEvent], None] | None = None
    ) -> Execution:
        """Submit the prompt once, follow it to its end, and tell what happened. Never raises for what a server does.

        `deadline`: the instant at which it is given up, whatever is going on. `tell` is called with what happens to it.
        """
        asked = self._clock()
        with ExitStack() as at_end:
            async with self._submits:
                unsent = await self._unsent(prompt, asked, deadline)
                if unsent is not None:
                    return unsent
                # Waiting for a place among the POSTs is our doing, not the server's: the job's time starts here.
                job = self.inflight.add(prompt.id, sent_before=prompt.id in self._unconfirmed_ids)
                job.tracker.held_s = self._submit.held_s(asked)
                job.tell = tell
                at_end.push(self._leaving(job))
                for expiry in self._expiries(job, deadline):
                    at_end.callback(expiry.cancel)
                refused = await self._submit.submit(job, prompt, deadline)
            if refused is not None:
                return self._ending.refused(job, refused)
            if tell is not None and job.tracker.acknowledged is not None:
                at_end.callback(asyncio.create_task(self._count_before(job)).cancel)
            return await self._ending.ended(job, await job.end)

    async def cancel_all(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel everything of ours: what waits is deleted in one call, then what runs is stopped by its id."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._link.abandoned = Failure(kind=kind, message=message)
        waiting = [job for job in self.inflight if not job.end.done()]
        await self.api.delete([job.prompt_id for job in waiting])
        for job in waiting:
            job.finish("abandoned")

    @property
    def left(self) -> list[str]:
        """Ids of prompts of ours that the server may still hold and nobody waits for."""
        return [job.prompt_id for job in self.inflight.given_up()]

    def give_up(self, prompt_id: str, why: Failure) -> None:
        """Give one prompt up: its `run` takes it off the server, and returns with `why`."""
        job = self.inflight.get(prompt_id)
        if job is not None:
            job.give_up(why)

    async def recall(self, prompt_id: str) -> bool:
        """Take back a prompt that still waits; its `run` returns. False: it goes on, or it cannot be known.

        True is a promise: the server has not run it, and will not.
        """
        job = self.inflight.get(prompt_id)
        if job is None or not job.accepted or await self.api.prompt_state(job.prompt_id) != "pending":
            return False
        await self.api.delete([job.prompt_id])
        if await self.api.prompt_state(job.prompt_id) != "absent" or job.tracker.started is not None:
            return False
        job.finish("withdrawn")
        return not job.end.cancelled() and job.end.result() == "withdrawn"

    def _leaving(self, job: Job) -> Callable[[object, BaseException | None, object], None]:
        """What is done with a job when its `run` ends: by an error, it may be on the server, and is taken off there."""

        def leave(_kind: object, error: BaseException | None, _trace: object) -> None:
            if error is not None and job.may_be_known:
                self.inflight.give_up(job)
            else:
                self.inflight.remove(job)

        return leave

    async def _unsent(self, prompt: Prompt, asked: float, deadline: float | None) -> Execution | None:
        """What becomes of a prompt that is not to be sent; None: it is.

        Raises:
            BaseException: what the event stream or the watch ended with: no job can be followed any more.
        """
        # What may be there already is looked up first, and may then have to wait for room.
        no_room = "" if prompt.id in self._unconfirmed_ids else await self._submit.no_room(deadline)
        if no_room:
            why = Failure(kind="dropped", message=no_room)
            return Execution(outcome="dropped", failure=why, held_s=self._submit.held_s(asked))
        if self._fault is not None:
            raise self._fault
        abandoned = self._link.abandoned
        if abandoned is None:
            return None
        return PromptTracker(prompt.id).execution(
            "cancelled", done=self._clock(), end_source="client", failure=abandoned
        )

    async def _count_before(self, job: Job) -> None:
        """How many prompts are before it, where somebody wants to know: the server has it, and counts it."""
        told = await self.api.queue_remaining()
        if told is not None:
            self.inflight.is_behind(job, max(0, told - 1))

    def _expiries(self, job: Job, deadline: float | None) -> Iterator[asyncio.TimerHandle]:
        """The timers that end our wait for the job."""
        loop = asyncio.get_running_loop()
        job_s = self._link.timeouts.job_s
        if job_s is not None:
            yield loop.call_later(job_s, job.finish, "timeout")
        if deadline is not None:
            yield loop.call_later(max(0.0, deadline - self._clock()), job.give_up, LATE)

    def _on_queue(self, remaining: int, ours: int) -> None:
        if self._room is not None:
            self._room.heard()
        self._emit_queue(self._clock(), remaining)
        if remaining > ours:
            self._link.noticed.foreign_load(remaining, ours)

    def _on_end_of_task(self, task: asyncio.Task[None]) -> None:
        """They end by cancellation. By an error, whoever waits for a job is told now, not when its time is up."""
        fault = None if task.cancelled() else task.exception()
        if fault is None:
            return
        self._fault = fault
        for job in self.inflight:
            if not job.end.done():
                job.end.set_exception(fault)
