"""A rate: a number, how sure it is, and whether a run confirmed it."""

from __future__ import annotations

from msgspec import Struct, structs


class Rate(Struct, frozen=True, kw_only=True):
    """A number with its interval; None where that side is not bounded.

    `estimate` None: withheld, as a run disproved it; `high` is then the most that this run leaves, if it leaves any.
    `confirmed` None: no run was made to confirm it.
    """

    estimate: float | None
    low: float | None
    high: float | None
    confidence: float = 0.95
    confirmed: bool | None = None

    def times(self, factor: float) -> Rate:
        """The same in another unit."""
        ends = (None if end is None else factor * end for end in (self.estimate, self.low, self.high))
        return structs.replace(self, **dict(zip(("estimate", "low", "high"), ends, strict=True)))

    def inverse(self, of: float) -> Rate:
        """`of` divided by it, such as the seconds that one job takes."""
        ends = (of / end if end else None for end in (self.estimate, self.high, self.low))
        return structs.replace(self, **dict(zip(("estimate", "low", "high"), ends, strict=True)))
