"""Facts from NVML about the GPUs that a server uses. Every call may fail on its own; no failure ends a run."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil
from msgspec import Struct

from comfyload.record.environment.which_gpu import Board, Visible, board_at, device_index, device_model, same_model
from comfyload.record.model import Environment, Fact

T = TypeVar("T")

MEMORY_AGREES = 0.06
"""CUDA's total leaves out the driver's own memory, a few per cent of NVML's total."""

ANSWERS: dict[str, Callable[[Any, Any], str | int | float | bool]] = {
    "model": lambda nvml, gpu: _text(nvml.nvmlDeviceGetName(gpu)),
    "driver": lambda nvml, _: _text(nvml.nvmlSystemGetDriverVersion()),
    "cuda": lambda nvml, _: _cuda(int(nvml.nvmlSystemGetCudaDriverVersion())),
    "vram_bytes": lambda nvml, gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total),
    "pcie_generation": lambda nvml, gpu: int(nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu)),
    "pcie_generation_max": lambda nvml, gpu: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu)),
    "pcie_width": lambda nvml, gpu: int(nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)),
    "pcie_width_max": lambda nvml, gpu: int(nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu)),
    "power_limit_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000,
    "power_limit_default_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu) / 1000,
    "clock_sm_mhz": lambda nvml, gpu: int(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    "clock_sm_max_mhz": lambda nvml, gpu: int(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    "clock_memory_mhz": lambda nvml, gpu: int(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
    "busy_percent": lambda nvml, gpu: int(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
    "persistence": lambda nvml, gpu: bool(nvml.nvmlDeviceGetPersistenceMode(gpu)),
    "ecc": lambda nvml, gpu: bool(nvml.nvmlDeviceGetEccMode(gpu)[0]),
}
"""Each is `gpu.N.KEY`, N as the server counts its devices. `busy_percent`: whether the GPU worked when the link and
the clocks were read, since an idle GPU lowers both."""

KEYS = tuple(ANSWERS)


class NvmlError(Exception):
    """NVML gave no answer; the text says why."""


class MatchedGpu(Struct, frozen=True):
    """The GPU with the `number` in the server's list; `handle` None: this machine has none like it. `source`: how it
    was found, and whether it is only one of several alike.
    """

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


def gpu_facts(
    devices: Sequence[dict[str, Any]], nvml: Any, server_pid: int | None = None, visible: Visible | None = None
) -> Environment:
    """The facts of each GPU that the server names, or of all GPUs of the machine where it names none.

    `devices`: of `/system_stats`. `nvml`: the module `pynvml`, or a substitute; None: not installed.
    `server_pid`, `visible`: show which of several alike the server uses.
    """
    if devices and not any(_is_gpu(device) for device in devices):
        return {}
    if nvml is None:
        return unknown_gpus(devices, "nvml: nvidia-ml-py is not installed")
    try:
        _call(nvml, nvml.nvmlInit)
    except NvmlError as error:
        return unknown_gpus(devices, str(error))
    try:
        found = find_gpus(devices, nvml, server_pid, visible)
        return {key: fact for gpu in found for key, fact in _facts(nvml, gpu).items()}
    except NvmlError as error:
        return unknown_gpus(devices, str(error))
    finally:
        known(nvml, nvml.nvmlShutdown)


def unknown_gpus(devices: Sequence[dict[str, Any]], why: str) -> Environment:
    """Every key of every GPU that the server names (of one, where it names no device), unknown."""
    count = len([device for device in devices if _is_gpu(device)]) if devices else 1
    return {f"gpu.{number}.{key}": Fact(source=why) for number in range(count) for key in KEYS}


def _is_gpu(device: dict[str, Any]) -> bool:
    return str(device.get("type", "cuda")) != "cpu"


def _facts(nvml: Any, gpu: MatchedGpu) -> Environment:
    facts: Environment = {}
    for key, answer in ANSWERS.items():
        try:
            value = None if gpu.handle is None else _call(nvml, answer, nvml, gpu.handle)
            facts[f"gpu.{gpu.number}.{key}"] = Fact(value=value, source=gpu.source)
        except NvmlError as error:
            facts[f"gpu.{gpu.number}.{key}"] = Fact(source=str(error))
    return facts


def find_gpus(
    devices: Sequence[dict[str, Any]], nvml: Any, server_pid: int | None, visible: Visible | None = None
) -> list[MatchedGpu]:
    """Which GPU of this machine is which of the server's; all of them where the server names none. NVML is begun.

    Raises:
        NvmlError: NVML does not list the GPUs.
    """
    boards = _boards(nvml)
    if not devices:
        return [MatchedGpu(board.index, board.handle, "nvml (the server names no device)") for board in boards]
    found, taken = [], set[int]()
    users = _users(nvml, boards, server_pid)
    for number, device in enumerate(device for device in devices if _is_gpu(device)):
        alike = _alike(boards, device)
        if not alike:
            found.append(MatchedGpu(number, None, _none_like(device)))
            continue
        board, how = _choose(boards, alike, users, device_index(device, number), visible)
        if board is None:
            board = next((one for one in alike if one.index not in taken), alike[0])
            how = f", one of {len(alike)} alike: which of them the server uses is not known"
        taken.add(board.index)
        found.append(MatchedGpu(number, board.handle, f"nvml (index {board.index}{how})"))
    return found


def _boards(nvml: Any) -> list[Board]:
    boards = []
    for index in range(int(_call(nvml, nvml.nvmlDeviceGetCount))):
        handle = _call(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        model = known(nvml, nvml.nvmlDeviceGetName, handle)
        memory = known(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        uuid = known(nvml, nvml.nvmlDeviceGetUUID, handle) if hasattr(nvml, "nvmlDeviceGetUUID") else None
        total = None if memory is None else int(memory.total)
        boards.append(Board(index, handle, _text(model) if model else None, total, _text(uuid) if uuid else ""))
    return boards


def _choose(
    boards: Sequence[Board], alike: Sequence[Board], users: set[int], index: int, visible: Visible | None
) -> tuple[Board | None, str]:
    """The one of several alike that is the server's, and how that is known; None: it is not."""
    if len(alike) == 1:
        return alike[0], ""
    used = [board for board in alike if board.index in users]
    if len(used) == 1:
        return used[0], ""
    placed = None if visible is None else board_at(boards, visible, index)
    if visible is not None and placed in (used or alike):
        return placed, f", by {visible.by}"
    return None, ""


def _alike(boards: Sequence[Board], device: dict[str, Any]) -> list[Board]:
    """Boards of the device's exact model, and of its memory where both are known; without model names: by memory."""
    model, total = device_model(str(device.get("name", ""))), device.get("vram_total")
    memory = float(total) if isinstance(total, int | float) and not isinstance(total, bool) and total > 0 else None

    def fits(board: Board) -> bool:
        if memory is None or not board.vram_bytes:
            return board.model is not None
        return abs(board.vram_bytes - memory) <= MEMORY_AGREES * board.vram_bytes

    named = [board for board in boards if board.model is not None and same_model(board.model, model)]
    return [board for board in named or [b for b in boards if b.model is None] if fits(board)]


def _none_like(device: dict[str, Any]) -> str:
    name = device_model(str(device.get("name", "")))[:80]
    if " MIG " in name:
        return f"nvml: the server's GPU is a part of one (MIG): {name!r}; readings of the whole GPU are not its own"
    return f"nvml: no GPU of this machine is {name!r} with the memory that the server reports"


def _users(nvml: Any, boards: Sequence[Board], server_pid: int | None) -> set[int]:
    """Indices of the GPUs that the server's process is on.

    In a container NVML may list pids of the host, which are other processes there: where it lists one that does not
    exist here, all are ignored.
    """
    if server_pid is None:
        return set()
    of = {
        board.index: {int(process.pid) for process in processes}
        for board in boards
        if (processes := known(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, board.handle))
    }
    others = {pid for pids in of.values() for pid in pids if pid != server_pid}
    if not all(psutil.pid_exists(pid) for pid in others):
        return set()
    return {index for index, pids in of.items() if server_pid in pids}


def _call(nvml: Any, call: Callable[..., T], *arguments: Any) -> T:
    """The answer, or NvmlError. A driver older than the binding lacks functions, which is an NVMLError too."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        raise NvmlError(f"nvml: {error}") from None


def known(nvml: Any, call: Callable[..., T], *arguments: Any) -> T | None:
    """The answer, or None."""
    try:
        return _call(nvml, call, *arguments)
    except NvmlError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cuda(number: int) -> str:
    """12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"
