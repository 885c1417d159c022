"""Brings a job to its end: confirms by the history how it ended, or takes it off the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from comfyload.comfy.outputs import fetch_outputs
from comfyload.comfy.own_fault import OURS
from comfyload.comfy.wire import TransportError
from comfyload.record.model import Execution, Failure

if TYPE_CHECKING:
    from comfyload.comfy.inflight import End, Job
    from comfyload.comfy.link import Link
    from comfyload.comfy.wire import HistoryEntry
    from comfyload.record.model import FailureKind, Fetch, Outcome

__all__ = ["Ending"]

Left = Literal["absent", "unknown"]


class Ending:
    """Ends the jobs on one server. `fetch`: the outputs of those that completed are downloaded and thrown away."""

    def __init__(self, link: Link, *, fetch: bool) -> None:
        self._link = link
        self._fetch = fetch

    async def ended(self, job: Job, end: End) -> Execution:
        """What became of a job whose wait ended so."""
        if end == "timeout":
            late = Failure(kind="timeout", message=f"not done {self._link.timeouts.job_s:g} s after it was sent")
            return await self._give_up(job, "timed_out", late)
        if end == "abandoned":
            return await self._give_up(job, "cancelled", self._link.abandoned or Failure(kind="cancelled"))
        if end == "dropped" and job.why is not None:
            outcome: Outcome = "cancelled" if job.why.kind == "cancelled" else "timed_out"
            return await self._give_up(job, outcome, job.why)
        if end == "withdrawn":
            taken = Failure(kind="cancelled", message="taken back while it waited")
            return self._by_us(job, "cancelled", taken, "absent")
        if end == "lost":
            left: Left = "absent" if job.absent_since is not None else "unknown"
            return self._lost(job, "accepted once; the server knows it no longer, or is gone", left)
        return await self._confirm(job, end)

    def refused(self, job: Job, why: Failure) -> Execution:
        """What became of a job that the server did not take."""
        return self._by_us(job, "failed", why, "unknown" if job.may_be_there else None)

    async def clear_up(self) -> None:
        """Before leaving: what was given up and may still be there is looked at once more."""
        inflight, note = self._link.inflight, self._link.noticed.note
        if self._link.abandoned is not None or inflight.given_up() or len(inflight):
            jobs = [*inflight.given_up(), *inflight]
            # All that waits first: were the running one stopped before, the next would begin.
            await self._link.api.delete([job.prompt_id for job in jobs])
            await asyncio.gather(*(self._remove_from_server(job) for job in jobs))
        for prompt_id in inflight.ran_on:
            note("orphan", f"{prompt_id} was given up, and the server ran it to its end all the same")
        for job in inflight.given_up():
            note("orphan", f"{job.prompt_id} was given up and may still be on the server")

    async def _confirm(self, job: Job, end: End) -> Execution:
        """The end was seen: the history says how it ended. It may appear a little after the last event."""
        tracker = job.tracker
        done = tracker.ended_at if end == "events" and tracker.ended_at is not None else self._link.clock()
        within = 0.0 if end == "events" else done - (job.asked if job.asked is not None else tracker.sent or 0.0)
        unwatched = end == "history" and tracker.sent is None and job.asked is None
        entry = await self._history(job)
        if isinstance(entry, str):
            return self._lost(job, "its end was announced, but the server's history does not have it", entry)
        outcome, failure = tracker.verdict(entry)
        fetches: list[Fetch] = []
        if self._fetch and outcome == "completed":
            fetches = await fetch_outputs(self._link.transport, entry, self._link.clock, self._link.timeouts.submit_s)
            failure = _broken(fetches)
            outcome = "completed" if failure is None else "failed"
        return tracker.execution(
            outcome,
            # A job of an earlier process that was over when it was first asked for: nobody knows since when.
            done=None if unwatched else done,
            end_source="events" if end == "events" else "history",
            done_uncertainty_s=0.0 if unwatched else within,
            failure=failure,
            entry=entry,
            fetches=fetches,
        )

    async def _history(self, job: Job) -> HistoryEntry | Left:
        """The prompt's entry, or that there is none, or that the server does not answer.

        A server that does not answer is asked for as long as any that is out of reach: the job may well have completed.
        One whose answer cannot be read is not.
        """
        link, timeouts = self._link, self._link.timeouts
        pause, since = 0.005, link.clock()
        while True:
            found: HistoryEntry | Left
            try:
                found = await link.api.history(job.prompt_id, timeouts.confirm_s) or "absent"
            except TransportError as error:
                found, gone = "unknown", not error.vain
            else:
                gone = False
            wait = timeouts.unreachable_s if gone and link.abandoned is None else timeouts.confirm_s
            if not isinstance(found, str) or link.clock() - since >= wait:
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _give_up(self, job: Job, outcome: Outcome, failure: Failure) -> Execution:
        """Take the job off the server, wait a moment for it to be gone, and tell what became of it there."""
        done = self._link.clock()
        if failure.kind == "timeout":
            failure = structs.replace(failure, message=f"{failure.message}; it was given up {_where(job)}")
        if not job.may_be_known:
            return job.tracker.execution(outcome, done=done, end_source="client", failure=failure)
        self._link.inflight.give_up(job)
        left = await self._remove_from_server(job)
        return job.tracker.execution(outcome, done=done, end_source="client", failure=failure, server_state_after=left)

    async def _remove_from_server(self, job: Job) -> str:
        """Delete it if it waits, stop it if it runs, and look until it is gone or our patience is."""
        api, clock = self._link.api, self._link.clock
        until = clock() + self._link.timeouts.cancel_s
        await api.delete([job.prompt_id])
        asked, pause = False, 0.05
        while True:
            place = await api.prompt_state(job.prompt_id)
            if place in ("finished", "failed", "cancelled", "absent"):
                self._link.inflight.forget(job)
                return place
            if place == "pending":
                await api.delete([job.prompt_id])
            elif place == "running" and not asked:
                asked = await api.stop(job.prompt_id)
                if not asked:
                    text = "this ComfyUI can only interrupt whoever is running: we did not"
                    self._link.noticed.note("cancel_unsafe", text)
                    return place
            if clock() >= until:
                return place
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _lost(self, job: Job, message: str, left: Left) -> Execution:
        at, fault = self._link.noticed.own_fault
        failure = Failure(kind="lost", message=message)
        if left == "unknown" and at >= (job.tracker.sent or 0.0):
            failure = Failure(kind="generator", message=f"{OURS}{fault}, so that nobody knows what became of it")
        return self._by_us(job, "lost", failure, left)

    def _by_us(self, job: Job, outcome: Outcome, failure: Failure, left: str | None) -> Execution:
        """An end that neither an event nor the history told."""
        return job.tracker.execution(
            outcome, done=self._link.clock(), end_source="client", failure=failure, server_state_after=left
        )


def _broken(fetches: list[Fetch]) -> Failure | None:
    """The failure that the first output which did not come whole makes of its job."""
    bad = next((fetch for fetch in fetches if fetch.problem), None)
    if bad is None:
        return None
    kind: FailureKind = "generator" if bad.problem.startswith(OURS) else "fetch"
    return Failure(kind=kind, message=f"{bad.file}: {bad.problem}")


def _where(job: Job) -> str:
    if job.tracker.started is not None:
        return "while running"
    return "before it was sent" if job.tracker.sent is None else "while waiting in the server's queue"
