"""What most people write first: aiohttp, asyncio's own loop, json, and a WebSocket for each user."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from typing import TextIO

import aiohttp

from bench.clients.given import Given, given, seeded


async def user(words: Given, http: aiohttp.ClientSession, seeds: Iterator[int], out: TextIO) -> None:
    graph, client_id = words.graph, uuid.uuid4().hex
    async with http.ws_connect(words.events + client_id) as ws:
        for seed in seeds:
            seeded(graph)["seed"] = seed
            sent = time.monotonic_ns()
            async with http.post(f"{words.server}/prompt", json={"prompt": graph, "client_id": client_id}) as reply:
                prompt_id = (await reply.json())["prompt_id"]
            events = []
            while True:
                message = json.loads((await ws.receive()).data)
                events.append((message["type"], time.monotonic_ns()))
                data = message["data"]
                if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                    break
            done = time.monotonic_ns()
            async with http.get(f"{words.server}/history/{prompt_id}") as reply:
                status = (await reply.json())[prompt_id]["status"]["status_str"]
            if words.fetch:
                async with http.get(f"{words.server}/view?filename={prompt_id}") as reply:
                    await reply.read()
            line = {"prompt_id": prompt_id, "sent_ns": sent, "done_ns": done, "events": events, "status": status}
            out.write(json.dumps(line) + "\n")


async def run(words: Given) -> None:
    seeds, connector = iter(range(words.jobs)), aiohttp.TCPConnector(limit=0)
    with words.out.open("w") as out:
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as http:
            await asyncio.gather(*(user(words, http, seeds, out) for _ in range(words.in_flight)))


if __name__ == "__main__":
    asyncio.run(run(given()))
