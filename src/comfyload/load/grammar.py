"""How rates, durations and stages are written: `12/min`, `30s`, `30s@2/min,5m@6/min..12/min`. Text in, values out."""

from __future__ import annotations

import re

from comfyload.errors import UsageError
from comfyload.record.plan import Arrivals, Stage

__all__ = ["parse_arrivals", "parse_duration", "parse_rate", "parse_stages"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(_NUMBER + r"\s*(ms|s|min|m|h)?")
_RATE = re.compile(_NUMBER + r"\s*/\s*(s|min|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of `15s`, `5m`, `1h30m`, `250ms`; a bare number is seconds.

    Raises:
        UsageError: it is none.
    """
    compact = text.replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UsageError(f"{text!r} is no duration", "write 15s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)


def parse_rate(text: str) -> float:
    """Arrivals per second of `10/s`, `12/min`, `600/h`.

    Raises:
        UsageError: it is none, or zero.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{text!r} is no rate", "write 10/s, 12/min or 600/h")
    return float(found[1]) / _SECONDS[found[2]]


def parse_stages(text: str) -> list[Stage]:
    """Stages of `30s@2/min,5m@6/min..12/min`: how long, at which rate, changing evenly to which.

    Raises:
        UsageError: a stage is not written so, or lasts no time.
    """
    stages = []
    for part in text.split(","):
        seconds, at, rates = part.partition("@")
        first, _, last = rates.partition("..")
        if not at:
            raise UsageError(f"--stages: {part.strip()!r} is no stage", "write 30s@2/min or 5m@6/min..12/min")
        stage = Stage(
            per_s=parse_rate(first), to_per_s=parse_rate(last) if last else None, seconds=parse_duration(seconds)
        )
        if stage.seconds == 0:
            raise UsageError(f"--stages: {part.strip()!r} lasts no time", "write 30s@2/min or 5m@6/min..12/min")
        stages.append(stage)
    return stages


def parse_arrivals(text: str) -> tuple[Arrivals, float]:
    """Kind and coefficient of variation of `constant`, `poisson`, `gamma:CV`.

    Raises:
        UsageError: it is none of them.
    """
    if text == "constant":
        return "constant", 0.0
    if text == "poisson":
        return "poisson", 1.0
    kind, _, cv = text.partition(":")
    if kind == "gamma" and re.fullmatch(_NUMBER, cv) and 0.01 <= float(cv) <= 100:
        return "gamma", float(cv)
    raise UsageError(f"--arrivals {text!r} is unknown", "choose constant, poisson or gamma:CV, as in gamma:0.5")
