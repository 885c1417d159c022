"""Where a gateway, or a server behind it, can be killed: each boundary to the disk, to a server and to a client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

import comfyload.app.gateway
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.gateway.http import Front, Handler
from comfyload.gateway.store import Store
from comfyload.sim.queue import Entry, Item, Queue
from comfyload.sim.settings import Settings
from comfyload.sim.sockets import Frame, Sockets
from comfyload.sim.state import State
from tests.chaos.points import Point, event_of, passing, put_in_place, route_of, watch
from tests.chaos.server import Counted

__all__ = ["Mortal", "watch_gateway"]

IN_THE_STORE = ("add", "drop", "began", "started", "noted", "end", "set_fact")
OF_CLIENTS = {"/prompt": "client's POST", "/jobs/{id}/cancel": "client's cancel"}
"""What is posted, and what the points of it are called."""

PassBy = Callable[[str], None]


def watch_gateway(kill_at: Point | None, points_file: Path | None) -> None:
    """To be called in a process of its own, which is then killed at that point."""
    pass_by = watch(kill_at, points_file)
    put_in_place(comfyload.app.gateway, Store=_watched_store(pass_by), Front=_watched_front(pass_by))
    put_in_place(web, WebSocketResponse=_watched_socket(pass_by))


def _watched_store(pass_by: PassBy) -> type[Store]:
    methods = {name: _between(pass_by, f"store {name}", getattr(Store, name)) for name in IN_THE_STORE}
    return type("WatchedStore", (Store,), methods)


def _between(pass_by: PassBy, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **more: Any) -> Any:
        pass_by(f"{name}: not done")
        found = method(*args, **more)
        pass_by(f"{name}: done")
        return found

    return watched


def _watched_front(pass_by: PassBy) -> type[Front]:
    class Answer(web.Response):
        """One of which it is known when it has been sent."""

        async def write_eof(self, data: bytes = b"") -> None:
            await super().write_eof(data)
            pass_by("client's POST: answered")

    @web.middleware
    async def watched(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = "" if resource is None else resource.canonical.removeprefix("/api")
        if request.method != "POST" or path not in OF_CLIENTS:
            return await handler(request)
        pass_by(f"{OF_CLIENTS[path]}: come")
        found = await handler(request)
        pass_by(f"{OF_CLIENTS[path]}: not answered")
        if path == "/prompt" and found.status == 200:
            assert isinstance(found, web.Response)
            return Answer(body=found.body, headers=found.headers)
        return found

    class WatchedFront(Front):
        def app(self) -> web.Application:
            app = super().app()
            app.middlewares.append(watched)
            return app

    return WatchedFront


def _watched_socket(pass_by: PassBy) -> type[web.WebSocketResponse]:
    class WatchedSocket(web.WebSocketResponse):
        async def send_frame(self, message: bytes, opcode: WSMsgType, compress: int | None = None) -> None:
            name = event_of(message, opcode is WSMsgType.TEXT)
            pass_by(f"client's event {name}: not sent")
            await super().send_frame(message, opcode, compress)
            pass_by(f"client's event {name}: sent")

    return WatchedSocket


class Mortal(Counted):
    """A server that is killed at that point, with all that it has."""

    def __init__(self, file: Path, speed: float, kill_at: Point | None, points_file: Path | None) -> None:
        super().__init__(file, speed)
        self._tell("booted", "-")
        self._pass_by = passing(kill_at, points_file)[0]
        self._state = _WatchedState(self, self._pass_by)
        self.posts, self.calls = self._state.posts, self._state.calls

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


class _WatchedState(State):
    def __init__(self, settings: Settings, pass_by: PassBy) -> None:
        self._pass_by = pass_by
        super().__init__(settings)

    def boot(self) -> None:
        super().boot()
        self.sockets = _WatchedSockets(self.sockets.features, self._pass_by)
        self.queue = _WatchedQueue(self._announce, self._pass_by)


class _WatchedSockets(Sockets):
    def __init__(self, features: dict[str, Any], pass_by: PassBy) -> None:
        super().__init__(features)
        self._pass_by = pass_by

    def send(self, frame: Frame, client_id: str | None) -> None:
        name = event_of(frame.encode(), True) if isinstance(frame, str) else "preview"
        self._pass_by(f"event {name}: not sent")
        super().send(frame, client_id)
        self._pass_by(f"event {name}: sent")


class _WatchedQueue(Queue):
    def __init__(self, changed: Callable[[], None], pass_by: PassBy) -> None:
        super().__init__(changed)
        self._pass_by = pass_by

    def done(self, item: Item, entry: Entry, visible_at: float) -> None:
        self._pass_by("history: not written")
        super().done(item, entry, visible_at)
        self._pass_by("history: written")
