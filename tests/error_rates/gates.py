"""How often gates are wrong at their limit, how often right away from it, and how often intervals hold the truth.

`python -m tests.error_rates.gates` prints the tables of docs/why/verdicts.md and docs/why/intervals.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import GateSet, parse_gate
from comfyload.judge.gates.sequential import decided, early_abort, looks, strikes
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.record.plan import Arrivals
from tests.error_rates.laws import LAWS, UNSEEN
from tests.error_rates.runs import Times, closed, measured, opened, shares, truth_of_closed, truth_of_open

Flags = NDArray[np.bool_]

BURSTS, SIZES = (1, 3, 5, 10), (12, 60, 150, 600)
HARD = ("logn .3", "15%x2.5", "5%x6")
AWAY = 1.5
"""By this factor a server is better or worse than the limit where power is shown."""


class Cell(Struct, frozen=True, kw_only=True):
    """Of the runs of one law and load, the shares of verdicts of one gate and of intervals that hold.

    `passed`, `failed`: at the limit, where both are wrong. `passes`: of a limit that the truth keeps by `AWAY`.
    `fails`: of one that it breaks by as much. `covers`: the 95 % interval, with a missing end as infinite. `whole`: it
    has both ends.
    """

    gate: str
    passed: float
    failed: float
    passes: float
    fails: float
    covers: float
    whole: float


def of_load(make: Callable[[np.random.Generator], Times], truth: dict[str, float], runs: int, seed: int) -> list[Cell]:
    """All gates on the runs of one law, load and length."""
    rng = np.random.default_rng(seed)
    counts = {name: np.zeros(6) for name in truth}
    for _ in range(runs):
        run = measured(make(rng))
        for name, value in truth.items():
            worse = 1 / AWAY if name.endswith("_s") else AWAY
            at, kept, broken = (_says(run, name, value * factor) for factor in (1.0, 1 / worse, worse))
            found = run.summary.statistics[name]
            ends = found.low is not None, found.high is not None
            row = [at == "PASS", at == "FAIL", kept == "PASS", broken == "FAIL", holds(found, value), all(ends)]
            counts[name] += row
    return [_cell(name, counts[name] / runs) for name in truth]


def _cell(name: str, shares: NDArray[np.float64]) -> Cell:
    passed, failed, passes, fails, covers, whole = (float(share) for share in shares)
    return Cell(gate=name, passed=passed, failed=failed, passes=passes, fails=fails, covers=covers, whole=whole)


def _says(run: Measured, name: str, limit: float) -> str:
    op = "<=" if name.endswith("_s") else ">="
    return judge(GateSet(gates=[parse_gate(f"{name} {op} {limit:.9f}")]), run)[0].verdict


def holds(found: Statistic, truth: float) -> bool:
    """Whether the interval has the truth in it; a missing end excludes nothing."""
    return (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)


def closed_cells(law: str, concurrency: int, jobs: int, runs: int) -> list[Cell]:
    truth = truth_of_closed(LAWS[law], concurrency).values
    return of_load(lambda rng: closed(LAWS[law], concurrency, jobs, rng), truth, runs, jobs + concurrency)


def open_cells(law: str, rho: float, jobs: int, runs: int, arrivals: Arrivals = "poisson") -> list[Cell]:
    truth = truth_of_open(LAWS[law], rho, arrivals).values
    return of_load(lambda rng: opened(LAWS[law], rho, jobs, rng, arrivals), truth, runs, jobs + round(100 * rho))


# --- success rates, and failures that come in bursts


def failures(rng: np.random.Generator, jobs: int, share: float, burst: float) -> Flags:
    """Jobs that fail, in bursts of geometric length with this mean; independently if it is 1."""
    if burst == 1:
        return np.asarray(rng.random(jobs) < share)
    begins, out, bad = share / (burst * (1 - share)), np.empty(jobs, np.bool_), bool(rng.random() < share)
    for at, draw in enumerate(rng.random(jobs).tolist()):
        out[at] = bad
        bad = draw >= 1 / burst if bad else draw < begins
    return out


def mostly_single(rng: np.random.Generator, jobs: int, share: float, longest: float) -> Flags:
    """Four of five troubles fail one job, the fifth so many in a row: no geometric length."""
    out, at, mean = np.zeros(jobs, np.bool_), 0, 0.8 + 0.2 * longest
    while True:
        at += int(rng.geometric(share / (mean * (1 - share))))
        if at >= jobs:
            return out
        length = round(longest) if rng.random() < 0.2 else 1
        out[at : at + length] = True
        at += length


def success(
    jobs: int,
    burst: float,
    share: float,
    runs: int,
    *,
    independent: bool = False,
    draw: Callable[[np.random.Generator, int, float, float], Flags] = failures,
) -> tuple[float, float]:
    """Shares of PASS and FAIL of `success_rate >= 98 %`, where so large a share of jobs fails."""
    rng = np.random.default_rng(jobs + round(burst))
    gates = GateSet(gates=[parse_gate("success_rate >= 98 %")], independent_failures=independent)
    said = [judge(gates, shares(draw(rng, jobs, share, burst)))[0].verdict for _ in range(runs)]
    return said.count("PASS") / runs, said.count("FAIL") / runs


def until_proven(burst: float, share: float, runs: int, budget: int = 200) -> tuple[float, float, float]:
    """Shares of PASS and FAIL of the verdict at the end of `--until-proven`, and the mean number of jobs."""
    rng = np.random.default_rng(round(10 * burst))
    gates = [GateSet(gates=[parse_gate("success_rate >= 98 %")], independent_failures=alone) for alone in (False, True)]
    said, spent = [], 0
    for _ in range(runs):
        failed = failures(rng, budget, share, burst)
        n = _ends_at(failed, gates, budget)
        said.append(judge(gates[0], shares(failed[:n]))[0].verdict)
        spent += n
    return said.count("PASS") / runs, said.count("FAIL") / runs, spent / runs


def _ends_at(failed: Flags, gates: Sequence[GateSet], budget: int) -> int:
    completed = evidence = in_a_row = 0
    due = looks(budget)
    for n, bad in enumerate(failed.tolist(), 1):
        in_a_row = in_a_row + 1 if bad else 0
        completed += not bad
        evidence += bad and strikes(in_a_row)
        if early_abort(completed, evidence) == "fail":
            return n
        if n in due and decided(*(judge(one, shares(failed[:n])) for one in gates)):
            return n
    return budget


# --- tables


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


Found = dict[tuple[str, str, int], list[Cell]]
"""By load, law and jobs."""


def of_all_loads(runs: int) -> Found:
    found: Found = {}
    for law in HARD:
        for jobs in SIZES:
            for concurrency in (1, 2, 4):
                found[f"c = {concurrency}", law, jobs] = closed_cells(law, concurrency, jobs, runs)
        for jobs in SIZES[1:]:
            for rho in (0.5, 0.7, 0.85):
                found[f"open, ρ = {rho}", law, jobs] = open_cells(law, rho, jobs, runs)
            found["open, constant, ρ = 0.7", law, jobs] = open_cells(law, 0.7, jobs, runs, "constant")
    return found


def table_by_law(found: Found) -> str:
    head = "| load, law, jobs | gate | false PASS | false FAIL | PASS if 1.5 x better | FAIL if 1.5 x worse | "
    lines = [f"{head}interval holds | has both ends |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for (load, law, jobs), cells in sorted(found.items()):
        for cell in cells:
            numbers = (cell.passed, cell.failed, cell.passes, cell.fails, cell.covers, cell.whole)
            lines.append(f"| {load}, {law}, {jobs} | {cell.gate} | {' | '.join(map(_percent, numbers))} |")
    return "\n".join(lines)


def tables_of_loads(found: Found) -> str:
    """The worst of the laws: most errors, least power, least cover."""
    errors, power, cover = (_by_size(found, words) for words in (_errors, _power, _cover))
    return "\n\n".join((f"False PASS / false FAIL:\n\n{errors}", f"PASS / FAIL:\n\n{power}", cover))


def table_of_the_unseen(runs: int) -> str:
    """One job in flight, of laws of which a short run may show nothing."""
    sizes = (12, 60, 150, 600, 2400)
    lines = [f"| law, gate | {' | '.join(map(str, sizes))} jobs |", f"|---|{'---:|' * len(sizes)}"]
    for name, law in UNSEEN.items():
        truth = truth_of_closed(law, 1).values
        cells = [of_load(lambda rng, n=n, law=law: closed(law, 1, n, rng), truth, runs, n) for n in sizes]
        for number, gate in enumerate(("avg_latency_s", "p50_latency_s", "p95_latency_s")):
            of_gate = [row[number] for row in cells]
            numbers = (f"{_percent(c.passed)} / {_percent(c.failed)} / {100 * c.covers:.0f}" for c in of_gate)
            lines.append(f"| {name}, {gate} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _by_size(found: Found, words: Callable[[Sequence[Cell]], str]) -> str:
    lines = [f"| load, gate | {' | '.join(map(str, SIZES))} jobs |", f"|---|{'---:|' * len(SIZES)}"]
    for load in sorted({load for load, _, _ in found}):
        for number, gate in enumerate([cell.gate for cell in found[load, HARD[0], SIZES[-1]]]):
            of_laws = [[found[load, law, n][number] for law in HARD if (load, law, n) in found] for n in SIZES]
            lines.append(f"| {load}, {gate} | {' | '.join(words(cells) if cells else '' for cells in of_laws)} |")
    return "\n".join(lines)


def _errors(cells: Sequence[Cell]) -> str:
    return f"{_percent(max(c.passed for c in cells))} / {_percent(max(c.failed for c in cells))}"


def _power(cells: Sequence[Cell]) -> str:
    return f"{100 * min(c.passes for c in cells):.0f} / {100 * min(c.fails for c in cells):.0f}"


def _cover(cells: Sequence[Cell]) -> str:
    return f"{_percent(min(c.covers for c in cells))} ({100 * min(c.whole for c in cells):.0f})"


def table_of_success(runs: int) -> str:
    head = "| bursts, jobs | false PASS / FAIL at 98 % | PASS of 99.8 % | FAIL of 95 % | FAIL of 90 % | FAIL of 70 % |"
    lines = [head, "|---|---:|---:|---:|---:|---:|"]
    for burst in BURSTS:
        for jobs in (*SIZES, 1500):
            at = success(jobs, burst, 0.02, runs)
            power = [success(jobs, burst, share, runs) for share in (0.002, 0.05, 0.1, 0.3)]
            cells = [_percent(power[0][0]), *(_percent(fails) for _, fails in power[1:])]
            lines.append(f"| {burst}, {jobs} | {_percent(at[0])} / {_percent(at[1])} | {' | '.join(cells)} |")
    for jobs in (150, 600, 1500):
        at = success(jobs, 15, 0.02, runs, draw=mostly_single)
        lines.append(f"| single, one in five of 15, {jobs} | {_percent(at[0])} / {_percent(at[1])} | | | | |")
    for jobs in (60, 150, 600):
        at, good = (success(jobs, 1, share, runs, independent=True) for share in (0.02, 0.002))
        row = f"| declared independent, {jobs} | {_percent(at[0])} / {_percent(at[1])} | {_percent(good[0])} | | | |"
        lines.append(row)
    return "\n".join(lines)


def table_until_proven(runs: int) -> str:
    lines = ["| bursts | success | PASS | FAIL | jobs |", "|---|---:|---:|---:|---:|"]
    for burst in BURSTS:
        for share in (0.02, 0.1, 0.3, 1.0):
            if share < 1 or burst == 1:
                passed, failed, jobs = until_proven(burst, share, runs)
                row = f"| {burst} | {_percent(1 - share)} | {_percent(passed)} | {_percent(failed)} | {jobs:.0f} |"
                lines.append(row)
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--by-law", action="store_true", help="not the worst law alone")
    options = parser.parse_args(arguments)
    found = of_all_loads(options.runs)
    loads = table_by_law(found) if options.by_law else tables_of_loads(found)
    unseen = table_of_the_unseen(options.runs)
    for table in (table_of_success(5 * options.runs), table_until_proven(2 * options.runs), loads, unseen):
        sys.stdout.write(f"{table}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
