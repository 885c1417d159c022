"""One client's socket: what it still has to be sent goes out, and its connection ends when it must."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from comfyload.gateway.sockets import ClientSocket

CLOSE_S = 1.0
"""How long a client has to read that it was closed."""


async def send(socket: ClientSocket, connection: web.WebSocketResponse) -> None:
    try:
        while (found := await socket.next()) is not None:
            frame, is_text = found
            if is_text:
                await connection.send_frame(frame, WSMsgType.TEXT)
            else:
                await connection.send_frame(frame, WSMsgType.BINARY)
        if socket.closed is not None:
            await connection.close(code=socket.closed)
    except ConnectionError:
        pass


async def cut_off(socket: ClientSocket, sender: asyncio.Task[None], transport: asyncio.Transport | None) -> None:
    """End the connection of a client that reads nothing, not even that it was closed."""
    await socket.over.wait()
    await asyncio.wait([sender], timeout=CLOSE_S)
    if not sender.done() and transport is not None:
        transport.abort()
