"""How far another process's monotonic clock is from the run's, measured by asking it and halving the round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Exchange", "Offset", "best_of", "better"]

DRIFT = 1e-4
"""Two clocks of one crystal do not part, those of two machines by less than this."""


class Exchange(Struct, frozen=True, kw_only=True):
    """One question: when it left and when its reply was there, on the run's clock, and what the other clock said."""

    sent: float
    received: float
    theirs: float


class Offset(Struct, frozen=True, kw_only=True):
    """An instant of theirs plus `seconds` is one of ours, to within `error_s`; measured `at`, on our clock."""

    seconds: float
    error_s: float
    at: float


def best_of(exchanges: Sequence[Exchange]) -> Offset:
    """By the shortest round trip: they looked at their clock within it, so its middle is off by half at most."""
    best = min(exchanges, key=lambda one: one.received - one.sent)
    middle = (best.sent + best.received) / 2
    return Offset(seconds=middle - best.theirs, error_s=(best.received - best.sent) / 2, at=middle)


def better(held: Offset, new: Offset) -> Offset:
    """Which to go by: the newer one, unless it was measured so badly that the older one is surer even aged."""
    aged = held.error_s + DRIFT * max(0.0, new.at - held.at)
    return new if new.error_s <= aged else held
