"""The WebSockets of a server, registered by client id: which one gets which event."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

Frame = str | bytes


class Socket:
    """One client's end: iterate over it for frames. `close_code` is None while open, 1006 once cut."""

    def __init__(self, owner: Sockets, client_id: str) -> None:
        self._owner = owner
        # (loop time it was sent, frame); None ends the stream.
        self._frames: asyncio.Queue[tuple[float, Frame] | None] = asyncio.Queue()
        self._first = True
        self.client_id = client_id
        self.previews_with_metadata = False
        self.close_code: int | None = None

    def push(self, frame: Frame) -> None:
        if self.close_code is None:
            self._frames.put_nowait((asyncio.get_running_loop().time(), frame))

    async def next(self) -> tuple[float, Frame] | None:
        """The next frame with the loop time it was sent at; None at the end."""
        return await self._frames.get()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while (found := await self.next()) is not None:
            yield found[1]

    def receive(self, text: str) -> None:
        """A message from the client: only the first JSON object can matter, and only if it is `feature_flags`."""
        try:
            message = json.loads(text)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        first, self._first = self._first, False
        if first and message.get("type") == "feature_flags":
            flags = message.get("data") or {}
            self.previews_with_metadata = bool(flags.get("supports_preview_metadata"))
            self.push(json.dumps({"type": "feature_flags", "data": self._owner.features}))

    def close(self, code: int = 1000) -> None:
        """By the client, unless another code says how."""
        if self.close_code is None:
            self.close_code = code
            self._frames.put_nowait(None)
            self._owner.gone(self)


class Sockets:
    """The open sockets, and those of them that are registered and so can be sent to."""

    def __init__(self, features: dict[str, Any]) -> None:
        self.features = features
        self._registered: dict[str, Socket] = {}
        self._open: set[Socket] = set()
        self._stalled: list[tuple[Frame, str | None]] | None = None

    def open(self, client_id: str | None) -> Socket:
        """A second socket of one client id takes over at once."""
        socket = Socket(self, client_id or uuid.uuid4().hex)
        self._registered[socket.client_id] = socket
        self._open.add(socket)
        return socket

    def gone(self, socket: Socket) -> None:
        self._open.discard(socket)
        # By name, not by identity, as a real server does: closing an old socket silences the one that took over.
        self._registered.pop(socket.client_id, None)

    def find(self, client_id: str | None) -> Socket | None:
        return None if client_id is None else self._registered.get(client_id)

    def send(self, frame: Frame, client_id: str | None) -> None:
        """To the socket of `client_id`, dropped if there is none; to everybody if it is None."""
        if self._stalled is not None:
            self._stalled.append((frame, client_id))
        elif client_id is None:
            for socket in self._registered.values():
                socket.push(frame)
        else:
            found = self._registered.get(client_id)
            if found is not None:
                found.push(frame)

    def stall(self, on: bool) -> None:
        """Hold everything back, as one reader who does not read makes a real server do; or let it all go."""
        if on:
            self._stalled = self._stalled or []
            return
        backlog, self._stalled = self._stalled or [], None
        for frame, client_id in backlog:
            self.send(frame, client_id)

    def cut(self) -> None:
        """Every connection ends without a goodbye."""
        for socket in list(self._open):
            socket.close(1006)
