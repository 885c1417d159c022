"""The bounds of a run's numbers: no run writes a number beyond them, and a reader refuses one."""

import sys
from datetime import datetime
from typing import Annotated

from msgspec import Meta

MOST_COUNT = 10**9
MOST_S = 1e10

Count = Annotated[int, Meta(ge=0, le=MOST_COUNT)]
"""A number of things."""

Number = Annotated[int, Meta(ge=0, le=2**53)]
"""The place of a job in its run, or a count of bytes."""

Instant = Annotated[float, Meta(ge=-MOST_S, le=MOST_S)]
"""Seconds of the run's clock: within three centuries of its start, so that a date can be made of it."""

Seconds = Annotated[float, Meta(ge=0, le=1e12)]
"""A duration."""

MOST_VALUE = 1e18

Value = Annotated[float, Meta(ge=-MOST_VALUE, le=MOST_VALUE)]
"""What a sensor or a counter shows: no sum or product of such values is too large for a number."""

Rate = Annotated[float, Meta(ge=0, le=1e9)]
"""Arrivals per second."""

Milliseconds = Annotated[int, Meta(ge=-(2**62), le=2**62)]
"""A stamp of a server's wall clock, or the difference of two."""

_YEARS = range(1970, 3000)


def finite(value: object) -> float | None:
    """A number that a float can hold; None for anything else: a bool, text, NaN, 10^400."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def whole_ms(stamp: float | None) -> int | None:
    """A stamp in whole milliseconds; None for one beyond 2^53, where floats have no whole numbers between them."""
    return int(stamp) if stamp is not None and abs(stamp) < 2**53 else None


def instant(seconds: float | None) -> float | None:
    """The instant, or None where it is beyond the bounds."""
    return float(seconds) if seconds is not None and abs(seconds) <= MOST_S else None


def value(shown: float | None) -> float | None:
    """What is shown, or None where it is beyond the bounds."""
    return float(shown) if shown is not None and abs(shown) <= MOST_VALUE else None


def moment(text: str) -> datetime:
    """A date and time with its zone, in ISO 8601.

    Raises:
        ValueError: it is not one.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"invalid time {text[:40]!r}") from None
    if found.tzinfo is None or found.year not in _YEARS:
        raise ValueError(f"invalid time {text[:40]!r}: it needs a year from 1970 and a time zone")
    return found
