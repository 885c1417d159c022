"""httpx and websockets on uvloop with orjson; a client for each user, since one for all costs more."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import BinaryIO

import httpx
import orjson
import uvloop
from websockets.asyncio.client import connect

from bench.clients.given import Given, given, seeded


async def user(words: Given, seeds: Iterator[int], out: BinaryIO) -> None:
    graph, client_id = words.graph, uuid.uuid4().hex
    async with (
        httpx.AsyncClient(verify=False, timeout=None, base_url=words.server) as http,
        connect(words.events + client_id, compression=None, proxy=None) as ws,
    ):
        for seed in seeds:
            seeded(graph)["seed"] = seed
            sent = time.monotonic_ns()
            body = orjson.dumps({"prompt": graph, "client_id": client_id})
            reply = await http.post("/prompt", content=body, headers={"Content-Type": "application/json"})
            prompt_id = orjson.loads(reply.content)["prompt_id"]
            events = []
            async for text in ws:
                message = orjson.loads(text)
                events.append((message["type"], time.monotonic_ns()))
                data = message["data"]
                if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                    break
            done = time.monotonic_ns()
            reply = await http.get(f"/history/{prompt_id}")
            status = orjson.loads(reply.content)[prompt_id]["status"]["status_str"]
            if words.fetch:
                async with http.stream("GET", "/view", params={"filename": prompt_id}) as reply:
                    async for _ in reply.aiter_raw():
                        pass
            line = {"prompt_id": prompt_id, "sent_ns": sent, "done_ns": done, "events": events, "status": status}
            out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


async def run(words: Given) -> None:
    seeds = iter(range(words.jobs))
    with words.out.open("wb") as out:
        await asyncio.gather(*(user(words, seeds, out) for _ in range(words.in_flight)))


if __name__ == "__main__":
    uvloop.run(run(given()))
