"""What torch tells of the GPUs it computes on: where there is no NVML, that is all there is.

torch is never imported from here, and its GPU never woken up: it is asked only once ComfyUI has begun to use it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from .rows import GPU_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Card", "TorchGpus", "allocated_bytes", "torch_cards", "torch_kind"]


class Card(NamedTuple):
    """One of torch's devices; `uuid` "" where this torch does not tell it."""

    uuid: str
    name: str
    total_bytes: int


def torch_kind() -> str:
    """`rocm`, `cuda` or `mps`, as torch was built and finds; "" if it computes on no GPU, or is not there."""
    torch = sys.modules.get("torch")
    try:
        if torch is None:
            return ""
        if torch.cuda.is_available():
            return "rocm" if torch.version.hip else "cuda"
        return "mps" if torch.backends.mps.is_available() else ""
    except Exception:  # noqa: BLE001 - a torch built otherwise lacks parts of it
        return ""


def torch_cards() -> list[Card] | None:
    """The devices of torch.cuda in its own order; None before it is in use."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [Card(str(getattr(card, "uuid", "")), str(card.name), int(card.total_memory)) for card in found]
    except Exception:  # noqa: BLE001 - a driver that fails under torch raises what it likes
        return None


def allocated_bytes(index: int) -> int | None:
    """What torch's own allocator has given out on its device `index`."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        return int(torch.cuda.memory_allocated(index))
    except Exception:  # noqa: BLE001 - see above
        return None


class TorchGpus:
    """GPUs as torch sees them: AMD, Apple, or NVIDIA without its management library."""

    def __init__(self, kind: str, why: str = "") -> None:
        self.backend = kind
        self.why = why
        self._hopeless: set[str] = set()

    def read(self) -> list[dict[str, Any]]:
        """The `gpus` of a row `sample`; what torch does not tell is None."""
        torch: Any = sys.modules.get("torch")
        if torch is None:
            return []
        if self.backend == "mps":
            rows = [{"index": 0, **dict.fromkeys(GPU_FIELDS), **self._apple(torch)}]
        else:
            count = len(torch_cards() or [])
            rows = [{"index": index, **dict.fromkeys(GPU_FIELDS), **self._card(torch, index)} for index in range(count)]
        return rows

    def facts(self) -> dict[str, dict[str, Any]]:
        """Model and memory, as far as torch tells them."""
        source = f"torch ({self.backend})"
        if self.backend == "mps":
            return {
                "gpu.0.vram_bytes": {
                    "value": self._apple(sys.modules.get("torch"))["vram_total_bytes"],
                    "source": source,
                }
            }
        found: dict[str, dict[str, Any]] = {}
        for index, card in enumerate(torch_cards() or []):
            found[f"gpu.{index}.model"] = {"value": card.name, "source": source}
            found[f"gpu.{index}.vram_bytes"] = {"value": card.total_bytes, "source": source}
        return found

    def close(self) -> None:
        """Nothing is held."""

    def _card(self, torch: Any, index: int) -> dict[str, Any]:
        in_use = self._ask("memory_reserved", lambda: torch.cuda.memory_reserved(index) > 0)
        # Asking for the memory of a device that torch does not use yet would make it ready for use, which takes memory.
        told = self._ask("mem_get_info", lambda: torch.cuda.mem_get_info(index)) if in_use else None
        free, total = told or (None, None)
        return {
            # On AMD these three need a library of the driver's, which many installations lack.
            "utilisation_percent": self._ask("utilization", lambda: int(torch.cuda.utilization(index))),
            "temperature_c": self._ask("temperature", lambda: int(torch.cuda.temperature(index))),
            "clock_sm_mhz": self._ask("clock_rate", lambda: int(torch.cuda.clock_rate(index)) or None),
            "vram_used_bytes": None if free is None or total is None else int(total - free),
            "vram_total_bytes": None if total is None else int(total),
            "torch_allocated_bytes": allocated_bytes(index),
        }

    def _apple(self, torch: Any) -> dict[str, Any]:
        """Memory is shared with the CPU: `vram_total_bytes` is how much the system advises the GPU to use at most."""
        return {
            "torch_allocated_bytes": self._ask("current", lambda: int(torch.mps.current_allocated_memory())),
            "process_vram_bytes": self._ask("driver", lambda: int(torch.mps.driver_allocated_memory())),
            "vram_total_bytes": self._ask("recommended", lambda: int(torch.mps.recommended_max_memory())),
        }

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        """The answer, or None. What is not installed is not asked for again: each time costs an import."""
        if name in self._hopeless:
            return None
        try:
            return call()
        except (ImportError, AttributeError):
            self._hopeless.add(name)
        except Exception:  # noqa: BLE001 - a driver's errors come in many types, and the next read tries again
            pass
        return None
