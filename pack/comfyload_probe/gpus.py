"""Who can tell of the GPUs that this process computes on: NVML, else torch, else nobody."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from .nvidia import Nvidia
from .nvml import NvmlError
from .torch_gpus import TorchGpus, torch_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Gpus", "open_gpus"]


class Gpus(Protocol):
    """The GPUs of this process. Nothing here raises; a driver that hangs holds only the thread that asked.

    `backend`: `nvml`, `rocm`, `cuda` (NVIDIA without its management library), `mps` or `none`. `why`: why readings are
    missing, "" if none is known to be; changes when a driver is lost and when it answers again.
    """

    backend: str
    why: str

    def read(self) -> list[dict[str, Any]]:
        """The `gpus` of a row `sample`; takes 40 ms and more for each GPU."""

    def facts(self) -> dict[str, dict[str, Any]]:
        """`gpu.N.KEY`: each a value, None if it is unknown, and its source."""

    def close(self) -> None:
        """Give back what the driver holds for us."""


class Nobody:
    """No GPU, or none that can be read."""

    backend = "none"

    def __init__(self, why: str, fact: dict[str, Any]) -> None:
        self.why = why
        self._fact = fact

    def read(self) -> list[dict[str, Any]]:
        return []

    def facts(self) -> dict[str, dict[str, Any]]:
        return {"gpu": self._fact}

    def close(self) -> None:
        pass


def open_gpus(environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> Gpus:
    """Find who can tell. COMFYLOAD_PROBE_NVML names another NVML; `clock`: of the attempts to open it again."""
    if _on_cpu():
        why = "ComfyUI computes on its CPU"
        return Nobody(why, {"value": "none", "source": why})
    kind = torch_kind()
    if kind in ("rocm", "mps"):
        return TorchGpus(kind)
    try:
        return Nvidia(environ, clock)
    except NvmlError as error:
        if kind:
            return TorchGpus(kind, f"{error}: only what torch tells is known")
        return Nobody(str(error), {"value": None, "source": str(error)})


def _on_cpu() -> bool:
    """Whether ComfyUI was told to leave the GPUs of the machine alone."""
    management = sys.modules.get("comfy.model_management")
    return getattr(getattr(management, "cpu_state", None), "name", "") == "CPU"
