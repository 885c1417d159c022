"""How many jobs in a row carry the information of one, because they waited in one queue."""

from __future__ import annotations

from msgspec import Struct


class Queue(Struct, frozen=True, kw_only=True):
    """`memory`: how many jobs in a row carry the information of one, on their mean wait; infinite: not known, or the
    queue has no steady state. `shared`: how many in a row waited for the same executions, whatever these were. `early`:
    the first jobs, that found fewer ahead of them than all later ones did. `rate_error`: relative standard error of how
    many arrivals came, by the chance in the plan.
    """

    memory: float = 1.0
    shared: float = 1.0
    early: int = 0
    rate_error: float = 0.0

    def time(self, observed: float, p: float = 1.0) -> float:
        """The larger of the autocorrelation time `observed` and the theory's.

        Being beyond the p-quantile is forgotten sooner than the wait itself: in simulations after 0.35 of the memory
        for the median, 0.8 for the p90, 0.9 for the p95; p is above all of these.
        """
        return max(observed, p * self.memory)

    def surely(self, observed: float, p: float) -> float:
        """The larger of the autocorrelation time `observed` and what neighbours certainly share."""
        return max(observed, p * self.shared)

    def of_books(self, pages: int) -> Queue:
        """The same queue, with books of so many jobs counted instead of jobs."""
        return Queue(
            memory=max(1.0, self.memory / pages),
            shared=max(1.0, self.shared / pages),
            early=self.early // pages,
            rate_error=self.rate_error,
        )


ALONE = Queue()
"""Nothing waits."""
