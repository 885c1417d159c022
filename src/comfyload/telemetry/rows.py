"""The probe's rows as readings: `sample` rows, and the peak of memory in the row of a prompt's end."""

from typing import Any

from comfyload.record.bounds import finite
from comfyload.record.bounds import value as bounded
from comfyload.record.model import Sample

KEPT = (
    *("utilisation_percent", "vram_used_bytes", "vram_total_bytes", "torch_allocated_bytes", "process_vram_bytes"),
    *("power_w", "energy_j", "temperature_c", "clock_sm_mhz", "clock_memory_mhz"),
    *("pcie_rx_bytes_per_s", "pcie_tx_bytes_per_s"),
)

SET = ("applications_clocks", "sync_boost", "display_clocks")
"""Reasons for low clocks that are a setting; any other reason slowed the GPU."""


class SampleRows:
    """Rows of one process, in their order: its share of a CPU is the difference of two of them."""

    def __init__(self) -> None:
        self._cpu: tuple[float, float] | None = None
        self._gpus: set[int] = set()

    def samples(self, row: dict[str, Any], t: float, mono_s: float) -> list[Sample]:
        """The readings of a `sample` row, which happened at `t` of the run and at `mono_s` of its own clock."""
        values: dict[str, float | None] = {"queue_remaining": finite(row.get("queue_depth"))}
        process = row.get("process")
        values |= self._process(process if isinstance(process, dict) else {}, mono_s)
        gpus = row.get("gpus")
        for place, gpu in enumerate(gpus if isinstance(gpus, list) else []):
            if isinstance(gpu, dict):
                values |= self._gpu(gpu, place)
        return [Sample(t=t, source="probe", name=name, value=bounded(shown)) for name, shown in values.items()]

    def peak(self, row: dict[str, Any], t: float) -> list[Sample]:
        """Torch's peak of memory in a prompt, from its `prompt.ended`, which names no GPU: only if there is one."""
        peak = finite(row.get("vram_peak_bytes"))
        if peak is None or len(self._gpus) > 1:
            return []
        (gpu,) = self._gpus or {0}
        return [Sample(t=t, source="probe", name=f"gpu.{gpu}.prompt_vram_peak_bytes", value=bounded(peak))]

    def _process(self, process: dict[str, Any], mono_s: float) -> dict[str, float | None]:
        values = {"server.rss_bytes": finite(process.get("rss_bytes"))}
        cpu_s = finite(process.get("cpu_s"))
        before, self._cpu = self._cpu, None if cpu_s is None else (mono_s, cpu_s)
        if cpu_s is None:
            return values | {"server.cpu_percent": None}
        if before is not None and mono_s > before[0]:
            return values | {"server.cpu_percent": 100 * (cpu_s - before[1]) / (mono_s - before[0])}
        return values

    def _gpu(self, gpu: dict[str, Any], place: int) -> dict[str, float | None]:
        index = place if (number := finite(gpu.get("index"))) is None else int(number)
        self._gpus.add(index)
        values = {key: finite(gpu.get(key)) for key in KEPT}
        used, total = values["vram_used_bytes"], values["vram_total_bytes"]
        values["vram_free_bytes"] = None if used is None or total is None else total - used
        reasons = gpu.get("throttle")
        values["throttled"] = float(any(reason not in SET for reason in reasons)) if isinstance(reasons, list) else None
        return {f"gpu.{index}.{key}": value for key, value in values.items()}
