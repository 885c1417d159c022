"""The load on server and GPU, in a few words."""

from __future__ import annotations

from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.saturation import Saturation
from comfyload.report.page import Value
from comfyload.words import DASH, fixed, gib, percent


def server_words(found: Saturation) -> str:
    """How busy the server was, by its own times; "" if that is not known."""
    busy = found.server_busy
    if busy is None:
        return ""
    if busy > 1.02:
        return f"{busy:.1f} jobs at a time on average"
    return f"{percent(busy)} busy{': more would wait' if found.server_saturated else ''}"


def gpu_value(row: GpuRow) -> Value:
    """What is known of a GPU, with a note why the energy of a job is withheld; without words if nothing is known."""
    parts, note = [], ""
    if row.utilisation_percent is not None:
        while_busy = "" if row.ceiling_percent is None else f" ({row.ceiling_percent:.0f} % while a job executes)"
        parts.append(f"{row.utilisation_percent:.0f} % busy{while_busy}")
    if row.vram_peak_bytes is not None:
        of = "" if row.vram_total_bytes is None else f" of {gib(row.vram_total_bytes)}"
        parts.append(f"at most {gib(row.vram_peak_bytes)}{of}")
    if row.power_w is not None:
        parts.append(f"{row.power_w:.0f} W")
    if row.temperature_max_c is not None:
        parts.append(f"{row.temperature_max_c:.0f} °C")
    if row.throttled_share:
        parts.append(f"throttled {percent(row.throttled_share)} of the time")
    if row.power_w is not None:
        joules = row.energy_per_job_j
        parts.append(f"energy per job {DASH}" if joules.value is None else f"{fixed(joules.value, 0)} J a job")
        note = "" if joules.value is not None else f"withheld: {joules.reason}"
    doubt = f"one of {row.alike} alike, perhaps not the server's: " if row.alike > 1 and parts else ""
    simulated = "simulated: " if row.simulated and parts else ""
    return Value(words=simulated + doubt + " · ".join(parts), note=note)
