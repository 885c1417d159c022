"""The transport that needs no network: calls and events of a simulated server in the same process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from comfyload.sim.server import Server


class Direct:
    """A `Transport` over `server`.

    Args:
        latency_s: what a request, a reply and an event each take on the way.
        before_call: awaited before each call is sent; what it raises reaches the caller.
    """

    def __init__(
        self, server: Server, latency_s: float = 0.0, before_call: Callable[[Request], Awaitable[None]] | None = None
    ) -> None:
        self._server = server
        self._latency_s = latency_s
        self.before_call = before_call

    async def call(self, request: Request) -> Reply:
        try:
            async with asyncio.timeout(request.timeout_s):
                if self.before_call is not None:
                    await self.before_call(request)
                await self._travel()
                reply = await self._server.call(request)
                await self._travel()
                return reply
        except TimeoutError:
            raise TransportError(f"no reply within {request.timeout_s} s", sent=True) from None

    async def download(self, path: str, timeout_s: float) -> Download:
        reply = await self.call(Request(method="GET", path=path, timeout_s=timeout_s))
        return Download(
            status=reply.status,
            bytes=len(reply.body),
            expected=len(reply.body),
            head=reply.body[:16],
            content_type=reply.content_type,
        )

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        await self._travel()
        socket = self._server.connect(client_id)
        try:
            await self._travel()
            while (found := await socket.next()) is not None:
                sent, frame = found
                # Counted from when it was sent, so that many events on their way together do not queue up.
                wait = sent + self._latency_s - asyncio.get_running_loop().time()
                if wait > 0.0:
                    await asyncio.sleep(wait)
                is_text = isinstance(frame, str)
                on_frame(frame.encode() if isinstance(frame, str) else frame, is_text)
        finally:
            socket.close()

    async def _travel(self) -> None:
        if self._latency_s > 0.0:
            await asyncio.sleep(self._latency_s)
