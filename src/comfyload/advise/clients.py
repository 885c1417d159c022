"""Knows how clients behave in the simulated world: one that follows a policy, and the ones that are usually written."""

from __future__ import annotations

from collections import deque

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.farm import Attempt, Client, Farm, Job, Place
from comfyload.retry.policy import FailureClass, Policy, rule_of, wait_s

__all__ = ["NAIVE", "Careful", "Naive", "Simple", "client", "scaled"]

_REFUSED_S = 1.0
"""What it takes a client to notice that nothing answers."""
_FOR_EVER = 30
"""Attempts: who has not succeeded by then is not going to, and only costs time to simulate."""


class Naive(Struct, frozen=True, kw_only=True):
    """A retry that knows neither queue nor deadline: each attempt has a new id, and none is taken off the server.

    `attempts` None: for ever. `waits_s`: before the second, third … attempt, the last for all beyond. `within_s`: no
    attempt later than this after the first. `timeout_s`: of each attempt; None: it waits as long as the caller does.
    """

    name: str
    attempts: int | None = 1
    waits_s: tuple[float, ...] = (0.0,)
    jitter_s: float = 0.0
    within_s: float | None = None
    timeout_s: float | None = None


NAIVE = (
    Naive(name="no retry"),
    Naive(name="3 retries at once", attempts=4),
    Naive(name="4 retries, 5 s apart", attempts=5, waits_s=(5.0,)),
    Naive(name="tenacity, as it comes", attempts=None),
    Naive(name="tenacity, exponential", attempts=5, waits_s=(1.0, 2.0, 4.0, 8.0)),
    Naive(
        name="stamina, as it comes", attempts=10, waits_s=(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0), jitter_s=1, within_s=45
    ),
    Naive(name="3 retries after 15, 45, 90 s", attempts=4, waits_s=(15.0, 45.0, 90.0)),
)
"""`stop_never` and `wait_none` of tenacity's bare decorator; `wait_exponential()` with `stop_after_attempt(5)`."""


def scaled(naive: Naive, factor: float, *, timeout_s: float) -> Naive:
    """The same with all its times, and an attempt given up after `timeout_s`, multiplied by `factor`."""
    return structs.replace(
        naive,
        waits_s=tuple(factor * wait for wait in naive.waits_s),
        jitter_s=factor * naive.jitter_s,
        within_s=None if naive.within_s is None else factor * naive.within_s,
        timeout_s=factor * timeout_s,
    )


def client(behaviour: Policy | Naive, farm: Farm, *, deadline_s: float, mean_s: float, overhead_s: float) -> Client:
    """Who behaves so in that farm. What the client itself adds to each job is taken off its times."""
    if isinstance(behaviour, Naive):
        return Simple(behaviour, farm, overhead_s)
    return Careful(behaviour, farm, deadline_s - overhead_s, mean_s)


class Simple:
    """A naive client. It takes servers in turn."""

    def __init__(self, naive: Naive, farm: Farm, overhead_s: float) -> None:
        self._naive, self._farm = naive, farm
        self._rng = np.random.default_rng(farm.world.seed)
        self._turn = 0
        self._timeout_s = None if naive.timeout_s is None else max(0.0, naive.timeout_s - overhead_s)

    def arrive(self, job: Job) -> None:
        farm = self._farm
        place = farm.places[self._turn % len(farm.places)]
        self._turn += 1
        if not place.up:
            job.number += 1
            job.attempt = None
            self._again(job, _REFUSED_S)
            return
        attempt = farm.submit(job, place)
        if self._timeout_s is not None:
            farm.at(farm.now + self._timeout_s, self._late, attempt)

    def ended(self, attempt: Attempt) -> None:
        job = attempt.job
        if job.over or job.attempt is not attempt:
            return  # it has given up on this one, and would not recognise its result
        if attempt.fails:
            self._again(job, 0.0)
        else:
            job.done, job.over = self._farm.now, True

    def lost(self, attempt: Attempt) -> None:
        """It does not notice, and waits."""

    def _late(self, attempt: Attempt) -> None:
        job = attempt.job
        if not job.over and job.attempt is attempt:
            self._again(job, 0.0)

    def _again(self, job: Job, lost_s: float) -> None:
        naive, now = self._naive, self._farm.now + lost_s
        job.attempt = None
        if job.number >= (naive.attempts or _FOR_EVER):
            job.over = True
            return
        wait = naive.waits_s[min(job.number, len(naive.waits_s)) - 1]
        if naive.jitter_s:
            wait = min(naive.waits_s[-1], wait + naive.jitter_s * self._rng.random())
        if naive.within_s is not None and now + wait - self._farm.world.arrivals[job.index] > naive.within_s:
            job.over = True
            return
        self._farm.at(now + wait, self.arrive, job)


class Careful:
    """A client that follows a policy: it looks at the queue before it sends, and takes off what is late."""

    def __init__(self, policy: Policy, farm: Farm, deadline_s: float, mean_s: float) -> None:
        self._policy, self._farm, self._mean_s = policy, farm, mean_s
        self._rng = np.random.default_rng(farm.world.seed)
        self._deadline_s = deadline_s
        self._depth = policy.admission.depth
        self._waiting: deque[Job] = deque()
        self._looks = False
        self._tokens = policy.budget.cap
        self._known: dict[int, int] = {}  # workflow: jobs that failed for good
        self._learns = not rule_of(policy, "deterministic").retry
        self._failures = [0] * len(farm.places)
        self._opened = [0] * len(farm.places)
        self._shut_until = [0.0] * len(farm.places)

    def arrive(self, job: Job) -> None:
        self._tokens = min(self._policy.budget.cap, self._tokens + self._policy.budget.ratio)
        self._farm.at(self._farm.now + self._deadline_s, self._late, job)
        self._send(job)

    def ended(self, attempt: Attempt) -> None:
        if not attempt.job.over and attempt.job.attempt is attempt:
            self._settle(attempt.job, attempt)
        self._round()

    def _settle(self, job: Job, attempt: Attempt) -> None:
        if not attempt.fails:
            job.done, job.over = self._farm.now, True
            return
        job.attempt = None
        job.charged += 1
        wait = wait_s(
            self._policy,
            self._class(job),
            job.charged,
            self._elapsed(job),
            self._rng.random(),
            charged=job.charged,
        )
        if wait is None or self._tokens < 1:
            job.over = True
            return
        self._tokens -= 1
        self._farm.at(self._farm.now + wait, self._send, job)

    def lost(self, attempt: Attempt) -> None:
        if not attempt.job.over:
            attempt.job.attempt = None
            self._refused(attempt.job, self._farm.places.index(attempt.place), "lost")

    def _late(self, job: Job) -> None:
        if job.over:
            return
        job.over = True
        if job.attempt is not None and self._policy.cancel:
            self._farm.cancel(job.attempt)
            self._round()

    def _class(self, job: Job) -> FailureClass:
        """A poisoned job is told from bad luck by its second failure, or by one of its kind before it."""
        index = job.index
        if not self._learns or not self._farm.world.poisoned[index]:
            return "transient"
        workflow = self._farm.world.workflows[index]
        self._known[workflow] = self._known.get(workflow, 0) + 1
        return "deterministic" if self._known[workflow] > 1 else "transient"

    def _elapsed(self, job: Job) -> float:
        return self._farm.now - self._farm.world.arrivals[job.index]

    def _send(self, job: Job) -> None:
        if not job.over:
            self._waiting.append(job)
            self._round()

    def _look_again(self, _: None) -> None:
        self._looks = False
        self._round()

    def _round(self) -> None:
        """Give what places there are to those who wait, first come first served; look again as long as some do."""
        waiting, kept = self._waiting, deque[Job]()
        while waiting:
            job = waiting[0]
            if job.over:
                waiting.popleft()
                continue
            if self._deadline_s - self._elapsed(job) < min(self._mean_s, self._deadline_s):
                job.over = True
                continue
            server = self._choose(job)
            if server is None:
                break  # nowhere a place, for none of them
            waiting.popleft()
            if not self._farm.places[server].up:
                self._refused(job, server, "connect")
            elif self._in_time(self._farm.places[server], job):
                self._failures[server] = self._opened[server] = 0
                self._farm.submit(job, self._farm.places[server])
            else:
                kept.append(job)
        kept.extend(waiting)
        self._waiting = kept
        if kept and not self._looks:
            self._looks = True
            self._farm.at(self._farm.now + self._mean_s * (0.5 + self._rng.random()), self._look_again, None)

    def _in_time(self, place: Place, job: Job) -> bool:
        """Whether it would be done before its deadline if all took the mean; where it waits for none it may try."""
        if place.running is None:
            return True
        ran = min(self._mean_s, max(0.0, self._farm.now - place.running.begun))
        return self._elapsed(job) + (place.depth + 1) * self._mean_s - ran <= self._deadline_s

    def _choose(self, job: Job) -> int | None:
        """The shortest queue, where its models are if there are several; None: all are full, or left alone for now."""
        best, key = None, (0, 0)
        workflow, now, most = self._farm.world.workflows[job.index], self._farm.now, self._depth
        for server, place in enumerate(self._farm.places):
            depth = place.depth
            if self._shut_until[server] > now or (most is not None and depth > most):
                continue
            here = (depth if place.up else self._failures[server], int(self._last(place) != workflow))
            if best is None or here < key:
                best, key = server, here
        return best

    def _last(self, place: Place) -> int:
        ahead = place.queue[-1] if place.queue else None
        return place.last if ahead is None else self._farm.world.workflows[ahead.job.index]

    def _refused(self, job: Job, server: int, class_: FailureClass) -> None:
        self._count(server)
        job.transport += 1
        wait = wait_s(self._policy, class_, job.transport, self._elapsed(job), self._rng.random())
        if wait is None:
            job.over = True
        else:
            self._farm.at(self._farm.now + max(wait, 0.01), self._send, job)

    def _count(self, server: int) -> None:
        breaker = self._policy.breaker
        self._failures[server] += 1
        if self._failures[server] >= breaker.failures and self._shut_until[server] <= self._farm.now:
            opened = breaker.open_s * (0.5 + self._rng.random()) * 2.0 ** min(self._opened[server], 30)
            self._shut_until[server] = self._farm.now + min(breaker.open_max_s, opened)
            self._opened[server] += 1
