"""The client: takes a prompt to a ComfyUI server and follows it to its end, whatever happens on the way.

Events tell when a job ended, the server's history tells how. Where events cannot come (the stream was lost, or hangs
for everybody because of one stuck reader), the watch asks the history for the oldest jobs instead.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec import structs

from comfyload.comfy.api import Api
from comfyload.comfy.follow import Follow
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.lookup import look_up
from comfyload.comfy.outputs import fetch_outputs
from comfyload.comfy.own_fault import OURS, Witnessed
from comfyload.comfy.patience import Patience
from comfyload.comfy.refusal import classify_refusal, node_errors_of
from comfyload.comfy.stream import EventStream
from comfyload.comfy.watch import Watch
from comfyload.comfy.wire import TransportError
from comfyload.record.model import Execution, Failure, Observation
from comfyload.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterator

    from comfyload.comfy.inflight import End, Job
    from comfyload.comfy.room import Room
    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import HistoryEntry, Reply
    from comfyload.record.model import FailureKind, Outcome, Prompt, Server
    from comfyload.record.told import JobEvent

__all__ = ["Client", "ComfyClient"]

Left = Literal["absent", "unknown"]
LATE = Failure(kind="timeout", message="not done by its deadline")

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
        patience: Patience,
        fetch: bool,
        observe: Callable[[Observation], None],
        on_queue: Callable[[float, int], None],
        maybe_there: Container[str],
        forgotten: bool,
        room: Room | None = None,
    ) -> None:
        self._transport = transport = Witnessed(transport, self._on_own_fault)
        self._server = server
        self._clock = clock
        self._patience = patience
        self._fetch = fetch
        self._observe = observe
        self._emit_queue = on_queue
        self._maybe_there = maybe_there
        self._forgotten = forgotten
        self.api = Api(transport, server, self._on_unread)
        self._room = room
        self._submits = asyncio.Semaphore(MAX_SUBMITS if room is None else 1)
        self._abandoned: Failure | None = None
        self._fault: BaseException | None = None
        """What a task beside the jobs ended with: none of them can be followed any more."""
        self._own_fault: tuple[float, str] = (-math.inf, "")
        self._highest_number: float | None = None
        self.inflight = InFlight(clock, self._on_queue, server.url, self._on_unread)
        self.stream = EventStream(transport, self.inflight.on_frame, self._on_stream_lost)
        self._watch = Watch(self.api, self.inflight, self.stream, clock, patience=patience, note=self._note)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        transport: Transport,
        server: Server,
        clock: Callable[[], float],
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        fetch: bool = False,
        observe: Callable[[Observation], None] = lambda _: None,
        on_queue: Callable[[float, int], None] = lambda _t, _n: None,
        maybe_there: Container[str] = frozenset(),
        forgotten: bool = False,
        room: Room | None = None,
    ) -> AsyncIterator[ComfyClient]:
        """Open the event stream, then yield the client; on leaving, nothing of ours stays in the server's queue.

        Prompts whose ids are in `maybe_there` are looked up before they are sent: somebody may have done so already.
        `forgotten`: the server was restarted since, so that one it does not know may have run, and is not sent again.
        `room`: prompts are sent only while it has some, one after the other.
        """
        client = cls(
            transport,
            server,
            clock,
            patience=patience,
            fetch=fetch,
            observe=observe,
            on_queue=on_queue,
            maybe_there=maybe_there,
            forgotten=forgotten,
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
                await client._clear_up()
            finally:
                await end_tasks(tasks)

    async def run(
        self, prompt: Prompt, *, by: float | None = None, tell: Callable[[JobEvent], None] | None = None
    ) -> Execution:
        """Submit the prompt once, follow it to its end, and tell what happened. Never raises for what a server does.

        `by`: the instant at which it is given up, whatever is going on. `tell` is called with what happens to it.
        """
        asked = self._clock()
        with ExitStack() as at_end:
            async with self._submits:
                # What may be there already is looked up first, and may then have to wait for room.
                no_room = "" if prompt.id in self._maybe_there else await self._no_room(by)
                if no_room:
                    why = Failure(kind="dropped", message=no_room)
                    return Execution(outcome="dropped", failure=why, held_s=self._held_s(asked))
                if self._fault is not None:
                    raise self._fault
                if self._abandoned is not None:
                    return Follow(prompt.id).execution(
                        "cancelled", done=self._clock(), seen_by="client", failure=self._abandoned
                    )
                # Waiting for a place among the POSTs is our doing, not the server's: the job's time starts here.
                job = self.inflight.add(prompt.id)
                job.follow.held_s = self._held_s(asked)
                job.tell = tell
                at_end.push(self._leaving(job))
                for expiry in self._expiries(job, by):
                    at_end.callback(expiry.cancel)
                refused = await self._submit(job, prompt, by)
            if refused is not None:
                left = "unknown" if job.may_be_there else None
                return job.follow.execution(
                    "failed", done=self._clock(), seen_by="client", failure=refused, left_on_server=left
                )
            if tell is not None and job.follow.acknowledged is not None:
                at_end.callback(asyncio.create_task(self._count_before(job)).cancel)
            return await self._ended(job, await job.end)

    async def abandon(self, kind: Literal["cancelled", "censored"] = "cancelled") -> None:
        """Cancel everything of ours: what waits is deleted in one call, then what runs is stopped by its id."""
        message = "cancelled by us" if kind == "cancelled" else "cut off by the end of the run"
        self._abandoned = Failure(kind=kind, message=message)
        waiting = [job for job in self.inflight if not job.end.done()]
        await self.api.delete([job.prompt_id for job in waiting])
        for job in waiting:
            job.finish("abandoned")

    @property
    def left(self) -> list[str]:
        """Ids of prompts of ours that the server may still hold and nobody waits for."""
        return [job.prompt_id for job in self.inflight.given_up()]

    def drop(self, prompt_id: str, why: Failure) -> None:
        """Give one prompt up: its `run` takes it off the server, and returns with `why`."""
        job = self.inflight.get(prompt_id)
        if job is not None:
            self._drop(job, why)

    async def withdraw(self, prompt_id: str) -> bool:
        """Take back a prompt that still waits; its `run` returns. False: it goes on, or it cannot be known.

        True is a promise: the server has not run it, and will not.
        """
        job = self.inflight.get(prompt_id)
        if job is None or not job.accepted or await self.api.whereabouts(job.prompt_id) != "pending":
            return False
        await self.api.delete([job.prompt_id])
        if await self.api.whereabouts(job.prompt_id) != "absent" or job.follow.started is not None:
            return False
        job.finish("withdrawn")
        return not job.end.cancelled() and job.end.result() == "withdrawn"

    def _leaving(self, job: Job) -> Callable[[object, BaseException | None, object], None]:
        """What is done with a job when its `run` ends: by an error, it may be on the server, and is taken off there."""

        def leave(_kind: object, error: BaseException | None, _trace: object) -> None:
            there = job.follow.sent is not None or job.accepted or job.prompt_id in self._maybe_there
            if error is not None and there:
                self.inflight.give_up(job)
            else:
                self.inflight.remove(job)

        return leave

    # --- submitting

    async def _no_room(self, by: float | None, over: Callable[[], bool] = lambda: False) -> str:
        """Wait for room in the server's queue; why a prompt is not to be sent, "" if it is, or is over."""
        if self._room is None:
            return ""
        late = by if by is not None else math.inf
        return await self._room.wait(
            self.api, self._clock, lambda: over() or self._abandoned is not None or self._clock() >= late
        )

    def _held_s(self, asked: float) -> float:
        """How long a prompt that was to be sent at `asked` has been held back because the server's queue was full."""
        full = None if self._room is None else self._room.last_full
        return self._clock() - asked if full is not None and full >= asked else 0.0

    async def _submit(self, job: Job, prompt: Prompt, by: float | None) -> Failure | None:
        """POST the prompt; the failure if the server does not have it afterwards, None if it does."""
        if prompt.id in self._maybe_there:
            # An earlier process may have sent it.
            found = await look_up(self.api, prompt.id, self._clock, lost_s=self._patience.lost_s, over=job.end.done)
            job.accepted = found == "there"
            if found != "absent":
                return None
            if self._forgotten:
                job.finish("lost")
                return None
            await self._no_room(by, job.end.done)
        patience = self._patience.for_submit
        if by is not None and by - self._clock() < patience:
            patience = by - self._clock()
            if patience <= 0.0:
                self._drop(job, LATE)
                return None
        client_id = self.stream.client_id
        job.heard_on = client_id if self.stream.connected else None
        job.number_before = self._highest_number
        job.follow.sent = self._clock()
        try:
            reply = await self.api.submit(prompt.graph(), prompt.id, client_id, prompt.extra_data, patience)
        except TransportError as error:
            if not error.sent:
                return Failure(kind="generator" if error.ours else "connect", message=str(error))
            unclear = Failure(kind="generator" if error.ours else "submit_unknown", message=str(error))
            return await self._find_out(job, unclear)
        if reply.status != 200:
            failure = classify_refusal(reply.status, reply.body, reply.headers)
            # A 5xx may come from a gateway, or from a server that failed after it had queued the prompt.
            return await self._find_out(job, failure) if reply.status >= 500 else failure
        return await self._accepted(job, reply)

    async def _accepted(self, job: Job, reply: Reply) -> Failure | None:
        job.follow.acknowledged = self._clock()
        try:
            accepted, job.follow.partial = node_errors_of(reply.body)
        except msgspec.MsgspecError:
            self._on_unread("the reply to POST /prompt")
            unclear = Failure(kind="http", message="the reply to POST /prompt is none of ComfyUI's", status=200)
            return await self._find_out(job, unclear)
        if accepted.prompt_id != job.prompt_id:
            if self.inflight.get(accepted.prompt_id) is not None:
                self._on_unread("a reply to POST /prompt with the id of another job of ours")
                unclear = Failure(kind="http", message="the server gave it the id of another job", status=200)
                return await self._find_out(job, unclear)
            self.inflight.rename(job, accepted.prompt_id)
        job.accepted = True
        job.follow.number = number = accepted.number
        if number is not None:
            # Compared with what was known when this POST left: replies to concurrent POSTs may overtake each other.
            if job.number_before is not None and number < job.number_before:
                self._note("restart", "the server's prompt counter began again: it was restarted during the run")
                self._highest_number = number
            self._highest_number = number if self._highest_number is None else max(number, self._highest_number)
        return None

    async def _find_out(self, job: Job, failure: Failure) -> Failure | None:
        """After an unclear reply: look the id up until the server knows it, or has twice not known it."""

        def seen() -> bool:
            return job.end.done() or job.follow.first_event is not None

        silent_until = self._clock()
        if failure.status is None:
            silent_until = (job.follow.sent or 0.0) + self._patience.submit_s
        found = await look_up(
            self.api,
            job.prompt_id,
            self._clock,
            # The POST may still be on its way; a plain 500 came from the server itself, after the fact.
            lost_s=0.0 if failure.status == 500 else self._patience.lost_s,
            over=seen,
            silent_until=silent_until,
        )
        if found == "there" or seen():
            job.accepted = True
            return None
        job.may_be_there = found == "unknown"
        return failure

    async def _count_before(self, job: Job) -> None:
        """How many prompts are before it, where somebody wants to know: the server has it, and counts it."""
        told = await self.api.queue_remaining()
        if told is not None:
            self.inflight.is_behind(job, max(0, told - 1))

    # --- ending

    async def _ended(self, job: Job, end: End) -> Execution:
        if end == "timeout":
            late = Failure(kind="timeout", message=f"not done {self._patience.job_s:g} s after it was sent")
            return await self._give_up(job, "timed_out", late)
        if end == "abandoned":
            return await self._give_up(job, "cancelled", self._abandoned or Failure(kind="cancelled"))
        if end == "dropped" and job.why is not None:
            outcome: Outcome = "cancelled" if job.why.kind == "cancelled" else "timed_out"
            return await self._give_up(job, outcome, job.why)
        if end == "withdrawn":
            taken = Failure(kind="cancelled", message="taken back while it waited")
            return job.follow.execution(
                "cancelled", done=self._clock(), seen_by="client", failure=taken, left_on_server="absent"
            )
        if end == "lost":
            left: Left = "absent" if job.absent_since is not None else "unknown"
            return self._lost(job, "accepted once; the server knows it no longer, or is gone", left)
        return await self._confirm(job, end)

    async def _confirm(self, job: Job, end: End) -> Execution:
        """The end was seen: the history says how it ended. It may appear a little after the last event."""
        follow = job.follow
        done = follow.over if end == "events" and follow.over is not None else self._clock()
        within = 0.0 if end == "events" else done - (job.asked if job.asked is not None else follow.sent or 0.0)
        unwatched = end == "history" and follow.sent is None and job.asked is None
        entry = await self._history(job)
        if isinstance(entry, str):
            return self._lost(job, "its end was announced, but the server's history does not have it", entry)
        outcome, failure = follow.verdict(entry)
        fetches = []
        if self._fetch and outcome == "completed":
            fetches = await fetch_outputs(self._transport, entry, self._clock, self._patience.submit_s)
            bad = next((fetch for fetch in fetches if fetch.problem), None)
            if bad is not None:
                ours = bad.problem.startswith(OURS)
                kind: FailureKind = "generator" if ours else "fetch"
                outcome, failure = "failed", Failure(kind=kind, message=f"{bad.file}: {bad.problem}")
        return follow.execution(
            outcome,
            # A job of an earlier process that was over when it was first asked for: nobody knows since when.
            done=None if unwatched else done,
            seen_by="events" if end == "events" else "history",
            done_within_s=0.0 if unwatched else within,
            failure=failure,
            entry=entry,
            fetches=fetches,
        )

    async def _history(self, job: Job) -> HistoryEntry | Left:
        """The prompt's entry, or that there is none, or that the server does not answer.

        A server that does not answer is asked for as long as any that is out of reach: the job may well have completed.
        One whose answer cannot be read is not.
        """
        pause, since, patience = 0.005, self._clock(), self._patience
        while True:
            found: HistoryEntry | Left
            try:
                found = await self.api.history(job.prompt_id, patience.confirm_s) or "absent"
            except TransportError as error:
                found, gone = "unknown", not error.vain
            else:
                gone = False
            wait = patience.gone_s if gone and self._abandoned is None else patience.confirm_s
            if not isinstance(found, str) or self._clock() - since >= wait:
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _give_up(self, job: Job, outcome: Outcome, failure: Failure) -> Execution:
        """Take the job off the server, wait a moment for it to be gone, and tell what became of it there."""
        done = self._clock()
        if failure.kind == "timeout":
            failure = structs.replace(failure, message=f"{failure.message}; it was given up {_where(job)}")
        if job.follow.sent is None and not job.accepted and job.prompt_id not in self._maybe_there:
            return job.follow.execution(outcome, done=done, seen_by="client", failure=failure)
        self.inflight.give_up(job)
        left = await self._take_off(job)
        return job.follow.execution(outcome, done=done, seen_by="client", failure=failure, left_on_server=left)

    async def _take_off(self, job: Job) -> str:
        """Delete it if it waits, stop it if it runs, and look until it is gone or our patience is."""
        until = self._clock() + self._patience.cancel_s
        await self.api.delete([job.prompt_id])
        asked, pause = False, 0.05
        while True:
            place = await self.api.whereabouts(job.prompt_id)
            if place in ("finished", "failed", "cancelled", "absent"):
                self.inflight.forget(job)
                return place
            if place == "pending":
                await self.api.delete([job.prompt_id])
            elif place == "running" and not asked:
                asked = await self.api.stop(job.prompt_id)
                if not asked:
                    self._note("cancel_unsafe", "this ComfyUI can only interrupt whoever is running: we did not")
                    return place
            if self._clock() >= until:
                return place
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _clear_up(self) -> None:
        """Before leaving: what was given up and may still be there is looked at once more."""
        if self._abandoned is not None or self.inflight.given_up() or len(self.inflight):
            jobs = [*self.inflight.given_up(), *self.inflight]
            # All that waits first: were the running one stopped before, the next would begin.
            await self.api.delete([job.prompt_id for job in jobs])
            await asyncio.gather(*(self._take_off(job) for job in jobs))
        for prompt_id in self.inflight.ran_on:
            self._note("orphan", f"{prompt_id} was given up, and the server ran it to its end all the same")
        for job in self.inflight.given_up():
            self._note("orphan", f"{job.prompt_id} was given up and may still be on the server")

    def _lost(self, job: Job, message: str, left: Left) -> Execution:
        at, fault = self._own_fault
        failure = Failure(kind="lost", message=message)
        if left == "unknown" and at >= (job.follow.sent or 0.0):
            failure = Failure(kind="generator", message=f"{OURS}{fault}, so that nobody knows what became of it")
        return job.follow.execution("lost", done=self._clock(), seen_by="client", failure=failure, left_on_server=left)

    def _drop(self, job: Job, why: Failure) -> None:
        if not job.end.done():
            job.why = why
            job.finish("dropped")

    def _expiries(self, job: Job, by: float | None) -> Iterator[asyncio.TimerHandle]:
        """The timers that end our wait for the job."""
        loop = asyncio.get_running_loop()
        if self._patience.job_s is not None:
            yield loop.call_later(self._patience.job_s, job.finish, "timeout")
        if by is not None:
            yield loop.call_later(max(0.0, by - self._clock()), self._drop, job, LATE)

    # --- what is noticed

    def _on_queue(self, remaining: int, ours: int) -> None:
        if self._room is not None:
            self._room.heard()
        self._emit_queue(self._clock(), remaining)
        if remaining > ours:
            self._note(
                "foreign_load",
                f"the server's queue held {remaining} prompts, of which at most {ours} were ours: "
                "other clients' work is in these numbers",
            )

    def _on_end_of_task(self, task: asyncio.Task[None]) -> None:
        """They end by cancellation. By an error, whoever waits for a job is told now, not when its time is up."""
        fault = None if task.cancelled() else task.exception()
        if fault is None:
            return
        self._fault = fault
        for job in self.inflight:
            if not job.end.done():
                job.end.set_exception(fault)

    def _on_unread(self, what: str) -> None:
        self._note("unreadable", f"the server sent what cannot be read: {what[:300]}")

    def _on_stream_lost(self, reason: str) -> None:
        self._note("stream_lost", f"the event stream was lost: {reason}")

    def _on_own_fault(self, fault: str) -> None:
        self._own_fault = self._clock(), fault
        self._note("generator_fault", f"the generator's machine failed: {fault}")

    def _note(self, code: str, text: str) -> None:
        self._observe(Observation(t=self._clock(), code=code, text=text))


def _where(job: Job) -> str:
    if job.follow.started is not None:
        return "while running"
    return "before it was sent" if job.follow.sent is None else "while waiting in the server's queue"
