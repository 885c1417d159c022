"""Whether jobs execute longer while another one waits, or as a measurement goes on: by ranks.

Ranks, since a few jobs that take very long, and chance has put into one part, say nothing of the others.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from scipy.stats import mannwhitneyu

from comfyload.advise.rate import Rate
from comfyload.advise.validation import in_phases, less_their_kind
from comfyload.judge.arrays import Floats
from comfyload.judge.columns.jobs import executions_of
from comfyload.judge.comparison.effects import hodges_lehmann
from comfyload.judge.statistics.trend import theil_sen
from comfyload.judge.summary import Measured

_DISTURBED = 0.10
_CHANCE = 0.05
_FEW, _FEW_IN_ORDER = 4, 20
_NORMAL_975 = 1.96
_SMALL = 0.03
"""A drift below this is not worth a sentence."""


class Interference(Struct, frozen=True, kw_only=True):
    """How much longer jobs execute while another one waits: a ratio with its 95 % interval.

    `disturbed`: it is more than a tenth, and no chance. `doubt`: relative standard error of the ratio.
    """

    ratio: Rate
    disturbed: bool
    doubt: float


def interference(alone: Sequence[Floats], waiting: Sequence[Floats]) -> Interference | None:
    """The execution times of some jobs against those of others, by workflow; None of too few.

    The shift of their logarithms (Hodges & Lehmann 1963), and Mann and Whitney's test, one-sided. Of several workflows
    each is first aligned by its own median (Hodges & Lehmann 1962).
    """
    pairs = [
        (np.log(a[a > 0]), np.log(b[b > 0]))
        for a, b in zip(alone, waiting, strict=True)
        if min(np.count_nonzero(a > 0), np.count_nonzero(b > 0)) >= _FEW
    ]
    if not pairs:
        return None
    before = np.concatenate([a - np.median(a) for a, _ in pairs])
    after = np.concatenate([b - np.median(a) for a, b in pairs])
    shift, low, high = hodges_lehmann(before, after)
    slower = float(mannwhitneyu(after, before, alternative="greater").pvalue) < _CHANCE
    bounded = math.isfinite(low) and math.isfinite(high)
    return Interference(
        ratio=Rate(
            estimate=math.exp(shift), low=math.exp(low) if bounded else None, high=math.exp(high) if bounded else None
        ),
        disturbed=slower and shift > math.log1p(_DISTURBED),
        doubt=(high - low) / 2 / _NORMAL_975 if bounded else math.inf,
    )


def changed(before: Sequence[Floats], now: Sequence[Floats]) -> str | None:
    """In words, by how much jobs of a later run execute longer or shorter; None if it is little, or may be chance."""
    found = interference(before, now)
    ratio = None if found is None else found.ratio
    if ratio is None or ratio.estimate is None or ratio.low is None or ratio.high is None:
        return None
    if abs(ratio.estimate - 1) <= _SMALL or ratio.low <= 1 <= ratio.high:
        return None
    by = _by(ratio.estimate - 1, ratio.low - 1, ratio.high - 1)
    return f"In the confirming run, executions were {by} than before; a queue multiplies that."


def drift(runs: Sequence[Measured], factors: Sequence[float]) -> str | None:
    """In words, by how much jobs execute longer or shorter at the end of these runs than at their beginning; None if
    it is little, or may be chance: by the slope of Theil and Sen. `factors` as in `pools_of`.
    """
    values = _against_their_kind(runs, factors)
    n = len(values)
    slopes = theil_sen(np.arange(float(n)), values, 0.95) if n >= _FEW_IN_ORDER else None
    if slopes is None or slopes[1] <= 0 <= slopes[2]:
        return None
    change, low, high = (math.expm1((n - 1) * slope) for slope in slopes)
    if abs(change) <= _SMALL:
        return None
    became = f"executions became {_by(change, low, high)}"
    return f"From the first job to the last, {became}: the numbers above are of the middle."


def phases(runs: Sequence[Measured], factors: Sequence[float]) -> bool:
    """Whether jobs of these runs come in slow and fast phases that neither workflow nor switch explains.

    That one run is slower than another is no phase: `drift` and `changed` tell of it. Nor are jobs that differ by less
    than a tenth: whatever they depend on moves no rate by much.
    """
    values = np.concatenate([_against_their_kind([run], [by]) for run, by in zip(runs, factors, strict=True)])
    return len(values) > 0 and float(values.std()) >= _DISTURBED and in_phases(values - values.mean())


def _against_their_kind(runs: Sequence[Measured], factors: Sequence[float]) -> Floats:
    """The logarithm of each execution, in order, less the median of its kind: its workflow, and whether that was also
    the one before.
    """
    names = list({facts.name: None for run in runs for facts in run.manifest.workflows})
    kinds, logs = [], []
    for run, factor in zip(runs, factors, strict=True):
        ran = executions_of(run.jobs)
        kept = (ran.seconds > 0) & ~ran.first
        codes = np.array([names.index(facts.name) for facts in run.manifest.workflows])
        kinds.append(2 * codes[ran.workflow[kept]] + ran.same[kept])
        logs.append(np.log(factor * ran.seconds[kept]))
    return less_their_kind(np.concatenate(logs), np.concatenate(kinds), np.median)


def _by(change: float, low: float, high: float) -> str:
    """12 % longer (8 % to 15 %)."""
    least, most = sorted((abs(low), abs(high)))
    word = "longer" if change > 0 else "shorter"
    return f"{100 * abs(change):.0f} % {word} ({100 * least:.0f} % to {100 * most:.0f} %)"
