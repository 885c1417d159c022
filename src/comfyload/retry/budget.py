"""How many more retries may follow work of a GPU: counted by jobs, not by time, since jobs may be minutes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfyload.retry.policy import Budget

__all__ = ["RetryBudget"]


class RetryBudget:
    """Full at first: each first attempt puts `ratio` in, each charged retry takes one out."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.tokens = budget.cap

    def first(self) -> None:
        self.tokens = min(self._budget.cap, self.tokens + self._budget.ratio)

    def take(self) -> bool:
        """Whether there was one to take."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
