"""The simulated server on a real socket: HTTP and WebSocket, so that any client can talk to it."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from comfyload.comfy.wire.calls import TransportError
from comfyload.sim.downloads import HeadedRequest
from comfyload.sim.server import Server
from comfyload.sim.sockets import Socket

_MAX_BODY = 100 * 2**20


@contextlib.asynccontextmanager
async def serve(server: Server, host: str = "127.0.0.1", port: int = 0, base_path: str = "") -> AsyncIterator[str]:
    """Listen while the context lasts; yields the URL (with `base_path`). `server` must be started.

    While the server is down (a fault's restart) the port is closed and every connection cut.
    """
    base = "/" + base_path.strip("/") if base_path.strip("/") else ""
    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_route("*", "/{path:.*}", partial(_handle, server, base))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listening = await _listen(runner, host, port)
    port = listening.sockets[0].getsockname()[1]
    changes: asyncio.Queue[bool] = asyncio.Queue()

    async def follow() -> None:
        nonlocal listening
        while True:
            up = await changes.get()
            if up and not listening.is_serving():
                listening = await _listen(runner, host, port)
            elif not up:
                listening.close()
                for connection in runner.server.connections if runner.server else []:
                    if connection.transport is not None:
                        connection.transport.abort()

    server.listeners.append(changes.put_nowait)
    follower = asyncio.create_task(follow())
    try:
        yield f"http://{host}:{port}{base}"
    finally:
        server.listeners.remove(changes.put_nowait)
        follower.cancel()
        listening.close()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    return await loop.create_server(runner.server, host, port, reuse_address=True, backlog=1024)


def _strange(request: web.Request) -> bool:
    """Whether a page of another site asks, as far as a server on this machine sees."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    host, origin = urlsplit("//" + request.headers.get("Host", "").lower()), urlsplit(request.headers.get("Origin", ""))
    if not host.hostname or not origin.hostname or not _is_loopback(host.hostname):
        return False
    ports = (host.port, origin.port)
    return host.hostname != origin.hostname or (None not in ports and ports[0] != ports[1])


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def _handle(server: Server, base: str, request: web.Request) -> web.StreamResponse:
    try:
        if _strange(request):
            return web.Response(status=403)
    except ValueError:  # no address
        raise web.HTTPInternalServerError from None
    path = request.rel_url.raw_path
    if not path.startswith(base + "/"):
        raise web.HTTPNotFound
    path = path.removeprefix(base + "/")
    try:
        if path in ("ws", "api/ws") and request.method == "GET":
            return await _websocket(server, request)
        query = request.rel_url.raw_query_string
        reply = await server.call(
            HeadedRequest(
                method=request.method,
                path=f"{path}?{query}" if query else path,
                body=await request.read() if request.can_read_body else None,
                content_type=request.headers.get("Content-Type", ""),
                headers=request.headers,
            )
        )
    except TransportError:
        # No reply is what it stands for: the connection is cut.
        if request.transport is not None:
            request.transport.abort()
        raise web.HTTPServiceUnavailable from None
    content_type = {"Content-Type": reply.content_type} if reply.content_type else {}
    return web.Response(status=reply.status, body=reply.body or None, headers={**reply.headers, **content_type})


async def _websocket(server: Server, request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        reason = f'No WebSocket UPGRADE hdr: {request.headers.get("Upgrade")}\n Can "Upgrade" only to "WebSocket".'
        raise web.HTTPBadRequest(text=reason)
    socket = server.connect(request.query.get("clientId"))
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    sender = asyncio.create_task(_send(socket, connection, request))
    try:
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                socket.receive(message.data)
    finally:
        socket.close()
        sender.cancel()
    return connection


async def _send(socket: Socket, connection: web.WebSocketResponse, request: web.Request) -> None:
    """Its own task, so that a client who does not read holds up only itself."""
    with contextlib.suppress(ConnectionError):
        async for frame in socket:
            if isinstance(frame, str):
                await connection.send_str(frame)
            else:
                await connection.send_bytes(frame)
    if socket.close_code == 1006 and request.transport is not None:
        request.transport.abort()
