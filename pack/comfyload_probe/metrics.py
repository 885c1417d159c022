"""How the probe's counters are written for Prometheus: text format 0.0.4. What is unknown is left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

__all__ = ["CONTENT_TYPE", "prometheus"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "comfyload_probe_"

_GPU = {
    "utilisation_percent": ("gpu_utilisation_percent", "gauge", "Share of time in which a kernel ran."),
    "vram_used_bytes": ("gpu_vram_used_bytes", "gauge", "GPU memory in use by all processes."),
    "vram_total_bytes": ("gpu_vram_total_bytes", "gauge", "GPU memory there is."),
    "torch_allocated_bytes": ("gpu_torch_allocated_bytes", "gauge", "What torch's allocator has given out."),
    "process_vram_bytes": ("gpu_process_vram_bytes", "gauge", "GPU memory of ComfyUI's process."),
    "power_w": ("gpu_power_watts", "gauge", "Power drawn by the board."),
    "energy_j": ("gpu_energy_joules_total", "counter", "Energy since the driver was loaded."),
    "temperature_c": ("gpu_temperature_celsius", "gauge", "Temperature of the GPU."),
    "clock_sm_mhz": ("gpu_clock_sm_mhz", "gauge", "Clock of the multiprocessors."),
    "clock_memory_mhz": ("gpu_clock_memory_mhz", "gauge", "Clock of the memory."),
    "pcie_rx_bytes_per_s": ("gpu_pcie_rx_bytes_per_second", "gauge", "PCIe traffic to the GPU."),
    "pcie_tx_bytes_per_s": ("gpu_pcie_tx_bytes_per_second", "gauge", "PCIe traffic from the GPU."),
}


_OWN = {
    "active": ("active", "gauge", "1 while the probe listens, 0 once it has switched itself off."),
    "dropped": ("rows_dropped_total", "counter", "Rows that found no room."),
    "errors": ("errors_total", "counter", "Errors inside the probe."),
    "log_bytes": ("log_bytes", "gauge", "Size of the log file."),
    "queue_depth": ("queue_depth", "gauge", "Prompts that wait or run."),
}


def prometheus(snapshot: dict[str, Any]) -> str:
    """The whole page, ending in a line feed."""
    lines: list[str] = []
    _own(lines, snapshot)
    _work(lines, snapshot)
    sample = snapshot.get("sample")
    if isinstance(sample, dict):
        _sample(lines, sample)
    return "".join(f"{line}\n" for line in lines)


Series = list[tuple[dict[str, object], object]]
"""Labels and value of each; a value of None is left out."""


def _own(lines: list[str], snapshot: dict[str, Any]) -> None:
    one: Series = [({"version": snapshot.get("version") or "unknown"}, 1)]
    _family(lines, "info", "gauge", "The probe's version.", one)
    for key, (name, kind, text) in _OWN.items():
        _family(lines, name, kind, text, _of(snapshot, key))


def _work(lines: list[str], snapshot: dict[str, Any]) -> None:
    _family(lines, "prompts_total", "counter", "Prompts that ended.", _by(snapshot, "prompts", "status"))
    _duration(lines, "prompt_seconds", "Execution of prompts.", [({}, snapshot.get("prompt_seconds"))])
    _family(lines, "nodes_total", "counter", "Nodes that ended.", _by(snapshot, "nodes", "status"))
    classes = snapshot.get("node_seconds") or {}
    spent: Series = [({"class_type": name}, value) for name, value in sorted(classes.items())]
    _duration(lines, "node_seconds", "Execution of nodes that ran.", spent)
    _family(lines, "models_loaded_total", "counter", "Models put on a device.", _of(snapshot, "models_loaded"))


def _sample(lines: list[str], sample: dict[str, Any]) -> None:
    taken: Series = [({}, _unix(sample.get("timestamp")))]
    _family(lines, "sample_timestamp_seconds", "gauge", "When the readings below were taken.", taken)
    process = sample.get("process") or {}
    _family(lines, "process_rss_bytes", "gauge", "Memory of ComfyUI's process.", _of(process, "rss_bytes"))
    _family(lines, "process_cpu_seconds_total", "counter", "CPU time of ComfyUI's process.", _of(process, "cpu_s"))
    gpus = [({"gpu": gpu.get("index")}, gpu) for gpu in sample.get("gpus") or []]
    for key, (name, kind, text) in _GPU.items():
        _family(lines, name, kind, text, [(labels, gpu.get(key)) for labels, gpu in gpus])
    reasons: Series = []
    for labels, gpu in gpus:
        words = gpu.get("throttle")
        reasons += [({**labels, "reason": word}, 1) for word in words or []]
    _family(lines, "gpu_throttled", "gauge", "1 for each reason why the clocks are held down.", reasons)


def _of(found: dict[str, Any], key: str) -> Series:
    return [({}, found.get(key))]


def _by(snapshot: dict[str, Any], key: str, label: str) -> Series:
    return [({label: name}, value) for name, value in (snapshot.get(key) or {}).items()]


def _family(lines: list[str], name: str, kind: str, text: str, series: Series) -> None:
    known = [(labels, value) for labels, value in series if isinstance(value, (int, float))]
    if known:
        _head(lines, name, kind, text)
        lines += [f"{PREFIX}{name}{_labels(labels)} {_number(value)}" for labels, value in known]


def _duration(lines: list[str], name: str, text: str, series: Series) -> None:
    """Count and sum of seconds, which is a summary without quantiles."""
    known = [(labels, value) for labels, value in series if isinstance(value, (list, tuple)) and len(value) == 2]
    if known:
        _head(lines, name, "summary", text)
    for labels, (count, total) in known:
        lines.append(f"{PREFIX}{name}_count{_labels(labels)} {_number(count)}")
        lines.append(f"{PREFIX}{name}_sum{_labels(labels)} {_number(total)}")


def _head(lines: list[str], name: str, kind: str, text: str) -> None:
    lines += [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]


def _labels(labels: dict[str, object]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))


def _unix(timestamp: object) -> float | None:
    try:
        return datetime.fromisoformat(f"{str(timestamp).removesuffix('Z')}+00:00").timestamp()
    except ValueError:
        return None
