"""Whether more jobs failed on one side than on the other."""

from collections.abc import Sequence

import numpy as np
from msgspec import structs
from scipy.stats import fisher_exact

from comfyload.judge.comparison.ratios import Group, Ratio
from comfyload.judge.statistics.binomial import clopper_pearson
from comfyload.judge.statistics.significance import holm
from comfyload.judge.statistics.stats import CONFIDENCE
from comfyload.judge.summary import Measured


def failure_rows(groups: Sequence[Group], margin: float) -> list[Ratio]:
    """Jobs that did not complete, of those whose end is known, for each group; Holm's correction is over the groups."""
    rows = [_row(group, margin) for group in groups]
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    out = []
    for row in rows:
        p, word = None if row.p is None else next(adjusted), row.verdict
        if p is not None and p < 1 - CONFIDENCE:
            word = "more failures" if (row.b or 0) > (row.a or 0) else "fewer failures"
        out.append(structs.replace(row, p_holm=p, verdict=word))
    return out


def _row(group: Group, margin: float) -> Ratio:
    """By Fisher's exact test; its verdict is open."""
    (bad_a, n_a), (bad_b, n_b) = (_failed(runs) for runs in (group.a, group.b))
    known = n_a > 0 and n_b > 0
    share_a, share_b = (bad / n if n else None for bad, n in ((bad_a, n_a), (bad_b, n_b)))
    note = f"{bad_a} of {n_a} jobs and {bad_b} of {n_b} did not complete"
    if known and not bad_a + bad_b:
        most = [100 * clopper_pearson(0, n)[1] for n in (n_a, n_b)]
        note = f"none failed; up to {most[0]:.3g} % of A and {most[1]:.3g} % of B might"
    return Ratio(
        name="failures",
        kind="failures",
        workflow=None,
        a=share_a,
        b=share_b,
        unit="1",
        ratio=share_b / share_a if share_a and share_b else None,
        low=None,
        high=None,
        n_a=n_a,
        n_b=n_b,
        p=float(fisher_exact(np.array([[bad_a, n_a - bad_a], [bad_b, n_b - bad_b]]))[1]) if known else None,
        p_holm=None,
        verdict="inconclusive",
        margin=margin,
        runs_needed=None,
        method="Fisher's exact test, jobs as if independent",
        note=note if known else "no job's end is known on one side",
        load=group.load,
    )


def _failed(runs: Sequence[Measured]) -> tuple[int, int]:
    """Counted jobs that ended without success, of those that were not cut off."""
    ended = [~run.jobs.counted.censored for run in runs]
    good = sum(int(run.jobs.completed.sum()) for run in runs)
    n = sum(int(known.sum()) for known in ended)
    return n - good, n
