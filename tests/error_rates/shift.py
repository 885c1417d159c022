"""How often a run without a change is said to have one, and how often a step and a slow rise are found.

`python -m tests.error_rates.shift` prints the tables of docs/why/a-day-long-run.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.findings.growth import growth
from comfyload.judge.findings.stability import drifted
from tests.error_rates.laws import LAWS, Law, Phases

TOLD = 0.03
"""The change from which on the finding speaks."""
Draw = Callable[[np.random.Generator, int], Floats]


def dependent(rng: np.random.Generator, n: int) -> Floats:
    """Log-normal, of 15 %, each value depending on the one before: autoregressive, 0.8."""
    return np.asarray(np.exp(0.15 * _autoregressive(rng, n)))


def daily(rng: np.random.Generator, n: int) -> Floats:
    """Jobs take up to 20 % more and less with the time of a day, which the run has once."""
    wave = 1 + 0.2 * np.sin(2 * np.pi * (np.arange(n) / n + rng.random()))
    return np.asarray(wave * Law(name="", cv_usual=0.15).draw(rng, n))


DRAWS: dict[str, Draw] = {
    "jobs vary by 5 %": Law(name="", cv_usual=0.05).draw,
    "skewed: by 60 %": LAWS["logn .6"].draw,
    "one in twenty takes 6 times as long": LAWS["5%x6"].draw,
    "every second takes twice as long": Law(name="", cv_usual=0.05, slow=0.5, times=2.0).draw,
    "slow ones come in phases": Phases(name="", cv_usual=0.05, slow=0.15, times=2.5, length=6.0).draw,
    "dependent, AR(1) of 0.8": dependent,
    "a day's wave": daily,
}


class Told(Struct, frozen=True, kw_only=True):
    """Shares of the runs in which a change was told: of those without one, with a step of 10 %, and with a rise of 10 %
    over the run; and of the steps, those that were dated within 5 % of the run.
    """

    false: float
    step: float
    rise: float
    dated: float


def of_times(draw: Draw, n: int, runs: int, seed: int) -> Told:
    """Of execution times."""
    rng = np.random.default_rng(seed)
    told = np.zeros((runs, 4))
    for run in range(runs):
        x, at = draw(rng, n), rng.uniform(0.2, 0.8)
        stepped = drifted(np.where(np.arange(n) < at * n, 1.0, 1.1) * x)
        found = [drifted(x), stepped, drifted(x * np.linspace(1.0, 1.1, n))]
        told[run, :3] = [one is not None and abs(one.change) > TOLD for one in found]
        told[run, 3] = told[run, 1] and stepped is not None and stepped.at is not None and abs(stepped.at - at) < 0.05
    false, step, rise, dated = told.mean(axis=0).tolist()
    return Told(false=false, step=step, rise=rise, dated=dated)


def of_memory(hours: float, leak_mib: float, runs: int, seed: int, *, wave: float = 0.05) -> float:
    """The share of runs in which memory that follows a day's load, and its allocator's moods, is said to grow.

    A server of 4 GiB holds by the share `wave` more at the height of the day; `leak_mib` in all leak.
    """
    rng = np.random.default_rng(seed)
    n, told = round(hours * 120), 0
    for _ in range(runs):
        day = np.sin(2 * np.pi * (np.arange(n) / 120 / 24 + rng.random()))
        mib = 4096 * (1 + wave * day + 0.01 * _autoregressive(rng, n)) + np.linspace(0.0, leak_mib, n)
        told += growth(30.0 * np.arange(n), mib * 2**20) is not None
    return told / runs


def _autoregressive(rng: np.random.Generator, n: int, rho: float = 0.8) -> Floats:
    noise = rng.standard_normal(n) * math.sqrt(1 - rho * rho)
    found, last = np.empty(n), float(rng.standard_normal())
    for at in range(n):
        last = found[at] = rho * last + noise[at]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    print("| jobs | law | told falsely | step found | and dated | rise found |\n|---:|---|---:|---:|---:|---:|")
    for n in (200, 1600, 6400, 86_400):
        for name, draw in DRAWS.items():
            said = of_times(draw, n, runs, 1)
            print(f"| {n} | {name} | {_percent(said.false)} | {_percent(said.step)} | {_percent(said.dated)} "
                  f"| {_percent(said.rise)} |", flush=True)  # fmt: skip
    print("\n| hours | a day's wave | leak | told |\n|---:|---:|---:|---:|")
    for hours, wave, leak in ((24, 5, 0), (48, 5, 0), (24, 0, 0), (24, 0, 200), (24, 5, 400), (24, 5, 1500)):
        told = of_memory(hours, leak, runs, 2, wave=wave / 100)
        print(f"| {hours} | {wave} % | {leak} MiB | {_percent(told)} |", flush=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
