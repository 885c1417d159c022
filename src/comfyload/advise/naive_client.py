"""How clients behave in the simulated world that try again as scripts usually do."""

from collections.abc import Callable

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.cluster import Cluster, SimAttempt, SimJob

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

    def pause_s(self, made: int, elapsed_s: float, draw: Callable[[], float]) -> float | None:
        """Seconds until the attempt after so many, the first of them made so long ago; None: it gives up.

        `draw` gives numbers uniformly from [0, 1).
        """
        if made == self.attempts:
            return None
        wait = self.waits_s[min(made, len(self.waits_s)) - 1]
        if self.jitter_s:
            wait = min(self.waits_s[-1], wait + self.jitter_s * draw())
        return None if self.within_s is not None and elapsed_s + wait > self.within_s else wait


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


class NaiveClient:
    """A naive client, which takes servers in turn. What it adds to each job itself is taken off its times."""

    def __init__(self, naive: Naive, farm: Cluster, overhead_s: float) -> None:
        self._naive, self._farm = naive, farm
        self._rng = np.random.default_rng(farm.world.seed)
        self._turn = 0
        self._timeout_s = None if naive.timeout_s is None else max(0.0, naive.timeout_s - overhead_s)

    def arrive(self, job: SimJob) -> None:
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

    def ended(self, attempt: SimAttempt) -> None:
        job = attempt.job
        if job.over or job.attempt is not attempt:
            return  # it has given up on this one, and would not recognise its result
        if attempt.fails:
            self._again(job, 0.0)
        else:
            job.done, job.over = self._farm.now, True

    def started(self, attempt: SimAttempt) -> None:
        """It does not look."""

    def lost(self, attempt: SimAttempt) -> None:
        """It does not notice, and waits."""

    def _late(self, attempt: SimAttempt) -> None:
        job = attempt.job
        if not job.over and job.attempt is attempt:
            self._again(job, 0.0)

    def _again(self, job: SimJob, lost_s: float) -> None:
        now = self._farm.now + lost_s
        elapsed_s = now - self._farm.world.arrivals[job.index]
        job.attempt = None
        wait = self._naive.pause_s(job.number, elapsed_s, self._rng.random) if job.number < _FOR_EVER else None
        if wait is None:
            job.over = True
        else:
            self._farm.at(now + wait, self.arrive, job)
