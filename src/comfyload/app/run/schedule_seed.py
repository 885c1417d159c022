"""The random generator of a plan's arrivals, and seeds whose arrivals keep to the plan's rate."""

from collections.abc import Iterator
from itertools import islice
from random import Random

from msgspec import structs

from comfyload.load.arrivals import offsets
from comfyload.record.plan import Open, Plan


def arrivals_rng(plan: Plan) -> Random:
    """The generator for the arrivals of this plan, and for nothing else: each call gives the same schedule."""
    return Random(f"{plan.seed}/arrivals")


def near_its_rate(plan: Plan, seeds: Iterator[int], within: float = 0.05) -> Plan:
    """An open plan of one rate and a number of jobs, with the first of the seeds whose arrivals keep to the rate.

    Two dozen Poisson arrivals are a fifth faster or slower one time in three: such a run measures another rate.
    """
    assert isinstance(plan.load, Open) and plan.jobs is not None
    for seed in seeds:
        seeded = structs.replace(plan, seed=seed)
        *_, last = islice(offsets(plan.load, arrivals_rng(seeded)), plan.jobs)
        if abs(last * plan.load.stages[0].per_s / plan.jobs - 1) <= within:
            return seeded
    raise ValueError(f"no seed brings {plan.jobs} arrivals at their rate")
