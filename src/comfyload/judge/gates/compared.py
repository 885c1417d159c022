"""Verdicts on a comparison: that B is not slower than A, and that it does not fail more often."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from comfyload.judge.columns.ledger import join
from comfyload.judge.comparison.compare import Comparison, Ratio
from comfyload.judge.gates.verdict import GateVerdict, Verdict, p_words

Condition = Literal["slower", "more-failures"]
SIDES = "B against A"
"""What such a verdict is about, where that of another gate names its run."""


def judge_comparison(found: Comparison, conditions: Sequence[Condition]) -> list[GateVerdict]:
    """A verdict on each condition that must not be: FAIL where it is proven, PASS where its opposite is.

    PASS* where B is on the right side of the margin (of failures: of A) and that is not proven; else INCONCLUSIVE.
    """
    judges = {"slower": _not_slower, "more-failures": _not_more_failures}
    return [judges[condition](found) for condition in dict.fromkeys(conditions)]


def _not_slower(found: Comparison) -> GateVerdict:
    """By the overall row; another metric that is proven slower leaves the question open."""
    row, judged = found.overall, partial(GateVerdict, run=SIDES, gate="not slower")
    if row is None or row.ratio is None:
        return judged(verdict="INCONCLUSIVE", metric="", why="No data: no duration is known of both sides.")
    proven = [one for one in found.rows if one.kind == "metric" and one.verdict == "slower"]  # nodes are parts
    slower = list(dict.fromkeys(map(_of_workflow, proven)))
    longer = [one for one in found.rows if one.headline and (one.ratio is None or one.ratio >= 1 + row.margin)]
    beyond = slower or [_of_workflow(one) for one in longer]
    verdict: Verdict = "INCONCLUSIVE" if beyond else "PASS*"
    if row.verdict == "slower":
        verdict = "FAIL"
    elif row.verdict in ("faster", "no practical difference") and not slower:
        verdict = "PASS"
    parts = [_change(row), found.why]
    if verdict == "INCONCLUSIVE":
        parts.append(f"Outside it: {join(beyond)}.")
    if row.runs_needed and verdict != "FAIL":
        what = "pairs" if found.design == "paired" else "runs a side"
        parts.append(f"About {row.runs_needed} {what} would settle it.")
    return judged(
        verdict=verdict,
        metric=_name(row),
        value=row.b,
        n=row.n_b,
        limit=(row.a or 0.0) * (1 + row.margin),
        baseline=row.a,
        ratio=row.ratio,
        why=" ".join(part for part in parts if part),
    )


def _of_workflow(row: Ratio) -> str:
    """With its change, so that nobody has to look for it."""
    change = "not known" if row.ratio is None else f"{100 * (row.ratio - 1):+.1f} %"
    return f"{row.workflow}: {row.name} {change}" if row.workflow else f"{row.name} {change}"


def _name(row: Ratio) -> str:
    """The key of the summary that the overall row was made of."""
    return row.note.partition(",")[0].partition(";")[0].partition(" or ")[0]


def _change(row: Ratio) -> str:
    """p50_execution_s +12.3 % (+8.1 to +16.7 %), margin 5 %."""
    low, high = (None if end is None else f"{100 * (end - 1):+.1f}" for end in (row.low, row.high))
    ends = f"{low} to {high} %" if low and high else f"from {low} %" if low else f"up to {high} %" if high else ""
    change = f"{_name(row)} {100 * ((row.ratio or 1.0) - 1):+.1f} %{f' ({ends})' if ends else ''}"
    return f"{change}, margin {100 * row.margin:.3g} %."


def _not_more_failures(found: Comparison) -> GateVerdict:
    """By the worst load. Nothing here proves that B fails no more than A, only that it fails less."""
    rows = [row for row in found.rows if row.kind == "failures" and row.a is not None and row.b is not None]
    judged = partial(GateVerdict, run=SIDES, gate="not more failures", metric="success_rate")
    verdict: Verdict = "INCONCLUSIVE"
    if not rows:
        return judged(verdict=verdict, why="No data: no job's end is known on one side.")
    worst = max(rows, key=lambda row: (row.verdict == "more failures", (row.b or 0.0) - (row.a or 0.0)))
    a, b = worst.a or 0.0, worst.b or 0.0
    if worst.verdict != "inconclusive":
        verdict = "FAIL" if worst.verdict == "more failures" else "PASS"
    elif b <= a:
        verdict = "PASS*"
    p = "" if worst.p_holm is None else f" ({p_words(worst.p_holm)} if both fail alike)"
    where = f"{worst.load}: " if worst.load else ""
    why = f"{where}{worst.note}{p}."
    return judged(verdict=verdict, value=1 - b, n=worst.n_b, limit=1 - a, baseline=1 - a, why=why[:1].upper() + why[1:])
