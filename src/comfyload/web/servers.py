"""The servers that are configured, as they are now; polled every two seconds, and only while somebody looks."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from comfyload import clock
from comfyload.app.operate import Operator
from comfyload.comfy.address import redacted
from comfyload.comfy.api import api_of
from comfyload.comfy.examine import is_gateway
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.wire.calls import Transport, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import ComfyloadError
from comfyload.gateway.fleet import ServerConfig
from comfyload.record.bounds import finite
from comfyload.record.codec import encode, within_levels
from comfyload.record.model import Server
from comfyload.tasks import end_tasks
from comfyload.visible import visible
from comfyload.web.answers import Route, answer
from comfyload.web.feed import Params
from comfyload.web.reply import UI
from comfyload.words import duration, gib

EVERY_S = 2.0
FIRST_S = 2.0
"""How long the first answer waits for the servers'."""
WAITS_S = 10.0
"""For one server, all calls together."""
PROBE_AGAIN_S = 30.0
"""After which a server without a probe is checked again."""
PAGE, PAGES = 250, 8
"""Rows of the probe that are read at once, and how often at most each time."""
MOST_DEVICES = 64
MOST_MODELS = 100

Inside = Callable[[], Any]
"""What the gateway in which we stand says of its servers."""


class Models(Struct):
    """What the probe's rows say is loaded, with its bytes. What was loaded before the first of them is not known."""

    boot: str = ""
    after: int = 0
    held: dict[str, float | None] = {}

    def take(self, row: dict[str, Any]) -> None:
        """A row of the probe."""
        name, size = row.get("model"), finite(row.get("bytes"))
        if row.get("event") != "model" or not isinstance(name, str):
            return
        if row.get("action") == "loaded":
            if len(self.held) < MOST_MODELS or name in self.held:
                self.held[name] = size
            return
        left = self.held.pop(name, None)
        if left is not None and size is not None and left - size > 0:
            self.held[name] = left - size


class _ProbeRows(Struct):
    boot: str
    next: int
    rows: list[dict[str, Any]]


class Servers:
    """`token`: for gateways among them. `inside`: of the gateway in which we stand; then its servers are shown."""

    def __init__(self, servers: Sequence[ServerConfig], token: str = "", inside: Inside | None = None) -> None:
        self._watched = [ServerWatch(server, token) for server in servers]
        self._inside = inside

    def routes(self) -> list[Route]:
        return [("GET", f"{UI}/servers", self._servers)]

    async def view(self, _: Params) -> bytes:
        """All of them, for those who watch."""
        return encode(await self.now())

    async def now(self) -> dict[str, Any]:
        """All of them; those that were polled less than two seconds ago are not polled again."""
        if self._inside is not None:
            return {"servers": [], "gateway": self._inside()}
        await asyncio.gather(*(server.look() for server in self._watched))
        return {"servers": [server.found for server in self._watched], "gateway": None}

    async def close(self) -> None:
        """End all connections."""
        for server in self._watched:
            await server.close()

    async def _servers(self, _: web.Request) -> web.Response:
        return answer(await self.now())


class ServerWatch:
    """A server, and what is known of it; `found` is what a page shows."""

    def __init__(self, server: ServerConfig, token: str) -> None:
        self._server = server
        self._operator = Operator(str(server.url), token)
        self._stack = AsyncExitStack()
        self._http: Http | None = None
        self._last_poll = -EVERY_S
        self._polling: asyncio.Task[None] | None = None
        self._gateway: bool | None = None
        self._probe: str | None = None
        self._probe_checked = -PROBE_AGAIN_S
        self._models = Models()
        self.found: dict[str, Any] = {
            "name": server.name,
            "url": redacted(server.url),
            "kind": "unknown",
            "state": "asking",
            "why": "",
            "hint": "",
        }

    async def look(self) -> None:
        """Ask it if that is due; only the first time is its answer waited for."""
        first = self._polling is None
        if (self._polling is None or self._polling.done()) and clock.now() - self._last_poll >= EVERY_S:
            self._last_poll = clock.now()
            self._polling = asyncio.create_task(self._poll())
        if first and self._polling is not None:
            await asyncio.wait([self._polling], timeout=FIRST_S)

    async def close(self) -> None:
        await end_tasks([] if self._polling is None else [self._polling])
        await self._stack.aclose()

    async def _poll(self) -> None:
        """What is known of a server that does not answer stays, with its state."""
        try:
            async with asyncio.timeout(WAITS_S):
                self.found |= await self._facts() | {"why": "", "hint": ""}
        except ComfyloadError as error:
            self.found |= {"state": "down", "why": visible(error.message), "hint": error.hint}
        except (TransportError, TimeoutError) as error:
            self.found |= {"state": "down", "why": visible(str(error)) or "it does not answer", "hint": ""}

    async def _facts(self) -> dict[str, Any]:
        http = await self._transport()
        if self._gateway is None:
            self._gateway = await is_gateway(http)
        if self._gateway:
            reply = await self._operator.ask("servers")
            members = reply.get("servers")
            return {"kind": "gateway", "state": "up", "members": members if isinstance(members, list) else [],
                    "differ": reply.get("differ") or []}  # fmt: skip
        began = clock.now()
        try:
            server = await identify(http, http.name, [])
        except ComfyloadError:
            self._gateway = None  # another program may answer there by and by
            raise
        took_s = clock.now() - began
        await self._look_at_probe(http)
        return _of_server(server, took_s) | {
            "probe": self._probe or "none",
            "models": None if self._probe != "there" else [
                {"name": visible(name), "bytes": size, "words": "" if size is None else gib(int(size))}
                for name, size in self._models.held.items()
            ],
        }  # fmt: skip

    async def _transport(self) -> Http:
        if self._http is None:
            one = self._server
            connection = Http.connect(one.url, one.headers, ca_file=one.ca_file, insecure=one.insecure)
            self._http = await self._stack.enter_async_context(connection)
        return self._http

    async def _look_at_probe(self, http: Transport) -> None:
        """Read on in the probe's rows; whether there is one is checked again after a while."""
        if self._probe != "there" and clock.now() - self._probe_checked < PROBE_AGAIN_S:
            return
        self._probe_checked = clock.now()
        for _ in range(PAGES):
            path = f"events?after={self._models.after}&limit={PAGE}&boot={self._models.boot}"
            try:
                reply = await api_of(http).probe(path, WAITS_S, 4 << 20)
            except TransportError:
                return
            if reply.status in (401, 403):
                self._probe = "wants a token"
                return
            try:
                if reply.status != 200:
                    raise ValueError
                events = decode_json(reply.body, _ProbeRows)
            except (msgspec.MsgspecError, ValueError):
                self._probe = "none"
                return
            self._probe = "there"
            if events.boot != self._models.boot:
                self._models = Models(boot=events.boot)
            self._models.after = events.next
            for row in events.rows[:PAGE]:
                if within_levels(row):
                    self._models.take(row)
            if len(events.rows) < PAGE:
                return


def _of_server(server: Server, took_s: float) -> dict[str, Any]:
    total, free = finite(server.system.get("ram_total")), finite(server.system.get("ram_free"))
    return {
        "kind": "comfyui",
        "state": "up",
        "version": None if server.comfyui_version is None else visible(server.comfyui_version),
        "answers_in": duration(took_s),
        "queue": server.queue_at_start,
        "cache": server.cache_mode,
        "devices": [_device(device) for device in server.devices[:MOST_DEVICES]],
        "memory": None if total is None or free is None else _memory(total, free),
    }


def _device(device: dict[str, Any]) -> dict[str, Any]:
    total, free = finite(device.get("vram_total")), finite(device.get("vram_free"))
    return {
        "name": visible(str(device.get("name", "a GPU")))[:200],
        "type": visible(str(device.get("type", "")))[:40],
        "memory": None if not total or free is None else _memory(total, free),
    }


def _memory(total: float, free: float) -> dict[str, Any]:
    return {"total": total, "free": free, "words": f"{gib(int(free))} of {gib(int(total))} free"}
