"""The verdict of each row of a comparison, with the rows that are tested together with it."""

import math
from collections.abc import Sequence

from comfyload.judge.comparison.effects import CompareVerdict, runs_needed, verdict
from comfyload.judge.comparison.ratios import MEAN_NEEDS, Draft, Ratio
from comfyload.judge.statistics.significance import holm

_FEW = f"a mean is shown to be the same from {MEAN_NEEDS} jobs a side"


def metric_rows(drafts: Sequence[Draft], margin: float) -> list[Ratio]:
    """Three families: what the comparison was made for, over loads and workflows; the tail, likewise; and the rest."""
    families = {draft.family for draft in drafts}
    rows = {family: iter(rows_of([draft for draft in drafts if draft.family == family], margin)) for family in families}
    return [next(rows[draft.family]) for draft in drafts]


def rows_of(drafts: Sequence[Draft], margin: float) -> list[Ratio]:
    """A family of tests: Holm's correction is over those that are not withheld."""
    adjusted = iter(holm([draft.effect.p for draft in drafts if draft.effect is not None]))
    return [row_of(draft, None if draft.effect is None else next(adjusted), margin) for draft in drafts]


def row_of(draft: Draft, p_holm: float | None, margin: float) -> Ratio:
    """`p_holm`: its p, corrected for the family."""
    effect, word, notes = draft.effect, _verdict(draft, p_holm, margin), [draft.note]
    if word != (alone := _verdict(draft, None, margin)):
        notes.append(f"{alone}, if it were the only row: not after Holm's correction")
    equal = word == "no practical difference" and draft.few
    if equal:
        word, notes = "inconclusive", [*notes, _FEW]
    return Ratio(
        name=draft.name,
        kind=draft.kind,
        workflow=draft.workflow,
        a=draft.a,
        b=draft.b,
        unit=draft.unit,
        ratio=None if effect is None else math.exp(effect.log),
        low=None if effect is None else _bound(effect.low),
        high=None if effect is None else _bound(effect.high),
        n_a=draft.n_a,
        n_b=draft.n_b,
        p=None if effect is None else effect.p,
        p_holm=p_holm,
        verdict=word,
        margin=margin,
        runs_needed=_needed(draft, p_holm, margin) if word == "inconclusive" else None,
        method="withheld" if effect is None else effect.method,
        note="; ".join(note for note in notes if note),
        load=draft.load,
        headline=draft.family == "headline",
    )


def _verdict(draft: Draft, p: float | None, margin: float) -> CompareVerdict:
    if draft.effect is None or draft.moot:
        return "inconclusive"
    return verdict(draft.effect, margin, higher_is_faster=draft.higher_is_faster, p=p)


def _needed(draft: Draft, p_holm: float | None, margin: float) -> int | None:
    """Runs that settle it, and of a mean enough jobs."""
    if draft.effect is None or draft.moot:
        return None
    tests = p_holm / draft.effect.p if p_holm and draft.effect.p else 1.0
    runs = runs_needed(draft.effect, margin, max(tests, 1.0))
    if runs is None or not draft.few:
        return runs
    return max(runs, math.ceil(MEAN_NEEDS * draft.runs / max(1, min(draft.n_a, draft.n_b))))


def _bound(log: float) -> float | None:
    return math.exp(log) if abs(log) < 700 else None
