"""How often a trend marks a step where no level changed, and how soon it finds one of 10 %.

`python -m tests.error_rates.trend` prints the tables of docs/why/trend.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.comparison.history import LevelShifts, changes
from comfyload.judge.statistics.means import rate
from comfyload.judge.statistics.stats import Statistic, percentile, proportion
from tests.error_rates.laws import LAWS, Law

POINTS, CHANGE, AFTER = 30, 15, 5
METRICS = ("p50", "p95", "rate", "p95 bare")
TREND_LAWS = {
    "logn .05": Law(name="logn .05", cv_usual=0.05),
    "logn .15": Law(name="logn .15", cv_usual=0.15),
    "15%x2.5": LAWS["15%x2.5"],
}
HARDER_LAWS = {
    "logn .6": LAWS["logn .6"],
    "5%x6": LAWS["5%x6"],
    "50%x2": Law(name="50%x2", cv_usual=0.05, slow=0.5, times=2.0),
}


class Shares(Struct, frozen=True, kw_only=True):
    """Of so many series.

    `false`: any step in 30 points of one level. `doubted`: a point of it that is marked as possible when it is the
    last, of all such points. `soon`: a change is found when five points have followed it, dated no more than one
    before or four after. `late`: the same when fifteen have. `dated`: of those, to the very point. `at_once`: the
    first point after it is marked as possible.
    """

    false: float
    doubted: float
    soon: float
    late: float
    dated: float
    at_once: float


class Values(Struct, frozen=True, kw_only=True):
    """A metric through time, as `changes` takes it."""

    value: Floats
    low: Floats
    high: Floats
    n: Floats | None = None

    def first(self, points: int) -> Values:
        n = None if self.n is None else self.n[:points]
        return Values(value=self.value[:points], low=self.low[:points], high=self.high[:points], n=n)

    def bare(self) -> Values:
        """With intervals that claim to know it exactly, so that only the spread of the points counts."""
        return Values(value=self.value, low=self.value, high=self.value)


def simulate(law: Law, noise: float, trials: int, seed: int, jobs: int = 60, factor: float = 1.1) -> dict[str, Shares]:
    """By metric: 30 baselines of so many jobs, one after the other, whose levels stray by `noise`.

    "p95 bare": the p95 without its intervals.
    """
    rng = np.random.default_rng(seed)
    seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in METRICS}
    for _ in range(trials):
        flat, stepped = (_series(law, noise, jobs, change, rng) for change in (1.0, factor))
        for series in (flat, stepped):
            series["p95 bare"] = series["p95"].bare()
        for name in METRICS:
            seen[name].append(_seen(flat[name], stepped[name]))
    return {name: _shares(pairs) for name, pairs in seen.items()}


def failures(before: float, after: float, trials: int, seed: int, jobs: int = 60) -> Shares:
    """The success rate, where so large a share of independent jobs fails before and after the change."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(trials):
        flat, stepped = (_success(np.where(np.arange(POINTS) < CHANGE, before, x), jobs, rng) for x in (before, after))
        pairs.append(_seen(flat, stepped))
    return _shares(pairs)


def _shares(pairs: list[tuple[float, ...]]) -> Shares:
    false, doubted, soon, late, dated, at_once = np.mean(np.array(pairs), axis=0)
    return Shares(false=false, doubted=doubted, soon=soon, late=late, dated=dated / max(late, 1e-9), at_once=at_once)


def _seen(flat: Values, stepped: Values) -> tuple[float, ...]:
    still = [_changes(flat.first(points)) for points in (10, 20, POINTS)]
    once, soon, late = (_changes(stepped.first(points)) for points in (CHANGE + 1, CHANGE + AFTER, POINTS))
    return (
        float(bool(still[-1].steps)),
        float(np.mean([one.possible is not None for one in still])),
        *(float(any(-1 <= at - CHANGE < AFTER for at, _ in one.steps)) for one in (soon, late)),
        float(any(at == CHANGE for at, _ in late.steps)),
        float(once.possible is not None),
    )


def _changes(values: Values) -> LevelShifts:
    return changes(values.value, values.low, values.high, values.n)


def _series(law: Law, noise: float, jobs: int, factor: float, rng: np.random.Generator) -> dict[str, Values]:
    levels = np.exp(rng.normal(0, noise, POINTS)) * np.where(np.arange(POINTS) < CHANGE, 1.0, factor)
    runs = levels[:, None] * law.draw(rng, (POINTS, jobs))
    return {
        "p50": _values([percentile(run, 0.5) for run in runs]),
        "p95": _values([percentile(run, 0.95) for run in runs]),
        "rate": _values([_rate(run) for run in runs]),
    }


def _rate(run: Floats) -> Statistic:
    return rate(np.ones(len(run)), run, per_s=1, unit="jobs/s", what="jobs")


def _success(failing: Floats, jobs: int, rng: np.random.Generator) -> Values:
    good = jobs - rng.binomial(jobs, failing)
    values = _values([proportion(int(k), jobs) for k in good])
    return Values(value=values.value, low=values.low, high=values.high, n=np.full(POINTS, float(jobs)))


def _values(statistics: list[Statistic]) -> Values:
    value, low, high = (
        np.array([unknown if bound is None else bound for bound in (getattr(one, name) for one in statistics)])
        for name, unknown in (("value", math.nan), ("low", 0.0), ("high", math.inf))
    )
    return Values(value=value, low=low, high=high)


def _cells(said: Shares) -> str:
    shares = (said.false, said.doubted, said.soon, said.late, said.dated, said.at_once)
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def rows(trials: int) -> Iterator[str]:
    """Every law, noise and metric, then longer and shorter baselines, then success rates."""
    for noise in (0.0, 0.02, 0.04):
        for name, law in {**TREND_LAWS, **HARDER_LAWS}.items():
            for metric, said in simulate(law, noise, trials, 1).items():
                if metric == "p95 bare" and noise != 0.02:
                    continue
                yield f"{name}, {100 * noise:g} %, {metric} of 60 | {_cells(said)}"
    for jobs in (12, 150):
        for name in ("logn .15", "15%x2.5"):
            for metric, said in simulate(TREND_LAWS[name], 0.02, trials, 2, jobs=jobs).items():
                if metric in ("p50", "rate") or (metric == "p95" and jobs >= 20):
                    yield f"{name}, 2 %, {metric} of {jobs} | {_cells(said)}"
    for before, after in ((0.0, 0.05), (0.0, 0.1), (0.02, 0.1)):
        said = failures(before, after, trials, 3)
        yield f"success, {100 * (1 - before):g} to {100 * (1 - after):g} %, of 60 | {_cells(said)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="simulated series a cell")
    heads = "false steps", "false marks of the last", "+10 % after 5", "after 15", "dated right", "marked at once"
    sys.stdout.write(f"\n| law, noise, metric of jobs | {' | '.join(heads)} |\n|---{'|---:' * len(heads)}|\n")
    for row in rows(parser.parse_args().runs):
        sys.stdout.write(f"| {row} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
