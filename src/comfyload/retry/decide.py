"""Every decision about where and when a job is sent, and whether it is sent again. No I/O, no clock, no task.

The running client and the simulation that scores policies drive the same objects: `now` is an instant handed in, of a
clock that counts seconds; `draw` gives numbers uniformly from [0, 1).

A server's backlog is counted in seconds: what our jobs there will take, and others' at the mean. Unless another rule of
dispatch is given, a job goes where the last job was of its workflow, so that models stay loaded, until that costs more
than loading them elsewhere [affinity with spill].
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from comfyload.record.policy import Breaker, Budget, FailureClass, Policy
from comfyload.retry.breaker import CircuitBreaker
from comfyload.retry.dispatch import Dispatching
from comfyload.retry.expected import ExpectedTimes
from comfyload.retry.policy import rule_of, spent, wait_s

SPILL_SWAPS = 3.0
"""How many times the cost of loading a workflow's models its home server may be behind the best."""

LOOK_AGAIN_S = (0.25, 2.0)
"""Bounds of the pause until servers are looked at again, where no event shows that one is free."""


TOO_SMALL = 2
"""So many jobs of a workflow in a row that run out of memory show that the server is too small for it."""


class PendingJob:
    """One job over all its attempts. `deadline`: an instant; infinite: none. `id`: under which it is sent now."""

    def __init__(self, job_id: str, workflow: str, began: float, policy: Policy) -> None:
        self.id = job_id
        self.workflow = workflow
        self.began = began
        self.policy = policy
        self.deadline = math.inf if policy.deadline_s is None else began + policy.deadline_s
        self.avoid: set[Backend] = set()
        """Servers to which others are preferred."""
        self.unfit: set[Backend] = set()
        """Servers that lack what this job needs."""
        self.vram: float | None = None
        """More memory than this is preferred."""
        self.ended: dict[FailureClass, int] = {}
        """Attempts by how they failed."""
        self.charged = 0
        """Attempts that cost GPU time."""


@dataclass(slots=True, eq=False)
class Assignment:
    """One of our jobs on a server: `after` is the workflow of the one put there before it; `started`: an instant.

    `moved`: it is being taken back. `running_since`: since when the server reports that it runs, without an event.
    """

    job: PendingJob
    after: str | None
    predicted_s: float
    started: float | None = None
    moved: bool = False
    running_since: float | None = None


class Backend:
    """One server, and our jobs there. `others`: prompts of others on it; `depth`: all prompts on it."""

    def __init__(
        self, breaker: Breaker, draw: Callable[[], float], connections: Callable[[], int], name: str = ""
    ) -> None:
        self.name = name
        self.circuit = CircuitBreaker(breaker, draw, connections)
        self.held: dict[str, Assignment] = {}
        self.last: str | None = None
        """The workflow of the job put there last, and when that was."""
        self.last_at = -math.inf
        self.others = 0
        self.depth = 0
        self.vram = 0.0
        self.drained = False
        """Whether it gets no more jobs, at somebody's request."""
        self.lacks: set[str] = set()
        """Workflows with a node that the server lacks."""
        self.out_of_memory: dict[str, int] = {}
        """How often in a row jobs of a workflow ran out of memory there."""
        self._running: dict[str, Assignment] = {}
        self._queued_s, self._unknown = 0.0, 0

    def backlog_s(self, now: float, unit_s: float) -> float:
        """Seconds of work before a job sent there now; a job of unknown length takes `unit_s`."""
        total = (self.others + self._unknown) * unit_s + self._queued_s
        for held in self._running.values():
            assert held.started is not None
            total += max(0.0, (held.predicted_s or unit_s) - (now - held.started))
        return total

    def put(self, held: Assignment, now: float) -> None:
        self.held[held.job.id] = held
        self._queue(held, 1)
        self.last, self.last_at = held.job.workflow, now
        self.depth += 1

    def started(self, job_id: str, at: float) -> None:
        """The server began to execute the job."""
        held = self.held.get(job_id)
        if held is not None and held.started is None:
            held.started = at
            self._running[job_id] = held
            self._queue(held, -1)

    def take(self, job_id: str) -> Assignment | None:
        """The job is no longer there, or no longer waited for."""
        self.circuit.gone(job_id)
        held = self.held.pop(job_id, None)
        if held is not None and self._running.pop(job_id, None) is None:
            self._queue(held, -1)
        return held

    def _queue(self, held: Assignment, sign: int) -> None:
        if held.predicted_s:
            self._queued_s += sign * held.predicted_s
        else:
            self._unknown += sign
        if len(self.held) - len(self._running) <= self._unknown:
            self._queued_s = 0.0  # no sum of rounding errors: an idle server's backlog is 0


class RetryBudget:
    """How many retries may follow GPU work: full at first; a first attempt adds `ratio`, a charged retry takes one.

    Counted by jobs, not by time, since jobs may be minutes apart.
    """

    def __init__(self, budget: Budget) -> None:
        self.rules = budget
        self.tokens = budget.cap

    def first(self) -> None:
        self.tokens = min(self.rules.cap, self.tokens + self.rules.ratio)

    def take(self) -> bool:
        """Whether there was one to take."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


J = TypeVar("J", bound=PendingJob)
B = TypeVar("B", bound=Backend)


class Dispatcher:
    """Which server a job goes to, and whether a job that failed is sent again. It learns what jobs take as they end."""

    def __init__(
        self,
        policy: Policy,
        draw: Callable[[], float],
        dispatching: Dispatching = Dispatching(),  # noqa: B008 - constant
    ) -> None:
        self.policy = policy
        self.dispatching = dispatching
        self.times = ExpectedTimes()
        self.budget = RetryBudget(policy.budget)
        self._draw = draw

    def adopt(self, policy: Policy) -> None:
        """Decide by this policy from now on; what was learnt, and what is left of the budget, stays."""
        self.policy, self.budget.rules = policy, policy.budget

    # --- when

    def left_s(self, job: PendingJob, now: float) -> float:
        """How long the job may still wait for a server, by its execution time on an idle one."""
        needed = self.times.predict_s(job.workflow, job.workflow)
        # If it needs longer than the deadline allows, no job would be sent, and the estimate never corrected.
        return job.deadline - now - (needed if job.began + needed < job.deadline else 0.0)

    def pause_s(self) -> float:
        """Seconds until servers are looked at again, where no event shows that one is free."""
        least, most = LOOK_AGAIN_S
        return min(most, max(least, self.times.mean_s * (0.5 + self._draw())))

    # --- where

    def assign(self, waiting: Iterable[J], usable: list[B], now: float) -> Iterator[tuple[J, B]]:
        """Assign the jobs that wait to servers, first come first served."""
        most = self.policy.admission.depth
        # A server may have failed since its state was read.
        usable = [backend for backend in usable if backend.circuit.state(now) in ("closed", "due")]
        if most is not None:
            usable = [backend for backend in usable if backend.depth <= most]
        if not usable:
            return
        for job in waiting:
            backend = self.choose(job, usable, now)
            if backend is None:
                continue
            if backend.circuit.state(now) == "due":
                backend.circuit.trial(job.id)
                usable.remove(backend)
            self.put(job, backend, now)
            yield job, backend
            if most is not None and backend.depth > most and backend in usable:
                usable.remove(backend)
            if not usable:
                return

    def choose(self, job: PendingJob, usable: Sequence[B], now: float) -> B | None:
        """The server for the job: one that suits it, with the least work, or where its models are; None: no room."""
        work: dict[B, float] = {}
        for backend in usable:
            seconds = self.backlog_s(backend, now)
            if backend not in job.unfit and self._has_room(backend, job, now + seconds):
                work[backend] = seconds
        if len(work) <= 1:
            return next(iter(work), None)
        fit = _preferred(job, list(work))
        if self.dispatching.rule != "affinity":
            return self.dispatching.choose(fit)
        # Of servers with equal work, the one whose models were last used the longest ago.
        best = min(fit, key=lambda backend: (work[backend], backend.last_at))
        if best.last == job.workflow:
            return best
        homes = [backend for backend in fit if backend.last == job.workflow]
        home = min(homes, key=lambda backend: work[backend], default=best)
        return home if work[home] - work[best] <= SPILL_SWAPS * self.times.swap_s(job.workflow) else best

    def backlog_s(self, backend: Backend, now: float) -> float:
        """Seconds of work before a job sent there now; while no time is known, jobs count as one second each."""
        return backend.backlog_s(now, self.times.mean_s or 1.0)

    def put(self, job: PendingJob, backend: Backend, now: float) -> None:
        """The job is sent there, or is there already."""
        backend.put(Assignment(job, backend.last, self.times.predict_s(job.workflow, backend.last)), now)

    def release(self, job_id: str, backend: Backend, took_s: float | None = None) -> Assignment | None:
        """The job is no longer there; `took_s`: what it took if it completed, which is learnt."""
        held = backend.take(job_id)
        if held is not None and took_s is not None:
            backend.out_of_memory.pop(held.job.workflow, None)
            self.times.learn(held.job.workflow, held.after, took_s)
        return held

    def _has_room(self, backend: Backend, job: PendingJob, begins: float) -> bool:
        """Whether it would be done by its deadline if it began then; on an idle server it may always try."""
        if not backend.held and not backend.others:
            return True
        return begins + self.times.predict_s(job.workflow, backend.last) <= job.deadline

    # --- again

    def retry_in_s(
        self,
        job: PendingJob,
        backend: Backend,
        class_: FailureClass,
        backends: Collection[Backend],
        now: float,
        retry_after_s: float | None = None,
    ) -> float | None:
        """Seconds until the job is sent again after an attempt on that server failed so, or None: give up."""
        rule = rule_of(self.policy, class_)
        job.ended[class_] = job.ended.get(class_, 0) + 1
        job.charged += rule.charged
        if class_ == "oom":
            backend.out_of_memory[job.workflow] = backend.out_of_memory.get(job.workflow, 0) + 1
        if class_ == "missing":
            job.unfit.add(backend)
            if len(job.unfit) == len(backends):
                return None
        if rule.elsewhere:
            job.avoid.add(backend)
        elsewhere = rule.elsewhere and others_than(job.avoid | job.unfit, backends, now)
        if not elsewhere:
            job.avoid = {backend} if rule.elsewhere else set()
        ended = job.ended[class_]
        if elsewhere:
            wait = None if spent(job.policy, class_, ended, job.charged) else 0.0
        else:
            elapsed_s = now - job.began
            wait = wait_s(job.policy, class_, ended, elapsed_s, self._draw(), retry_after_s, job.charged)
        return None if wait is None or (rule.charged and not self.budget.take()) else wait


def others_than(these: Collection[Backend], backends: Collection[Backend], now: float) -> bool:
    """Whether there is a server apart from these to which a job could go now."""
    return any(
        backend not in these and not backend.drained and backend.circuit.state(now) == "closed" for backend in backends
    )


def _preferred(job: PendingJob, fit: list[B]) -> list[B]:
    """The servers with room that suit the job best, in this order of reasons; at least one."""
    if job.avoid:
        fit = [backend for backend in fit if backend not in job.avoid] or fit
    fit = [backend for backend in fit if job.workflow not in backend.lacks] or fit
    fit = [backend for backend in fit if backend.out_of_memory.get(job.workflow, 0) < TOO_SMALL] or fit
    if job.vram is not None:
        fit = [backend for backend in fit if backend.vram > job.vram] or fit
    return fit
