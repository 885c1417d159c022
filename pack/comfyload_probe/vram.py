"""What torch's CUDA allocator has given out, now and at most, without ever being the one that starts CUDA."""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["Vram"]

_log = logging.getLogger("comfyload_probe")


class Vram:
    """Bytes of the current CUDA device. `why`: why they are unknown, "" while they are read."""

    def __init__(self) -> None:
        self.why = _why_not()

    def reset_peak(self) -> None:
        """The peak counts from now on."""
        cuda = self._cuda()
        if cuda is not None:
            try:
                cuda.reset_peak_memory_stats()
            except Exception as error:  # noqa: BLE001 - an allocator without statistics costs these two columns, no more
                self._give_up(error)

    def read(self) -> tuple[int, int] | None:
        """Allocated now, and the most since the peak was reset; None if unknown."""
        cuda = self._cuda()
        if cuda is None:
            return None
        try:
            held = cuda.memory_stats_as_nested_dict()["allocated_bytes"]["all"]
            return int(held["current"]), int(held["peak"])
        except Exception as error:  # noqa: BLE001
            self._give_up(error)
            return None

    def _cuda(self) -> Any:
        if self.why:
            return None
        torch = sys.modules.get("torch")
        cuda = None if torch is None else torch.cuda
        return cuda if cuda is not None and cuda.is_initialized() else None

    def _give_up(self, error: Exception) -> None:
        self.why = f"torch does not tell: {type(error).__name__}"
        _log.warning("VRAM of nodes is unknown from now on: %r", error)


def _why_not() -> str:
    """Why there is nothing to read on this server, "" if there may be."""
    management = sys.modules.get("comfy.model_management")
    try:
        kind = str(management.get_torch_device().type) if management is not None else None
    except Exception:  # noqa: BLE001 - a ComfyUI that has no such function, or a device of another shape
        kind = None
    if "torch" not in sys.modules:
        return "torch is not loaded"
    return "" if kind in (None, "cuda") else f"ComfyUI computes on {kind}"
