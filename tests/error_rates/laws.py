"""Laws of service times on which statistics go wrong: skewed, bimodal, with few very slow jobs; and their truths."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from scipy import optimize, special

from comfyload.judge.arrays import Floats


class Law(Struct, frozen=True, kw_only=True):
    """Log-normal with a median of 1 and this coefficient of variation; a share of `slow` jobs takes `times` as long."""

    name: str
    cv_usual: float
    slow: float = 0.0
    times: float = 1.0

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm of a usual job."""
        return math.sqrt(math.log1p(self.cv_usual**2))

    @property
    def mean(self) -> float:
        return math.exp(self.sigma**2 / 2) * (1 + self.slow * (self.times - 1))

    @property
    def cv(self) -> float:
        """Coefficient of variation of all jobs."""
        second = math.exp(2 * self.sigma**2) * (1 + self.slow * (self.times**2 - 1))
        return math.sqrt(second / self.mean**2 - 1)

    def draw(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Floats:
        """Independent service times."""
        usual = np.exp(self.sigma * rng.standard_normal(shape))
        return np.asarray(np.where(rng.random(shape) < self.slow, self.times, 1.0) * usual)

    def quantile(self, p: float) -> float:
        """The true p-quantile."""

        def beyond(x: float) -> float:
            usual, slow = (float(special.ndtr(math.log(x / scale) / self.sigma)) for scale in (1.0, self.times))
            return (1 - self.slow) * usual + self.slow * slow - p

        return float(optimize.brentq(beyond, 1e-3, 1e3))


class Phases(Law, frozen=True, kw_only=True):
    """The same jobs, but slow ones come `length` in a row on average, as on a card that throttles."""

    length: float

    def draw(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Floats:
        """Service times in a row, whatever the shape."""
        n = int(np.prod(shape))
        slow = (np.arange(n) + int(rng.random() >= self.slow)) % 2 == 0
        quick = self.length * (1 - self.slow) / self.slow
        phases = np.repeat(slow, rng.geometric(1 / np.where(slow, self.length, quick)))[:n]
        return np.asarray(
            (np.where(phases, self.times, 1.0) * np.exp(self.sigma * rng.standard_normal(n))).reshape(shape)
        )


LAWS = {
    law.name: law
    for law in (
        Law(name="logn .1", cv_usual=0.1),
        Law(name="logn .2", cv_usual=0.2),
        Law(name="logn .3", cv_usual=0.3),
        Law(name="logn .6", cv_usual=0.6),
        Law(name="logn 1.0", cv_usual=1.0),
        Law(name="15%x2.5", cv_usual=0.1, slow=0.15, times=2.5),
        Law(name="5%x6", cv_usual=0.1, slow=0.05, times=6.0),
    )
}

UNSEEN = {
    "2%x10": Law(name="2%x10", cv_usual=0.1, slow=0.02, times=10.0),
    "10%x.2": Law(name="10%x.2", cv_usual=0.1, slow=0.1, times=0.2),
    "25%x1.5, 5 in a row": Phases(name="phases of 5", cv_usual=0.1, slow=0.25, times=1.5, length=5.0),
    "25%x1.5, 20 in a row": Phases(name="phases of 20", cv_usual=0.1, slow=0.25, times=1.5, length=20.0),
}
"""Laws of which a short run may show nothing: few jobs far from the usual ones, and slow ones in a row."""


def chance(share: float, runs: int) -> float:
    """By how much a share that is simulated in so many runs may be off: three standard errors."""
    return 3 * math.sqrt(max(share * (1 - share), 1 / runs) / runs)
