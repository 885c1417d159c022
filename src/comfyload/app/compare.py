"""`compare` and `trend`: one result against another, and all of them through time."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, structs

from comfyload.app.check import Checked, check
from comfyload.app.locate import Result, Target, find, labelled, measured
from comfyload.errors import RunFilesError
from comfyload.judge.comparison.compare import Comparison, compare
from comfyload.judge.comparison.history import TrendSeries, history
from comfyload.judge.gates.compared import SIDES, Condition, judge_comparison
from comfyload.judge.gates.grammar import GateSet
from comfyload.record import archive
from comfyload.report.junit import Suite, suite_of, suite_of_comparison
from comfyload.words import count


class Compared(Struct, frozen=True, kw_only=True):
    """A comparison, and the runs of both sides. `names`: A and B as their user wrote them."""

    comparison: Comparison
    a: Target
    b: Target
    names: tuple[str, str]


def compare_targets(
    a: str, b: str, base: Path, *, paired: bool = False, margin: float = 0.05, accept: Sequence[str] = ()
) -> Compared:
    """B against A; each is a run, a baseline or several of them.

    Raises:
        RunFilesError: there is no such run or baseline.
        UsageError: what made them differs so that a comparison means nothing.
    """
    ours, theirs = find(a, base), find(b, base)
    names = _name(a, ours), _name(b, theirs)
    return compare_found(ours, theirs, names, paired=paired, margin=margin, accept=accept)


def compare_found(
    ours: Target,
    theirs: Target,
    names: tuple[str, str],
    *,
    paired: bool = False,
    margin: float = 0.05,
    accept: Sequence[str] = (),
) -> Compared:
    """The same of what was found already.

    Raises:
        UsageError: what made them differs so that a comparison means nothing.
    """
    found = compare(ours.runs, theirs.runs, paired=paired, margin=margin, accept=accept)
    ids = [{run.manifest.run_id for run in side.runs} for side in (ours, theirs)]
    if both := ids[0] & ids[1]:
        same = f"A and B have {count(len(both), 'run')} in common: they are the same measurement, which proves nothing."
        found = structs.replace(found, caveats=[same, *found.caveats])
    return Compared(comparison=found, a=ours, b=theirs, names=names)


def _name(given: str, found: Target) -> str:
    return f"{given} ({found.name})" if given == archive.PROMOTED else given


def verdicts_on(compared: Compared, conditions: Sequence[Condition], gates: GateSet | None) -> Checked:
    """Verdicts on the conditions by the comparison, and on the gates by B's runs, with A as their `baseline`."""
    verdicts = judge_comparison(compared.comparison, conditions)
    if gates is not None:
        verdicts += check(compared.b, gates, log=None, baseline=compared.a.runs).verdicts
    valid = all(run.summary.valid for run in (*compared.a.runs, *compared.b.runs))
    return Checked(verdicts=verdicts, valid=valid)


def suites(results: Sequence[Result]) -> dict[str, Suite]:
    """Each run, by the name that verdicts give it."""
    return {label: suite_of(result.measured) for label, result in labelled(results).items()}


def suites_of(compared: Compared) -> dict[str, Suite]:
    """The comparison itself and each run of B, by the names that verdicts give them."""
    whole = suite_of_comparison(compared.comparison, compared.a.runs, compared.b.runs)
    return {SIDES: whole, **suites(compared.b.results)}


def trend(base: Path, metrics: Sequence[str], runs: str | None = None) -> list[TrendSeries]:
    """Every metric through the baselines of an archive, or through `runs`, such as the days of a ledger; oldest first.
    Without `metrics` the usual ones.

    Raises:
        RunFilesError: there are none.
    """
    if runs is not None:
        found = [(result.reader.path.name, result.reader, result.measured) for result in find(runs, base).results]
    else:
        kept = [(one.path.name, reader) for one in archive.list_all(base) for _, reader in one.runs()]
        found = [(name, reader, measured(reader)) for name, reader in kept]
    if not found:
        by_hand = " (folders made by hand have no records)" if archive.list_by_hand(base) else ""
        raise RunFilesError(f"no baselines in {base}{by_hand}", "save one with comfyload baseline save")
    entries = [(name, reader.manifest.started_utc, run) for name, reader, run in found]
    return history(entries, metrics) if metrics else history(entries)
