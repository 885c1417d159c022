"""The verdict on a gate, the numbers it rests on, and why."""

from typing import Any, Literal

from msgspec import Struct

from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured

Verdict = Literal["PASS", "PASS*", "INCONCLUSIVE", "FAIL"]
"""As JSON, JUnit and exit codes have it; `VERDICTS` says what people read."""


class VerdictRow(Struct, frozen=True, kw_only=True):
    """`word`: what people read; `look`: how it catches their eye."""

    word: str
    meaning: str
    look: Literal["good", "plain", "doubt", "bad"]


VERDICTS: dict[Verdict, VerdictRow] = {
    "PASS": VerdictRow(word="PASS", meaning="proven", look="good"),
    "PASS*": VerdictRow(word="ok", meaning="inside the limit, not proven", look="plain"),
    "INCONCLUSIVE": VerdictRow(word="INCONCLUSIVE", meaning="undecided", look="doubt"),
    "FAIL": VerdictRow(word="FAIL", meaning="disproven, or an unexpected error", look="bad"),
}
"""The best first."""


class RunError(Struct, frozen=True, kw_only=True):
    """One class of error. `text`: its kind, type, node class and first message, or a line of the log; `first`: where it
    came first, by job or by time. `where` "others": of prompts that are not the run's; "probe": errors of
    the probe itself; neither counts as an error of the run. "unread": what could not be read of the log, in a
    sentence; it may hold an error.
    """

    where: Literal["records", "log", "others", "probe", "unread"]
    text: str
    count: int
    first: str


class GateVerdict(Struct, frozen=True, kw_only=True):
    """The verdict of a run on a gate.

    `value`, `low`, `high` and `limit` are in the unit of the gate's key. `low` and `high` are the bounds that the
    verdict rests on: 5 % on each side for a share (bursts of failures allowed for) or a percentile (failures count
    as infinite), 2.5 % for a mean or a rate; against a baseline, the run's own at 95 %. None: withheld, or no bound.
    `n`: jobs judged. `limit` against a baseline: factor times the baseline's value; None without it. `baseline`:
    its value, for several runs their geometric mean; `ratio`: the run's value over it; None if the gate names no
    baseline. `p_fail`: p-value of the disproof after Holm's method, FAIL if at most 0.05; None if nothing is inferred.
    `needs`: jobs in all that would prove it if no further one were on the wrong side (for a mean: if it does not
    change).
    """

    run: str
    gate: str
    verdict: Verdict
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    limit: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    p_fail: float | None = None
    needs: int | None = None
    why: str


def verdict_of(p_pass: float, p_fail: float, inside: bool) -> Verdict:
    """What follows from the p-values of proof and disproof, and from where the value lies."""
    if p_fail <= SIDE:
        return "FAIL"
    if p_pass <= SIDE:
        return "PASS"
    return "PASS*" if inside else "INCONCLUSIVE"


def make_verdict(
    gate: Gate, measured: Measured, verdict: Verdict, why: str, found: Statistic | None = None, **changes: Any
) -> GateVerdict:
    """A verdict with the numbers of `found`, where `changes` does not say otherwise."""
    numbers: dict[str, Any] = {"limit": None if gate.of_baseline else gate.limit}
    if found is not None:
        numbers |= {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    run = measured.path or measured.manifest.run_id
    return GateVerdict(run=run, gate=gate.text, verdict=verdict, metric=gate.metric, why=why, **{**numbers, **changes})


def no_data(gate: Gate, measured: Measured, why: str, found: Statistic | None = None) -> GateVerdict:
    """The verdict where there is nothing to judge: INCONCLUSIVE, never a pass."""
    return make_verdict(gate, measured, "INCONCLUSIVE", f"No data: {why}.", found)


def open_words(verdict: Verdict, p_fail: float) -> str:
    """What ends the sentence of a FAIL or an INCONCLUSIVE; nothing for the others."""
    if verdict == "FAIL":
        return f" ({p_words(p_fail)} if the gate held)"
    return ": outside the limit, which may be chance" if verdict == "INCONCLUSIVE" else ""


def p_words(p: float) -> str:
    """How likely so much is by chance alone: `p = 0.012`, or `p < 0.0001`."""
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def plain(gate: Gate, measured: Measured) -> float | None:
    """The summary's number that the gate names; None for none."""
    if gate.workflow:
        value = getattr(measured.summary.workflows[gate.workflow], gate.name)
    else:
        value = measured.summary.summary[gate.name]
    return float(value) if isinstance(value, int | float) else None
