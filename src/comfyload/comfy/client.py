"""The client: submits a prompt to a ComfyUI server and follows it to its end, whatever happens on the way.

Events show when a job ended, the server's history shows how. Where no events come (the stream was lost, or hangs for
everybody because of one stuck reader), the history is polled for the oldest jobs instead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from comfyload.comfy.api import api_of
from comfyload.comfy.ending import Ending
from comfyload.comfy.inflight import InFlight, Job
from comfyload.comfy.link import ClientOptions, Link
from comfyload.comfy.noticed import Noticed
from comfyload.comfy.own_fault import FaultReporter
from comfyload.comfy.poller import HistoryPoller
from comfyload.comfy.stream import EventStream
from comfyload.comfy.submit import LATE, Submit
from comfyload.comfy.wire.calls import Transport
from comfyload.record.job_events import JobEvent
from comfyload.record.model import Execution, Failure, Prompt, Server
from comfyload.tasks import end_tasks

MAX_SUBMITS = 48
"""POSTs at once, below the connection limit, so that a POST leaves at `sent` and does not wait for a connection."""


class ComfyClient:
    """A client for one server, made by `ComfyClient.open`; `run` may be called any number of times at once."""

    def __init__(
        self, transport: Transport, server: Server, clock: Callable[[], float], options: ClientOptions
    ) -> None:
        noticed = Noticed(clock, options.observe)
        transport = FaultReporter(transport, noticed.fault_of_ours, lambda: self.stream.answered())
        self._clock = clock
        self._options = options
        self._submits = asyncio.Semaphore(MAX_SUBMITS if options.room is None else 1)
        self._loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = None
        """Of the job that was sent first: one for all, as each of its own takes memory."""
        self._fault: BaseException | None = None
        """The error of a background task, without which no job can be followed."""
        self.leaves_jobs = False
        """Whether our jobs stay on the server when this is left, for another process to take up."""
        self.api = api_of(transport, server, noticed.unread)
        self.inflight = InFlight(clock, self._on_queue, server.url, noticed.unread)
        self.inflight.earlier_ids.update(options.earlier_ids)
        self.stream = EventStream(transport, self.inflight.on_frame, noticed.stream_lost)
        self._link = Link(
            transport=transport,
            api=self.api,
            inflight=self.inflight,
            stream=self.stream,
            clock=clock,
            options=options,
            noticed=noticed,
        )
        self._poller = HistoryPoller(self._link)
        self._submit = Submit(self._link)
        self._ending = Ending(self._link)
        self.inflight.on_end = self._ending.on_end

    @classmethod
    @asynccontextmanager
    async def open(
        cls, transport: Transport, server: Server, clock: Callable[[], float], options: ClientOptions
    ) -> AsyncIterator[ComfyClient]:
        """Open the event stream, then yield the client; on leaving, none of our jobs stays in the server's queue."""
        client = cls(transport, server, clock, options)
        tasks = [asyncio.create_task(client.stream.run()), asyncio.create_task(client._poller.run())]
        for task in tasks:
            task.add_done_callback(client._on_end_of_task)
        try:
            await client.stream.first_attempt()
            yield client
        finally:
            try:
                if not client.leaves_jobs:
                    await client._ending.clear_up()
            finally:
                if client._expiry is not None:
                    client._expiry.cancel()
                await end_tasks(tasks)

    async def run(
        self, prompt: Prompt, *, deadline: float = math.inf, tell: Callable[[JobEvent], None] | None = None
    ) -> Execution:
        """Submit the prompt once and follow it to its end. Never raises for what a server does.

        `deadline`: the instant at which it is given up in any case. `tell` is called with each event of the job.
        """
        called, job = self._clock(), None
        try:
            async with self._submits:
                unsent = await self._unsent(prompt, called, deadline)
                if unsent is not None:
                    return unsent
                # The wait among our POSTs is not the server's: the job's time starts here.
                job = self.inflight.add(prompt.id, sent_before=prompt.id in self._options.unconfirmed_ids)
                job.tracker.held_s = self._submit.held_s(called)
                del called  # thousands may wait below
                job.tell = tell
                self._set_expiries(job, deadline)
                refused = await self._submit.submit(job, prompt, deadline)
            if refused is not None:
                execution = self._ending.refused(job, refused)
            else:
                if tell is not None and job.tracker.acknowledged is not None:
                    job.at_end += (asyncio.create_task(self._count_before(job)),)
                execution = await self._ending.ended(job, await job.end)
        except BaseException:
            if job is not None:
                self._leave(job, in_doubt=True)
            raise
        self._leave(job, in_doubt=False)
        return execution

    async def cancel_all(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel all our prompts: those that wait are deleted in one call, then the running one is stopped."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._link.abandoned = why = Failure(kind=kind, message=message)
        waiting = [job for job in self.inflight if not job.end.done()]
        await self.api.delete([job.prompt_id for job in waiting])
        for job in waiting:
            job.finish(why)

    @property
    def left(self) -> list[str]:
        """Ids of our prompts that the server may still hold and nobody waits for."""
        return [job.prompt_id for job in self.inflight.given_up()]

    def give_up(self, prompt_id: str, why: Failure) -> None:
        """Give one prompt up: its `run` removes it from the server and returns with `why`."""
        job = self.inflight.get(prompt_id)
        if job is not None:
            job.finish(why)

    async def recall(self, prompt_id: str) -> bool:
        """Take back a prompt that still waits; its `run` returns. False: it goes on, or its state is not known.

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

    def _leave(self, job: Job, *, in_doubt: bool) -> None:
        """The job's `run` ends. After an error the server may still have it: it is removed there later."""
        self._ending.release(job)
        for each in job.at_end:
            each.cancel()
        if in_doubt and job.may_be_known:
            self.inflight.give_up(job)
        else:
            self.inflight.remove(job)

    async def _unsent(self, prompt: Prompt, called: float, deadline: float) -> Execution | None:
        """The end of a prompt that must not be sent; None: it may be.

        Raises:
            BaseException: the error that ended the event stream or the poller: no job can be followed any more.
        """
        # A prompt that may be there already is looked up first, and may have to wait for room afterwards.
        no_room = "" if prompt.id in self._options.unconfirmed_ids else await self._submit.no_room(deadline)
        if no_room:
            why = Failure(kind="dropped", message=no_room)
            return Execution(outcome="dropped", failure=why, held_s=self._submit.held_s(called))
        if self._fault is not None:
            raise self._fault
        if self._link.abandoned is None:
            return None
        return Execution(outcome="cancelled", done=self._clock(), failure=self._link.abandoned)

    async def _count_before(self, job: Job) -> None:
        """Count the prompts before the job, of which the server has just counted one more: the job itself."""
        remaining = await self.api.queue_remaining()
        if remaining is not None:
            self.inflight.is_behind(job, max(0, remaining - 1))

    def _set_expiries(self, job: Job, deadline: float) -> None:
        """Set the timers that end our wait for the job."""
        job_s = self._link.timeouts.job_s
        if job_s is not None and self._expiry is None:
            self._expiry = self._loop.call_later(job_s, self._expire, job_s)
        if deadline < math.inf:
            job.at_end += (self._loop.call_later(max(0.0, deadline - self._clock()), job.finish, LATE),)

    def _expire(self, job_s: float) -> None:
        """End our wait for the jobs that took too long, and set the timer for the next: they are in order."""
        self._expiry = None
        for job in self.inflight:
            left = job.began + job_s - self._clock()
            if left > 0.0:
                self._expiry = self._loop.call_later(left, self._expire, job_s)
                return
            job.finish(Failure(kind="timeout", message=f"not done {job_s:g} s after it was sent"))

    def _on_queue(self, remaining: int, ours: int) -> None:
        if self._options.room is not None:
            self._options.room.changed()
        self._options.on_queue(self._clock(), remaining)
        if remaining > ours and not self._options.shared:
            self._link.noticed.foreign_load(remaining, ours)

    def _on_end_of_task(self, task: asyncio.Task[None]) -> None:
        """Background tasks end by cancellation. An error ends every wait for a job at once, not at its timeout."""
        fault = None if task.cancelled() else task.exception()
        if fault is None:
            return
        self._fault = fault
        for job in self.inflight:
            if not job.end.done():
                job.end.set_exception(fault)
