"""How calls and events reach a server: one small protocol, so that a simulator in process can stand in for sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from comfyload.comfy.wire.calls import Download, Reply, Request


class Transport(Protocol):
    """One server, reachable. Every method raises `TransportError` when there is no answer, or it breaks off."""

    async def call(self, request: Request) -> Reply:
        """One HTTP exchange, body read whole."""

    async def download(self, path: str, timeout_s: float) -> Download:
        """GET `path`, reading its body as a stream and keeping none of it."""

    def events(self, client_id: str) -> AbstractAsyncContextManager[AsyncIterator[str | bytes]]:
        """The WebSocket of `client_id`: frames as they arrive, ending when the connection does."""
