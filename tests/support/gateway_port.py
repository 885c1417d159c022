"""A gateway that listens, before a home server that notes what reaches it; for calls as no proper client makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from comfyload.app.gateway import GatewayOptions, More, opened
from comfyload.app.gateway_port import listening
from comfyload.comfy.wire.calls import Transport
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.intake import Intake
from comfyload.gateway.service import Gateway
from comfyload.retry.policy import default
from comfyload.sim import Server
from tests.support.direct import Direct


@dataclass
class Home:
    """What reached the home server: request lines, headers, bodies. `answer`: what it answers with."""

    lines: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answer: web.Response | None = None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.lines.append(f"{request.method} {request.raw_path}")
        self.headers.append(request.headers)
        self.bodies.append(await request.read())
        return self.answer or web.Response(text="home")


@dataclass
class Answer:
    """As it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


@dataclass
class Port:
    """A gateway that listens at `url`."""

    url: URL
    gateway: Gateway
    intake: Intake
    home: Home
    session: aiohttp.ClientSession

    async def raw(self, sent: bytes) -> Answer:
        """The answer to these bytes."""
        return await spoken(self.url, sent)

    async def ask(self, path: str, *more: str, method: str = "GET", body: bytes | None = None) -> Answer:
        """The answer to a request for the path as it is written here. `more`: lines of headers."""
        host = [] if any(line.lower().startswith("host:") for line in more) else [f"Host: {self.url.authority}"]
        size = [] if body is None else [f"Content-Length: {len(body)}"]
        lines = [f"{method} {path} HTTP/1.1", *host, *size, *more, "", ""]
        return await self.raw("\r\n".join(lines).encode("utf-8", "surrogateescape") + (body or b""))

    async def post(self, value: Any, *more: str, path: str = "/prompt") -> Answer:
        """The answer to a POST of that value, or of these bytes."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return await self.ask(path, *more, method="POST", body=body)


async def spoken(url: URL, sent: bytes) -> Answer:
    """The answer that comes from there to these bytes."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(sent)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20.0)
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        size = int(headers.get("content-length", "0")) if not sent.startswith(b"HEAD") else 0
        return Answer(int(lines[0].split()[1]), headers, await asyncio.wait_for(reader.readexactly(size), 20.0))
    finally:
        writer.close()


@asynccontextmanager
async def port(
    folder: Path,
    *,
    servers: int = 1,
    transports: list[Transport] | None = None,
    more: More = lambda _: (),
    **options: Any,
) -> AsyncIterator[Port]:
    """A gateway on a free port, with its ledger in `folder`, before servers called gpu1, gpu2, … in this process."""
    home = Home()
    site = web.ServerRunner(web.Server(home))
    await site.setup()
    await web.TCPSite(site, "127.0.0.1", 0).start()
    address = URL(f"http://127.0.0.1:{site.addresses[0][1]}/")
    farm = [Server() for _ in range(servers)]
    for server in farm:
        server.start()
    ways = transports or [Direct(server) for server in farm]
    by_name = {f"gpu{number}": way for number, way in enumerate(ways, 1)}

    @asynccontextmanager
    async def connect(given: ServerConfig) -> AsyncIterator[Transport]:
        yield by_name[given.name]

    # Each server has an address of its own, and all lead to the same place.
    given = [ServerConfig(name=name, url=address / name / "") for name in by_name]
    if len(given) == 1:
        given = [ServerConfig(name="gpu1", url=address, headers={"Authorization": "Bearer upstream"})]
    chosen = GatewayOptions(**{"servers": given, "policy": default(), "ledger": folder, "connect": connect, **options})
    try:
        async with (
            opened(chosen, more) as (gateway, intake, front),
            listening(front.app(), chosen.host, 0, None) as url,
            aiohttp.ClientSession() as session,
        ):
            yield Port(URL(url), gateway, intake, home, session)
    finally:
        for server in farm:
            await server.stop()
        await site.cleanup()
