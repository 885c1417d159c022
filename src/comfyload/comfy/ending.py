"""Ends a job: confirms by the history how it ended, or removes it from the server."""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from typing import Literal

from msgspec import structs

from comfyload.comfy.inflight import End, Job
from comfyload.comfy.link import Link
from comfyload.comfy.outputs import fetch_outputs
from comfyload.comfy.own_fault import OURS
from comfyload.comfy.wire.calls import TransportError
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.record.model import Execution, Failure, FailureKind, Fetch, Outcome

Left = Literal["absent", "unknown"]


MOST_READS, IN_TURN = 12, 8
"""Histories that are read at one time, and how many of these by turn: with the POSTs and the poller, no more calls than
there are connections."""


class Ending:
    """Jobs whose end is known wait in a line for their history, asleep as they were: a thousand may end together."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._more_reads = asyncio.Semaphore(MOST_READS - IN_TURN)
        """For histories that are read without their turn in the line, or again."""
        self._line: deque[Job] = deque()
        self._reading: set[Job] = set()

    def on_end(self, job: Job) -> None:
        """An event tells the end of the job: its wait ends when it is its turn."""
        self._line.append(job)
        self._next()

    def release(self, job: Job) -> None:
        """The job's turn is over, if it was its turn."""
        if job in self._reading:
            self._reading.discard(job)
            self._next()

    def _next(self) -> None:
        while self._line and len(self._reading) < IN_TURN:
            job = self._line.popleft()
            if not job.end.done():
                self._reading.add(job)
                job.finish("events")

    def ended(self, job: Job, end: End) -> Coroutine[None, None, Execution]:
        """The outcome of a job whose wait ended this way."""
        if isinstance(end, Failure):
            return self._give_up(job, end)
        return self._confirm(job, end) if end == "events" or end == "history" else self._gone(job, end)

    async def _gone(self, job: Job, end: Literal["withdrawn", "lost"]) -> Execution:
        if end == "withdrawn":
            taken = Failure(kind="cancelled", message="taken back while it waited")
            return self._by_us(job, "cancelled", taken, "absent")
        left: Left = "absent" if job.absent_since is not None else "unknown"
        return self._lost(job, "accepted once; the server no longer knows it, or is gone", left)

    def refused(self, job: Job, why: Failure) -> Execution:
        """The outcome of a job that the server did not accept."""
        return self._by_us(job, "failed", why, "unknown" if job.may_be_there else None)

    async def clear_up(self) -> None:
        """Called at the end: removes what was given up and may still be on the server."""
        inflight, note = self._link.inflight, self._link.noticed.note
        if self._link.abandoned is not None or inflight.given_up() or len(inflight):
            jobs = [*inflight.given_up(), *inflight]
            # The waiting ones first: if the running one were stopped before them, the next would begin.
            await self._link.api.delete([job.prompt_id for job in jobs])
            await asyncio.gather(*(self._remove_from_server(job) for job in jobs))
        for prompt_id in inflight.ran_on:
            note("orphan", f"{prompt_id} was given up, but the server ran it to its end")
        for job in inflight.given_up():
            note("orphan", f"{job.prompt_id} was given up and may still be on the server")

    async def _confirm(self, job: Job, end: Literal["events", "history"]) -> Execution:
        """The job is over; the history, whose entry may follow a little after the last event, shows how it ended."""
        tracker = job.tracker
        done = tracker.ended_at if end == "events" and tracker.ended_at is not None else self._link.clock()
        within = 0.0 if end == "events" else done - (job.polled if job.polled is not None else tracker.sent or 0.0)
        unwatched = end == "history" and tracker.sent is None and job.polled is None
        entry = await self._history(job)
        if isinstance(entry, str):
            return self._lost(job, "its end was announced, but the server's history does not have it", entry)
        outcome, failure = tracker.verdict(entry)
        fetches: list[Fetch] = []
        if self._link.options.fetch and outcome == "completed":
            fetches = await fetch_outputs(self._link.transport, entry, self._link.clock, self._link.timeouts.submit_s)
            failure = _broken(fetches)
            outcome = "completed" if failure is None else "failed"
        return tracker.execution(
            outcome,
            # A job of an earlier process that was over when it was first looked up: since when is not known.
            done=None if unwatched else done,
            end_source=end,
            done_uncertainty_s=0.0 if unwatched else within,
            failure=failure,
            entry=entry,
            fetches=fetches,
        )

    async def _history(self, job: Job) -> HistoryEntry | Left:
        """The prompt's entry, `absent`, or `unknown`: the server does not answer.

        A server that does not answer is tried until it counts as unreachable, since the job may well have completed;
        one whose answer cannot be read is not.
        """
        link, timeouts = self._link, self._link.timeouts
        pause, since = 0.005, math.inf
        while True:
            found: HistoryEntry | Left
            in_turn = job in self._reading
            if not in_turn:
                await self._more_reads.acquire()
            since = min(since, link.clock())
            try:
                found = await link.api.history(job.prompt_id, timeouts.confirm_s) or "absent"
            except TransportError as error:
                found, gone = "unknown", not error.vain
            else:
                gone = False
            finally:
                self.release(job) if in_turn else self._more_reads.release()
            wait = timeouts.unreachable_s if gone and link.abandoned is None else timeouts.confirm_s
            dead = gone and link.stream.refused_s >= timeouts.refused_s
            if not isinstance(found, str) or dead or link.clock() - since >= wait:
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _give_up(self, job: Job, failure: Failure) -> Execution:
        """Remove the job from the server, wait a moment for that, and return what happened to it there."""
        done = self._link.clock()
        if failure.kind == "timeout":
            failure = structs.replace(failure, message=f"{failure.message}; it was given up {_where(job)}")
        left = None
        if job.may_be_known:
            self._link.inflight.give_up(job)
            left = await self._remove_from_server(job)
        outcome: Outcome = "cancelled" if failure.kind in ("cancelled", "censored") else "timed_out"
        return job.tracker.execution(outcome, done=done, failure=failure, server_state_after=left)

    async def _remove_from_server(self, job: Job) -> str:
        """Delete it if it waits, stop it if it runs, until it is gone or `cancel_s` has passed."""
        api, clock = self._link.api, self._link.clock
        until = clock() + self._link.timeouts.cancel_s
        await api.delete([job.prompt_id])
        stopping, pause = False, 0.05
        while True:
            state = await api.prompt_state(job.prompt_id)
            if state in ("finished", "failed", "cancelled", "absent"):
                self._link.inflight.forget(job)
                return state
            if state == "pending":
                await api.delete([job.prompt_id])
            elif state == "running" and not stopping:
                stopping = await api.stop(job.prompt_id)
                if not stopping:
                    text = "this ComfyUI can only interrupt whichever prompt runs, so nothing was interrupted"
                    self._link.noticed.note("cancel_unsafe", text)
                    return state
            if clock() >= until:
                return state
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _lost(self, job: Job, message: str, left: Left) -> Execution:
        at, fault = self._link.noticed.own_fault
        failure = Failure(kind="lost", message=message)
        if left == "unknown" and at >= (job.tracker.sent or 0.0):
            failure = Failure(kind="generator", message=f"{OURS}{fault}, so that the outcome is unknown")
        return self._by_us(job, "lost", failure, left)

    def _by_us(self, job: Job, outcome: Outcome, failure: Failure, left: str | None) -> Execution:
        """An end that shows neither in an event nor in the history."""
        return job.tracker.execution(outcome, done=self._link.clock(), failure=failure, server_state_after=left)


def _broken(fetches: list[Fetch]) -> Failure | None:
    """The failure of a job whose outputs were not all downloaded whole, by the first of them; None: all were."""
    bad = next((fetch for fetch in fetches if fetch.problem), None)
    if bad is None:
        return None
    kind: FailureKind = "generator" if bad.problem.startswith(OURS) else "fetch"
    return Failure(kind=kind, message=f"{bad.file}: {bad.problem}")


def _where(job: Job) -> str:
    if job.tracker.started is not None:
        return "while running"
    return "before it was sent" if job.tracker.sent is None else "while waiting in the server's queue"
