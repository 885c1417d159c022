"""Arrivals that have happened: offsets, a recorded run, or an access log, read as a schedule. Text in, seconds out."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from comfyload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_offsets"]

_CLF = re.compile(r"\[(\d{2}/\w{3}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\]")
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?)")
_KEYS = ("due", "offset_s", "t", "timestamp", "time", "ts", "@timestamp")


def read_offsets(lines: Iterable[str], source: str, speedup: float = 1.0) -> list[float]:
    """Seconds after the first arrival, ascending, divided by `speedup`.

    A line is a number (seconds), a JSON object with a time in it (a run's record has `due`; its warm-up jobs and the
    lines written when jobs were sent do not count), or a line of an access log with a date. Empty lines and lines that
    begin with # are passed over.

    Raises:
        UsageError: a line has no time in it, or there is none.
    """
    instants = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        instant = _instant(text)
        if instant is _SKIPPED:
            continue
        if instant is None:
            raise UsageError(
                f"{source}, line {number} has no time in it",
                "give offsets in seconds, a run's records, or an access log",
            )
        instants.append(instant)
    if not instants:
        raise UsageError(f"{source} holds no arrivals", "give offsets in seconds, a run's records, or an access log")
    instants.sort()
    return [(instant - instants[0]) / speedup for instant in instants]


_SKIPPED = float("nan")


def _instant(text: str) -> float | None:
    try:
        value = json.loads(text)
    except ValueError:
        return _dated(text)
    if isinstance(value, dict):
        return _of_object(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _of_object(value: dict[str, Any]) -> float | None:
    if value.get("line") == "sent" or value.get("warmup") is True:
        return _SKIPPED
    for key in _KEYS:
        found = value.get(key)
        if isinstance(found, int | float) and not isinstance(found, bool):
            # Times of today in Unix milliseconds are above 1e11, in seconds below.
            return found / 1000 if found > 1e11 else float(found)
        if isinstance(found, str):
            return _dated(found)
    return None


def _dated(text: str) -> float | None:
    """Unix seconds of the date in a line; one without a zone is taken for UTC, as only differences count."""
    logged = _CLF.search(text)
    if logged is not None:
        return datetime.strptime(logged[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    written = _ISO.search(text)
    if written is None:
        return None
    moment = datetime.fromisoformat(written[1].replace(",", "."))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
