"""The runs of `saturate`: which to make next, and what they come to."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.deploy import Sla, after_run, allowed, disproved, jobs_worth_it
from comfyload.advise.forecast import REPLICATES, validate
from comfyload.advise.interference import changed, drift, interference, phases
from comfyload.advise.rate import Rate
from comfyload.advise.saturation import (
    LADDER,
    SURE,
    Saturated,
    capacity,
    gpu_words,
    knee,
    next_step,
    step,
    vague,
)
from comfyload.advise.service_times import Workload, pools_of
from comfyload.app.run.schedule_seed import near_its_rate
from comfyload.errors import NothingMeasured
from comfyload.record.plan import Closed, Open, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from comfyload.advise.interference import Interference
    from comfyload.advise.service_times import ServiceTimes
    from comfyload.advise.validation import Validation
    from comfyload.app.run.options import RunOptions
    from comfyload.judge.summary import Measured
    from comfyload.record.plan import Plan

__all__ = ["FEW", "FIRST_WARMUP", "WARMUP", "Campaign", "CampaignOptions", "Cut", "about"]

FIRST_WARMUP, WARMUP = 3, 1
CONFIRM_SHARE = 0.9
"""Of the rate to deploy: the run that confirms it must not sit on the edge."""
FEW, MANY, LONG_S = 12, 240, 30.0
"""Jobs of the run in which one waits: so many that it lasts half a minute, as ComfyUI pauses after every ten seconds of
work. The run that confirms lasts as long.
"""

PHASES = (
    "Executions come in slow and fast phases that neither workflow nor switch explains. Jobs of one phase say nothing "
    "of the next, so no rate to deploy follows from them: find out what makes them slow, or measure for longer."
)


class CampaignOptions(Struct, frozen=True, kw_only=True):
    """`jobs`: with one in flight. `confirm_jobs`: of the run at a rate, 0 for none. `limit_s`: what `share` of the
    latencies must keep. `slow`: the classical ladder of concurrencies, whether it tells anything or not. `replicates`:
    of the bootstrap behind the rate to deploy.
    """

    options: RunOptions
    jobs: int = 40
    confirm_jobs: int = 24
    limit_s: float = 45.0
    share: float = 0.95
    slow: bool = False
    replicates: int = REPLICATES


class Cut(NothingMeasured):
    """A run was cut short by what the command may send in all."""


class Campaign:
    """Runs, made one after the other by `make`: from a plan, the name of its directory, and words for who watches.

    `make` may raise `Cut`. The run that confirms is then missed, and that is said; without the others nothing is known.
    """

    def __init__(self, asked: CampaignOptions, make: Callable[[Plan, str, str], Awaitable[Measured]]) -> None:
        self._asked = asked
        self._make = make
        self._closed: list[Measured] = []
        self._confirming: list[Measured] = []
        self._cut = ""

    # --- what to run

    async def measure(self) -> None:
        """Closed runs, until it is known where the server saturates and whether a waiting job slows the other."""
        while (places := self._next()) is not None:
            await self._close(places, self._jobs(places))
        with suppress(ValueError):  # Of jobs of which no time is known: that is said with the result.
            found = self._interference()
            if not self._asked.slow and found is not None and found.disturbed:
                await self._close(2, self._jobs(2))  # It is said only of twice as many jobs.

    async def more(self, jobs: int) -> None:
        """More jobs with one in flight."""
        await self._close(1, jobs)

    def takes_s(self, jobs: int) -> float:
        """How long so many jobs take, by those with one in flight; nan if that is not known."""
        rate = step(self._closed[0]).jobs_per_minute
        return 60 * jobs / rate if rate else math.nan

    def _next(self) -> int | None:
        if self._asked.slow:
            done = {_places(run) for run in self._closed}
            return next((places for places in LADDER if places not in done), None)
        return next_step([step(run) for run in self._closed])

    def _jobs(self, places: int) -> int:
        if places == 1 or self._asked.slow or not self._serial:
            return self._asked.jobs
        service_s = step(self._closed[0]).service_s
        return max(FEW, 3 * len(self._asked.options.workflows), _long(1 / service_s if service_s else 0.0))

    async def _close(self, places: int, jobs: int) -> None:
        first, before = not self._closed, sum(_places(run) == places for run in self._closed)
        plan = structs.replace(
            self._asked.options.plan,
            load=Closed(concurrency=places),
            jobs=jobs,
            warmup=FIRST_WARMUP if first else WARMUP,
            order="aabb" if len(self._asked.options.workflows) > 1 else "random",
        )
        takes = "" if first or math.isnan(self.takes_s(jobs)) else f": {about(self.takes_s(jobs + WARMUP))}"
        name = f"c{places}-{before + 1}" if before else f"c{places}"
        self._closed.append(await self._make(plan, name, f"{places} in flight{takes}"))

    async def _open(self, rate: Rate) -> Measured | None:
        """The run that confirms the rate to deploy; None where there is none, or none is asked for."""
        if not self._asked.confirm_jobs or not rate.low:
            return None
        per_s = CONFIRM_SHARE * rate.low / 60
        jobs = max(self._asked.confirm_jobs, _long(per_s))
        plan = structs.replace(
            self._asked.options.plan, load=Open(stages=[Stage(per_s=per_s)]), jobs=jobs, warmup=WARMUP
        )
        plan = near_its_rate(plan, iter(lambda: randbits(53), None))
        words = f"{60 * per_s:.3g} arrivals a minute, to confirm it: {about(jobs / per_s)}"
        before = len(self._confirming)
        try:
            return await self._make(plan, f"confirm-{before + 1}" if before else "confirm", words)
        except Cut as cut:
            self._cut = f"{cut.message}: the rate to deploy is not confirmed."
            return None

    # --- what is known of the jobs

    @property
    def _serial(self) -> bool:
        return not any(step(run).side_by_side for run in self._closed)

    def _interference(self) -> Interference | None:
        alone = [run for run in self._closed if _places(run) == 1]
        waiting = [run for run in self._closed if _places(run) > 1]
        if not (alone and waiting and self._serial):
            return None
        return interference(pools_of(alone).executions, pools_of(waiting).executions)

    def _evidence(self) -> tuple[list[Measured], list[float], float]:
        """Runs of which all is known, by what their executions are multiplied, and the doubt that this leaves.

        Where a waiting job slows the one that runs, jobs count as if one had always waited; of the runs at a rate it
        is not known which did.
        """
        found = self._interference()
        if found is None or not found.disturbed or found.ratio.estimate is None:
            runs = [*self._closed, *self._confirming]
            return runs, [1.0] * len(runs), 0.0
        slowed = [_places(run) == 1 for run in self._closed]
        share = sum(run.jobs.n for run, yes in zip(self._closed, slowed, strict=True) if yes) / sum(
            run.jobs.n for run in self._closed
        )
        return self._closed, [found.ratio.estimate if yes else 1.0 for yes in slowed], share * found.doubt

    # --- what it comes to

    async def result(self) -> Saturated:
        """What the runs tell, after one more that confirms it.

        Raises:
            NothingMeasured: the server tells no times.
        """
        try:
            return await self._predicted() if self._serial else self._side_by_side()
        except ValueError as error:
            raise NothingMeasured(
                f"no service time is known: {error}", f"see comfyload show {self._closed[0].path}"
            ) from None

    async def _predicted(self) -> Saturated:
        pools = pools_of(*self._evidence())
        workload = _workload(self._asked, pools)
        sla = Sla(
            workload=workload,
            limit_s=self._asked.limit_s,
            share=self._asked.share,
            replicates=self._asked.replicates,
        )
        rate, carries, validation, findings = allowed(pools, sla, _rng()), capacity(pools, workload), None, []
        run = await self._open(rate)
        if run is not None:
            self._confirming.append(run)
            validation = validate(run, pools, rng=_rng())
            every, change = pools_of(*self._evidence()), self._change(pools, run)
            findings += [] if change is None else [change]
            if validation.confirmed and not _spoiled(run):
                rate = after_run(rate, allowed(every, sla, _rng()))
                carries, pools = structs.replace(capacity(every, workload), confirmed=True), every
            elif validation.disproved and not _spoiled(run):
                own = pools_of([run])
                rate = disproved(CONFIRM_SHARE * (rate.low or 0.0), allowed(own, sla, _rng()))
                pools = every if change is None else own
                carries = structs.replace(capacity(pools, workload), confirmed=False)
            else:
                rate, carries = (structs.replace(one, confirmed=False) for one in (rate, carries))
        if phases(*self._evidence()[:2]):
            rate = structs.replace(rate, estimate=None, low=None, high=rate.low or rate.high, confirmed=False)
            findings += [PHASES]
        drifted = None if findings else drift(*self._evidence()[:2])
        cut = [self._cut] if self._cut else []
        findings = [*cut, *self._disturbance(), *findings, *([] if drifted is None else [drifted])]
        return self._saturated(pools, carries, rate, validation, findings)

    def _side_by_side(self) -> Saturated:
        finding = (
            "Jobs execute side by side, so that the queue of one server is no model of this one: the rate within "
            "the SLA is not predicted. Measure it: comfyload run --rate."
        )
        return self._saturated(None, _throughput(self._closed[-1]), None, None, [finding])

    def _saturated(
        self,
        pools: ServiceTimes | None,
        carries: Rate | None,
        rate: Rate | None,
        validation: Validation | None,
        findings: list[str],
    ) -> Saturated:
        runs = [*self._closed, *self._confirming]
        steps = [step(run) for run in self._closed]
        more = 0
        if pools is not None and carries is not None and rate is not None:
            more = jobs_worth_it(rate, pools.n)
            findings = [*findings, *self._how_sure(carries, rate, pools.n, more)]
        return Saturated(
            knee=knee(steps),
            serial=self._serial,
            capacity_per_minute=carries,
            sla_rate_per_minute=rate,
            limit_s=self._asked.limit_s,
            share=self._asked.share,
            steps=steps,
            interference=self._interference(),
            service_s=None if carries is None or pools is None else carries.inverse(60),
            confirmation=validation,
            findings=[*_invalid(runs), *findings, *gpu_words(self._closed[-1])],
            paths=[run.path for run in runs],
            more_jobs=more,
        )

    def _change(self, before: ServiceTimes, run: Measured) -> str | None:
        found = self._interference()
        if found is not None and found.disturbed:
            return None  # which jobs of the run were slowed by another is not known
        return changed(before.executions, pools_of([run]).executions)

    def _disturbance(self) -> list[str]:
        found = self._interference()
        if found is None or not found.disturbed or found.ratio.estimate is None:
            return []
        return [
            f"A job executes {100 * (found.ratio.estimate - 1):.0f} % longer while another one waits: what is "
            f"predicted takes all jobs so."
        ]

    def _how_sure(self, carries: Rate, rate: Rate, jobs: int, more: int) -> list[str]:
        said, alone = [], sum(run.jobs.n for run in self._closed if _places(run) == 1)
        found = vague(carries, jobs)
        if found is not None:
            doubt, needed = found
            said.append(
                f"Jobs differ so much that {jobs} of them tell the capacity to {100 * doubt:.0f} %; to "
                f"{100 * SURE:.0f} % it takes some {needed}: --jobs {needed - jobs + alone}."
            )
        if more and rate.low is not None and rate.estimate:
            away = (
                f"lies {100 * (1 - rate.low / rate.estimate):.0f} % below the highest one"
                if rate.low
                else "is not known"
            )
            said.append(
                f"The rate to deploy {away}: {jobs} jobs tell little of the longest ones. Some {more} more would "
                f"narrow that: --jobs {more + alone}."
            )
        return said


def about(seconds: float) -> str:
    """Roughly how long: about 20 s, about 3 min."""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


def _places(run: Measured) -> int:
    return run.manifest.plan.concurrency or 0


def _spoiled(run: Measured) -> bool:
    """Whether its numbers are not those of the server; that it was offered too much is the server's answer."""
    return any(finding.level == "invalid" and finding.code != "overload" for finding in run.summary.findings)


def _long(per_s: float) -> int:
    """How many jobs at that rate last half a minute, within reason."""
    return min(MANY, math.ceil(LONG_S * per_s))


def _invalid(runs: Sequence[Measured]) -> list[str]:
    said = []
    for run in runs:
        where = f"{_places(run)} in flight" if _places(run) else "To confirm it"
        said += [f"{where}: {finding.text}" for finding in run.summary.findings if finding.level == "invalid"]
    return list(dict.fromkeys(said))


def _workload(asked: CampaignOptions, pools: ServiceTimes) -> Workload:
    weights = {Path(choice.file).stem: choice.weight for choice in asked.options.workflows}
    return Workload(
        shares=[weights.get(name, 1.0) for name in pools.workflows], stickiness=asked.options.plan.stickiness
    )


def _throughput(run_: Measured) -> Rate | None:
    rate = run_.summary.statistics["jobs_per_minute"]
    return None if rate.value is None else Rate(estimate=rate.value, low=rate.low, high=rate.high)


def _rng() -> np.random.Generator:
    return np.random.default_rng(20_240_601)
