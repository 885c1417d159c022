"""How failures come in bursts, and so how many independent trials a count of them stands for.

A server that ran out of memory fails the next jobs too. A run without a failure holds nothing on how long such bursts
are: there, ten jobs are taken for one trial.
"""

import numpy as np
from msgspec import Struct
from scipy import special

from comfyload.judge.arrays import Flags

LONGEST = 10.0
"""The mean length of bursts that a gate still judges rightly, in jobs."""
ONE_BY_ONE = 1.0
"""Jobs to a trial where failures are independent."""
_MOST = 15.0
"""Jobs to a trial at most: with it, false verdicts stay below 6 % for mean lengths from 1 to 10."""
_SURE = 0.9


class Bursts(Struct, frozen=True, kw_only=True):
    """Of `n` jobs in the order of submission, how many were bad, and in how many unbroken runs."""

    n: int
    bad: int
    runs: int

    def jobs_per_trial(self, allowed: float) -> float:
        """How many jobs are one independent trial, to judge whether the share of bad ones is `allowed`.

        Bursts of geometric length b spread a count like trials of 2 b - 1 jobs. b is bounded from above, at 90 %, from
        the observed lengths: `runs` bursts have ended within `bad` failures (negative binomial). Independent ones
        are runs of 1 / (1 - allowed) by chance, without any burst.
        """
        if not self.runs:
            return LONGEST
        ends = float(special.betaincinv(self.runs, self.bad - self.runs + 1, 1 - _SURE))
        length = min(max((1 - allowed) / ends, 1.0), LONGEST)
        return min(2 * length - 1, _MOST)

    def observed(self) -> float:
        """The same as far as the run shows it: 1 where bursts are no longer than independent failures make them."""
        length = self.bad / self.runs * (1 - self.bad / self.n) if self.runs else 1.0
        return max(2 * length - 1, 1.0)


def bursts_of(bad: Flags) -> Bursts:
    """Of jobs in the order of submission."""
    runs = int(bad[:1].sum()) + int(np.count_nonzero(bad[1:] & ~bad[:-1]))
    return Bursts(n=len(bad), bad=int(bad.sum()), runs=runs)
