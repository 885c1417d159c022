"""How a retry policy does in simulated trouble, against the retries that are usually written."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import structs

from comfyload.advise.cluster import Cluster, SimJob
from comfyload.advise.naive_client import Naive, NaiveClient
from comfyload.advise.policy_client import PolicyClient
from comfyload.advise.scenarios import Scenario, Setting, World, draw
from comfyload.advise.service_times import ServiceTimes
from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.statistics.binomial import wilson
from comfyload.judge.statistics.significance import student
from comfyload.record.policy import Policy, Score

_AS_BEFORE = 0.03
"""Recovered is who succeeds within so much of before."""
_DOUBT = 0.06
"""However few the worlds, who succeeds by so much less has not recovered."""
_FEWEST = 4
_IN_A_ROW = 10
"""Jobs that are late come in rows, behind the same long queue."""
_TOGETHER = 5
"""Minutes looked at together, as a single one has too few jobs."""


def worlds(
    setting: Setting,
    scenarios: Sequence[Scenario],
    replications: int,
    rng: np.random.Generator,
    *,
    takes: ServiceTimes | None = None,
    most_jobs: float = math.inf,
) -> dict[str, list[World]]:
    """The same worlds for every policy: what differs is then the policies' doing.

    `takes`: what jobs take in truth. None: as the measured jobs may be few, each world first resamples them, with
    replacement, at the same rates; the spread of the scores then includes what the measurement leaves open. No more
    worlds of a trouble than have about `most_jobs`, but four: a deadline of many jobs makes worlds of many jobs.
    """
    made: dict[str, list[World]] = {}
    for scenario in scenarios:
        of_it = made[scenario.name] = list[World]()
        jobs = 0
        while len(of_it) < replications and (len(of_it) < _FEWEST or jobs < most_jobs):
            of_it.append(draw(scenario, setting, takes or _redrawn(setting.pools, rng), rng))
            jobs += len(of_it[-1].arrivals)
    return made


def _redrawn(pools: ServiceTimes, rng: np.random.Generator) -> ServiceTimes:
    """Each cell resampled with replacement, and nothing else: a score is an estimate, not a bound to be safe by."""

    def again(cells: Sequence[Floats]) -> list[Floats]:
        return [rng.choice(cell, len(cell)) if len(cell) else cell for cell in cells]

    return structs.replace(pools, warm=again(pools.warm), switched=again(pools.switched))


def play(world: World, behaviour: Policy | Naive, setting: Setting) -> list[SimJob]:
    """What became of each job."""
    farm = Cluster(world, setting.servers)
    if isinstance(behaviour, Naive):
        farm.run(NaiveClient(behaviour, farm, setting.overhead_s), longer_s=setting.deadline_s)
    else:
        policy = structs.replace(behaviour, deadline_s=setting.deadline_s - setting.overhead_s)
        farm.run(PolicyClient(policy, farm), longer_s=setting.deadline_s)
    return farm.jobs


def scores(
    behaviours: Mapping[str, Policy | Naive],
    worlds: Mapping[str, Sequence[World]],
    setting: Setting,
    played: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Of every policy in every scenario, scenario by scenario; `played` is called after each."""
    out = []
    for of_it in worlds.values():
        for name, behaviour in behaviours.items():
            out.append(score(name, behaviour, of_it, setting))
            played()
    return out


def score(name: str, behaviour: Policy | Naive, worlds: Sequence[World], setting: Setting) -> Score:
    """Over all worlds of one scenario. Counted are jobs that come from the trouble's start to ten minutes after its
    end; where there is none, all but the first.
    """
    counted, good, submits, spent, useful = (np.zeros(len(worlds)) for _ in range(5))
    minutes: list[tuple[Floats, Floats]] = []
    before = np.zeros(2)
    for at, world in enumerate(worlds):
        jobs = play(world, behaviour, setting)
        arrivals = np.array(world.arrivals)
        done = np.array([math.inf if job.done is None else job.done for job in jobs])
        success = done - arrivals + setting.overhead_s <= setting.deadline_s
        window = (arrivals >= world.event_from_s) & (arrivals < world.scored_to_s)
        counted[at], good[at] = window.sum(), success[window].sum()
        submits[at] = np.array([job.number for job in jobs])[window].sum()
        spent[at] = np.array([job.spent_s for job in jobs])[window].sum()
        useful[at] = np.array([job.takes_s for job in jobs])[window & success].sum()
        earlier = (arrivals >= world.settled_s) & (arrivals < world.event_from_s - setting.deadline_s)
        before += success[earlier].sum(), earlier.sum()
        minutes.append(_by_minute(world, arrivals, success))
    # The work that it leaves on the servers may grow with each retry, until they do nothing else.
    collapses = not behaviour.cancel if isinstance(behaviour, Policy) else behaviour.attempts != 1
    total = max(1.0, float(counted.sum()))
    wasted = 1 - float(useful.sum() / spent.sum()) if spent.any() else 0.0
    scored_min = sum(world.scored_to_s - world.event_from_s for world in worlds) / 60
    return Score(
        scenario=worlds[0].scenario.name,
        policy=name,
        success=float(good.sum()) / total,
        success_half_width=_half_width(good, counted, np.array([world.pace for world in worlds]), collapses),
        goodput_per_min=float(good.sum()) / scored_min,
        submits_per_job=float(submits.sum()) / total,
        wasted_share=wasted if wasted > 1e-9 else 0.0,  # no more than rounding,
        recovery_s=_recovery(minutes, before[0] / max(1.0, before[1]), worlds[0]),
    )


def _by_minute(world: World, arrivals: Floats, success: Flags) -> tuple[Floats, Floats]:
    """Successes and jobs by the minute in which they came, after the trouble."""
    after = arrivals >= world.event_to_s
    minute = ((arrivals[after] - world.event_to_s) // world.minute_s).astype(np.int64)
    size = math.ceil((world.ends_s - world.event_to_s) / world.minute_s - 1e-9) + 1
    jobs = np.bincount(minute, minlength=size)[: size - 1].astype(np.float64)
    good = np.bincount(minute, weights=success[after].astype(np.float64), minlength=size)[: size - 1]
    return good.astype(np.float64), jobs


def _half_width(good: Floats, counted: Floats, pace: Floats, collapses: bool) -> float | None:
    """95 % of a share over worlds of different size: worlds are independent, the jobs of one are not.

    What the worlds' pace explains of it does not become less by more worlds, for the true pace is one of these. At
    least what as many jobs would have of which `_IN_A_ROW` are late together: that all succeeded leaves some doubt too.
    Where a collapse is possible, at least what one world more that collapses would change.
    """
    worlds, total = len(good), float(counted.sum())
    if worlds < 2 or not total:
        return None
    share = float(good.sum()) / total
    rest = (good - counted * share) * worlds / total
    variance, explained = float(rest.var(ddof=1)), 0.0
    if worlds > 2 and variance > 0.0 and pace.std() > 0.0:
        # R² adjusted for what one number explains of so few by chance.
        explained = max(0.0, 1 - (1 - float(np.corrcoef(rest, pace)[0, 1]) ** 2) * (worlds - 1) / (worlds - 2))
    side = student(0.975, worlds - 1)
    half = side * math.sqrt(variance * ((1 - explained) / worlds + explained))
    low, high = wilson(round(share * total / _IN_A_ROW), max(1, round(total / _IN_A_ROW)))
    return max(half, (high - low) / 2, share / (worlds + 1) if collapses else 0.0)


def _recovery(minutes: Sequence[tuple[Floats, Floats]], before: float, world: World) -> float | None:
    """From when on every five minutes are as good as before, as far as so many worlds can tell."""
    if not world.scenario.event_s:
        return None
    kernel = np.ones(_TOGETHER)
    good = np.array([np.convolve(of, kernel, "valid") for of, _ in minutes])
    jobs = np.array([np.convolve(of, kernel, "valid") for _, of in minutes])
    total = np.maximum(jobs.sum(axis=0), 1.0)
    share = good.sum(axis=0) / total
    error = np.sqrt(((good - jobs * share) ** 2).sum(axis=0)) / total
    short = np.flatnonzero(share < before - np.clip(2 * error, _AS_BEFORE, _DOUBT))
    if len(short) == 0:
        return 0.0
    # The last ones of a run say the least: a queue that has not recovered by then is not going to.
    first = int(short[-1]) + 1
    return None if first >= len(share) - _TOGETHER else float(first * world.minute_s)
