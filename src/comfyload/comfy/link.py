"""What the parts of a client share of its one server."""

import asyncio
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from msgspec import Struct, structs

from comfyload.comfy.api import Api
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.noticed import Noticed
from comfyload.comfy.room import Room
from comfyload.comfy.stream import EventStream
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.wire.calls import Transport
from comfyload.record.model import Failure, Observation


class ClientOptions(Struct, frozen=True, kw_only=True):
    """How a client works.

    `fetch`: download the outputs of each job, and throw them away. `observe`: takes what is worth a note. `on_queue`:
    takes the instant and the length of the server's queue, as events report it. `unconfirmed_ids`: prompts that an
    earlier process may have sent; they are looked up before they are sent. `earlier_ids`: prompts of an earlier process
    that may still be in the server's queue, where they count as ours. `server_restarted`: the server was restarted
    since then, so that a prompt it does not know may have run, and is not sent again. `room`: prompts are sent only
    while it has some, one after the other. `shared`: other processes of our run send to the server as well, so that
    prompts of others in its queue may be theirs.
    """

    timeouts: Timeouts = Timeouts()
    fetch: bool = False
    observe: Callable[[Observation], None] = lambda _: None
    on_queue: Callable[[float, int], None] = lambda _t, _n: None
    unconfirmed_ids: Container[str] = frozenset()
    earlier_ids: Iterable[str] = ()
    server_restarted: bool = False
    room: Room | None = None
    shared: bool = False

    def of_one(self, **changes: Any) -> "ClientOptions":
        """Those of the client of one of several servers, with a room of its own."""
        room = None if self.room is None else replace(self.room, change=asyncio.Event())
        return structs.replace(self, room=room, **changes)


@dataclass(kw_only=True, eq=False)
class Link:
    """One server with our jobs on it. `abandoned`: why all of them were given up; None while they were not."""

    transport: Transport
    api: Api
    inflight: InFlight
    stream: EventStream
    clock: Callable[[], float]
    options: ClientOptions
    noticed: Noticed
    abandoned: Failure | None = None

    @property
    def timeouts(self) -> Timeouts:
        return self.options.timeouts
