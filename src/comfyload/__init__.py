"""Load a ComfyUI server and say truthfully what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyload.record.metrics_writer import log_event, stage

__all__ = ["log_event", "stage"]


def __getattr__(name: str) -> Any:
    """What applications import, loaded when it is first asked for: the command line needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from comfyload.record import metrics_writer

    return getattr(metrics_writer, name)
