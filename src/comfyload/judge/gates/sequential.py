"""When to look at a run whose gates are to be proven, when it is decided, and when going on is a waste.

Every look is a chance to err. Gates are judged at up to four looks, at 5 % each: of runs that stand exactly at a limit,
8.1 in 100 pass a p95 gate with a budget of 200 jobs, and at most 10 with any (a quarter of the 5 % at each look would
pass 1 in 100, and half as many of the good runs). As many fail falsely; the sequential test below adds its own 5.
`tests/property/test_gate_rates.py` computes the one and simulates the other. No numpy here: it works while jobs run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from comfyload.judge.gates.gate import GateVerdict

BUDGET_JOBS = 200
"""Counted jobs after which a run ends undecided, where no number is given."""

_SHARES = (0.3, 0.5, 0.75, 1.0)
_WORSE = 0.04
"""How much lower the success rate is that the sequential test holds against the gate's: 98 % against 94 %."""
_ERROR = 0.05
_BURST = 10
"""Failures in a row that count as one: a burst may be as long."""

DISPROVEN = math.log((1 - _ERROR) / _ERROR)
"""Wald's upper bound on the evidence: the lower rate is believed."""


def looks(budget_jobs: int) -> list[int]:
    """After how many counted jobs to judge: 60, 100, 150 and 200 of 200. Fewer looks for a budget of very few."""
    return sorted({math.ceil(round(share * budget_jobs, 6)) for share in _SHARES} - {0})


def decided(verdicts: Sequence[GateVerdict], if_independent: Sequence[GateVerdict] = ()) -> bool:
    """Whether more jobs change nothing: every gate is proven, or one is disproven.

    `if_independent`: the same gates judged as if failures came one at a time. A success rate that is proven but for
    bursts counts as decided, since ten times as many jobs would not be waited for.
    """
    if any(verdict.verdict == "FAIL" for verdict in verdicts):
        return True
    proven = if_independent or verdicts
    return bool(verdicts) and all(verdict.verdict == "PASS" for verdict in proven)


def strikes(in_a_row: int) -> bool:
    """Whether a failure, the so manieth in a row, is evidence: the first of a burst, and every tenth after it."""
    return in_a_row % _BURST == 1


def evidence(completed: int, failed: int, limit: float) -> float:
    """Log likelihood ratio of a success rate 4 points below `limit` against `limit` itself (Wald 1945)."""
    worse = max(limit - _WORSE, limit / 2)
    if limit <= 0:  # every run keeps that
        return -math.inf
    if limit >= 1:
        return math.inf if failed else completed * math.log(worse)
    bad = 0.0 if not failed else failed * math.log((1 - worse) / (1 - limit))
    return bad + (completed * math.log(worse / limit) if completed else 0.0)


def early_abort(completed: int, failed: int, limit: float = 0.98) -> Literal["continue", "fail"]:
    """Whether a gate `success_rate >= limit` is lost, to be checked after every job whose end is known. `failed`: those
    that are evidence by `strikes`; all failures only if they come one at a time.

    The failing side of Wald's sequential probability ratio test with 5 % on each side. At a rate of exactly `limit` it
    gives up at most 1 run in 19, however long that goes on (the ratio is a martingale: Ville 1939); at 90 % success it
    ends after some 45 jobs.
    """
    return "fail" if evidence(completed, failed, limit) >= DISPROVEN else "continue"
