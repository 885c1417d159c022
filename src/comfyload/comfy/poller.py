"""Finds the ends of jobs whose events do not come: polls the history for the oldest jobs.

A server runs one prompt at a time in the order of its queue, so a prompt that has just ended is among our oldest. While
events come, nothing is polled. `/history/{id}` of an unknown id costs a server next to nothing; whole lists are never
requested.
"""

import asyncio
import math
from itertools import islice

from comfyload.comfy.inflight import Job
from comfyload.comfy.link import Link
from comfyload.comfy.wire.calls import TransportError
from comfyload.tasks import within

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
PAUSE_REFUSED_S = 0.5
AT_ONCE = 4
"""Jobs looked up in one round."""


class HistoryPoller:
    def __init__(self, link: Link) -> None:
        self._api, self._inflight, self._stream = link.api, link.inflight, link.stream
        self._clock, self._timeouts, self._note = link.clock, link.timeouts, link.noticed.note
        self._progress_at = link.clock()
        self._stalled = False
        self._gone_since = math.inf

    async def run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            now = self._clock()
            if self._stream.connected or not len(self._inflight):
                self._gone_since = math.inf  # An outage that is over must not count against later jobs.
            if not len(self._inflight):
                self._progress_at, pause = now, FIRST_PAUSE_S
                continue
            doubtful = self._doubtful(now)
            found = [await self._look_up(job) for job in doubtful]
            if any(found) or not doubtful:
                pause = 0.0 if len(found) == AT_ONCE and all(found) else FIRST_PAUSE_S
            else:
                pause = min(1.5 * max(pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._look_for_stall(now, progressed=any(found))
            refused_s = self._stream.refused_s
            if refused_s:
                pause = min(pause, PAUSE_REFUSED_S)
            away_s = now - self._gone_since
            refused = refused_s >= self._timeouts.refused_s
            if refused or away_s >= self._timeouts.unreachable_s:
                self._note("server_gone", f"the server has been out of reach for {max(refused_s, away_s):.3g} s")
                for job in self._inflight:
                    if not refused or job.accepted:
                        job.absent_since = None
                        job.finish("lost")
                self._gone_since = math.inf  # The next job may have been taken, and not answered yet.

    def _doubtful(self, now: float) -> list[Job]:
        """The oldest jobs whose end may have been missed, without those that were looked up a moment ago."""
        accepted = (job for job in self._inflight if job.accepted and not job.end.done())
        oldest = list(islice((job for job in accepted if not self._just_missing(job, now)), AT_ONCE))
        blind = [job for job in oldest if not self._gets_events(job)]
        if blind:
            return blind
        if now - self._inflight.last_event > self._timeouts.silence_s:
            return oldest
        # The oldest waits although a younger one has started: it was taken out of the queue, which causes no event.
        return [job for job in oldest[:1] if job.tracker.started is None and self._inflight.last_started > job.order]

    def _just_missing(self, job: Job, now: float) -> bool:
        """Whether the server did not know the job a moment ago. Many such jobs after a restart must not delay the jobs
        behind them, whose ends the next restart may erase.
        """
        again_s = max(self._timeouts.lost_s, self._api.lookup_interval_s)
        return job.absent_since is not None and now - job.looked_up < again_s

    async def _look_up(self, job: Job) -> bool:
        """Whether there is news of the job: it is over, or the server no longer knows it. A connection that hangs must
        not hold up the look-ups of all jobs.
        """
        now = self._clock()
        try:
            entry = await self._api.history(job.prompt_id, self._timeouts.confirm_s)
        except TransportError:
            if not self._stream.connected:
                self._gone_since = min(self._gone_since, now)
            return False
        self._gone_since = math.inf
        if job.end.done():
            return True
        if entry is not None:
            return await self._ended_without_event(job)
        job.polled = now
        if now - job.looked_up < self._api.lookup_interval_s:
            return False
        job.looked_up = now
        most_s = max(self._timeouts.confirm_s, self._api.lookup_interval_s)
        if await within(most_s, self._api.prompt_state(job.prompt_id), "unknown") != "absent":
            job.absent_since = None
        elif job.absent_since is None:
            job.absent_since = now
            return True
        elif now - job.absent_since >= self._timeouts.lost_s:
            job.finish("lost")
            return True
        return False

    async def _ended_without_event(self, job: Job) -> bool:
        """The job is over by the history. On an open stream, its event may follow in a moment."""
        if self._gets_events(job):
            await asyncio.sleep(0.05)
            if not job.end.done():
                self._note(
                    "stream_stalled",
                    "jobs ended without an event: the event stream hangs; the history is polled instead",
                )
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
                f"nothing moved for {self._timeouts.stalled_s:g} s while {len(self._inflight)} of our prompts wait or "
                f"run: the server's worker has died (then restart ComfyUI), or {other}",
            )

    def _gets_events(self, job: Job) -> bool:
        """Whether this job's events can reach us."""
        return self._stream.connected and job.stream_id == self._stream.client_id
