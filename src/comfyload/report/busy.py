"""How the load on server and GPU is said in a few words."""

from __future__ import annotations

from collections.abc import Callable

from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.saturation import Saturation
from comfyload.report.text import DASH, fixed, percent

__all__ = ["gpu_words", "server_words"]

_GIB = 2.0**30


def server_words(found: Saturation) -> str:
    """How busy the server was, by its own times; "" if that is not known."""
    busy = found.server_busy
    if busy is None:
        return ""
    if busy > 1.02:
        return f"{busy:.1f} jobs side by side on average"
    return f"{percent(busy)} busy{': more in flight would only wait' if found.server_saturated else ''}"


def gpu_words(row: GpuRow, mark: Callable[[str], str]) -> str:
    """What is known of a GPU; `mark` gives the sign of a note for why its energy is withheld. "" if nothing is."""
    parts = []
    if row.utilisation_percent is not None:
        while_busy = "" if row.ceiling_percent is None else f" ({row.ceiling_percent:.0f} % while a job executes)"
        parts.append(f"{row.utilisation_percent:.0f} % busy{while_busy}")
    if row.vram_peak_bytes is not None:
        of = "" if row.vram_total_bytes is None else f" of {row.vram_total_bytes / _GIB:.1f}"
        parts.append(f"{row.vram_peak_bytes / _GIB:.1f}{of} GiB at most")
    if row.power_w is not None:
        joules = row.energy_per_job_j
        energy = f"{DASH}{mark(joules.reason)}" if joules.value is None else fixed(joules.value, 0)
        parts.append(f"{row.power_w:.0f} W, {energy} J a job")
    if row.temperature_max_c is not None:
        parts.append(f"{row.temperature_max_c:.0f} °C")
    if row.throttled_share:
        parts.append(f"throttled {percent(row.throttled_share)} of the time")
    doubt = f"one of {row.alike} alike, perhaps not the server's: " if row.alike > 1 and parts else ""
    return doubt + " · ".join(parts)
