"""What preflight says that a server does with a graph, and what the simulated server does."""

from __future__ import annotations

import asyncio
import json
import uuid
from copy import deepcopy
from typing import Any

from comfyload import clock
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Server
from comfyload.sim.catalog import CLASSES, OBJECT_INFO
from comfyload.workflow import parse
from comfyload.workflow.preflight import PreflightAnswer, check

INFO: dict[str, Any] = OBJECT_INFO


def outputs_of(graph: dict[str, Any]) -> list[str]:
    return [node for node, node_body in graph.items() if CLASSES[node_body["class_type"]].output]


async def what_happens(server: Server, graph: dict[str, Any]) -> tuple[str, list[str]]:
    """What the server does, in preflight's words, and the outputs that it drops."""
    body = json.dumps({"prompt": graph, "prompt_id": str(uuid.uuid4()), "client_id": "c"}).encode()
    reply = await server.call(Request(method="POST", path="prompt", body=body))
    outputs = outputs_of(graph)
    if reply.status != 200:
        assert reply.status == 400, reply.body
        return "refused", outputs
    queue = json.loads((await server.call(Request(method="GET", path="queue"))).body)
    (row,) = [*queue["queue_running"], *queue["queue_pending"]]
    dropped = [node for node in outputs if node not in row[4]]
    await asyncio.sleep(60)
    history = json.loads((await server.call(Request(method="GET", path=f"history/{row[1]}"))).body)
    if not history:
        return "kills", dropped
    ended = [message[0] for message in history[row[1]]["status"]["messages"]]
    if "execution_error" in ended:
        return "fails", dropped
    return "partly" if dropped else "accepted", dropped


def preflight_answer(graph: dict[str, Any], version: str) -> PreflightAnswer:
    major, minor, patch = map(int, version.split("."))
    return check(parse(json.dumps(graph).encode(), "g"), INFO, INFO, version=(major, minor, patch))


def seen(graph: dict[str, Any], version: str, before: dict[str, Any] | None = None) -> tuple[str, list[str]]:
    """`before`: a graph that runs first, and leaves its results in the cache."""

    async def main() -> tuple[str, list[str]]:
        async with Server(version=version) as server:
            if before is not None:
                await what_happens(server, deepcopy(before))
            return await what_happens(server, deepcopy(graph))

    return clock.run_virtual(main())
