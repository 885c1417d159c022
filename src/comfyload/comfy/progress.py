"""What a message of the event stream tells of a job's progress."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfyload.record.job_events import Progress

if TYPE_CHECKING:
    from comfyload.comfy.wire import Message

__all__ = ["progress_of"]


def progress_of(message: Message) -> Progress | None:
    """A node that began, or told its step; None: the message tells neither."""
    data = message.data
    if message.type == "executing" and data.node is not None:
        return Progress(node=data.display_node or data.node)
    if message.type == "progress" and data.node is not None:
        step, steps = _count(data.value), _count(data.max)
        return None if step is None or not steps else Progress(node=data.node, step=step, steps=steps)
    return None


def _count(value: Any) -> int | None:
    """Nodes tell steps as an integer, as a float, or as something that is no number."""
    usual = isinstance(value, int | float) and -1e15 < value < 1e15
    return math.floor(value) if usual else None
