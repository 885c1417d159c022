"""How a retry policy is made from measured jobs: each number by its rule, then tried in simulated trouble."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.naive_client import NAIVE, Naive
from comfyload.advise.queueing import after
from comfyload.advise.retry_model import scores, worlds
from comfyload.advise.scenarios import Setting, World, scenarios
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.traffic import FULL
from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.binomial import wilson
from comfyload.record.policy import Admission, Backoff, Breaker, Budget, Policy
from comfyload.retry.policy import RULES

OURS = "this policy"
_DEEPEST = 200
_SUMS = 20_000
_QUANTILE = 0.95
_WASTE = 0.2
"""The weight of a wasted share of the GPUs' time against a share of the jobs."""
_TIE = 0.01
"""A regret must differ by more than this to replace the numbers that the rules gave."""
_USUAL_S = 60.0
"""The timeout of an attempt that scripts have when nobody has thought about it."""
_SHOWN = 4
_COMPARED, _COMPARED_JOBS = 8, 5000
"""The most worlds of a trouble in which policies are compared, and about how many jobs these have in all."""
_MOST_JOBS = 12_000
"""In all worlds of one trouble: that many take some seconds for all policies."""
_MOVES = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, 1), (1, 0), (1, -1), (1, 1))
"""Of the queue limit, and of the attempts: the policies around the numbers by rule."""
_TRIED_AT = 0.9
"""Policies are tried at no more than this of the capacity: beyond it, only the overload shows."""


class _Numbers(Struct, frozen=True, kw_only=True):
    """What the rules start from. `p_fail`: upper end of Wilson's 80 % interval of the share of transient failures, also
    where nothing failed; at least 1 %.
    """

    setting: Setting
    depth_known: bool
    target: float
    load: float
    rate_per_s: float
    p_fail: float
    depth: int
    p99_s: float


def synthesise(
    pools: ServiceTimes,
    workload: Workload,
    *,
    deadline_s: float,
    target: float = 0.98,
    rate_per_s: float,
    servers: int = 1,
    transient: tuple[int, int] = (0, 0),
    outages: Sequence[float] = (),
    depth_known: bool = True,
    rng: np.random.Generator,
    replications: int = 24,
    progress: Callable[[float], None] = lambda _: None,
) -> Policy:
    """The policy for a deadline and the share of jobs that must meet it, with its reasons and scores.

    `transient`: how many of how many jobs failed in a way that may pass. `outages`: how long servers were gone, in
    seconds. `depth_known`: the servers report the length of their queues. `replications`: simulated worlds of each
    trouble, unless these have very many jobs. `progress` gets the share done. `infeasible` lists what no policy can
    reach.

    Raises:
        ValueError: the deadline or the rate is not above 0, or the target not between 0 and 1.
    """
    if not (deadline_s > 0 and rate_per_s > 0 and servers > 0 and 0 < target < 1):
        raise ValueError("a deadline and a rate above 0, a server, and a target between 0 and 1 are needed")
    setting = Setting(pools=pools, workload=workload, servers=servers, deadline_s=deadline_s)
    sums = _sums(setting, rng)
    failed, of = transient
    numbers = _Numbers(
        setting=setting,
        depth_known=depth_known,
        target=target,
        load=rate_per_s * setting.mean_s / servers,
        rate_per_s=rate_per_s,
        p_fail=min(0.99, max(0.01, wilson(failed, of, 0.8)[1])) if of else 0.05,
        depth=_deepest(sums, deadline_s - setting.overhead_s),
        p99_s=float(np.quantile(sums[:, 0], 0.99)),
    )
    start = _by_rule(numbers)
    troubles = scenarios(
        pools, workload, load=min(numbers.load, _TRIED_AT), down_s=float(np.median(outages)) if outages else 60.0
    )
    # If no numbers help, a few worlds are enough to show it.
    most = min(replications, _SHOWN) if numbers.depth < 0 else replications
    tried = worlds(setting, troubles, most, rng, most_jobs=_MOST_JOBS)
    around = {OURS: start} if numbers.depth < 0 else {OURS: start, **_around(start)}
    naive = naive_for(deadline_s)
    steps = itertools.count(1)
    total = len(tried) * (len(around) * (len(around) > 1) + len(naive) + 1)

    def played() -> None:
        progress(next(steps) / total)

    chosen = _choose(around, numbers, tried, played)
    found = scores({OURS: chosen, **naive}, tried, setting, played)
    return structs.replace(
        chosen,
        scores=found,
        explanations=_explain(chosen, start, numbers),
        inputs=_inputs(numbers, failed, of, outages),
    )


def infeasible(policy: Policy) -> list[str]:
    """What no policy can do with these servers; empty: nothing stands in the way."""
    return [
        policy.explanations[key] for key in ("infeasible.deadline", "infeasible.load") if key in policy.explanations
    ]


def _sums(setting: Setting, rng: np.random.Generator) -> Floats:
    """What k jobs in a row take, for each k from 1, many times."""
    jobs = min(_DEEPEST, 2 + math.ceil(1.5 * setting.deadline_s / setting.mean_s))
    # The first column is the job that runs already; without it every row would begin with a switch.
    workflows = setting.workload.draw((_SUMS, jobs + 1), rng)
    takes = after(workflows, *setting.pools.services(workflows, rng.random(workflows.shape)))
    out: Floats = np.cumsum(takes[:, 1:], axis=1)
    return out


def _deepest(sums: Floats, left_s: float) -> int:
    """The most prompts that may be before a job for 95 % of such jobs to be in time; -1: none may."""
    within = (sums <= left_s).mean(axis=0) >= _QUANTILE
    return int(np.flatnonzero(within)[-1]) if within[0] else -1


def _by_rule(numbers: _Numbers) -> Policy:
    deadline_s = numbers.setting.deadline_s
    needed = math.ceil(math.log((1 - numbers.target) / 10) / math.log(numbers.p_fail))
    attempts = max(2, min(needed, math.floor(deadline_s / numbers.setting.mean_s), 5))
    ratio = 1.0 if numbers.depth_known else min(0.5, max(0.1, (0.9 - numbers.load) / max(numbers.load, 1e-9)))
    liveness_s = max(60.0, 3 * numbers.p99_s)
    policy = Policy(
        deadline_s=deadline_s,
        attempts=attempts,
        connect_s=5.0,
        submit_s=30.0,
        liveness_s=liveness_s,
        admission=Admission(depth=max(0, numbers.depth) if numbers.depth_known else None),
        backoff=Backoff(base_s=1.0, cap_s=max(1.0, min(15.0, deadline_s / 6))),
        budget=Budget(ratio=ratio, cap=max(3.0, 20 * ratio)),
        breaker=Breaker(
            failures=3, open_s=max(1.0, min(5.0, deadline_s / 18)), open_max_s=max(2.0, min(60.0, deadline_s / 6))
        ),
    )
    return _with_attempts(policy, attempts)


def _with_attempts(policy: Policy, attempts: int) -> Policy:
    transient = structs.replace(RULES["transient"], attempts=attempts)
    return structs.replace(policy, attempts=attempts, classes={**RULES, "transient": transient})


def _choose(
    around: Mapping[str, Policy], numbers: _Numbers, tried: Mapping[str, Sequence[World]], played: Callable[[], None]
) -> Policy:
    """Of the numbers by rule and those around them, the policy that is nowhere far from the best; in doubt by rule."""
    if len(around) == 1:
        return around[OURS]
    names = list(around)
    # The first worlds are enough to compare policies by; they are the same for all of these.
    most = {of: max(2, _COMPARED_JOBS // max(1, len(worlds[0].arrivals))) for of, worlds in tried.items()}
    few = {of: worlds[: min(_COMPARED, most[of])] for of, worlds in tried.items()}
    rows = scores(around, few, numbers.setting, played)
    found = [row.success - _WASTE * (row.wasted_share or 0.0) for row in rows]
    value = {name: found[at :: len(names)] for at, name in enumerate(names)}
    best = [max(values) for values in zip(*value.values(), strict=True)]
    regret = {name: max(b - v for b, v in zip(best, values, strict=True)) for name, values in value.items()}
    least = min(regret, key=lambda name: regret[name])
    return around[OURS if regret[OURS] <= regret[least] + _TIE else least]


def _around(start: Policy) -> dict[str, Policy]:
    out = {}
    deep = start.admission.depth
    for deeper, more in _MOVES:
        attempts, depth = start.attempts + more, None if deep is None else deep + deeper
        if 2 <= attempts <= 5 and (not deeper or (depth is not None and depth >= 0)):
            moved = structs.replace(_with_attempts(start, attempts), admission=Admission(depth=depth))
            out[f"depth {deeper:+}, attempts {more:+}"] = moved
    # Where the queues cannot be read, only the budget keeps retries from an overload.
    for factor in (0.5,) if deep is None else (0.5, 2.0):
        budget = Budget(ratio=factor * start.budget.ratio, cap=max(3.0, factor * start.budget.cap))
        out[f"budget x {factor:g}"] = structs.replace(start, budget=budget)
    return out


def naive_for(deadline_s: float) -> dict[str, Naive]:
    """With the deadline as the timeout of each attempt, the best that can be done for them, and with the usual one."""
    out = {naive.name: structs.replace(naive, timeout_s=deadline_s) for naive in NAIVE}
    if deadline_s > _USUAL_S:
        for naive in NAIVE[1:3]:
            out[f"{naive.name}, {_USUAL_S:g} s each"] = structs.replace(naive, timeout_s=_USUAL_S)
    return out


def _inputs(numbers: _Numbers, failed: int, of: int, outages: Sequence[float]) -> dict[str, float | str | None]:
    setting = numbers.setting
    return {
        "jobs": float(setting.pools.n),
        "mean_s": setting.mean_s,
        "p99_s": numbers.p99_s,
        "overhead_s": setting.overhead_s,
        "rate_per_s": numbers.rate_per_s,
        "servers": float(setting.servers),
        "load": numbers.load,
        "target": numbers.target,
        "transient_failures": float(failed),
        "transient_of": float(of),
        "transient_upper": numbers.p_fail,
        "outage_s": float(np.median(outages)) if outages else None,
        "depth_within_deadline": float(numbers.depth),
    }


def _explain(policy: Policy, start: Policy, numbers: _Numbers) -> dict[str, str]:
    """A sentence for each number."""
    deadline, mean = f"{numbers.setting.deadline_s:g} s", f"{numbers.setting.mean_s:.3g} s"
    ours, before = policy.admission.depth, max(0, numbers.depth)
    moved = "" if ours == start.admission.depth else f"; simulated, {ours} did better"
    tried = ""
    if policy.attempts != start.attempts:
        tried = f": a formula gives {start.attempts}; simulated, {policy.attempts} did better"
    backoff = policy.backoff
    out = {
        "deadline_s": f"as given: {deadline} from when the job is wanted, all attempts together",
        "admission.depth": (
            "no limit, because the servers' queues are hidden"
            if ours is None
            else f"with {before} prompts ahead, 95 % of jobs are done within {deadline}, by "
            f"{numbers.setting.pools.n} measured service times of {mean} on average{moved}"
        ),
        "attempts": (
            f"at most {100 * numbers.p_fail:.2g} % of attempts fail in a way that may pass, a job takes {mean} of "
            f"{deadline}, and {100 * numbers.target:g} % must succeed{tried}"
        ),
        "backoff.cap_s": f"a sixth of {deadline}, 1 s to 15 s: a pause must leave time for the job",
        "backoff.base_s": (
            f"random pause up to {backoff.base_s:g} s, then {2 * backoff.base_s:g} s, at most {backoff.cap_s:.3g} s, "
            f"so that not all return at once after an outage"
        ),
        "budget.ratio": (
            "one retry for every job: the queue limit, the deadline and cancelling bound the damage"
            if numbers.depth_known
            else f"what is left of the servers at a load of {100 * numbers.load:.0f} %, because their queues are hidden"
        ),
        "budget.cap": "in jobs; a reserve by time would be as much as all jobs of a minute",
        "breaker.open_max_s": f"a sixth of {deadline}, 2 s to 60 s: a job that waits longer for a server is late",
        "breaker.failures": "three failures in a row are not chance",
        "connect_s": "5 s: a running server answers at once",
        "submit_s": "30 s: a server answers a POST while it executes",
        "liveness_s": f"60 s, or three times the p99 of a job ({numbers.p99_s:.3g} s) if that is more",
        "cancel": "work that nobody waits for delays all other jobs",
    }
    setting = numbers.setting
    if numbers.depth < 0:
        out["infeasible.deadline"] = (
            f"{setting.deadline_s:g} s is too short: more than 5 % of jobs take longer even if none is ahead of "
            f"them (mean {setting.mean_s:.3g} s, p99 {numbers.p99_s:.3g} s)"
        )
    if numbers.load >= FULL:
        needed = math.ceil(numbers.rate_per_s * setting.mean_s / 0.8 - 1e-9)
        out["infeasible.load"] = (
            f"{60 * numbers.rate_per_s:.3g} jobs a minute are {100 * numbers.load:.0f} % of what "
            f"{setting.servers} server{'s' if setting.servers > 1 else ''} can do: {needed} are needed"
        )
    return out
