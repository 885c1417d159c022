"""How often a comparison is wrong about two servers whose truth is known, and how much it finds.

`python -m tests.error_rates.compare` prints the tables of docs/why/comparison.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from msgspec import Struct, structs

from comfyload.judge.arrays import Floats
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.comparison.compare import Comparison, compare
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured, measure
from tests.error_rates.laws import LAWS, Law
from tests.unit.judge_runs import manifest, one_by_one

PAIRS, JOBS = 5, 12
DECIDED = ("slower", "faster")
SAME = "no practical difference"


class World(Struct, frozen=True, kw_only=True):
    """Two servers and how runs of them are made; deviations are of logarithms.

    `factor`: every job of B takes so many times as long. `shared`: what both runs of a pair stray by together. `own`:
    what each run strays by. `drift`: of all runs from the first to the last. `neighbours`: AR(1) correlation of the
    logarithms of successive jobs. `paired`, `repeatability`: how they are compared, as `compare` takes it.
    """

    a: Law
    b: Law
    pairs: int = PAIRS
    jobs: int = JOBS
    factor: float = 1.0
    shared: float = 0.02
    own: float = 0.0
    drift: float = 0.0
    neighbours: float = 0.0
    paired: bool = True
    repeatability: float | None = None


class Shares(Struct, frozen=True, kw_only=True):
    """Of so many comparisons: overall decided, slower, the same; the p95 decided; any row of a metric decided."""

    decided: float
    slower: float
    same: float
    tail: float
    any_row: float


_STEADY = Law(name="logn .02", cv_usual=0.02)
MOVED = {
    "slow jobs x4, not x2.5": (LAWS["15%x2.5"], Law(name="15%x4", cv_usual=0.1, slow=0.15, times=4.0)),
    "slow jobs twice as frequent": (LAWS["15%x2.5"], Law(name="30%x2.5", cv_usual=0.1, slow=0.30, times=2.5)),
    "5 % of jobs x3, none before": (LAWS["logn .1"], Law(name="5%x3", cv_usual=0.1, slow=0.05, times=3.0)),
    "5 % of jobs x3, CV .02": (_STEADY, Law(name="5%x3", cv_usual=0.02, slow=0.05, times=3.0)),
    "2 % of jobs x4.5, none before": (LAWS["logn .1"], Law(name="2%x4.5", cv_usual=0.1, slow=0.02, times=4.5)),
    "2 % of jobs x4.5, CV .02": (_STEADY, Law(name="2%x4.5", cv_usual=0.02, slow=0.02, times=4.5)),
    "15 % of jobs x0.4, none before": (LAWS["logn .1"], Law(name="15%x.4", cv_usual=0.1, slow=0.15, times=0.4)),
}
"""Pairs of laws whose medians are nearly the same, and whose means are 6 to 18 % apart."""

NOISES = {
    "2 % a pair": {"shared": 0.02},
    "4 % a run": {"shared": 0.0, "own": 0.04},
    "drift 10 %": {"shared": 0.0, "drift": 0.10},
    "neighbours .7": {"shared": 0.0, "own": 0.02, "neighbours": 0.7},
}


def simulate(world: World, trials: int, seed: int) -> Shares:
    """What `compare` says of interleaved pairs, or of single runs if there is but one pair."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        sides = zip(*(_pair(world, place, rng) for place in range(world.pairs)), strict=True)
        a, b = ([run_of(seconds) for seconds in side] for side in sides)
        found.append(_said(compare(a, b, paired=world.paired and world.pairs > 1, repeatability=world.repeatability)))
    decided, slower, same, tail, any_row = np.mean(np.array(found, float), axis=0)
    return Shares(decided=decided, slower=slower, same=same, tail=tail, any_row=any_row)


def _said(found: Comparison) -> tuple[bool, bool, bool, bool, bool]:
    assert found.overall is not None
    said = found.overall.verdict
    (tail,) = (row for row in found.rows if row.name == "p95_latency_s")
    any_row = any(row.verdict in DECIDED for row in found.rows if row.kind == "metric")
    return said in DECIDED, said == "slower", said == SAME, tail.verdict in DECIDED, any_row


def _pair(world: World, place: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Durations of one run of A and of one of B, in the order ABBA."""
    shared = rng.normal(0, world.shared)
    runs = []
    for side, (law, factor) in enumerate(((world.a, 1.0), (world.b, world.factor))):
        turn = 2 * place + (side if place % 2 == 0 else 1 - side)
        level = shared + rng.normal(0, world.own) + math.log1p(world.drift) * turn / (2 * world.pairs - 1)
        runs.append(factor * math.exp(level) * _jobs(law, world.jobs, world.neighbours, rng))
    return runs[0], runs[1]


def _jobs(law: Law, n: int, neighbours: float, rng: np.random.Generator) -> Floats:
    if not neighbours:
        return law.draw(rng, n)
    noise = rng.standard_normal(n)
    for i in range(1, n):
        noise[i] = neighbours * noise[i - 1] + math.sqrt(1 - neighbours**2) * noise[i]
    slow = np.where(rng.random(n) < law.slow, law.times, 1.0)
    return np.asarray(slow * np.exp(law.sigma * noise))


@cache
def _pattern(n: int) -> Measured:
    return measure("r", manifest(n), one_by_one([1.0] * n))


def run_of(seconds: Floats) -> Measured:
    """One job after the other, each as long as its execution: what `measure` would make of it, in a hundredth of the
    time. Of several runs only values and jobs are asked for, of single ones the means' intervals too."""
    pattern = _pattern(len(seconds))
    ends = 1000.0 * np.cumsum(seconds)
    starts = ends - 1000.0 * seconds
    instants = {**pattern.jobs.every.instants, "due": starts / 1000, "sent": starts / 1000, "done": ends / 1000}
    instants |= {"start_ms": starts, "end_ms": ends}
    jobs = Jobs(structs.replace(pattern.jobs.every, instants=instants), len(seconds))
    n, middle, average = len(seconds), float(np.median(seconds)), mean(seconds)
    statistics = dict(pattern.summary.statistics)
    median = Statistic(value=middle, n=n, unit="s", method="median")
    rate = structs.replace(statistics["images_per_minute"], value=60 / (average.value or 1), low=None, high=None)
    statistics |= dict.fromkeys(("p50_latency_s", "p50_execution_s"), median)
    statistics |= dict.fromkeys(("avg_latency_s", "avg_execution_s"), average)
    statistics |= dict.fromkeys(("images_per_minute", "jobs_per_minute"), rate)
    p95 = Statistic(value=float(np.quantile(seconds, 0.95)), n=n, unit="s", method="p95")
    statistics["p95_latency_s"] = p95
    return structs.replace(
        pattern, jobs=jobs, summary=structs.replace(pattern.summary, statistics=statistics, nodes=[])
    )


def _table(title: str, head: str, rows: Iterator[str]) -> None:
    columns = head.count("|")
    sys.stdout.write(f"\n{title}\n\n| {head} |\n|---{'|---:' * columns}|\n")
    for row in rows:
        sys.stdout.write(f"| {row} |\n")
        sys.stdout.flush()


def _percent(*shares: float) -> str:
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def designs(trials: int) -> Iterator[str]:
    """What stands for chance: pairs by turns, runs whenever made, jobs of one run."""
    law = Law(name="logn .15", cv_usual=0.15)
    forms = {
        "5 pairs by turns": {},
        "5 runs a side, whenever made": {"paired": False},
        "1 run of 60 a side, taken at its word": {"pairs": 1, "jobs": 60, "repeatability": 0.0},
        "1 run of 60 a side, widened by 4 %": {"pairs": 1, "jobs": 60},
    }
    for name, changes in forms.items():
        # A pair shares what its time does to it, runs made whenever do not.
        kind = "shared" if not changes else "own"
        noises = [{"shared": 0.0, kind: noise} for noise in (0.0, 0.02, 0.04)]
        false = [simulate(World(a=law, b=law, **changes, **noise), trials, 6).decided for noise in noises]
        found = [
            simulate(World(a=LAWS["logn .1"], b=LAWS["logn .1"], factor=1.1, **changes, **noise), trials, 7).slower
            for noise in noises[1:]
        ]
        yield f"{name} | {_percent(*false, *found)}"


def false_alarms(trials: int) -> Iterator[str]:
    """A/A by turns, each noise and law."""
    seed = 100
    for noise, changes in NOISES.items():
        for name in ("logn .1", "logn .3", "logn .6", "15%x2.5", "5%x6"):
            law, seed = LAWS[name], seed + 2
            few = simulate(World(a=law, b=law, **changes), trials, seed)
            many = simulate(World(a=law, b=law, jobs=40, **changes), trials, seed + 1)
            yield f"{noise}, {name} | {_percent(few.decided, few.any_row, many.decided, many.any_row, many.tail)}"


def moved(trials: int) -> Iterator[str]:
    """Means that have moved where medians have not."""
    for name, (a, b) in MOVED.items():
        for pairs, jobs in ((5, 12), (5, 40), (10, 40)):
            said = simulate(World(a=a, b=b, pairs=pairs, jobs=jobs), trials, 3)
            change = f"{100 * (b.mean / a.mean - 1):+.0f} %"
            yield f"{name} ({change}), {pairs} x {jobs} | {_percent(said.same, said.decided, said.tail)}"


def power(trials: int) -> Iterator[str]:
    """Everything slower by a factor, and what it takes to show that nothing is."""
    for name in ("logn .1", "logn .2", "15%x2.5", "5%x6"):
        law = LAWS[name]
        for pairs, jobs in ((5, 12), (8, 12), (5, 40), (20, 40)):
            worlds = [World(a=law, b=law, pairs=pairs, jobs=jobs, factor=factor) for factor in (1.0, 1.1, 1.2)]
            same, ten, twenty = (simulate(world, trials, 4) for world in worlds)
            yield f"{name}, {pairs} x {jobs} | {_percent(ten.slower, twenty.slower, same.same)}"


def single(trials: int) -> Iterator[str]:
    """One run a side: A/A and a difference, at 4 % of noise in each run."""
    for name, n in (
        ("logn .15", 60),
        ("logn .3", 60),
        ("15%x2.5", 60),
        ("5%x6", 60),
        ("logn .15", 400),
        ("15%x2.5", 400),
    ):
        law = LAWS.get(name) or Law(name=name, cv_usual=0.15)
        said = [
            simulate(World(a=law, b=law, pairs=1, jobs=n, shared=0, own=0.04, factor=factor), trials, 5)
            for factor in (1.0, 1.1, 1.2)
        ]
        yield f"{name}, {n} jobs | {_percent(*(one.decided for one in said))}"


TABLES: list[tuple[str, str, Callable[[int], Iterator[str]]]] = [
    (
        "Designs: decided in % where nothing differs, jobs vary by 15 %; +10 % found, jobs vary by 10 %",
        "design | false at 0 % noise | at 2 % | at 4 % | +10 % found at 2 % | at 4 %",
        designs,
    ),
    (
        "False alarms of `ab` in %, nothing differs",
        "noise, law | overall, 5 x 12 | any row, 5 x 12 | overall, 5 x 40 | any row, 5 x 40 | p95, 5 x 40",
        false_alarms,
    ),
    (
        "The mean has moved, the median has not: what is said, in %",
        "what changed, pairs x jobs | no practical difference | slower or faster | p95 slower or faster",
        moved,
    ),
    (
        "What `ab` finds, in %",
        "law, pairs x jobs | +10 % is slower | +20 % is slower | no change is no practical difference",
        power,
    ),
    ("Single runs, 4 % of noise in each: decided, in %", "law | no change | +10 % | +20 %", single),
]


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=int, choices=range(len(TABLES)), help="only this one, the first is 0")
    parser.add_argument("--runs", type=int, default=400, help="simulated comparisons a cell")
    chosen = parser.parse_args()
    for title, head, rows in TABLES if chosen.table is None else [TABLES[chosen.table]]:
        _table(title, head, rows(chosen.runs))


if __name__ == "__main__":
    main()
