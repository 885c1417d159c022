"""What the probe's rows say as readings: `sample` rows, and what a prompt's end tells of its memory."""

from __future__ import annotations

from typing import Any

from comfyload.comfy.wire import finite
from comfyload.record.model import Sample

__all__ = ["SampleRows", "number"]

KEPT = (
    *("utilisation_percent", "vram_used_bytes", "vram_total_bytes", "torch_allocated_bytes", "process_vram_bytes"),
    *("power_w", "energy_j", "temperature_c", "clock_sm_mhz", "clock_memory_mhz"),
    *("pcie_rx_bytes_per_s", "pcie_tx_bytes_per_s"),
)

SET = ("applications_clocks", "sync_boost", "display_clocks")
"""Reasons for low clocks that somebody chose; for any other the GPU was slowed against what is asked of it."""


class SampleRows:
    """Rows of one process, in their order: its share of a CPU is told by two of them."""

    def __init__(self) -> None:
        self._cpu: tuple[float, float] | None = None
        self._gpus: set[int] = set()

    def samples(self, row: dict[str, Any], t: float, mono_s: float) -> list[Sample]:
        """The readings of a `sample` row, which happened at `t` of the run and at `mono_s` of its own clock."""
        values: dict[str, float | None] = {"queue_remaining": number(row.get("queue_depth"))}
        process = row.get("process")
        values |= self._process(process if isinstance(process, dict) else {}, mono_s)
        gpus = row.get("gpus")
        for place, gpu in enumerate(gpus if isinstance(gpus, list) else []):
            if isinstance(gpu, dict):
                values |= self._gpu(gpu, place)
        return [Sample(t=t, source="probe", name=name, value=value) for name, value in values.items()]

    def peak(self, row: dict[str, Any], t: float) -> list[Sample]:
        """The most memory that torch held in a prompt, of its `prompt.ended`; of one GPU only: it names none."""
        peak = number(row.get("vram_peak_bytes"))
        if peak is None or len(self._gpus) > 1:
            return []
        (gpu,) = self._gpus or {0}
        return [Sample(t=t, source="probe", name=f"gpu.{gpu}.prompt_vram_peak_bytes", value=peak)]

    def _process(self, process: dict[str, Any], mono_s: float) -> dict[str, float | None]:
        values = {"server.rss_bytes": number(process.get("rss_bytes"))}
        cpu_s = number(process.get("cpu_s"))
        before, self._cpu = self._cpu, None if cpu_s is None else (mono_s, cpu_s)
        if cpu_s is None:
            return values | {"server.cpu_percent": None}
        if before is not None and mono_s > before[0]:
            return values | {"server.cpu_percent": 100 * (cpu_s - before[1]) / (mono_s - before[0])}
        return values

    def _gpu(self, gpu: dict[str, Any], place: int) -> dict[str, float | None]:
        told = number(gpu.get("index"))
        index = place if told is None else int(told)
        self._gpus.add(index)
        values = {key: number(gpu.get(key)) for key in KEPT}
        used, total = values["vram_used_bytes"], values["vram_total_bytes"]
        values["vram_free_bytes"] = None if used is None or total is None else total - used
        reasons = gpu.get("throttle")
        values["throttled"] = float(any(reason not in SET for reason in reasons)) if isinstance(reasons, list) else None
        return {f"gpu.{index}.{key}": value for key, value in values.items()}


def number(value: object) -> float | None:
    """A number that JSON can hold; None for anything else."""
    return finite(value)
