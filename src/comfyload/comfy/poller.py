"""Looks after jobs that events cannot or do not bring home: asks the history, gently, for the oldest first.

A server runs one prompt at a time in the order of its queue, so what has just ended is among the oldest of ours. While
events flow, nothing is asked. `/history/{id}` of an id that is not there costs a server next to nothing; lists of
everything are never asked for.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from comfyload.comfy.wire import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.api import Api
    from comfyload.comfy.inflight import InFlight, Job
    from comfyload.comfy.stream import EventStream
    from comfyload.comfy.timeouts import Timeouts

__all__ = ["HistoryPoller"]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
AT_ONCE = 4
"""Jobs asked for in one round."""


class HistoryPoller:
    """Runs beside the client until cancelled. `note(code, text)` takes what it finds out about the server."""

    def __init__(
        self,
        api: Api,
        inflight: InFlight,
        stream: EventStream,
        clock: Callable[[], float],
        *,
        timeouts: Timeouts,
        note: Callable[[str, str], None],
    ) -> None:
        self._api = api
        self._inflight = inflight
        self._stream = stream
        self._clock = clock
        self._timeouts = timeouts
        self._note = note
        self._progress_at = clock()
        self._stalled = False
        self._gone_since: float | None = None

    async def run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            now = self._clock()
            if self._stream.connected or not len(self._inflight):
                self._gone_since = None  # Of an outage that is over, nothing may count against the jobs after it.
            if not len(self._inflight):
                self._progress_at, pause = now, FIRST_PAUSE_S
                continue
            doubtful = self._doubtful(now)
            found = [await self._ask(job) for job in doubtful]
            if any(found) or not doubtful:
                pause = 0.0 if len(found) == AT_ONCE and all(found) else FIRST_PAUSE_S
            else:
                pause = min(1.5 * max(pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._look_for_stall(now, progressed=any(found))
            if self._gone_since is not None and now - self._gone_since >= self._timeouts.unreachable_s:
                self._note("server_gone", f"the server has been out of reach for {self._timeouts.unreachable_s:g} s")
                for job in self._inflight:
                    job.absent_since = None
                    job.finish("lost")

    def _doubtful(self, now: float) -> list[Job]:
        """The oldest jobs whose end may have passed unseen, but for those that need no second look yet."""
        accepted = (job for job in self._inflight if job.accepted and not job.end.done())
        oldest = list(islice((job for job in accepted if not self._missed(job, now)), AT_ONCE))
        blind = [job for job in oldest if not self._hears(job)]
        if blind:
            return blind
        if now - self._inflight.last_event > self._timeouts.silence_s:
            return oldest
        # The oldest waits although a younger one has started: it was taken out of the queue, of which no event tells.
        return [job for job in oldest[:1] if job.tracker.started is None and self._inflight.last_started > job.order]

    def _missed(self, job: Job, now: float) -> bool:
        """Whether the server was found without it a moment ago. However many a restart took, the jobs that came after
        it are not kept waiting for their turn: their ends may be forgotten by the next one.
        """
        again_s = max(self._timeouts.lost_s, self._api.lookup_interval_s)
        return job.absent_since is not None and job.looked_up is not None and now - job.looked_up < again_s

    async def _ask(self, job: Job) -> bool:
        """Whether the server tells something new of the job: that it is over, or that it knows it no longer."""
        asked = self._clock()
        try:
            entry = await self._api.history(job.prompt_id)
        except TransportError:
            if not self._stream.connected and self._gone_since is None:
                self._gone_since = asked
            return False
        self._gone_since = None
        if job.end.done():
            return True
        if entry is not None:
            return await self._ended_unseen(job)
        job.asked = asked
        if job.looked_up is not None and asked - job.looked_up < self._api.lookup_interval_s:
            return False
        job.looked_up = asked
        if await self._api.prompt_state(job.prompt_id) != "absent":
            job.absent_since = None
        elif job.absent_since is None:
            job.absent_since = asked
            return True
        elif asked - job.absent_since >= self._timeouts.lost_s:
            job.finish("lost")
            return True
        return False

    async def _ended_unseen(self, job: Job) -> bool:
        """The job is over by the history. On a stream that should have told, its event may be just behind."""
        if self._hears(job):
            await asyncio.sleep(0.05)
            if not job.end.done():
                self._note("stream_stalled", "jobs ended without an event: the event stream hangs; asked the history")
        job.finish("history")
        return True

    def _look_for_stall(self, now: float, *, progressed: bool) -> None:
        if progressed or now - self._inflight.last_event < self._timeouts.silence_s:
            self._progress_at, self._stalled = now, False
        elif now - self._progress_at >= self._timeouts.stalled_s and not self._stalled:
            self._stalled = True
            running = next((job for job in self._inflight if job.tracker.started is not None), None)
            if running is None:
                other = "another client's prompt blocks it"
            else:
                node = next(reversed(running.tracker.spans), "?")
                other = f"node {node} of {running.prompt_id} hangs or is very slow"
            self._note(
                "worker_stalled",
                f"nothing moved for {self._timeouts.stalled_s:g} s while {len(self._inflight)} prompts of ours wait or "
                f"run: the server's worker has died (then restart ComfyUI), or {other}",
            )

    def _hears(self, job: Job) -> bool:
        """Whether this job's events can reach us."""
        return self._stream.connected and job.heard_on == self._stream.client_id
