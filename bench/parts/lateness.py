"""How late a schedule's jobs are sent, compared with a C program that sleeps until the same instants and does no more.

Between two starts `comfyload` also sends, reads and writes what its jobs need. `comfyload, no jobs` is its engine
alone, which does as little as the C program.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import check_ours, ours
from bench.process import built, cost_of, needed
from comfyload.record.model import Record
from comfyload.record.run import RunReader

SOURCE = Path(__file__).parents[1] / "lateness.c"
RATES = (10, 100, 1000, 2000)
"""Starts a second."""


def cases(setting: Setting) -> Iterator[Case]:
    for rate in RATES:
        jobs = rate * (2 if setting.quick else 6 if rate < 100 else 3)
        what = f"{rate:,} starts/s"
        yield Case(what=what, client=OURS, measure=partial(_ours, setting, rate, jobs), rounds=3)
        alone = [sys.executable, "-m", "bench.clients.schedule"]
        yield Case(
            what=what, client="comfyload, no jobs", measure=partial(_alone, setting, alone, rate, jobs), rounds=3
        )
        floor = [str(built(SOURCE, setting.folder))]
        yield Case(
            what=what, client="C, clock_nanosleep", measure=partial(_alone, setting, floor, rate, jobs), rounds=3
        )


def _ours(setting: Setting, rate: int, jobs: int) -> dict[str, float]:
    server.configure(setting.url, "emit=0")
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        load = ["--rate", f"{rate}/s", "--arrivals", "constant", "--jobs", str(jobs)]
        command = ours(setting, Path(name), load)
        usage = cost_of(command, setting)
        check_ours(usage, Path(name), jobs, command)
        records = (line for line in RunReader(Path(name, "run")).lines() if isinstance(line, Record))
        return _quantiles([(record.execution.sent or 0.0) - record.due for record in records])


def _alone(setting: Setting, program: Sequence[str], rate: int, jobs: int) -> dict[str, float]:
    command = [*program, str(rate), str(jobs)]
    usage = needed(cost_of(command, setting), command)
    return _quantiles([int(line) / 1e9 for line in usage.said.split()])


def _quantiles(late_s: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(late_s, [0.5, 0.99]) * 1e6
    return {"p50, µs": float(p50), "p99, µs": float(p99)}
