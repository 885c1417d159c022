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
    "Execution": "comfyload.record.model",
    "JobEvent": "comfyload.record.job_events",
    "Policy": "comfyload.retry.policy",
    "Progress": "comfyload.record.job_events",
    "Queued": "comfyload.record.job_events",
    "Retrying": "comfyload.record.job_events",
    "connect": "comfyload.app.library.connect",
    "log_event": "comfyload.record.metrics.writer",
    "stage": "comfyload.record.metrics.writer",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the command line needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, also those that are not loaded yet: a shell completes them."""
    return sorted({*globals(), *__all__})
