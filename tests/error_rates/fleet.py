"""How often servers that are alike are called different, and how often different ones are found: by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from comfyload.judge.arrays import Floats
from comfyload.judge.findings.fleet import apart

Rng = np.random.Generator
Draw = Callable[[Rng, int], Floats]


def lognormal(rng: Rng, n: int) -> Floats:
    """Long to the right, as sampling times with retries are."""
    return np.asarray(rng.lognormal(1.0, 0.6, n), np.float64)


def bimodal(rng: Rng, n: int) -> Floats:
    """Half of the jobs take five times as long as the others, as small and large pictures do."""
    return np.asarray(np.where(rng.random(n) < 0.5, 2.0, 10.0) * rng.lognormal(0.0, 0.03, n), np.float64)


def lopsided(rng: Rng, n: int) -> Floats:
    """A tenth of the jobs take ten times as long."""
    return np.asarray(np.where(rng.random(n) < 0.1, 20.0, 2.0) * rng.lognormal(0.0, 0.05, n), np.float64)


def drifting(rng: Rng, n: int) -> Floats:
    """Neighbours are alike, as a GPU that warms up and cools down makes them."""
    steps = rng.normal(0.0, 1.0, n)
    for at in range(1, n):
        steps[at] = 0.8 * steps[at - 1] + 0.6 * steps[at]
    return np.asarray(3.0 * np.exp(0.15 * steps), np.float64)


SHAPES: dict[str, Draw] = {"lognormal": lognormal, "bimodal": bimodal, "lopsided": lopsided, "drifting": drifting}


def share_found(draw: Draw, jobs: int, *, servers: int, times: int, slower: float = 1.0, seed: int = 0) -> float:
    """Share of so many runs in which servers are called different; the last takes `slower` times as long."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(times):
        of = {f"gpu{number}": draw(rng, jobs) for number in range(servers)}
        of[f"gpu{servers - 1}"] = of[f"gpu{servers - 1}"] * slower
        found += bool(apart({"job": of}))
    return found / times
