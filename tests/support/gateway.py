"""A gateway in process, in front of simulated servers in process, on virtual time or on real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from comfyload.app.gateway import GatewayOptions, opened
from comfyload.comfy.wire.calls import Transport
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.history import History
from comfyload.gateway.http import Front
from comfyload.gateway.intake import Intake, Posted
from comfyload.gateway.service import Gateway
from comfyload.gateway.sockets import ClientSocket
from comfyload.record.policy import Policy
from comfyload.retry.policy import default
from comfyload.sim import Server
from tests.support.direct import Direct

TENANT = "default"


@dataclass
class Desk:
    """What an application and an operator see of a gateway under test."""

    gateway: Gateway
    intake: Intake
    front: Front
    history: History

    async def post(self, graph: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Post a graph; the answer."""
        posted = Posted(**{"graph": graph, "tenant": TENANT, **more})
        answer: dict[str, Any] = json.loads(await self.intake.submit(posted))
        return answer

    async def end_of(self, prompt_id: str, tenant: str = TENANT) -> dict[str, Any]:
        """The entry of a job in the history, once it has ended."""
        while (entry := self.history.entry(prompt_id, tenant)) is None:
            await asyncio.sleep(0.01)
        found: dict[str, Any] = json.loads(entry)
        return found

    async def run(self, graph: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Post a graph, and wait for its end."""
        return await self.end_of((await self.post(graph, **more))["prompt_id"])

    def listen(self, client_id: str, tenant: str = TENANT) -> ClientSocket:
        socket = ClientSocket(client_id, tenant)
        self.gateway.sockets.add(socket)
        return socket

    def status_of(self, prompt_id: str) -> str | None:
        """As `/api/jobs/{id}` says it."""
        job = self.history.job(prompt_id, TENANT)
        return None if job is None else job["status"]


@asynccontextmanager
async def desk(
    folder: Path,
    servers: Sequence[Server],
    *,
    policy: Policy | None = None,
    transports: Sequence[Transport] | None = None,
    configured: int | None = None,
    **options: Any,
) -> AsyncIterator[Desk]:
    """A gateway whose ledger is in `folder`. The servers are called gpu1, gpu2, …, and must be started; so many of them
    are `configured` (None: all), the others can join.
    """
    ways = transports or [Direct(server) for server in servers]
    by_name = {f"gpu{number}": way for number, way in enumerate(ways, 1)}

    @asynccontextmanager
    async def connect(given: ServerConfig) -> AsyncIterator[Transport]:
        yield by_name[given.name]

    given = [ServerConfig(name=name, url=URL(f"http://{name}/")) for name in by_name]
    given = given[:configured]
    chosen = policy or default()
    async with opened(GatewayOptions(servers=given, policy=chosen, ledger=folder, connect=connect, **options)) as (
        gateway,
        intake,
        front,
    ):
        yield Desk(gateway, intake, front, History(gateway))


@asynccontextmanager
async def farm(count: int, **settings: Any) -> AsyncIterator[list[Server]]:
    """So many simulated servers at work."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Server(**settings)) for _ in range(count)]


def frames_of(socket: ClientSocket) -> list[dict[str, Any]]:
    """The texts that a socket was sent and that nobody has read yet."""
    found = []
    while socket.waiting:
        cell = socket.waiting.popleft()
        if cell.is_text:
            found.append(json.loads(cell.frame))
    return found
