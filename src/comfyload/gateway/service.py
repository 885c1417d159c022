"""The gateway: keeps the jobs of its clients, sends them to the servers by the policy, and says how each ended."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.errors import RunFilesError
from comfyload.gateway import forms
from comfyload.gateway.disk import PAUSE_S, Disk
from comfyload.gateway.ends import JobEnds
from comfyload.gateway.fair import FairQueue
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Fleet
from comfyload.gateway.inputs import InputFiles
from comfyload.gateway.job import ClientJob, State
from comfyload.gateway.ledger import DAY_S, TrafficLedger
from comfyload.gateway.live import EventRelay, LiveAttempt
from comfyload.gateway.memory import Entries
from comfyload.gateway.sockets import QueueLengths, Sockets
from comfyload.gateway.steady import SteadyClock
from comfyload.gateway.store import Store
from comfyload.record.job_events import JobEvent, Retrying, Sending, retry_line
from comfyload.record.model import Execution, Failure, Prompt
from comfyload.record.policy import Policy
from comfyload.retry.client import RetryingClient
from comfyload.tasks import within

TICK_S = 0.25
UNREACHABLE_S = 120.0
TO_SEE = 0.03
"""Of a job's limit: it should be done so long before, for a client that looks now and then to see it in time."""
ENTRY_S = 2.0
"""How long we wait for a server's history of a job that was cancelled there."""

LATE = Failure(kind="shed", message="no server was free before")
BY_CLIENT = Failure(kind="cancelled", message="cancelled by its client")


class Gateway:
    """One for all servers. `clock` counts seconds from a midnight, UTC.

    `unsure`: ids of jobs that an earlier process may have sent, which the client looks up; filled here. `secrets`: what
    came in the `extra_data` of jobs that have not ended and is never on disk.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        client: RetryingClient,
        store: Store,
        ledger: TrafficLedger,
        folder: Files,
        clock: Callable[[], float],
        unsure: set[str],
        keep_payloads: bool,
    ) -> None:
        self.policy = policy
        self.client = client
        self.store = store
        self.ledger = ledger
        self.files = folder
        self.clock = clock
        self.steady = SteadyClock(clock, store)
        self.sockets = Sockets()
        self.live = EventRelay(self.sockets, self._reported, self._skew_ms, self._on_start)
        self.entries = Entries()
        self.inputs = InputFiles(folder, lambda name: self.fleet.get(name))
        self.fleet: Fleet
        self.jobs: dict[str, ClientJob] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.counts = Counter[str]()
        self.on_end: Callable[[ClientJob, Execution, State], None] = lambda _job, _execution, _state: None
        """Called when a job has ended."""
        self.queues: dict[frozenset[str], FairQueue[ClientJob]] = {}
        """Jobs that wait here, by the servers that lack what they need."""
        self.fault: BaseException | None = None
        self.disk = Disk()
        self._ends = JobEnds(store, ledger, folder, self.entries, self.disk, keep_payloads=keep_payloads)
        self._unsure = unsure
        self._launched: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[Any]] = set()
        self._starting = 0
        self._wake = asyncio.Event()
        self._deadlines: list[tuple[float, str]] = []
        self.lengths = QueueLengths(self.sockets)
        self._day = clock() // DAY_S
        self._held = False
        self.over = asyncio.Event()
        """Set when it can go on no more; `fault` says why."""

    # --- waiting, and going

    def add(self, job: ClientJob) -> None:
        """Take a job that is in the store; it is sent as soon as it is its turn."""
        self._note(job)
        queue = self.queues.setdefault(job.not_on, FairQueue())
        begin_by = job.due + (1.0 - TO_SEE) * job.limit_s - job.expected_s
        queue.put(job.id, job, job.tenant, job.number, job.expected_s, begin_by)
        self._launch_all()

    def take_up(self, job: ClientJob) -> None:
        """Take a job of an earlier process, which may have sent it, or was about to cancel it."""
        self._note(job)
        if job.server:
            self._unsure.add(job.id)
            self._launch(job)
        else:
            self._spawn(job, self._settle(job, Execution(outcome="cancelled", done=self.clock(), failure=BY_CLIENT)))

    def _note(self, job: ClientJob) -> None:
        self.jobs[job.id] = job
        self.files.hold(job.files, job.tenant)
        self.lengths.add(job.tenant, 1)
        if job.limit_s < math.inf:
            heapq.heappush(self._deadlines, (job.due + job.limit_s, job.id))

    def backlog_s(self) -> float:
        """Seconds of work that are here and on the servers, for each server."""
        on_servers = self.client.backlog_s()
        if not on_servers:
            return 0.0
        return (sum(on_servers) + sum(queue.total_s for queue in self.queues.values())) / len(on_servers)

    def adopt(self, policy: Policy) -> None:
        """Follow this policy from now on."""
        self.policy = policy
        self.client.adopt(policy)
        self.ledger.adopt(policy)
        self.wake()

    def launched(self, job: ClientJob) -> bool:
        """Whether it waits no more for its turn."""
        return job.id in self._launched

    async def drain(self, within_s: float) -> None:
        """Send no more, and wait a while for the jobs that were sent; the others are left to the next process."""
        self._held = True
        if self._launched:
            await asyncio.wait(list(self._launched.values()), timeout=within_s)

    async def ended(self, job: ClientJob) -> None:
        """Wait until the job has ended."""
        task = self._launched.get(job.id)
        if task is not None:
            await asyncio.wait([task])

    async def run(self) -> None:
        """Send jobs as servers become free, until cancelled; those under way are then left to the next process."""
        telling = asyncio.create_task(self.lengths.run())
        try:
            while self.fault is None:
                self._wake.clear()
                self._end_the_late()
                with suppress(RunFilesError):  # of a full disk: it is tried again
                    self.steady.note()
                self._launch_all()
                await within(TICK_S, self._wake.wait(), False)
            raise self.fault
        finally:
            self.over.set()
            for task in (telling, *self._launched.values(), *self._others):
                task.cancel()
            await asyncio.gather(telling, *self._launched.values(), *self._others, return_exceptions=True)

    def wake(self) -> None:
        """A server may have become free."""
        self._wake.set()

    def _launch_all(self) -> None:
        """Start the jobs for which a server has room; those that fewer servers can run come first."""
        if self._held:
            return
        for lane in sorted(self.queues, key=len, reverse=True):
            queue = self.queues[lane]
            while self.client.room(lane) > self._starting and (job := queue.next(self.clock())) is not None:
                self._launch(job)
            if not len(queue):
                del self.queues[lane]

    def _launch(self, job: ClientJob) -> None:
        self._starting += 1
        self._spawn(job, self._run(job))

    def _spawn(self, job: ClientJob, work: Coroutine[Any, Any, None]) -> None:
        task = self._launched[job.id] = asyncio.create_task(work)
        task.add_done_callback(partial(self._on_end_of_task, job))

    def _on_end_of_task(self, job: ClientJob, task: asyncio.Task[None]) -> None:
        if self._launched.get(job.id) is task:
            del self._launched[job.id]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            self.fault = self.fault or task.exception()

    def _end_the_late(self) -> None:
        """End the jobs whose deadline has passed while they waited."""
        now = self.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            job = self.jobs.get(heapq.heappop(self._deadlines)[1])
            queue = None if job is None else self.queues.get(job.not_on)
            if job is not None and queue is not None and queue.remove(job.id) is not None:
                self.counts["shed"] += 1
                self._spawn(job, self._settle(job, Execution(outcome="timed_out", done=now, failure=LATE)))
        if now // DAY_S > self._day:
            with suppress(RunFilesError):  # of a full disk: it is tried again
                self.ledger.close_before(min((job.due for job in self.jobs.values()), default=now))
                self._day = now // DAY_S

    async def _run(self, job: ClientJob) -> None:
        self._starting -= 1
        if job.id in self._unsure:
            # It may be on a server that does not answer yet: only there it can be looked up.
            longest_s = min(UNREACHABLE_S, self.policy.liveness_s or UNREACHABLE_S)
            await self.fleet.joining(job.server, min(longest_s, job.due + job.limit_s - self.clock()))
        extra, targets = self.store.extra(job.id)
        mark = {"comfyload": {"job": job.id, "attempt": 1}}
        prompt = Prompt(
            id=job.id,
            index=0,
            workflow=job.workflow,
            warmup=False,
            graph_of=lambda _: self.store.payload(job.id)[0],
            extra_data=forms.dumps(forms.loads(extra) | self.secrets.get(job.id, {}) | mark),
            targets=targets,
        )
        left_s = None if job.limit_s == math.inf else max(0.001, job.due + job.limit_s - self.clock())
        if job.cancelled:
            self._stop(job)
        execution = await self.client.run(
            prompt, deadline_s=left_s, tell=partial(self._on_event, job), not_on=job.not_on
        )
        await self._settle(job, execution)

    def _on_event(self, job: ClientJob, event: JobEvent) -> None:
        match event:
            case Sending():
                self.live.forget(job.attempt_id)
                member = self.fleet.at(event.server)
                job.server = event.server if member is None else member.name
                job.attempt_id, job.attempt, job.next_attempt_at_ms = event.prompt_id, event.attempt, None
                job.answer = self.live.begin(job, job.server, event.prompt_id).answer
                if job.sent is not None:
                    job.sent.set()
            case Retrying():
                self.counts["retries"] += 1
                job.attempts.append(forms.attempt_before(job, event))
                job.retries.append(retry_line(event, index=0, t=self.clock()))
                self.live.forget(job.attempt_id)
                job.next_attempt_at_ms = int((time.time() + event.wait_s) * 1000)

    def _skew_ms(self, server: str) -> int:
        member = self.fleet.get(server)
        return 0 if member is None else member.skew_ms

    def _reported(self, output: Any, server: str, job: ClientJob) -> Any:
        """What a node reported, with the names by which the job's client finds its files."""
        tagged = self.files.tagged(output, server)
        if self.files.apart:
            with suppress(RunFilesError):  # at the job's end it is noted again
                self.store.own(job.tenant, self.files.full_names(tagged))
        return tagged

    def _on_start(self, job: ClientJob) -> None:
        if job.started_ms is not None:
            with suppress(RunFilesError):  # a full disk must not end the event stream; only a restart would show it
                self.store.started(job.id, job.started_ms)
        self.lengths.add(job.tenant, 0)

    # --- what passes between us and a server (a `Listener`)

    def on_frame(self, server: str, frame: bytes, is_text: bool) -> None:
        self.live.on_frame(server, frame, is_text)

    def on_answer(self, prompt_id: str, reply: Reply) -> None:
        self.live.on_answer(prompt_id, reply)

    def on_history(self, prompt_id: str, body: bytes) -> None:
        self.live.on_history(prompt_id, body)

    async def before_post(self, server: str, prompt_id: str, body: bytes) -> bytes:
        """From here on a server may have the job: note that, and bring it the files that the job needs."""
        attempt, member = self.live.get(prompt_id), self.fleet.get(server)
        if attempt is None or member is None:
            return body
        job = attempt.job
        await self.disk.write(lambda: self.store.began(job.id, server, member.address))
        return await self.inputs.put_all(member, job.files, body, job.tenant)

    # --- ends

    async def cancel(self, job_id: str, tenant: str, *, only_running: bool = False) -> bool:
        """Cancel a job, wherever it is; False: there is no such job that could be, or it is too late."""
        job = self.jobs.get(job_id)
        if job is None or job.tenant != tenant or (only_running and not job.began):
            return False
        attempt = self.live.get(job.attempt_id)
        if job.ending or (attempt is not None and attempt.done):
            return job.cancelled
        job.cancelled = True
        self.store.cancel(job_id)
        queue = self.queues.get(job.not_on)
        if queue is not None and queue.remove(job_id) is not None:
            self._spawn(job, self._settle(job, Execution(outcome="cancelled", done=self.clock(), failure=BY_CLIENT)))
            await asyncio.wait([self._launched[job_id]], timeout=PAUSE_S)
        else:
            self._stop(job)
        return True

    def hurry(self, job: ClientJob) -> bool:
        """Send a job that waits for its next attempt as soon as a server is free; False: it does not wait for one."""
        if job.cancelled or not self.client.hurry(job.id):
            return False
        job.next_attempt_at_ms = int(time.time() * 1000)
        return True

    def give_up(self, job: ClientJob) -> bool:
        """Send a job that waits for its next attempt no more: it has failed, and needs attention. False: it does not
        wait for one.
        """
        return not job.cancelled and self.client.give_up(job.id)

    def _stop(self, job: ClientJob) -> None:
        """End the job where it is. One that is about to be sent is ended then."""
        task = asyncio.create_task(self.client.cancel(job.id))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _settle(self, job: ClientJob, execution: Execution) -> None:
        """Write how the job ended, then tell its client."""
        execution = forms.delivered(execution)
        attempt, failure, job.ending = self.live.get(job.attempt_id), execution.failure, True
        job.next_attempt_at_ms = None
        job.attempts = forms.attempts_of(job, execution, self._name_of)
        if job.posting and failure is not None and failure.status == 400:
            # The application hears it as the answer to its POST: it never was a job.
            self.counts["refused"] += 1
            self.live.forget(job.attempt_id)
            await self.disk.write(lambda: self.store.drop(job.id))
            self._remove(job)
            return
        there, member = await self._entry_there(job, attempt), self.fleet.get(job.server)
        entry, state = await self._ends.entry(job, execution, there, member)
        self.on_end(job, execution, state)
        in_history = await self._ends.write(job, execution, entry, state, self.fleet.members)
        self._remove(job)
        if in_history:
            self.live.tell_end(job, [] if attempt is None else attempt.ends, entry)
        self.live.forget(job.attempt_id)

    def _name_of(self, address: str) -> str:
        member = self.fleet.at(address)
        return address if member is None else member.name

    def _remove(self, job: ClientJob) -> None:
        if self.jobs.pop(job.id, None) is not None:
            self.lengths.add(job.tenant, -1)
            self.files.release(job.files, job.tenant)
        self.secrets.pop(job.id, None)
        self._unsure.discard(job.id)
        self._wake.set()

    async def _entry_there(self, job: ClientJob, attempt: LiveAttempt | None) -> dict[str, Any] | None:
        """The entry of the server that had the job last; None: it has none, or it does not answer."""
        member = self.fleet.get(job.server)
        if attempt is None:
            return None
        if not attempt.history and job.began and member is not None:
            with suppress(TransportError):
                await member.tap.call(Request(method="GET", path=f"history/{job.attempt_id}", timeout_s=ENTRY_S))
        return forms.entry_in(attempt.history, job.attempt_id)
