"""What the parts of a client share of its one server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfyload.comfy.api import Api
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.noticed import Noticed
from comfyload.comfy.stream import EventStream
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.transport import Transport
from comfyload.record.model import Failure


@dataclass(kw_only=True, eq=False)
class Link:
    """One server with our jobs on it. `abandoned`: why all of them were given up; None while they were not."""

    transport: Transport
    api: Api
    inflight: InFlight
    stream: EventStream
    clock: Callable[[], float]
    timeouts: Timeouts
    noticed: Noticed
    abandoned: Failure | None = None
