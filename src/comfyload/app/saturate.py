"""`saturate`: find where one server saturates, what it can carry within an SLA, and confirm that by a run."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.forecast import highest_rate, validate
from comfyload.advise.pools import Pools, Workload, pools_of
from comfyload.advise.saturation import (
    LADDER,
    SURE,
    Interference,
    Rate,
    Saturated,
    capacity,
    drift,
    interference,
    knee,
    next_step,
    step,
    vague,
)
from comfyload.app.drawn import near_its_rate
from comfyload.app.results import measured
from comfyload.app.run import run
from comfyload.errors import NothingMeasured, UsageError
from comfyload.judge.gates.sequential import early_abort
from comfyload.record.plan import Closed, Open, Stage
from comfyload.record.run import RunReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comfyload.app.options import RunOptions
    from comfyload.app.session import Viewer
    from comfyload.judge.summary import Measured
    from comfyload.record.model import Manifest, Record
    from comfyload.record.plan import Plan

__all__ = ["Asked", "expected_jobs", "saturate"]

FIRST_WARMUP, WARMUP = 3, 1
CONFIRM_SHARE = 0.9
"""Of the rate to deploy: the run that confirms it must not sit on the edge."""
BROKEN = ("oom", "cuda")


class Asked(Struct, frozen=True, kw_only=True):
    """`jobs`: with one in flight. `confirm_jobs`: of the run at a rate, 0 for none. `limit_s`: what `share` of the
    latencies must keep. `slow`: the classical ladder of concurrencies, whether it tells anything or not.
    """

    options: RunOptions
    jobs: int = 40
    confirm_jobs: int = 24
    limit_s: float = 45.0
    share: float = 0.95
    slow: bool = False


class Guard:
    """Ends a run early when going on would be a waste: the GPU is out of memory or broken, or too much fails."""

    def __init__(self) -> None:
        self.why = ""
        self._ends: Counter[bool] = Counter()
        self._broken = 0

    def settles(self, record: Record, _manifest: Manifest, _path: Path) -> bool:
        """Whether this job's end is the one too many."""
        failure = record.execution.failure
        self._broken += failure is not None and failure.kind in BROKEN
        if not record.warmup and not record.censored:
            self._ends[record.execution.outcome == "completed"] += 1
        if self._broken >= 2:
            self.why = "the GPU ran out of memory, or broke, in two jobs"
        elif early_abort(self._ends[True], self._ends[False]) == "fail":
            self.why = f"{self._ends[False]} of {self._ends.total()} jobs had no success"
        return bool(self.why)


def expected_jobs(asked: Asked) -> int:
    """How many jobs will be sent, if no more than two in flight are needed."""
    workflows = len(asked.options.workflows)
    if asked.slow:
        return len(LADDER) * (asked.jobs + WARMUP) + FIRST_WARMUP - WARMUP
    return FIRST_WARMUP + asked.jobs + 2 * WARMUP + _few(workflows) + asked.confirm_jobs


def _few(workflows: int) -> int:
    return max(12, 3 * workflows)


def about(seconds: float) -> str:
    """Roughly how long: about 20 s, about 3 min."""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


async def saturate(asked: Asked, viewer: Callable[[str], Viewer], folder: Path | None = None) -> Saturated:
    """Run, judge, and go on until it is known; `viewer` is given in words what each run is for.

    Raises:
        UsageError: the folder exists.
        NothingMeasured: jobs failed, or the server tells no times: nothing can be said.
    """
    folder = folder or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-saturate"
    if folder.exists():
        raise UsageError(f"{folder} exists", "name another --run-dir; runs are never overwritten")
    search = _Search(asked, viewer, folder)
    while (places := search.next()) is not None:
        await search.closed(places)
    return await search.result()


class _Search:
    def __init__(self, asked: Asked, viewer: Callable[[str], Viewer], folder: Path) -> None:
        self._asked = asked
        self._viewer = viewer
        self._folder = folder
        self._runs: dict[int, Measured] = {}
        self._paths: list[str] = []
        self._findings: list[str] = []

    def next(self) -> int | None:
        if self._asked.slow:
            return next((places for places in LADDER if places not in self._runs), None)
        return next_step([step(run) for run in self._runs.values()])

    async def closed(self, places: int) -> None:
        first = not self._runs
        every = first or self._asked.slow
        plan = structs.replace(
            self._asked.options.plan,
            seed=randbits(53),
            load=Closed(concurrency=places),
            jobs=self._asked.jobs if every else _few(len(self._asked.options.workflows)),
            warmup=FIRST_WARMUP if first else WARMUP,
            order="aabb" if len(self._asked.options.workflows) > 1 else "random",
        )
        self._runs[places] = await self._run(
            plan=plan, name=f"c{places}", words=f"{places} in flight{self._cost(plan.jobs or 0)}"
        )

    async def _run(self, *, plan: Plan, name: str, words: str) -> Measured:
        path, guard = self._folder / name, Guard()
        options = structs.replace(self._asked.options, plan=plan, run_dir=str(path))
        await run(options, self._viewer(words), guard)
        self._paths.append(str(path))
        found = measured(RunReader(path))
        if guard.why:
            raise NothingMeasured(f"stopped with {words}: {guard.why}", f"look at it: comfyload show {path}")
        return found

    async def result(self) -> Saturated:
        runs = list(self._runs.values())
        steps = [step(run) for run in runs]
        serial = not any(one.side_by_side for one in steps)
        self._notice(runs)
        try:
            pools, disturbed = self._pools(runs, serial=serial)
        except ValueError as error:
            raise NothingMeasured(
                f"no service time is known: {error}", f"see comfyload show {self._paths[0]}"
            ) from None
        workload = _workload(self._asked, pools)
        carries: Rate | None
        allowed, confirmation = None, None
        if serial:
            carries, every = capacity(pools, workload), pools
            found = highest_rate(pools, workload, self._asked.limit_s, share=self._asked.share, rng=_rng())
            allowed = Rate(estimate=60 * found.estimate, low=_minute(found.low), high=_minute(found.high))
            confirming = await self._at_a_rate(allowed)
            if confirming is not None:
                self._notice([confirming])
                confirmation = validate(confirming, pools, rng=_rng())
                said = drift(pools, pools_of([confirming]))
                self._findings += [] if said is None else [said]
                # The rate was confirmed by jobs from which it does not follow; the capacity follows from all of them.
                if confirming.summary.valid and not (disturbed is not None and disturbed.disturbed):
                    every = pools_of([*runs, confirming])
                    carries = capacity(every, workload)
            self._how_sure(carries, every.n)
        else:
            carries = _throughput(runs[-1])
            self._findings.append(
                "Jobs execute side by side, so that the queue of one server is no model of this one: the rate within "
                "the SLA is not predicted. Measure it: comfyload run --rate."
            )
        return Saturated(
            knee=knee(steps),
            serial=serial,
            capacity_per_minute=carries,
            sla_rate_per_minute=allowed,
            limit_s=self._asked.limit_s,
            share=self._asked.share,
            steps=steps,
            interference=disturbed,
            service_s=None if carries is None or not serial else _inverse(carries),
            confirmation=confirmation,
            findings=[*self._findings, *_gpu_words(runs)],
            paths=self._paths,
        )

    def _pools(self, runs: Sequence[Measured], *, serial: bool) -> tuple[Pools, Interference | None]:
        """Of all runs, or where a waiting job slows the one that runs, of those in which one waits."""
        alone, waiting = pools_of(runs[:1]), pools_of(runs[1:])
        found = interference(alone.warm, waiting.warm) if serial else None
        if found is not None and found.disturbed:
            change = 100 * (found.ratio.estimate - 1)
            self._findings.append(
                f"A job executes {abs(change):.0f} % {'longer' if change > 0 else 'shorter'} while another one waits: "
                f"what is predicted rests on the {waiting.n} jobs that ran so."
            )
            return waiting, found
        return pools_of(runs), found

    def _cost(self, jobs: int) -> str:
        """What a closed run will take, as far as the runs before it tell."""
        if not self._runs:
            return ""
        known = step(list(self._runs.values())[-1]).jobs_per_minute
        return f": {about(60 * (jobs + WARMUP) / known)}" if known else ""

    async def _at_a_rate(self, allowed: Rate) -> Measured | None:
        if not self._asked.confirm_jobs or not allowed.low:
            return None
        per_s = CONFIRM_SHARE * allowed.low / 60
        plan = structs.replace(
            self._asked.options.plan,
            load=Open(stages=[Stage(per_s=per_s)]),
            jobs=self._asked.confirm_jobs,
            warmup=WARMUP,
        )
        plan = near_its_rate(plan, iter(lambda: randbits(53), None))
        words = f"{60 * per_s:.3g} arrivals a minute, to confirm it: {about(self._asked.confirm_jobs / per_s)}"
        return await self._run(plan=plan, name="confirm", words=words)

    def _how_sure(self, carries: Rate, jobs: int) -> None:
        found = vague(carries, jobs)
        if found is not None:
            doubt, needed = found
            self._findings.append(
                f"Jobs differ so much that {jobs} of them tell the capacity to {100 * doubt:.0f} %; to "
                f"{100 * SURE:.0f} % it takes some {needed}: --jobs {needed - jobs + self._asked.jobs}."
            )

    def _notice(self, runs: Sequence[Measured]) -> None:
        for run_ in runs:
            for finding in run_.summary.findings:
                if finding.level == "invalid":
                    places = run_.manifest.plan.concurrency
                    text = f"{'To confirm it' if places is None else f'{places} in flight'}: {finding.text}"
                    if text not in self._findings:
                        self._findings.append(text)


def _workload(asked: Asked, pools: Pools) -> Workload:
    weights = {Path(choice.file).stem: choice.weight for choice in asked.options.workflows}
    return Workload(
        shares=[weights.get(name, 1.0) for name in pools.workflows], stickiness=asked.options.plan.stickiness
    )


def _throughput(run_: Measured) -> Rate | None:
    rate = run_.summary.statistics["jobs_per_minute"]
    return None if rate.value is None else Rate(estimate=rate.value, low=rate.low, high=rate.high)


def _inverse(rate: Rate) -> Rate:
    return Rate(
        estimate=60 / rate.estimate,
        low=None if rate.high is None else 60 / rate.high,
        high=None if not rate.low else 60 / rate.low,
    )


def _minute(per_s: float | None) -> float | None:
    return None if per_s is None or math.isnan(per_s) else 60 * per_s


def _rng() -> np.random.Generator:
    return np.random.default_rng(20_240_601)


def _gpu_words(runs: Sequence[Measured]) -> list[str]:
    """Whether the 90 % of a checklist can be reached, from the run with the most in flight."""
    found = runs[-1].summary.saturation
    out = []
    told = runs[-1].manifest.environment.get("gpu")
    if told is not None and told.value == "none":
        return ["The server computes on its CPU: there is no GPU to saturate."]
    if not found.gpus:
        out.append("GPU utilisation is not known: no source told it. Install the probe: comfyload probe install.")
    for gpu, busy in found.gpus.items():
        if busy.utilisation_percent is None:
            continue
        if busy.over_90_percent:
            out.append(f"GPU {gpu} is {busy.utilisation_percent:.0f} % busy: the 90 % of the checklist are reached.")
        elif found.server_saturated:
            share = busy.ceiling_percent if busy.ceiling_percent is not None else busy.utilisation_percent
            out.append(
                f"GPU {gpu} never reaches 90 %: the server is {100 * (found.server_busy or 0):.1f} % busy, and in "
                f"{100 - share:.0f} % of a job's time no kernel runs. A faster disk, CPU or encoder shortens that; "
                f"more in flight does not."
            )
    return out
