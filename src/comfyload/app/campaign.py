"""The runs of `saturate`: which to make next, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import randbits

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.deploy import Sla, after_run, allowed, disproved, jobs_worth_it
from comfyload.advise.forecast import REPLICATES, Forecast, curve
from comfyload.advise.interference import Interference, changed, drift, interference, phases
from comfyload.advise.rate import Rate
from comfyload.advise.saturation import LADDER, SURE, Saturated, capacity, gpu_words, knee, next_step, step, vague
from comfyload.advise.service_times import ServiceTimes, Workload, pools_of
from comfyload.advise.validation import validate
from comfyload.app.run.options import RunOptions
from comfyload.app.run.schedule_seed import near_its_rate
from comfyload.errors import NothingMeasured
from comfyload.judge.summary import Measured
from comfyload.record.plan import Closed, Open, Plan, Stage
from comfyload.words import count

FIRST_WARMUP, WARMUP = 3, 1
CONFIRM_SHARE = 0.9
"""Of the rate to deploy: the run that confirms it must not sit on the edge."""
FEW, MANY, LONG_S = 12, 240, 30.0
"""Jobs of the run in which one waits: so many that it lasts half a minute, as ComfyUI pauses after every ten seconds of
work. The run that confirms lasts as long.
"""

_CURVE = (0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.94, 0.96, 0.98)
"""Shares of the capacity at which the p95 is predicted, closer to each other where it bends."""

PHASES = (
    "Executions come in slow and fast phases that neither workflow nor switch explains. Jobs of one phase do not "
    "predict the next, so no rate to deploy follows: find out what makes them slow, or measure for longer."
)


class CampaignOptions(Struct, frozen=True, kw_only=True):
    """`jobs`: with one in flight. `confirm_jobs`: of the confirming run, 0 for none. `limit_s`: the limit that `share`
    of the latencies must meet. `slow`: every concurrency of the ladder, whether it is needed or not. `replicates`: of
    the bootstrap behind the rate to deploy.
    """

    run: RunOptions
    jobs: int = 40
    confirm_jobs: int = 24
    limit_s: float = 45.0
    share: float = 0.95
    slow: bool = False
    replicates: int = REPLICATES


class Cut(NothingMeasured):
    """A run was cut short by what the command may send in all. `found`: what `run` and those before it show."""

    run: Measured | None = None
    found: Saturated | None = None


class Campaign:
    """Runs, made one after the other by `make`: from a plan, the name of its directory, and words for the progress.

    `make` may raise `Cut`. Without the confirming run the result has a finding; without the others there is no result.
    """

    def __init__(self, options: CampaignOptions, make: Callable[[Plan, str, str], Awaitable[Measured]]) -> None:
        self._options = options
        self._make = make
        self._closed: list[Measured] = []
        self._confirming: list[Measured] = []
        self._cut = ""

    @classmethod
    def recorded(cls, options: CampaignOptions, runs: Sequence[Measured]) -> Campaign:
        """One whose runs were made before; `result` is what it was then.

        Raises:
            NothingMeasured: no run with users is among them, from which a prediction could follow.
        """
        closed = [run for run in runs if run.manifest.plan.concurrency is not None]
        confirming = [run for run in runs if run.manifest.plan.concurrency is None]
        if not closed:
            raise NothingMeasured("no run with jobs in flight is among them", "choose a folder that saturate made")

        async def last(_plan: Plan, _name: str, _words: str) -> Measured:
            return confirming[-1]

        found = cls(structs.replace(options, confirm_jobs=len(confirming)), last)
        found._closed, found._confirming = closed, confirming[:-1]
        return found

    # --- what to run

    async def measure(self) -> None:
        """Closed runs, until it is known where the server saturates and whether a waiting job slows the other.

        Raises:
            Cut: a limit was reached before that.
        """
        try:
            while (places := self._next()) is not None:
                await self._close(places, self._jobs(places))
            with suppress(ValueError):  # jobs without known times: `result` raises for them
                if not self._options.slow and self._slowed() is not None:
                    await self._close(2, self._jobs(2))  # interference is reported only from twice as many jobs
        except Cut as cut:
            self._cut = cut.message
            self._closed += [] if cut.run is None else [cut.run]
            with suppress(ValueError):  # jobs without known times
                cut.found = self._saturated([f"{cut.message}: no rate follows from these runs."])
            raise

    async def more(self, jobs: int) -> None:
        """More jobs with one in flight."""
        await self._close(1, jobs)

    def takes_s(self, jobs: int) -> float:
        """How long so many jobs take, by those with one in flight; nan if that is not known."""
        rate = step(self._closed[0]).jobs_per_minute
        return 60 * jobs / rate if rate else math.nan

    def _next(self) -> int | None:
        if self._options.slow:
            done = {_places(run) for run in self._closed}
            return next((places for places in LADDER if places not in done), None)
        return next_step([step(run) for run in self._closed])

    def _jobs(self, places: int) -> int:
        if places == 1 or self._options.slow or not self._serial:
            return self._options.jobs
        service_s = step(self._closed[0]).service_s
        return max(FEW, 3 * len(self._options.run.workflows), _long(1 / service_s if service_s else 0.0))

    async def _close(self, places: int, jobs: int) -> None:
        first, before = not self._closed, sum(_places(run) == places for run in self._closed)
        plan = structs.replace(
            self._options.run.plan,
            load=Closed(concurrency=places),
            jobs=jobs,
            warmup=FIRST_WARMUP if first else WARMUP,
            order="aabb" if len(self._options.run.workflows) > 1 else "random",
        )
        name = f"c{places}-{before + 1}" if before else f"c{places}"
        self._closed.append(await self._make(plan, name, f"{places} in flight"))

    async def _open(self, rate: Rate) -> Measured | None:
        """The confirming run; None where no rate is known, no such run is wanted, or a cap was reached."""
        if not self._options.confirm_jobs or not rate.low:
            return None
        per_s = CONFIRM_SHARE * rate.low / 60
        jobs = max(self._options.confirm_jobs, _long(per_s))
        plan = structs.replace(self._options.run.plan, load=Open(stages=[Stage(per_s=per_s)]), jobs=jobs, warmup=WARMUP)
        plan = near_its_rate(plan, iter(lambda: randbits(53), None))
        before = len(self._confirming)
        try:
            return await self._make(plan, f"confirm-{before + 1}" if before else "confirm", "confirming run")
        except Cut as cut:
            self._cut = cut.message
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

    def _slowed(self) -> Interference | None:
        """The interference, if a waiting job slows the one that runs."""
        found = self._interference()
        return found if found is not None and found.disturbed else None

    def _evidence(self) -> tuple[list[Measured], list[float], float]:
        """Runs of which all is known, by what their executions are multiplied, and the doubt that this leaves.

        Where a waiting job slows the one that runs, jobs count as if one had always waited; of the runs at a rate it
        is not known which did.
        """
        found = self._slowed()
        if found is None or found.ratio.estimate is None:
            runs = [*self._closed, *self._confirming]
            return runs, [1.0] * len(runs), 0.0
        slowed = [_places(run) == 1 for run in self._closed]
        share = sum(run.jobs.n for run, yes in zip(self._closed, slowed, strict=True) if yes) / sum(
            run.jobs.n for run in self._closed
        )
        return self._closed, [found.ratio.estimate if yes else 1.0 for yes in slowed], share * found.doubt

    # --- what it comes to

    async def result(self) -> Saturated:
        """What the runs show, after one more that confirms it.

        Raises:
            NothingMeasured: the server reports no execution times.
        """
        try:
            return await self._predicted() if self._serial else self._side_by_side()
        except ValueError as error:
            raise NothingMeasured(
                f"no service time is known: {error}", f"see comfyload show {self._closed[0].path}"
            ) from None

    async def _predicted(self) -> Saturated:
        pools = pools_of(*self._evidence())
        weights = {Path(choice.file).stem: choice.weight for choice in self._options.run.workflows}
        shares = [weights.get(name, 1.0) for name in pools.workflows]
        workload = Workload(shares=shares, stickiness=self._options.run.plan.stickiness)
        sla = Sla(
            workload=workload,
            limit_s=self._options.limit_s,
            share=self._options.share,
            replicates=self._options.replicates,
        )
        rate, carries, validation, findings = allowed(pools, sla, _rng()), capacity(pools, workload), None, []
        tried, bound = CONFIRM_SHARE * (rate.low or 0.0), None
        run = await self._open(rate)
        if run is not None:
            self._confirming.append(run)
            validation = validate(run, pools, rng=_rng())
            every = pools_of(*self._evidence())
            # Where a waiting job slows the other, it is not known which jobs of the run were slowed.
            change = None if self._slowed() else changed(pools.executions, pools_of([run]).executions)
            findings += [] if change is None else [change]
            if validation.confirmed and not _spoiled(run):
                rate = after_run(rate, allowed(every, sla, _rng()))
                carries, pools = structs.replace(capacity(every, workload), confirmed=True), every
            elif validation.disproved and not _spoiled(run):
                own = pools_of([run])
                rate = disproved(tried, allowed(own, sla, _rng()))
                bound = rate.high
                pools = every if change is None else own
                carries = structs.replace(capacity(pools, workload), confirmed=False)
            else:
                rate, carries = (structs.replace(one, confirmed=False) for one in (rate, carries))
                bound = None if _spoiled(run) else _bound(run, tried, sla)
        if phases(*self._evidence()[:2]):
            rate = structs.replace(rate, estimate=None, low=None, high=rate.low or rate.high, confirmed=False)
            findings, bound = [*findings, PHASES], None
        drifted = None if findings else drift(*self._evidence()[:2])
        cut = [f"{self._cut}: the rate to deploy is not confirmed."] if self._cut else []
        more = jobs_worth_it(rate, pools.n)
        findings = [*cut, *self._disturbance(), *findings, *([] if drifted is None else [drifted])]
        return structs.replace(
            self._saturated([*findings, *self._how_sure(carries, rate, pools.n, more)], carries),
            sla_rate_per_minute=rate,
            service_s=carries.inverse(60),
            confirmation=validation,
            more_jobs=more,
            tried_per_minute=None if run is None else tried,
            lower_bound_per_minute=bound,
            curve=_curve(pools, workload, carries),
        )

    def _side_by_side(self) -> Saturated:
        finding = (
            "Jobs execute side by side, so the model of one queue does not fit: no rate within the limit is predicted. "
            "Measure it: comfyload run --rate."
        )
        rate = self._closed[-1].summary.statistics["jobs_per_minute"]
        known = None if rate.value is None else Rate(estimate=rate.value, low=rate.low, high=rate.high)
        return self._saturated([finding], known)

    def _saturated(self, findings: list[str], carries: Rate | None = None) -> Saturated:
        """What the runs show without a prediction. `carries`: the capacity, if it is known."""
        runs = [*self._closed, *self._confirming]
        steps = [step(run) for run in self._closed]
        return Saturated(
            knee=knee(steps),
            serial=self._serial,
            capacity_per_minute=carries,
            sla_rate_per_minute=None,
            limit_s=self._options.limit_s,
            share=self._options.share,
            steps=steps,
            interference=self._interference(),
            service_s=None,
            confirmation=None,
            findings=[*_invalid(runs), *findings, *gpu_words(self._closed[-1])],
            paths=[run.path for run in runs],
            cut=self._cut,
        )

    def _disturbance(self) -> list[str]:
        found = self._slowed()
        if found is None or found.ratio.estimate is None:
            return []
        return [
            f"A job executes {100 * (found.ratio.estimate - 1):.0f} % longer while another one waits: the prediction "
            f"takes every job to be that slow."
        ]

    def _how_sure(self, carries: Rate, rate: Rate, jobs: int, more: int) -> list[str]:
        sentences, alone = [], sum(run.jobs.n for run in self._closed if _places(run) == 1)
        found = vague(carries, jobs)
        if found is not None:
            doubt, needed = found
            sentences.append(
                f"Jobs differ so much that {jobs} of them give the capacity to {100 * doubt:.0f} % only; "
                f"{100 * SURE:.0f} % takes about {count(needed, 'job')} in all: --jobs {needed - jobs + alone}."
            )
        if more and rate.low is not None and rate.estimate:
            away = (
                f"lies {100 * (1 - rate.low / rate.estimate):.0f} % below the highest rate"
                if rate.low
                else "is not known"
            )
            sentences.append(
                f"The rate to deploy {away}: {jobs} jobs show little of the longest ones. About {more} more would "
                f"narrow the gap: --jobs {more + alone}."
            )
        return sentences


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
    sentences = []
    for run in runs:
        where = f"With {_places(run)} in flight" if _places(run) else "In the confirming run"
        sentences += [f"{where}: {finding.text}" for finding in run.summary.findings if finding.level == "invalid"]
    return list(dict.fromkeys(sentences))


def _curve(pools: ServiceTimes, workload: Workload, carries: Rate) -> list[Forecast]:
    """What to expect from a rate that leaves the server mostly idle to one near its capacity."""
    if not carries.estimate:
        return []
    rates = [share * carries.estimate / 60 for share in _CURVE]
    return curve(pools, workload, rates, _rng())


def _bound(run: Measured, tried: float, sla: Sla) -> float | None:
    """What the jobs of the confirming run alone allow, and no more than was tried; None: they have no known times."""
    with suppress(ValueError):
        low = allowed(pools_of([run]), sla, _rng()).low
        return None if low is None else min(low, tried)
    return None


def _rng() -> np.random.Generator:
    return np.random.default_rng(20_240_601)
