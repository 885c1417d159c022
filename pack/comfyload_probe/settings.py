"""Every environment variable of the pack, its default and its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOG_NAME", "Settings"]

LOG_NAME = "comfyui_metrics.ndjson"
_MIB = 2**20
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Settings:
    """What the environment asks for. `log` None: rows are kept in memory alone. `problems`: what was not understood."""

    off: bool
    token: str | None
    sample_hz: float
    ring_rows: int
    buffer_rows: int
    log: Path | None
    log_max_bytes: int
    log_max_age_s: float
    log_keep: int
    problems: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], user_dir: str | Path | None) -> Settings:
        """Read them; a value that is no number, or out of bounds, leaves the default and is told in `problems`."""
        problems: list[str] = []

        def number(name: str, default: float, lowest: float, highest: float) -> float:
            text = environ.get(name, "").strip()
            if not text:
                return default
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if lowest <= value <= highest:
                return value
            problems.append(
                f"{name} is {text[:40]!r}, not a number from {lowest:g} to {highest:g}; {default:g} is used"
            )
            return default

        named = environ.get("COMFYUI_METRICS_LOG", "").strip()
        log = None if user_dir is None else Path(user_dir) / LOG_NAME
        if named:
            try:
                log = Path(named).expanduser()
            except RuntimeError:
                problems.append(
                    f"COMFYUI_METRICS_LOG begins with the home of a user who is not known here; {log} is used"
                )
        return cls(
            off=environ.get("COMFYLOAD_PROBE_OFF", "").strip().lower() not in ("", "0", "false", "no"),
            token=environ.get("COMFYLOAD_PROBE_TOKEN", "").strip() or None,
            sample_hz=number("COMFYLOAD_PROBE_SAMPLE_HZ", 2, 0, 20),
            ring_rows=int(number("COMFYLOAD_PROBE_RING", 20_000, 1, 1_000_000)),
            buffer_rows=int(number("COMFYLOAD_PROBE_BUFFER", 10_000, 1, 1_000_000)),
            log=log,
            log_max_bytes=int(_MIB * number("COMFYUI_METRICS_LOG_MAX_MB", 64, 0.001, 1_000_000)),
            log_max_age_s=_HOUR_S * number("COMFYUI_METRICS_LOG_MAX_AGE_H", 168, 0.001, 1_000_000),
            log_keep=int(number("COMFYUI_METRICS_LOG_KEEP", 5, 0, 1000)),
            problems=tuple(problems),
        )
