"""A retrying client on virtual time, with its simulated servers in process."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from comfyload import clock
from comfyload.comfy.identify import identify
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import ServerUnreachable
from comfyload.record.model import Execution, Observation, Prompt
from comfyload.record.model import Server as ServerFacts
from comfyload.record.policy import Policy
from comfyload.retry.client import RetryingClient
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.rig import sleeper

__all__ = ["Scene", "ask", "ids", "kinds", "scene"]


@dataclass
class Scene:
    """What a script finds, and what is left afterwards."""

    client: RetryingClient
    servers: list[Server]
    transports: list[Direct]
    now: Callable[[], float]
    observations: list[Observation] = field(default_factory=list)
    left: list[list[str]] = field(default_factory=list)

    async def run(self, *seconds: float, workflow: str = "g", gap_s: float = 0.0) -> list[Execution]:
        """Jobs of so many seconds each, asked for at once, or one after the other with a gap."""
        tasks = []
        for index, length in enumerate(seconds):
            tasks.append(asyncio.create_task(self.client.run(ask(length, index, workflow))))
            if gap_s:
                await asyncio.sleep(gap_s)
        return list(await asyncio.gather(*tasks))

    def executed(self) -> list[str]:
        """Ids of what the servers ran to its end, in order of each server."""
        return [truth.prompt_id for server in self.servers for truth in server.truth if truth.outcome == "completed"]

    def posts(self) -> int:
        return sum(sum(server.posts.values()) for server in self.servers)


def ask(seconds: float, index: int = 0, workflow: str = "g", prompt_id: str | None = None, nodes: int = 10) -> Prompt:
    """A job that sleeps in so many nodes, between which it can be stopped; no other job's results serve it."""
    prompt_id = prompt_id or str(uuid.uuid4())
    graph: dict[str, Any] = sleeper(seconds / nodes)
    first = graph.pop("2")
    first["inputs"]["seed"] = uuid.UUID(prompt_id).int % 2**32
    graph["10"] = first
    for node in range(11, 10 + nodes):
        graph[str(node)] = {"class_type": "SimSleep", "inputs": {**first["inputs"], "image": [str(node - 1), 0]}}
    graph["3"]["inputs"]["images"] = [str(9 + nodes), 0]
    body = json.dumps(graph).encode()
    return Prompt(id=prompt_id, index=index, workflow=workflow, warmup=False, graph_of=lambda _: body)


def kinds(execution: Execution) -> list[str | None]:
    """How each attempt failed."""
    return [None if attempt.failure is None else attempt.failure.kind for attempt in execution.attempts]


def ids(execution: Execution) -> list[str]:
    """Under which id each attempt was sent."""
    return [attempt.prompt_id for attempt in execution.attempts]


def scene(
    servers: list[Server],
    policy: Policy,
    script: Callable[[Scene], Awaitable[Any]],
    *,
    latency_s: float = 0.001,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    unconfirmed_ids: frozenset[str] = frozenset(),
    seed: int = 0,
) -> tuple[Any, Scene]:
    """Run `script` with a client of these servers; its result, and the scene with what the queues hold afterwards."""

    async def main() -> tuple[Any, Scene]:
        for server in servers:
            server.start()
        try:
            transports = [Direct(server, latency_s=latency_s) for server in servers]
            facts = [await _facts(transport, f"http://s{index}/") for index, transport in enumerate(transports)]
            watch = clock.stopwatch()
            observed: list[Observation] = []
            pairs = list(zip(transports, facts, strict=True))
            async with RetryingClient.open(
                pairs,
                policy,
                watch,
                rng=Random(seed),
                options=ClientOptions(timeouts=timeouts, observe=observed.append, unconfirmed_ids=unconfirmed_ids),
            ) as client:
                found = Scene(client, servers, transports, watch, observed)
                result = await asyncio.wait_for(script(found), 360_000)
            for server in servers:
                found.left.append(_queued(server) if server.up else [])
            return result, found
        finally:
            for server in servers:
                await server.stop()

    return clock.run_virtual(main())


async def _facts(transport: Direct, name: str) -> ServerFacts:
    """Whatever faults the server has, it can be identified before."""
    while True:
        with suppress(ServerUnreachable):
            return await identify(transport, name, [])


def _queued(server: Server) -> list[str]:
    queue = server._state.queue
    return [item.prompt_id for item in ([queue.running] if queue.running else []) + queue.pending]
