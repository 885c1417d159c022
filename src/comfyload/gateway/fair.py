"""The jobs that wait here: fair among tenants by the time they take, in ComfyUI's order within each."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

LEAST_S = 1e-3
"""What a job of unknown length counts as."""


@dataclass(slots=True, eq=False)
class _Tenant:
    """`clock`: seconds of work that it has had, beside the others'. `total_s`: of its jobs that wait."""

    clock: float
    heap: list[tuple[float, int, str]] = field(default_factory=list)
    total_s: float = 0.0


class FairQueue(Generic[T]):
    """Each tenant has a clock that advances by what its jobs take; the one that is furthest behind is served next, so
    that each gets the same share however much it sends [start-time fair queueing, Goyal, Vin and Cheng 1996].

    Within a tenant the lowest number is first, then the one that came first.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._jobs: dict[str, tuple[T, str, float]] = {}
        self._now = 0.0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[T]:
        """The jobs, in the order in which they came."""
        return (job for job, _, _ in self._jobs.values())

    def put(self, job_id: str, job: T, tenant: str, number: float, cost_s: float) -> None:
        """`cost_s`: what it is expected to take."""
        cost_s = max(cost_s, LEAST_S)
        self._jobs[job_id] = job, tenant, cost_s
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant(self._now)
        elif not found.total_s:
            found.clock = max(found.clock, self._now)  # who had nothing to do saves no time up
        heapq.heappush(found.heap, (number, self._arrivals, job_id))
        found.total_s += cost_s
        self._arrivals += 1

    def next(self) -> T | None:
        """Take the job that is next; None: none waits."""
        while True:
            waiting = [tenant for tenant in self._tenants.values() if tenant.heap]
            if not waiting:
                self._tenants.clear()
                return None
            first = min(waiting, key=lambda tenant: tenant.clock)
            job_id = heapq.heappop(first.heap)[2]
            cost_s = self._jobs[job_id][2] if job_id in self._jobs else 0.0
            found = self.remove(job_id)
            if found is not None:
                self._now = first.clock
                first.clock += cost_s
                return found

    def remove(self, job_id: str) -> T | None:
        """Take the job out; None: it does not wait here."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return None
        job, name, cost_s = found
        tenant = self._tenants[name]
        tenant.total_s = max(0.0, tenant.total_s - cost_s)
        return job

    def ahead_s(self, tenant: str, number: float, cost_s: float) -> float:
        """Seconds of work that are served before a new job: its tenant's, and of each other tenant as much at most.

        Of a tenant without a name: all of it.
        """
        if not tenant:
            return sum(each.total_s for each in self._tenants.values())
        own = self._tenants.get(tenant)
        mine = 0.0 if own is None or not own.heap or number < own.heap[0][0] else own.total_s
        others = (each.total_s for name, each in self._tenants.items() if name != tenant)
        return mine + sum(min(total, mine + cost_s) for total in others)
