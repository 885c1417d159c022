"""What a careful person writes with aiohttp: uvloop, orjson, one WebSocket for all jobs, a rare garbage collector."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

import aiohttp
import orjson
import uvloop

from bench.clients.given import Given, given, seeded

now = time.monotonic_ns


class Inbox:
    """The messages of jobs that are running, and their ends."""

    def __init__(self) -> None:
        self.messages: dict[str, list[tuple[str, int]]] = {}
        self.ends: dict[str, asyncio.Future[int]] = {}

    async def listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in ws:
            message = orjson.loads(frame.data)
            kind, data = message["type"], message["data"]
            prompt_id = data.get("prompt_id")
            if prompt_id is None:
                continue  # about the queue
            at = now()
            self.messages[prompt_id].append((kind, at))
            if kind == "executing" and data["node"] is None:
                self.ends[prompt_id].set_result(at)


class Load:
    def __init__(self, words: Given, http: aiohttp.ClientSession, out: BinaryIO) -> None:
        self.inbox, self._words, self._http, self._out = Inbox(), words, http, out
        self._graph = words.graph
        self._inputs = seeded(self._graph)
        self._posts = asyncio.Semaphore(64)

    async def user(self, seeds: Iterator[int], client_id: str) -> None:
        for seed in seeds:
            await self._job(seed, client_id)

    async def _job(self, seed: int, client_id: str) -> None:
        prompt_id, server = str(uuid.uuid4()), self._words.server
        self.inbox.messages[prompt_id] = []
        ended = self.inbox.ends[prompt_id] = asyncio.get_running_loop().create_future()
        sent = now()
        async with self._posts:  # so that few bodies wait for a connection
            await self._post(client_id, prompt_id, seed)
        done = await ended
        async with self._http.get(f"{server}/history/{prompt_id}") as reply:
            entry = orjson.loads(await reply.read())[prompt_id]
        if self._words.fetch:
            async with self._http.get(f"{server}/view?filename={prompt_id}") as reply:
                async for _ in reply.content.iter_any():
                    pass
        record = {
            "prompt_id": prompt_id,
            "seed": seed,
            "sent_ns": sent,
            "done_ns": done,
            "events": self.inbox.messages.pop(prompt_id),
            "status": entry["status"]["status_str"],
        }
        del self.inbox.ends[prompt_id]
        self._out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    async def _post(self, client_id: str, prompt_id: str, seed: int) -> None:
        self._inputs["seed"] = seed  # the graph is shared, so nothing may be awaited before it is encoded
        body = orjson.dumps({"client_id": client_id, "prompt_id": prompt_id, "prompt": self._graph})
        async with self._http.post(f"{self._words.server}/prompt", data=body) as reply:
            if orjson.loads(await reply.read())["prompt_id"] != prompt_id:
                raise ConnectionError("the server chose another id")


async def run(words: Given) -> None:
    headers = {"Content-Type": "application/json"}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=128),
        headers=headers,
        raise_for_status=True,
        timeout=aiohttp.ClientTimeout(total=None),
    )
    with words.out.open("wb") as out:
        async with session as http:
            load = Load(words, http, out)
            ids = [uuid.uuid4().hex for _ in range(words.sockets)]
            # Sockets stay open and must not use up the connector's places.
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as events:
                sockets: list[Any] = [await events.ws_connect(words.events + name, max_msg_size=0) for name in ids]
                listeners = [asyncio.create_task(load.inbox.listen(ws)) for ws in sockets]
                seeds = iter(range(words.jobs))
                gc.freeze()
                gc.set_threshold(50_000, 20, 100)
                await asyncio.gather(*(load.user(seeds, ids[rank % len(ids)]) for rank in range(words.in_flight)))
                for listener in listeners:
                    listener.cancel()


if __name__ == "__main__":
    uvloop.run(run(given()))
