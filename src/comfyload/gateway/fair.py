"""The jobs that wait here: fair among tenants by the time they take, in ComfyUI's order within each."""

import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_GONE = 1_000
"""So many jobs that are served are still listed among those that may become urgent."""

FADES_S, LEAST_LOOK_S = 120.0, 30.0
AHEAD = 2.0
"""How early a job is urgent, in times of what it takes: a server that just began another is busy for so long."""

LEAST_S = 1e-3
"""What a job of unknown length counts as."""


@dataclass(slots=True, eq=False)
class _Tenant:
    """`clock`: seconds of work that it has had, on the scale of all. `total_s`: of its jobs that wait."""

    clock: float
    heap: list[tuple[float, int, str]] = field(default_factory=list)
    total_s: float = 0.0


class FairQueue(Generic[T]):
    """Each tenant has a clock that advances by what its jobs take; the one that is furthest behind is served next, so
    that each gets the same share however much it sends [start-time fair queueing, Goyal, Vin and Cheng 1996].

    Within a tenant the lowest number is first, then the one that came first. A job that must begin now goes before all:
    when it was taken it was promised to be done in time. One for which it is too late goes after all: before them it
    would make others late and still not be in time.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._jobs: dict[str, tuple[T, str, float, float]] = {}
        self._now = 0.0
        self._urgent: list[tuple[float, str]] = []
        self._late: deque[str] = deque()
        self._arrivals = 0

    @property
    def total_s(self) -> float:
        """Seconds of work that wait."""
        return sum(tenant.total_s for tenant in self._tenants.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[T]:
        """The jobs, in the order in which they came."""
        return (job for job, *_ in self._jobs.values())

    def put(self, job_id: str, job: T, tenant: str, number: float, cost_s: float, begin_by: float = math.inf) -> None:
        """`cost_s`: what it is expected to take. `begin_by`: the instant by which it must begin to be done in time."""
        cost_s = max(cost_s, LEAST_S)
        self._jobs[job_id] = job, tenant, cost_s, begin_by
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant(self._now)
        elif not found.total_s:
            found.clock = max(found.clock, self._now)  # who had nothing to do saves no time up
        heapq.heappush(found.heap, (number, self._arrivals, job_id))
        found.total_s += cost_s
        self._arrivals += 1
        if begin_by < math.inf:
            heapq.heappush(self._urgent, (begin_by - AHEAD * cost_s, job_id))
            if len(self._urgent) > 2 * len(self._jobs) + MOST_GONE:
                self._urgent = [(since, each) for since, each in self._urgent if each in self._jobs]
                heapq.heapify(self._urgent)

    def next(self, now: float = -math.inf) -> T | None:
        """Take the job that is next at the instant `now`; None: none waits."""
        while self._urgent and self._urgent[0][0] <= now:
            job_id = heapq.heappop(self._urgent)[1]
            if job_id in self._jobs and not self._is_late(job_id, now):
                _, name, cost_s, _ = self._jobs[job_id]
                self._tenants[name].clock += cost_s
                return self.remove(job_id)
        while waiting := [tenant for tenant in self._tenants.values() if tenant.heap]:
            first = min(waiting, key=lambda tenant: tenant.clock)
            job_id = heapq.heappop(first.heap)[2]
            if job_id not in self._jobs:
                continue
            if self._is_late(job_id, now):
                self._late.append(job_id)
                continue
            self._now = first.clock
            first.clock += self._jobs[job_id][2]
            return self.remove(job_id)
        while self._late:
            found = self.remove(self._late.popleft())
            if found is not None:
                return found
        self._tenants.clear()
        self._urgent.clear()
        return None

    def _is_late(self, job_id: str, now: float) -> bool:
        return self._jobs[job_id][3] < now

    def remove(self, job_id: str) -> T | None:
        """Take the job out; None: it does not wait here."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return None
        job, name, cost_s, _ = found
        tenant = self._tenants[name]
        tenant.total_s = max(0.0, tenant.total_s - cost_s)
        return job

    def hopeless_s(self, now: float, before_s: float, servers: int) -> float:
        """Seconds of work that will not be done, since its turn comes too late: the servers are at work for `before_s`
        more seconds, and take the jobs in the order of their deadlines.
        """
        begins, hopeless = now + before_s, 0.0
        for _, _, cost_s, begin_by in sorted(self._jobs.values(), key=lambda waiting: waiting[3]):
            if begins > begin_by:
                hopeless += cost_s
            else:
                begins += cost_s / servers
        return hopeless

    def ahead_s(self, tenant: str, number: float, cost_s: float, coming_s: Mapping[str, float]) -> float:
        """Seconds of work that are served before a new job: its tenant's, and of each other tenant as much at most,
        be it here already or among what comes meanwhile, which is `coming_s`.
        """
        own = self._tenants.get(tenant)
        mine = 0.0 if own is None or not own.heap or number < own.heap[0][0] else own.total_s
        others = {name: each.total_s for name, each in self._tenants.items()}
        names = (others.keys() | coming_s.keys()) - {tenant}
        return mine + sum(min(others.get(name, 0.0) + coming_s.get(name, 0.0), mine + cost_s) for name in names)


class Demand:
    """How much work each tenant brings, in seconds a second: of the last minutes, and soon forgotten."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, float, float]] = {}
        """Of each tenant: since when, the sum that fades away, of when that is, and what its last job takes."""

    def note(self, tenant: str, cost_s: float, now: float) -> None:
        """The tenant's job was taken."""
        since, total, then, _ = self._seen.get(tenant, (now, 0.0, now, 0.0))
        self._seen[tenant] = since, total * math.exp((then - now) / FADES_S) + cost_s, now, cost_s

    def rates(self, now: float) -> dict[str, float]:
        """Of each tenant, as if one more of its jobs had come: a few jobs may show too little."""
        found = {}
        for name, (since, total, then, cost_s) in list(self._seen.items()):
            left = total * math.exp((then - now) / FADES_S)
            if left < LEAST_S:
                del self._seen[name]
            else:
                # What came first was not preceded by nothing: the time before it is not known, at least for a while.
                weight = 1.0 - math.exp(-max(now - since, LEAST_LOOK_S) / FADES_S)
                found[name] = (left + cost_s) / (FADES_S * weight)
        return found
