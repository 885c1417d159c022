"""Finds which of a machine's GPUs a server's device is, by its name, and by the server's flags and environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfyload.record.environment.server_process import ListeningProcess
    from comfyload.record.model import Environment, Server

_ALL = ("all", "none", "void", "")
"""Values of NVIDIA_VISIBLE_DEVICES that name no GPU, and so hide none."""
_SIMULATED = "Simulated GPU"
"""The model that comfyload's simulator reports."""
_MOST = 32
"""The number of GPUs that ComfyUI assumes for --default-device."""


class Board(Struct, frozen=True):
    """One GPU of this machine, as NVML counts them: in the order of the bus."""

    index: int
    handle: Any
    model: str | None
    vram_bytes: int | None
    uuid: str = ""


class Visible(Struct, frozen=True, kw_only=True):
    """Which GPUs CUDA shows the server's process, in its order; `by` says how that is known.

    `words`: indices or UUIDs; None: all. `only`: those that its container has. `by_bus`: CUDA counts them in the order
    of the bus, not the fastest first, which is its default.
    """

    words: list[str] | None
    by: str
    only: list[str] | None = None
    by_bus: bool = False


def device_model(name: str) -> str:
    """The model in a device's name in ComfyUI: `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`, `CUDA 0: …`."""
    rest = re.sub(r"^(?:\w+:\d+\s+|cuda\s+\S+:\s+)", "", name.strip(), flags=re.IGNORECASE)
    return re.split(r" :(?: |$)", rest)[0].strip()


def device_index(device: Mapping[str, Any], place: int) -> int:
    """The index of the device in the server's process; `place`: in its list, if the device has no index."""
    index = device.get("index")
    if isinstance(index, int) and not isinstance(index, bool) and index >= 0:
        return index
    found = re.match(r"\w+:(\d+)\b|cuda (\d+):", str(device.get("name", "")), flags=re.IGNORECASE)
    return int(found[1] or found[2]) if found else place


def is_simulated(server: Server) -> bool:
    """Whether it is comfyload's simulator, whose GPU readings are simulated."""
    return any(device_model(str(device.get("name", ""))) == _SIMULATED for device in server.devices)


def same_model(a: str, b: str) -> bool:
    """Whether two names are of one model: equal but for the maker's name, which old drivers leave out."""
    return _plain(a) == _plain(b)


def _plain(name: str) -> list[str]:
    words = name.casefold().split()
    return words[next((at for at, word in enumerate(words) if word not in ("nvidia", "geforce")), len(words)) :]


def visible_to(server: Server, listener: ListeningProcess) -> Visible | None:
    """By the server's flags and its process's environment; None: neither says it.

    The environment is that of the process on the server's port, if its command line is the one that the server reports.
    """
    environ = listener.gpu_environ if _is_process_of(server, listener) else None
    by_bus = environ is not None and environ.get("CUDA_DEVICE_ORDER", "") == "PCI_BUS_ID"
    only = None if environ is None else environ.get("NVIDIA_VISIBLE_DEVICES")
    only_words = None if only is None or only.strip().casefold() in _ALL else _words(only)
    if environ is not None and listener.contained and only is None:
        return None  # its container may have only some of the GPUs, and which ones is not known
    flag, first = flag_value(server, "--cuda-device"), flag_value(server, "--default-device")
    words: list[str] | None
    if flag is not None and flag != "all":
        words, by = _words(flag), f"--cuda-device {flag}"
    elif flag is None and first is not None and first.isdigit():
        words = [first, *(str(other) for other in range(_MOST) if other != int(first))]
        by = f"--default-device {first}"
    elif environ is None:
        return None
    elif (variable := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        words, by = _words(variable), "its CUDA_VISIBLE_DEVICES"
    else:
        words, by = None, "its place, as nothing hides a GPU from it"
    return Visible(words=words, by=by, only=only_words, by_bus=by_bus)


def board_at(boards: Sequence[Board], visible: Visible, index: int) -> Board | None:
    """The GPU that the process counts as `index`; None where that cannot be known.

    An index is usable only where CUDA's order is known: set to that of the bus, or the same model throughout.
    """
    base = list(boards)
    if visible.only is not None:
        named = [_named(boards, word, counted=True) for word in visible.only]
        base = sorted((board for board in named if board is not None), key=lambda board: board.index)
        if len(base) < len(named):
            return None
    counted = visible.by_bus or len({(board.model, board.vram_bytes) for board in base}) == 1
    if visible.words is None:
        return base[index] if counted and index < len(base) else None
    return _named(base, visible.words[index], counted=counted) if index < len(visible.words) else None


def gpus_alike(environment: Environment) -> dict[str, int]:
    """GPUs that a run's environment marks as one of several alike: how many, by the server's number."""
    found: dict[str, int] = {}
    for key, fact in environment.items():
        gpu, alike = re.match(r"gpu\.(\w+)\.", key), re.search(r", one of (\d+) alike", fact.source)
        if gpu and alike:
            found[gpu[1]] = int(alike[1])
    return found


def _named(boards: Sequence[Board], word: str, *, counted: bool) -> Board | None:
    if word.isdigit():
        return boards[int(word)] if counted and int(word) < len(boards) else None
    found = [board for board in boards if word and board.uuid.casefold().startswith(word.casefold())]
    return found[0] if len(found) == 1 else None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def flag_value(server: Server, name: str) -> str | None:
    """The value of the server's `--flag VALUE` or `--flag=VALUE`; of several the last, as argparse does."""
    found, argv = None, server.argv or []
    for part, after in zip(argv, [*argv[1:], None], strict=True):
        if part == name and after is not None:
            found = after.strip()
        elif part.startswith(f"{name}="):
            found = part.partition("=")[2].strip()
    return found


def _is_process_of(server: Server, listener: ListeningProcess) -> bool:
    argv, command = server.argv or [], listener.command
    if not argv or len(command) < len(argv):
        return False
    tail = command[len(command) - len(argv) :]
    return tail[1:] == argv[1:] and Path(tail[0]).name == Path(argv[0]).name
