"""How rates, durations, stages and orders are written: `12/min`, `30s`, `30s@2/min,5m@6/min..12/min`."""

import re
from decimal import Decimal

from comfyload.errors import UsageError
from comfyload.record.plan import Arrivals, Order, Stage

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(_NUMBER + r"\s*(ms|s|min|m|h)?")
_RATE = re.compile(_NUMBER + r"\s*/\s*(s|min|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of `45`, `45s`, `5m`, `1h30m`, `500ms`.

    Raises:
        UsageError: it is written otherwise.
    """
    compact = text.replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UsageError(f"invalid duration {text!r}", "write 45, 45s or 5m")
    return sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)


def duration_text(seconds: float) -> str:
    """The shortest duration that `parse_duration` reads as so many seconds: `5m`, `90s`, `0.25s`."""
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    return f"{Decimal(str(seconds)).normalize():f}s"


def parse_rate(text: str) -> float:
    """Arrivals per second of `10/s`, `12/min`, `600/h`.

    Raises:
        UsageError: it is written otherwise, or zero.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"invalid rate {text!r}", "write 10/s, 12/min or 600/h")
    return float(found[1]) / _SECONDS[found[2]]


def rate_text(per_s: float) -> str:
    """A rate as `parse_rate` reads it."""
    return f"{60 * per_s:.12g}/min"


def parse_stages(text: str) -> list[Stage]:
    """Stages of `30s@2/min,5m@6/min..12/min`: how long, at which rate, changing evenly to which.

    Raises:
        UsageError: a stage is not written so, or lasts no time.
    """
    stages, hint = [], "write 30s@2/min or 5m@6/min..12/min"
    for part in text.split(","):
        seconds, at, rates = part.partition("@")
        first, _, last = rates.partition("..")
        if not at:
            raise UsageError(f"invalid stage {part.strip()!r} in --stages", hint)
        stage = Stage(
            per_s=parse_rate(first), to_per_s=parse_rate(last) if last else None, seconds=parse_duration(seconds)
        )
        if stage.seconds == 0:
            raise UsageError(f"the stage {part.strip()!r} in --stages has no duration", hint)
        stages.append(stage)
    return stages


def parse_arrivals(text: str) -> tuple[Arrivals, float]:
    """Kind and coefficient of variation of `constant`, `poisson`, `gamma:CV`.

    Raises:
        UsageError: the text is neither.
    """
    if text == "constant":
        return "constant", 0.0
    if text == "poisson":
        return "poisson", 1.0
    kind, _, cv = text.partition(":")
    if kind == "gamma" and re.fullmatch(_NUMBER, cv) and 0.01 <= float(cv) <= 100:
        return "gamma", float(cv)
    raise UsageError(f"unknown --arrivals {text!r}", "choose constant, poisson or gamma:CV, such as gamma:0.5")


def parse_order(text: str) -> tuple[Order, float]:
    """Order and stickiness of `random`, `aabb`, `sticky`, `sticky:P`.

    Raises:
        UsageError: the text is neither.
    """
    if text == "random":
        return "random", 0.0
    if text == "aabb":
        return "aabb", 0.0
    kind, _, share = text.partition(":")
    if kind == "sticky" and re.fullmatch(r"0?\.\d+|0|1|1\.0+", share or "0.9"):
        return "sticky", float(share or 0.9)
    raise UsageError(f"unknown --order {text!r}", "choose random, aabb, or sticky:P with P from 0 to 1")
