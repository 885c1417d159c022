"""What a row is: what happened, when on both clocks, and its one line of JSON."""

from __future__ import annotations

import json
import math
import time
from typing import Any, NamedTuple

__all__ = ["GPU_FIELDS", "SCHEMA", "Entry", "encoded", "long_text", "text", "timestamp"]

SCHEMA = 1
"""Version of the rows' shape; schema.json describes it."""

GPU_FIELDS = (
    *("utilisation_percent", "vram_used_bytes", "vram_total_bytes", "torch_allocated_bytes", "process_vram_bytes"),
    *("power_w", "energy_j", "temperature_c", "clock_sm_mhz", "clock_memory_mhz", "throttle"),
    *("pcie_rx_bytes_per_s", "pcie_tx_bytes_per_s"),
)
"""Fields of one GPU in a row `sample`, after its `index`. `energy_j` counts from when the driver was loaded."""

NAME_LIMIT = 200
TEXT_LIMIT = 500
_YEAR_10000 = 253_402_300_800.0


class Entry(NamedTuple):
    """Something that happened: `mono_s` in seconds of time.perf_counter(), `unix_s` of the wall clock."""

    event: str
    mono_s: float
    unix_s: float
    fields: dict[str, Any]


def text(value: object) -> str:
    """An identifier that somebody else chose, at most 200 characters of it."""
    return str(value)[:NAME_LIMIT]


def long_text(value: object) -> str:
    """A message that somebody else wrote, at most 500 characters of it."""
    return str(value)[: 4 * TEXT_LIMIT].strip()[:TEXT_LIMIT]


def timestamp(unix_s: float) -> str:
    """ISO 8601 in UTC with microseconds; a clock that shows no year of four digits is taken to its nearest end."""
    whole = int(1e6 * min(max(unix_s if math.isfinite(unix_s) else 0.0, 0.0), _YEAR_10000 - 1))
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole // 1_000_000)) + f".{whole % 1_000_000:06d}Z"


def encoded(entry: Entry, boot: str, seq: int) -> tuple[dict[str, Any], bytes]:
    """The row, and its line with the line feed.

    Raises:
        ValueError, TypeError: something in it has no JSON.
    """
    row = {
        "schema": SCHEMA,
        "event": entry.event,
        "timestamp": timestamp(entry.unix_s),
        "mono_s": entry.mono_s,
        "boot": boot,
        "seq": seq,
        **entry.fields,
    }
    try:
        line = json.dumps(row, separators=(",", ":"), allow_nan=False)
    except ValueError:
        row = _finite(row)
        line = json.dumps(row, separators=(",", ":"), allow_nan=False)
    return row, line.encode("ascii") + b"\n"


def _finite(value: Any) -> Any:
    """The same with None for every number that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(held) for held in value]
    return value
