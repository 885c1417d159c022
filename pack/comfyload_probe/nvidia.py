"""What NVML tells of the GPUs that this process computes on. Every answer may fail alone, and is then None."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .nvml import MEMORY_CLOCK, PCIE_RX, PCIE_TX, SM_CLOCK, Handle, Nvml, NvmlError
from .rows import GPU_FIELDS
from .torch_gpus import allocated_bytes, torch_cards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .torch_gpus import Card

__all__ = ["Nvidia"]

REOPEN_S = 30.0

THROTTLE = {
    0x002: "applications_clocks",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal",
    0x040: "hw_thermal",
    0x080: "hw_power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
"""NVML's words, shortened. A GPU that merely rests (0x1) is not throttled."""
_RESTS = 0x001

MEMORY_AGREES = 0.06
"""CUDA's total leaves out what the driver keeps for itself, a few per cent of what NVML tells."""

_KIB = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU of the process. `index` is torch's, `number` NVML's; no handle: `why` says what is known."""

    index: int
    number: int | None
    handle: Handle | None
    why: str


class Board(NamedTuple):
    """One GPU of the machine; without a handle: it is counted, and does not answer."""

    number: int
    handle: Handle | None
    uuid: str
    name: str
    total: int


class Nvidia:
    """GPUs read by NVML, in a thread that may wait: each of the two PCIe counters takes 20 ms."""

    backend = "nvml"

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Open the library.

        Raises:
            NvmlError: there is none, or no driver answers.
        """
        self._environ = environ
        self._clock = clock
        self._path = environ.get("COMFYLOAD_PROBE_NVML", "")
        self._nvml = Nvml.open(self._path)
        self._gpus: list[Gpu] = []
        self._by_torch = False
        self._reopen_at = 0.0
        self.why = ""
        self._match()

    def read(self) -> list[dict[str, Any]]:
        """The `gpus` of a row `sample`. Once the driver or a GPU is lost, `why` says so until all answer again."""
        self._mend()
        rows, lost = [], ""
        for gpu in self._gpus:
            row, said = self._read_one(gpu)
            rows.append(row)
            lost = lost or said
        if lost and not self.why:
            self._reopen_at = self._clock() + REOPEN_S
        self.why = lost
        return rows

    def facts(self) -> dict[str, dict[str, Any]]:
        """What stays as it is: model, driver, link, limits; `gpu.N.KEY`, each with its source."""
        found: dict[str, dict[str, Any]] = {}
        for gpu in self._gpus:
            for key, answer in _FACTS.items():
                fact = {"value": None, "source": gpu.why}
                if gpu.handle is not None:
                    try:
                        fact = {"value": answer(self._nvml, gpu.handle), "source": _source(gpu)}
                    except NvmlError as error:
                        fact = {"value": None, "source": str(error)}
                found[f"gpu.{gpu.index}.{key}"] = fact
        return found

    def close(self) -> None:
        """Give the library back."""
        self._nvml.close()

    def _mend(self) -> None:
        """Open the library again if it is lost and the time has come; match again once torch knows its GPUs."""
        if self.why and self._clock() >= self._reopen_at:
            self._reopen_at = self._clock() + REOPEN_S
            self._nvml.close()
            try:
                self._nvml = Nvml.open(self._path)
                self._match()
            except NvmlError:
                return
        elif not self.why and not self._by_torch and torch_cards() is not None:
            try:
                self._match()
            except NvmlError:
                return

    def _match(self) -> None:
        """Settle which GPUs are ours, and what torch calls them. One that cannot be found keeps its place."""
        cards = torch_cards()
        boards = _boards(self._nvml)
        named = _visible(boards, self._environ.get("CUDA_VISIBLE_DEVICES"))
        if cards is None:
            found = [_gpu(index, board) for index, board in enumerate(named)]
        else:
            found = _matched(self._nvml, cards, boards, named)
        missing = self._gpus[len(found) :] if self.why else []  # a GPU that is lost may not even be counted
        self._gpus = found + [Gpu(gpu.index, gpu.number, None, "nvml: the GPU is lost") for gpu in missing]
        self._by_torch = cards is not None

    def _read_one(self, gpu: Gpu) -> tuple[dict[str, Any], str]:
        """One GPU's readings, and why it is lost if it is."""
        row: dict[str, Any] = {"index": gpu.index, **dict.fromkeys(GPU_FIELDS)}
        row["torch_allocated_bytes"] = allocated_bytes(gpu.index)
        if gpu.handle is None:
            return row, gpu.why
        for reading in _READINGS:
            try:
                row.update(reading(self._nvml, gpu.handle))
            except NvmlError as error:
                if error.lost:
                    return row, str(error)
        return row, ""


def _memory(nvml: Nvml, handle: Handle) -> dict[str, Any]:
    memory = nvml.memory(handle)
    return {"vram_used_bytes": memory.used, "vram_total_bytes": memory.total}


def _throttle(nvml: Nvml, handle: Handle) -> dict[str, Any]:
    bits = nvml.throttle_bits(handle)
    unnamed = bits & ~_RESTS & ~sum(THROTTLE)
    words = [word for bit, word in THROTTLE.items() if bits & bit]
    return {"throttle": [*words, f"unknown_0x{unnamed:x}"] if unnamed else words}


_READINGS: tuple[Callable[[Nvml, Handle], dict[str, Any]], ...] = (
    lambda nvml, gpu: {"utilisation_percent": nvml.utilisation(gpu)},
    _memory,
    lambda nvml, gpu: {"power_w": nvml.number("nvmlDeviceGetPowerUsage", gpu) / 1000},
    lambda nvml, gpu: {"energy_j": nvml.number("nvmlDeviceGetTotalEnergyConsumption", gpu, wide=True) / 1000},
    lambda nvml, gpu: {"temperature_c": nvml.number("nvmlDeviceGetTemperature", gpu, 0)},
    lambda nvml, gpu: {"clock_sm_mhz": nvml.number("nvmlDeviceGetClockInfo", gpu, SM_CLOCK)},
    lambda nvml, gpu: {"clock_memory_mhz": nvml.number("nvmlDeviceGetClockInfo", gpu, MEMORY_CLOCK)},
    _throttle,
    lambda nvml, gpu: {"process_vram_bytes": nvml.process_bytes(gpu, os.getpid())},
    lambda nvml, gpu: {"pcie_rx_bytes_per_s": nvml.number("nvmlDeviceGetPcieThroughput", gpu, PCIE_RX) * _KIB},
    lambda nvml, gpu: {"pcie_tx_bytes_per_s": nvml.number("nvmlDeviceGetPcieThroughput", gpu, PCIE_TX) * _KIB},
)


_FACTS: dict[str, Callable[[Nvml, Handle], Any]] = {
    "model": lambda nvml, gpu: nvml.text("nvmlDeviceGetName", gpu),
    "driver": lambda nvml, _: nvml.text("nvmlSystemGetDriverVersion"),
    "cuda": lambda nvml, _: _cuda(nvml.number("nvmlSystemGetCudaDriverVersion")),
    "vram_bytes": lambda nvml, gpu: nvml.memory(gpu).total,
    "pcie_generation": lambda nvml, gpu: nvml.number("nvmlDeviceGetCurrPcieLinkGeneration", gpu),
    "pcie_generation_max": lambda nvml, gpu: nvml.number("nvmlDeviceGetMaxPcieLinkGeneration", gpu),
    "pcie_width": lambda nvml, gpu: nvml.number("nvmlDeviceGetCurrPcieLinkWidth", gpu),
    "pcie_width_max": lambda nvml, gpu: nvml.number("nvmlDeviceGetMaxPcieLinkWidth", gpu),
    "power_limit_w": lambda nvml, gpu: nvml.number("nvmlDeviceGetPowerManagementLimit", gpu) / 1000,
    "power_limit_default_w": lambda nvml, gpu: nvml.number("nvmlDeviceGetPowerManagementDefaultLimit", gpu) / 1000,
    "clock_sm_mhz": lambda nvml, gpu: nvml.number("nvmlDeviceGetClockInfo", gpu, SM_CLOCK),
    "clock_sm_max_mhz": lambda nvml, gpu: nvml.number("nvmlDeviceGetMaxClockInfo", gpu, SM_CLOCK),
    "clock_memory_mhz": lambda nvml, gpu: nvml.number("nvmlDeviceGetClockInfo", gpu, MEMORY_CLOCK),
    "busy_percent": lambda nvml, gpu: nvml.utilisation(gpu),
    "persistence": lambda nvml, gpu: bool(nvml.number("nvmlDeviceGetPersistenceMode", gpu)),
    "ecc": lambda nvml, gpu: nvml.ecc(gpu),
}
"""By the keys that comfyload itself uses. `busy_percent` says whether the GPU worked when the link and the clocks were
read: both go down when it rests."""


def _gpu(index: int, board: Board, why: str = "") -> Gpu:
    if board.handle is None:
        return Gpu(index, board.number, None, f"nvml: GPU {board.number} does not answer")
    return Gpu(index, board.number, board.handle, why)


def _source(gpu: Gpu) -> str:
    return f"nvml (index {gpu.number}{gpu.why})" if gpu.number is not None else f"nvml{gpu.why}"


def _boards(nvml: Nvml) -> list[Board]:
    """All that are counted; NvmlError only if their number is not told."""
    found = []
    for number in range(nvml.number("nvmlDeviceGetCount_v2")):
        try:
            handle = nvml.handle(number)
            uuid, name = nvml.text("nvmlDeviceGetUUID", handle), nvml.text("nvmlDeviceGetName", handle)
            found.append(Board(number, handle, uuid, name, nvml.memory(handle).total))
        except NvmlError:
            found.append(Board(number, None, "", "", 0))
    return found


def _visible(boards: list[Board], variable: str | None) -> list[Board]:
    """Those that CUDA_VISIBLE_DEVICES lets CUDA see, in its order; as CUDA does, up to the first it cannot make out."""
    if variable is None:
        return boards
    found: list[Board] = []
    for word in variable.split(","):
        named = [board for board in boards if _is_named(board, word.strip())]
        if len(named) != 1:
            break
        found += named
    return found


def _is_named(board: Board, word: str) -> bool:
    return board.number == int(word) if word.isdigit() else bool(word) and board.uuid.startswith(word)


def _matched(nvml: Nvml, cards: list[Card], boards: list[Board], named: list[Board]) -> list[Gpu]:
    """The board of each of torch's cards: by its uuid where torch tells it, else by place, name and memory."""
    left, found = list(boards), []
    for index, card in enumerate(cards):
        if card.uuid:
            alike = [board for board in left if board.uuid == f"GPU-{card.uuid}"]
        else:
            alike = [board for board in left if _agrees(board, card)]
        if not alike:
            found.append(_part(nvml, index, card))
            continue
        board = next((board for board in named[index : index + 1] if board in alike), alike[0])
        left.remove(board)
        found.append(_gpu(index, board, f", one of {len(alike)} alike" if len(alike) > 1 else ""))
    return found


def _part(nvml: Nvml, index: int, card: Card) -> Gpu:
    """A part of a GPU (MIG), which the driver does not count; or nothing that it knows."""
    try:
        if card.uuid:
            return Gpu(index, None, nvml.handle_by_uuid(f"MIG-{card.uuid}"), ", a MIG part")
    except NvmlError:
        pass
    return Gpu(index, None, None, f"nvml: no GPU of this machine is {card.name[:80]!r}")


def _agrees(board: Board, card: Card) -> bool:
    return board.name == card.name and abs(board.total - card.total_bytes) <= MEMORY_AGREES * board.total


def _cuda(number: int) -> str:
    """12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"
