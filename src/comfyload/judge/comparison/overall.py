"""The verdict of a comparison in one word, by the median and by the mean together.

Who waits for one picture has the median, who pays for all has the mean. Each of them is tested for a difference, with
Holm's correction for the two; no practical difference takes both within the margin, of every load and workflow (two
one-sided tests each: Schuirmann 1987), and no other row that says otherwise. docs/why/comparison.md has how often that
errs.
"""

from collections.abc import Sequence

from msgspec import structs

from comfyload.judge.comparison.effects import combined
from comfyload.judge.comparison.ratios import Draft, Ratio
from comfyload.judge.comparison.rows import row_of
from comfyload.judge.statistics.significance import geometric_mean, holm
from comfyload.judge.statistics.stats import CONFIDENCE

_MOVED = ("slower", "faster")
_SAME = "no practical difference"


def overall_of(drafts: Sequence[Draft], rows: Sequence[Ratio], margin: float) -> tuple[Ratio | None, str]:
    """The overall row, and in sentences what else to know of it; no row if no median is known of both sides.

    `drafts` of the metrics; `rows`: of metrics and failures, with their verdicts.
    """
    headline = [draft for draft in drafts if draft.family == "headline" and draft.effect is not None]
    medians, means = ([draft for draft in headline if draft.mean == mean] for mean in (False, True))
    if not medians:
        return None, ""
    parts = [_together(medians), *([_together(means)] if len(means) == len(medians) else [])]
    adjusted = holm([part.effect.p for part in parts if part.effect is not None])
    tested = [row_of(part, p, margin) for part, p in zip(parts, adjusted, strict=True)]
    moved = [row for row in tested if row.verdict in _MOVED]
    if len({row.verdict for row in moved}) > 1:
        return _open(tested[0], None), f"The median is {moved[0].verdict} and the mean is {moved[1].verdict}."
    if moved:
        return moved[0], _by(tested, margin)
    return _unmoved(tested, [row for row in rows if row.kind != "node"])


def _together(drafts: Sequence[Draft]) -> Draft:
    """The geometric mean over loads and workflows."""
    effects = [draft.effect for draft in drafts if draft.effect is not None]
    names = " or ".join(dict.fromkeys(draft.name for draft in drafts))
    a, b = (geometric_mean([getattr(draft, side) or 1.0 for draft in drafts]) for side in "ab")
    return structs.replace(
        drafts[0],
        name="overall",
        workflow=drafts[0].workflow if len(drafts) == 1 else None,
        load="",
        a=a,
        b=b,
        n_a=sum(draft.n_a for draft in drafts),
        n_b=sum(draft.n_b for draft in drafts),
        effect=effects[0] if len(effects) == 1 else combined(effects),
        note=names if len(drafts) == 1 else f"{names}, geometric mean of {len(drafts)}",
        moot=all(draft.moot for draft in drafts),
    )


def _by(tested: Sequence[Ratio], margin: float) -> str:
    """Which of median and mean has moved, where it is not both."""
    median, mean = tested[0], tested[1] if len(tested) > 1 else None
    if mean is None or median.verdict == mean.verdict:
        return ""
    if median.verdict in _MOVED:
        return "" if mean.verdict != _SAME else f"That is the median: the mean is the same within {100 * margin:.3g} %."
    longer, shorter = "more, or longer, slow jobs", "fewer, or shorter, slow jobs, or more quick ones"
    jobs = longer if mean.verdict == "slower" else shorter
    same = f"is the same within {100 * margin:.3g} %" if median.verdict == _SAME else "is not shown to have moved"
    return f"By the mean: {jobs}; the median {same}."


def _unmoved(tested: Sequence[Ratio], rows: Sequence[Ratio]) -> tuple[Ratio, str]:
    """Neither is proven to have moved."""
    median = tested[0]
    headline = [row for row in rows if row.headline]
    unlike = [row for row in headline if row.verdict != _SAME]
    if unlike or len(tested) == 1:
        mean_alone = len(tested) > 1 and _seems(tested) == [tested[1]]
        why = "It is the mean that seems to have moved." if mean_alone else ""
        if all(row.verdict == _SAME for row in headline if row.name.startswith("p50")):
            why = f"Medians are the same; of the means that is not shown. {why}".rstrip()
        return _open(median, _needed(tested, headline)), why
    others = [row for row in rows if row.verdict not in (_SAME, "inconclusive")]
    if others:
        named = [(row.name.removesuffix("_s").replace("_", " "), row) for row in others]
        words = (name if row.kind == "failures" else f"{name} ({row.verdict})" for name, row in named)
        why = ", ".join(dict.fromkeys(words))
        return _open(median, None), f"Median and mean are the same, but not {why}."
    jobs = min(min(row.n_a, row.n_b) for row in headline)
    rare = 100 * (1 - (1 - CONFIDENCE) ** (1 / jobs))
    why = f"Slow jobs that are rarer than {rare:.2g} % may not be among the {jobs} of a side."
    if any(row.name.startswith("p95") and row.ratio is None for row in rows):
        why += " The tail is not compared."
    return structs.replace(median, verdict=_SAME, runs_needed=None), why


def _open(row: Ratio, needed: int | None) -> Ratio:
    return structs.replace(row, verdict="inconclusive", runs_needed=needed)


def _seems(tested: Sequence[Ratio]) -> list[Ratio]:
    """Which of the two lie beyond the margin, proven or not."""
    return [row for row in tested if row.ratio is not None and abs(row.ratio - 1) >= row.margin]


def _needed(tested: Sequence[Ratio], headline: Sequence[Ratio]) -> int | None:
    """Runs that settle one of the two if it seems to have moved, else those after which all are within the margin."""
    if seems := _seems(tested):
        return min((row.runs_needed for row in seems if row.runs_needed), default=None)
    wanted = [row.runs_needed for row in headline if row.verdict != _SAME]
    return None if None in wanted else max((needed for needed in wanted if needed), default=None)
