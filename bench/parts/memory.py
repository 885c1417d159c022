"""Resident memory of a job in flight: the peak with all jobs on the server at once, above that with a few.

Of `comfyload` it is the peak when its load ended, before its report was made; of the others, that of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import check_ours, ran
from bench.process import Missing

FEW = 10
IN_FLIGHT = {100: 3.0, 1000: 5.0, 10_000: 30.0}
"""Jobs at once, and seconds that each takes, which are more than it takes to post them all."""

CLIENTS = (OURS, "prototype", "aiohttp, best")


def cases(setting: Setting) -> Iterator[Case]:
    for jobs in IN_FLIGHT:
        if not setting.quick or jobs == 1000:
            for client in CLIENTS:
                measure = partial(_measure, setting, client, jobs)
                yield Case(what=f"{jobs:,} in flight", client=client, measure=measure, rounds=2)


def _measure(setting: Setting, client: str, jobs: int) -> dict[str, float]:
    few = _peak(setting, client, FEW, 1.0)
    many = _peak(setting, client, jobs, IN_FLIGHT[jobs])
    return {"peak, MB": many / 1e6, "KB per job": (many - few) / (jobs - FEW) / 1e3}


def _peak(setting: Setting, client: str, jobs: int, seconds: float) -> float:
    server.configure(setting.url, f"emit=2&dur={seconds * 1000:g}")
    with ran(client, setting, jobs, jobs) as run:
        at_once = server.stat(setting.url, "peak")
        if at_once != jobs:
            raise Missing(f"only {at_once:g} of {jobs} jobs were in flight at once")
        if client != OURS:
            return run.usage.max_rss_bytes
        result = check_ours(run.usage, run.folder, jobs, ())
        return float(result["manifest"]["self_check"]["max_rss_bytes"])
