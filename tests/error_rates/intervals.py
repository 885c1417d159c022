"""Why this p95, why Hall's interval of a mean, and why a queue's memory by theory: what each says beside what is so.

`python -m tests.error_rates.intervals` prints the tables of docs/why/intervals.md, and what docs/why/open-loads.md says
of Poisson runs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.skewed import skewed_interval, third_moment
from tests.error_rates.laws import LAWS, Law

HARD = ("logn .3", "15%x2.5", "5%x6")


def covers(law: Law, n: int, runs: int) -> tuple[float, float, float]:
    """How often 95 % intervals of the mean by Student, Hall and Johnson (1978) hold it."""
    hits = np.zeros(3)
    z = float(special.stdtrit(n - 1, 0.975))
    for x in law.draw(np.random.default_rng(n), (runs, n)):
        mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(n)
        skew = third_moment(x) / float(x.std()) ** 3 / math.sqrt(n)
        shift = skew * error / 6 * (1 + 2 * z * z)
        student = (mean - z * error, mean + z * error)
        johnson = (student[0] + shift, student[1] + shift)
        ends = (student, skewed_interval(mean, error, skew, n - 1), johnson)
        hits += [low <= law.mean <= high for low, high in ends]
    return float(hits[0]) / runs, float(hits[1]) / runs, float(hits[2]) / runs


def memory(law: Law, rho: float, *, constant: bool = False) -> tuple[float, float, float, float]:
    """Jobs that are worth one, in a Poisson queue: of the mean latency, of being beyond its median, p90 and p95.

    By the variance of the means of long batches. `constant`: of arrivals, not Poisson ones.
    """
    rng, queues, batch, batches = np.random.default_rng(1), 50, 4000, 400
    wait, latency = np.zeros(queues), np.empty((batch * batches // queues, queues))
    for at in range(-2000, len(latency)):
        service = law.draw(rng, queues)
        if at >= 0:
            latency[at] = wait + service
        gap = np.full(queues, law.mean / rho) if constant else rng.exponential(law.mean / rho, queues)
        wait = np.maximum(wait + service - gap, 0.0)
    series = [latency, *((latency > np.quantile(latency, p)).astype(float) for p in (0.5, 0.9, 0.95))]
    mean, p50, p90, p95 = (_time(one, batch) for one in series)
    return mean, p50, p90, p95


def _time(x: Floats, batch: int) -> float:
    means = x.reshape(-1, batch, x.shape[1]).mean(axis=1)
    return float(batch * means.var() / x.var())


def formula(law: Law, rho: float, *, constant: bool = False) -> float:
    return max(1.0, 2 * ((0 if constant else 1) + law.cv**2) / (1 - rho) ** 2)


def table_of_definitions(runs: int) -> str:
    """How often the p95 of a sample is below the true one, by how it is defined."""
    lines = ["| law | jobs | hf8 | linear | nearest rank |", "|---|---:|---:|---:|---:|"]
    for name in ("logn .3", "15%x2.5"):
        law, truth = LAWS[name], LAWS[name].quantile(0.95)
        for n in (20, 60, 200):
            x = law.draw(np.random.default_rng(n), (runs, n))
            found = [quantile_of(x, method) for method in ("median_unbiased", "linear", "inverted_cdf")]
            cells = " | ".join(f"{100 * np.mean(p95 < truth):.0f}" for p95 in found)
            lines.append(f"| {name} | {n} | {cells} |")
    return "\n".join(lines)


def quantile_of(x: Floats, method: Literal["median_unbiased", "linear", "inverted_cdf"]) -> Floats:
    return np.asarray(np.quantile(x, 0.95, axis=1, method=method))


def false_alarms_of_rates() -> float:
    """The largest chance that a Poisson run, of 30 arrivals or more, is said to have missed its rate."""
    return max(
        float(special.pdtr(math.ceil(mean - off) - 1, mean) + special.pdtrc(math.floor(mean + off), mean))
        for mean in np.arange(30.0, 1500.0)
        for off in (max(0.1 * mean, 3 * math.sqrt(mean), 2.0),)
    )


def table_of_means(runs: int) -> str:
    lines = ["| law | jobs | Student's t | Hall | Johnson |", "|---|---:|---:|---:|---:|"]
    for name in ("logn .3", "logn 1.0", "15%x2.5", "5%x6"):
        rows = {n: covers(LAWS[name], n, runs) for n in (12, 60, 150)}
        lines += [f"| {name} | {n} | {' | '.join(f'{100 * c:.1f}' for c in row)} |" for n, row in rows.items()]
    return "\n".join(lines)


def table_of_memory() -> str:
    lines = [
        "| arrivals, law | ρ | formula | mean latency | median | p90 | p95 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    cells = [(constant, name, rho) for constant in (False, True) for name in HARD for rho in (0.5, 0.7, 0.85)]
    for constant, name, rho in cells:
        found = (formula(LAWS[name], rho, constant=constant), *memory(LAWS[name], rho, constant=constant))
        arrivals = "constant" if constant else "Poisson"
        lines.append(f"| {arrivals}, {name} | {rho} | {' | '.join(f'{one:.0f}' for one in found)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20_000)
    runs = parser.parse_args(arguments).runs
    sys.stdout.write(f"{table_of_definitions(runs)}\n\n{table_of_means(runs)}\n\n{table_of_memory()}\n\n")
    sys.stdout.write(f"Poisson runs that are said to miss their rate: {1000 * false_alarms_of_rates():.1f} in 1000\n")


if __name__ == "__main__":
    main(sys.argv[1:])
