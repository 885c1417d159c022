"""What NVML tells of the GPUs that a server computes on. Every answer may fail on its own; none of it fails a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from comfyload.record.model import Environment, Fact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Found", "Silent", "find_gpus", "gpu_facts", "nvml_module", "unknown_gpus"]

T = TypeVar("T")

MEMORY_AGREES = 0.06
"""CUDA's total leaves out what the driver keeps for itself, a few per cent of what NVML tells."""

KEYS = (
    *("model", "driver", "cuda", "vram_bytes"),
    *("pcie_generation", "pcie_generation_max", "pcie_width", "pcie_width_max"),
    *("power_limit_w", "power_limit_default_w", "clock_sm_mhz", "clock_sm_max_mhz", "clock_memory_mhz"),
    *("busy_percent", "persistence", "ecc"),
)
"""Each is `gpu.N.KEY`, N as the server counts its devices. `busy_percent` says whether the GPU worked when the link
and the clocks were read: both go down when it rests."""


class Silent(Exception):
    """NVML gave no answer, and why."""


class Gpu(Struct, frozen=True):
    """One GPU of this machine."""

    index: int
    handle: Any
    model: str | None
    vram_bytes: int | None


class Found(Struct, frozen=True):
    """The GPU that the server counts as `number`; `handle` None: this machine has none like it. `source` says how."""

    number: int
    handle: Any
    source: str


def nvml_module() -> Any:
    """The library's binding; None if it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def gpu_facts(devices: Sequence[dict[str, Any]], nvml: Any, server_pid: int | None = None) -> Environment:
    """Of each GPU that the server names, or of all that the machine has where it names none.

    `devices`: of `/system_stats`. `nvml`: the module `pynvml`, or what stands in for it; None: not installed.
    `server_pid`: tells which of several alike the server uses.
    """
    if devices and not any(_is_gpu(device) for device in devices):
        return {}
    if nvml is None:
        return unknown_gpus(devices, "nvml: nvidia-ml-py is not installed")
    try:
        _ask(nvml, nvml.nvmlInit)
    except Silent as silent:
        return unknown_gpus(devices, str(silent))
    try:
        return _of_all(devices, nvml, server_pid)
    except Silent as silent:
        return unknown_gpus(devices, str(silent))
    finally:
        _known(nvml, nvml.nvmlShutdown)


def unknown_gpus(devices: Sequence[dict[str, Any]], why: str) -> Environment:
    """Every key of every GPU that the server names (of one, where it names no device), unknown."""
    count = len([device for device in devices if _is_gpu(device)]) if devices else 1
    return {f"gpu.{number}.{key}": Fact(source=why) for number in range(count) for key in KEYS}


def _is_gpu(device: dict[str, Any]) -> bool:
    return str(device.get("type", "cuda")) != "cpu"


def _of_all(devices: Sequence[dict[str, Any]], nvml: Any, server_pid: int | None) -> Environment:
    facts: Environment = {}
    for gpu in find_gpus(devices, nvml, server_pid):
        if gpu.handle is None:
            facts |= {f"gpu.{gpu.number}.{key}": Fact(source=gpu.source) for key in KEYS}
        else:
            facts |= _of_one(nvml, gpu.handle, gpu.number, gpu.source)
    return facts


def find_gpus(devices: Sequence[dict[str, Any]], nvml: Any, server_pid: int | None) -> list[Found]:
    """Which GPU of this machine is which of the server's; all of them where the server names none. NVML is begun.

    Raises:
        Silent: NVML does not tell what GPUs there are.
    """
    left = []
    for index in range(int(_ask(nvml, nvml.nvmlDeviceGetCount))):
        handle = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        model = _known(nvml, nvml.nvmlDeviceGetName, handle)
        memory = _known(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        total = None if memory is None else int(memory.total)
        left.append(Gpu(index, handle, None if model is None else _text(model), total))
    if not devices:
        return [Found(gpu.index, gpu.handle, "nvml (the server names no device)") for gpu in left]
    found = []
    for number, device in enumerate(device for device in devices if _is_gpu(device)):
        alike = [gpu for gpu in left if _matches(gpu, device)]
        if not alike:
            found.append(Found(number, None, f"nvml: no GPU of this machine is {str(device.get('name'))[:80]!r}"))
            continue
        used = [gpu for gpu in alike if server_pid in _users(nvml, gpu)] if len(alike) > 1 else alike
        gpu = (used or alike)[0]
        left.remove(gpu)
        among = "" if used else f", one of {len(alike)} alike: which of them the server uses is not told"
        found.append(Found(number, gpu.handle, f"nvml (index {gpu.index}{among})"))
    return found


def _matches(gpu: Gpu, device: dict[str, Any]) -> bool:
    """By name and memory. ComfyUI's names are such as `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`."""
    name, total = str(device.get("name", "")), device.get("vram_total")
    if gpu.model is not None and gpu.model.lower() not in name.lower():
        return False
    if gpu.vram_bytes and isinstance(total, int | float) and total > 0:
        return abs(gpu.vram_bytes - total) <= MEMORY_AGREES * gpu.vram_bytes
    return gpu.model is not None


def _users(nvml: Any, gpu: Gpu) -> set[int]:
    processes = _known(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, gpu.handle) or []
    return {int(process.pid) for process in processes}


def _of_one(nvml: Any, handle: Any, number: int, source: str) -> Environment:
    answers: dict[str, Callable[[], str | int | float | bool]] = {
        "model": lambda: _text(nvml.nvmlDeviceGetName(handle)),
        "driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
        "cuda": lambda: _cuda(int(nvml.nvmlSystemGetCudaDriverVersion())),
        "vram_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "pcie_generation": lambda: int(nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
        "pcie_generation_max": lambda: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)),
        "pcie_width": lambda: int(nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)),
        "pcie_width_max": lambda: int(nvml.nvmlDeviceGetMaxPcieLinkWidth(handle)),
        "power_limit_w": lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
        "power_limit_default_w": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
        "clock_sm_mhz": lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "clock_sm_max_mhz": lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "clock_memory_mhz": lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        "busy_percent": lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "persistence": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
        "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
    }
    facts: Environment = {}
    for key, answer in answers.items():
        try:
            facts[f"gpu.{number}.{key}"] = Fact(value=_ask(nvml, answer), source=source)
        except Silent as silent:
            facts[f"gpu.{number}.{key}"] = Fact(source=str(silent))
    return facts


def _ask(nvml: Any, call: Callable[..., T], *arguments: Any) -> T:
    """The answer, or Silent. A driver older than the binding lacks functions, which is NVMLError too."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        raise Silent(f"nvml: {error}") from None


def _known(nvml: Any, call: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return _ask(nvml, call, *arguments)
    except Silent:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cuda(number: int) -> str:
    """12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"
