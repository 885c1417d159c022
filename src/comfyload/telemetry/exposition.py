"""Prometheus text as readings: series of GPUs under the names that all sources share, others under their own names.

DCGM's exporter names its GPUs by number; that of `nvidia_smi_*` by uuid, with the number as a value.
"""

import math
import re
import time
from collections.abc import Iterable

from prometheus_client.samples import Sample

from comfyload.telemetry.nvml import SLOWED

MOST = 200
"""Series kept under their own names."""

_MOST_GPUS = 10_000
_MIB = 2.0**20
_OF_GPU = {
    "DCGM_FI_DEV_GPU_UTIL": ("utilisation_percent", 1.0),
    "DCGM_FI_DEV_FB_USED": ("vram_used_bytes", _MIB),
    "DCGM_FI_DEV_FB_FREE": ("vram_free_bytes", _MIB),
    "DCGM_FI_DEV_FB_TOTAL": ("vram_total_bytes", _MIB),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy_j", 0.001),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1.0),
    "DCGM_FI_DEV_SM_CLOCK": ("clock_sm_mhz", 1.0),
    "DCGM_FI_DEV_MEM_CLOCK": ("clock_memory_mhz", 1.0),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("pcie_rx_bytes_per_s", 1.0),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_tx_bytes_per_s", 1.0),
    "nvidia_smi_utilization_gpu_ratio": ("utilisation_percent", 100.0),
    "nvidia_smi_memory_used_bytes": ("vram_used_bytes", 1.0),
    "nvidia_smi_memory_free_bytes": ("vram_free_bytes", 1.0),
    "nvidia_smi_memory_total_bytes": ("vram_total_bytes", 1.0),
    "nvidia_smi_power_draw_watts": ("power_w", 1.0),
    "nvidia_smi_temperature_gpu": ("temperature_c", 1.0),
    "nvidia_smi_clocks_current_sm_clock_hz": ("clock_sm_mhz", 1e-6),
    "nvidia_smi_clocks_current_memory_clock_hz": ("clock_memory_mhz", 1e-6),
}
"""Our name, and the factor to its unit. DCGM counts energy in mJ and memory in MiB."""
_DCGM_REASONS = ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS")
_SMI_REASONS = re.compile(
    "nvidia_smi_clocks_(throttle|event)_reasons_"
    "(sw_power_cap|hw_slowdown|sw_thermal_slowdown|hw_thermal_slowdown|hw_power_brake_slowdown)"
)


class Exposition:
    """Pages of one endpoint: the first series are kept, up to a limit, and stay the ones that are kept."""

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._cut: set[str] = set()

    @property
    def cut(self) -> int:
        """How many series are not kept."""
        return len(self._cut)

    def read(self, text: str) -> dict[str, float | None]:
        """The readings of a page; NaN is None.

        Raises:
            ValueError: it is not Prometheus text.
        """
        samples = list(_samples(text))
        numbers = {
            s.labels["uuid"]: int(s.value)
            for s in samples
            if s.name == "nvidia_smi_index" and "uuid" in s.labels and 0 <= s.value < _MOST_GPUS
        }
        values: dict[str, float | None] = {}
        for sample in samples:
            name, value = _of_gpu(sample, numbers)
            if name is None:
                labels = ",".join(f'{key}="{label}"' for key, label in sorted(sample.labels.items()))
                name = f"{sample.name}{{{labels}}}" if labels else sample.name
                if not self._keep(sample, name):
                    continue
            elif name.endswith(".throttled"):
                value = max(value, values.get(name) or 0.0)
            values[name] = value if math.isfinite(value) else None
        return values

    def _keep(self, sample: Sample, name: str) -> bool:
        """The buckets of a histogram are many, and they are not readings."""
        if name in self._kept:
            return True
        if len(self._kept) >= MOST or name in self._cut or "le" in sample.labels or sample.name.endswith("_created"):
            if len(self._cut) < 100 * MOST:
                self._cut.add(name)
            return False
        self._kept.add(name)
        return True


def _samples(text: str) -> Iterable[Sample]:
    from prometheus_client.parser import text_string_to_metric_families

    families = iter(text_string_to_metric_families(text))
    while True:
        try:
            family = next(families)
            found = [sample._replace(value=float(sample.value)) for sample in family.samples]
        except StopIteration:
            return
        except (ArithmeticError, LookupError, TypeError) as error:  # of numbers and labels that it does not expect
            raise ValueError(str(error)) from None
        time.sleep(1e-4)  # parsing is all Python: give the interpreter to the loop, which measures
        # The parser gives every counter the ending of OpenMetrics, which older pages do not have.
        named_so = family.type != "counter" or f"{family.name}_total" in text
        for sample in found:
            yield sample if named_so else sample._replace(name=sample.name.removesuffix("_total"))


def _of_gpu(sample: Sample, numbers: dict[str, int]) -> tuple[str | None, float]:
    """The name that all sources share, and the value in its unit; None for any other series."""
    name, value, labels = sample.name, sample.value, sample.labels
    if name.startswith("DCGM_") and labels.get("gpu", "").isdecimal() and "GPU_I_ID" not in labels:
        number = int(labels["gpu"])
    elif name.startswith("nvidia_smi_") and labels.get("uuid") in numbers:
        number = numbers[labels["uuid"]]
    else:
        return None, value
    if name in _DCGM_REASONS and math.isfinite(value):
        return f"gpu.{number}.throttled", float(bool(int(value) & SLOWED))
    if _SMI_REASONS.fullmatch(name):
        return f"gpu.{number}.throttled", value
    known = _OF_GPU.get(name)
    return (None, value) if known is None else (f"gpu.{number}.{known[0]}", known[1] * value)
