"""Where a gateway, or a server behind it, can be killed: each boundary to the disk, to a server and to a client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.gateway.http import Front
from comfyload.gateway.store import Store
from comfyload.sim.execution import Execution
from comfyload.sim.queue import Item, Queue
from comfyload.sim.sockets import Frame, Sockets
from comfyload.sim.state import State
from tests.chaos.points import Point, event_of, passing, route_of, watch
from tests.chaos.server import Counted

__all__ = ["Mortal", "watch_gateway"]

IN_THE_STORE = ("add", "drop", "began", "started", "noted", "end", "set_fact")


def watch_gateway(kill_at: Point | None, told: Path | None) -> None:
    """To be called in a process of its own, which is then killed at that point."""
    pass_by = watch(kill_at, told)
    for name in IN_THE_STORE:
        if hasattr(Store, name):
            setattr(Store, name, _between(pass_by, f"store {name}", getattr(Store, name)))
    _watch_clients(pass_by)


def _between(pass_by: Callable[[str], None], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **more: Any) -> Any:
        pass_by(f"{name}: not done")
        found = method(*args, **more)
        pass_by(f"{name}: done")
        return found

    return watched


def _watch_clients(pass_by: Callable[[str], None]) -> None:
    post, cancel, send = Front._post_prompt, Front._cancel_one, web.WebSocketResponse.send_frame
    finish = web.Response.write_eof

    async def posted(self: Front, request: web.Request) -> web.Response:
        pass_by("client's POST: come")
        found = await post(self, request)
        pass_by("client's POST: not answered")
        return found

    async def cancelled(self: Front, request: web.Request) -> web.Response:
        pass_by("client's cancel: come")
        found = await cancel(self, request)
        pass_by("client's cancel: not answered")
        return found

    async def finished(self: web.Response, data: bytes = b"") -> None:
        await finish(self, data)
        if self.status == 200 and self.body and b'"node_errors"' in bytes(self.body)[:300]:  # type: ignore[call-overload]
            pass_by("client's POST: answered")

    async def sent(self: web.WebSocketResponse, message: bytes, opcode: WSMsgType, compress: int | None = None) -> None:
        name = event_of(message, opcode is WSMsgType.TEXT)
        pass_by(f"client's event {name}: not sent")
        await send(self, message, opcode, compress)
        pass_by(f"client's event {name}: sent")

    Front._post_prompt, Front._cancel_one = posted, cancelled  # type: ignore[method-assign]
    web.WebSocketResponse.send_frame, web.Response.write_eof = sent, finished  # type: ignore[method-assign, assignment]


class Mortal(Counted):
    """A server that is killed at that point, with all that it has."""

    def __init__(self, file: Path, speed: float, kill_at: Point | None, told: Path | None) -> None:
        super().__init__(file, speed)
        self._tell("booted", "-")
        self._pass_by = passing(kill_at, told)[0]
        send, done, run, pass_by = Sockets.send, Queue.done, Execution.run, self._pass_by

        def sent(self: Sockets, frame: Frame, client_id: str | None) -> None:
            name = event_of(frame.encode(), True) if isinstance(frame, str) else "preview"
            pass_by(f"event {name}: not sent")
            send(self, frame, client_id)
            pass_by(f"event {name}: sent")

        def remembered(self: Queue, *args: Any) -> None:
            pass_by("history: not written")
            done(self, *args)
            pass_by("history: written")

        async def executed(self: Execution) -> Any:
            pass_by("execution: not begun")
            found = await run(self)
            pass_by("execution: ended")
            return found

        Sockets.send, Queue.done, Execution.run = sent, remembered, executed  # type: ignore[method-assign]

    async def call(self, request: Request) -> Reply:
        name = f"{request.method} {route_of(request.path)}"
        self._pass_by(f"{name}: come")
        reply = await super().call(request)
        self._pass_by(f"{name}: not answered")
        if name == "GET history/ID" and len(reply.body) > len("{}"):
            self._tell("read", request.path.rpartition("/")[2])
        return reply

    async def _execute(self, state: State, item: Item) -> None:
        self._pass_by("prompt: taken from the queue")
        await super()._execute(state, item)
        self._pass_by("prompt: over")
