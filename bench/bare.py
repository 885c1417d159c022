"""The yardstick for CPU per job: what a load tool must do for one ComfyUI job, and nothing else.

One process, aiohttp on uvloop with orjson, one WebSocket for all jobs, a closed loop of C jobs in flight.
A job is: encode the graph with a new seed, POST it, follow its messages to the end, GET its history and
parse it, append one line of JSON. This is what a careful person writes with the usual libraries, so a tool
that does more than this for less CPU is ahead of them. It handles no failure: it stops at the first.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import orjson
import uvloop


class Inbox:
    """Messages by prompt id; a fast job may end before the reply to its POST has been read."""

    def __init__(self) -> None:
        self.client_id = uuid.uuid4().hex
        self.messages: dict[str, list[tuple[str, int]]] = {}
        self._ended: dict[str, asyncio.Event] = {}

    def _event(self, prompt_id: str) -> asyncio.Event:
        event = self._ended.get(prompt_id)
        if event is None:
            event = self._ended[prompt_id] = asyncio.Event()
        return event

    async def ended(self, prompt_id: str) -> None:
        await self._event(prompt_id).wait()
        del self._ended[prompt_id]

    async def listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in ws:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                continue  # a preview image
            message = orjson.loads(frame.data)
            kind, data = message["type"], message["data"]
            prompt_id = data.get("prompt_id")
            if prompt_id is None:
                continue  # status, which is about the queue
            self.messages.setdefault(prompt_id, []).append((kind, time.perf_counter_ns()))
            if kind == "executing" and data["node"] is None:
                self._event(prompt_id).set()
        raise ConnectionError("the WebSocket closed before the last job ended")


async def work(
    http: aiohttp.ClientSession, server: str, graph: dict[str, Any], seeds: Iterator[int], inbox: Inbox, out: BinaryIO
) -> None:
    """One job after another until the seeds run out."""
    inputs = next(node["inputs"] for node in graph.values() if "seed" in node["inputs"])
    for seed in seeds:
        began = time.perf_counter_ns()
        inputs["seed"] = seed  # the graph is shared, so nothing may be awaited before it is encoded
        body = orjson.dumps({"prompt": graph, "client_id": inbox.client_id})
        async with http.post(f"{server}/prompt", data=body) as reply:
            prompt_id = orjson.loads(await reply.read())["prompt_id"]
        await inbox.ended(prompt_id)
        ended = time.perf_counter_ns()
        async with http.get(f"{server}/history/{prompt_id}") as reply:
            entry = orjson.loads(await reply.read())[prompt_id]
        record = {
            "prompt_id": prompt_id,
            "seed": seed,
            "latency_ns": ended - began,
            "messages": [(kind, at - began) for kind, at in inbox.messages.pop(prompt_id)],
            "status": entry["status"]["status_str"],
            "outputs": len(entry["outputs"]),
        }
        out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


async def run(args: argparse.Namespace) -> dict[str, float]:
    graph = orjson.loads(args.workflow.read_bytes())
    server = args.server.rstrip("/")
    inbox = Inbox()
    seeds = iter(range(args.seed, args.seed + args.jobs))
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    with args.output.open("ab") as out:
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers, raise_for_status=True) as http,
            http.ws_connect(f"{server}/ws?clientId={inbox.client_id}", max_msg_size=0) as ws,
        ):
            wall, cpu = time.perf_counter(), cpu_seconds()
            listener = asyncio.create_task(inbox.listen(ws))
            loops = (work(http, server, graph, seeds, inbox, out) for _ in range(args.concurrency))
            jobs = asyncio.gather(*loops)
            await asyncio.wait((listener, jobs), return_when=asyncio.FIRST_COMPLETED)
            if listener.done():
                listener.result()
            await jobs
            out.flush()
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            listener.cancel()
    max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "jobs": args.jobs,
        "wall_s": round(wall, 4),
        "cpu_s": round(cpu, 4),
        "cpu_us_per_job": round(cpu / args.jobs * 1e6, 1),
        "max_rss_bytes": max_rss if sys.platform == "darwin" else max_rss * 1024,
    }


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, required=True, help="API-format JSON with a node that has a seed")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True, help="one line of JSON per job is appended here")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() >> 10, help="of the first job (default: by the clock)"
    )
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
