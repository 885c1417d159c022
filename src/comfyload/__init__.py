"""Load testing for ComfyUI servers: measures what happened and judges it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyload.app.library.connect import connect
    from comfyload.record.job_events import JobEvent, Progress, Queued, Retrying
    from comfyload.record.metrics.writer import log_event, stage
    from comfyload.record.model import Execution
    from comfyload.record.policy import Policy

__all__ = ["Execution", "JobEvent", "Policy", "Progress", "Queued", "Retrying", "connect", "log_event", "stage"]

_HOMES = {
    "comfyload.app.library.connect": ("connect",),
    "comfyload.record.job_events": ("JobEvent", "Progress", "Queued", "Retrying"),
    "comfyload.record.metrics.writer": ("log_event", "stage"),
    "comfyload.record.model": ("Execution",),
    "comfyload.retry.policy": ("Policy",),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the command line needs none of them."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, also those that are not loaded yet: a shell completes them."""
    return sorted({*globals(), *__all__})
