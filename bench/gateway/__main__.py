"""What the gateway costs, beside a bare server, in one run on one machine.

Calls and events at ten jobs a second; prompts and requests as fast as they go; 500 sockets with 20 messages a second
each; a hundred servers; a hundred thousand jobs that wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import numpy as np
import psutil

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "seed": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


@contextmanager
def process(*words: str, cpu: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A Python process that ends with the context; `cpu`: the one it may use."""
    pin = None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})
    running = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, preexec_fn=pin)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(60)


@contextmanager
def servers(count: int, events: int, seconds: float) -> Iterator[list[str]]:
    with process("bench.gateway.fake", str(count), str(events), str(seconds), cpu=1) as running:
        assert running.stdout is not None
        yield [running.stdout.readline().strip() for _ in range(count)]


@contextmanager
def gateway(urls: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    with tempfile.TemporaryDirectory() as ledger:
        words = [word for url in urls for word in ("--server", url)]
        with process("comfyload", "gateway", *words, "--ledger", ledger, "--port", "0", cpu=0) as running:
            assert running.stdout is not None
            yield running.stdout.readline().strip(), psutil.Process(running.pid)


class Client:
    """An application: posts, hears its events, asks for the history. `calls` and `events`: seconds, by kind."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._ends: dict[str, asyncio.Future[None]] = {}
        self.calls: defaultdict[str, list[float]] = defaultdict(list)
        self.events: list[float] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with self._session.ws_connect(f"{self._url}/ws?clientId=bench") as socket:
            reading = asyncio.create_task(self._read(socket))
            yield
            reading.cancel()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            now = time.monotonic_ns()
            found = json.loads(message.data)
            data = found["data"]
            if "sent_ns" in data:
                self.events.append((now - data["sent_ns"]) / 1e9)
            if found["type"] == "executing" and data.get("node") is None:
                end = self._ends.pop(data["prompt_id"], None)
                if end is not None:
                    end.set_result(None)

    async def call(self, name: str, method: str, path: str, body: Any = None) -> Any:
        began = time.monotonic()
        async with self._session.request(method, self._url + path, json=body) as reply:
            found = await reply.json(content_type=None)
        self.calls[name].append(time.monotonic() - began)
        return found

    async def job(self, number: int) -> None:
        graph = json.loads(json.dumps(GRAPH))
        graph["1"]["inputs"]["seed"] = number
        answer = await self.call("POST /prompt", "POST", "/prompt", {"prompt": graph, "client_id": "bench"})
        prompt_id = answer["prompt_id"]
        end = self._ends[prompt_id] = asyncio.get_running_loop().create_future()
        await self.call("GET /prompt", "GET", "/prompt")
        await asyncio.wait([end], timeout=20)
        self._ends.pop(prompt_id, None)
        await self.call("GET /history/{id}", "GET", f"/history/{prompt_id}")


async def at_ten_a_second(url: str, jobs: int) -> Client:
    async with aiohttp.ClientSession() as session:
        client = Client(url, session)
        async with client.listening():
            await client.job(0)
            client.calls.clear()
            client.events.clear()
            tasks = []
            rng, began, due = Random(7), time.monotonic(), 0.0
            for number in range(1, jobs + 1):
                due += rng.expovariate(10.0)
                await asyncio.sleep(max(0.0, began + due - time.monotonic()))
                tasks.append(asyncio.create_task(client.job(number)))
            await asyncio.gather(*tasks)
        return client


def shown(seconds: list[float]) -> str:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    return f"{p50:7.2f} {p99:7.2f}"


async def latency(jobs: int) -> None:
    """Calls and events, bare and through the gateway, one after the other, twice."""
    print(f"\n{'at 10 jobs/s, ms':28}{'bare p50':>9} {'p99':>7} {'gateway':>9} {'p99':>7} {'added':>8} {'p99':>7}")
    bare: defaultdict[str, list[float]] = defaultdict(list)
    through: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(2):
        with servers(1, 20, 0.05) as urls, gateway(urls) as (url, _process):
            for address, kept in ((urls[0], bare), (url, through)):
                client = await at_ten_a_second(address, jobs)
                for name, seconds in [*client.calls.items(), ("an event", client.events)]:
                    kept[name] += seconds
    for name, seconds in bare.items():
        other = through[name]
        added = np.quantile(other, [0.5, 0.99]) - np.quantile(seconds, [0.5, 0.99])
        print(f"{name:28}{shown(seconds):>17}{shown(other):>19}{added[0] * 1000:9.2f} {added[1] * 1000:7.2f}")


async def throughput(seconds: float) -> None:
    """Prompts and other requests as fast as they go, by 32 clients; what the gateway's core does meanwhile."""
    with servers(4, 2, 0.0) as urls, gateway(urls) as (url, own):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            client = Client(url, session)
            async with client.listening():
                numbers = iter(range(10**9))
                before, began = own.cpu_times(), time.monotonic()

                async def post() -> None:
                    while time.monotonic() - began < seconds:
                        await client.job(next(numbers))

                await asyncio.gather(*(post() for _ in range(32)))
                took, cpu = time.monotonic() - began, own.cpu_times()
                done = len(client.calls["GET /history/{id}"])
                busy = (cpu.user + cpu.system - before.user - before.system) / took
                print(f"\nprompts: {done / took:.0f} a second ({done}), gateway's core {busy:.0%} busy")

                async def ask() -> None:
                    while time.monotonic() - began < seconds:
                        await client.call("ask", "GET", "/prompt")

                before, began = own.cpu_times(), time.monotonic()
                await asyncio.gather(*(ask() for _ in range(32)))
                took, cpu = time.monotonic() - began, own.cpu_times()
                busy = (cpu.user + cpu.system - before.user - before.system) / took
                done = len(client.calls["ask"])
                print(f"requests: {done / took:.0f} a second ({done} in {took:.0f} s), gateway's core {busy:.0%} busy")


async def sockets(count: int, seconds: float) -> None:
    """Many sockets of one client, 20 messages a second each."""
    with servers(1, int(20 * seconds), seconds) as urls, gateway(urls) as (url, own):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            opened = [await session.ws_connect(f"{url}/ws?clientId=bench") for _ in range(count)]
            heard = [0] * count

            async def read(index: int) -> None:
                async for _ in opened[index]:
                    heard[index] += 1

            tasks = [asyncio.create_task(read(index)) for index in range(count)]
            before, began = own.cpu_times(), time.monotonic()
            async with session.post(f"{url}/prompt", json={"prompt": GRAPH, "client_id": "bench"}) as reply:
                await reply.read()
            await asyncio.sleep(seconds)
            took, cpu = time.monotonic() - began, own.cpu_times()
            busy = (cpu.user + cpu.system - before.user - before.system) / took
            print(
                f"\n{count} sockets: {sum(heard) / count / took:.1f} messages a second each "
                f"(least {min(heard) / took:.1f}), gateway's core {busy:.0%} busy"
            )
            for task in tasks:
                task.cancel()
            for socket in opened:
                await socket.close()


async def farm(count: int, jobs: int) -> None:
    """Many servers at once."""
    with servers(count, 2, 0.5) as urls, gateway(urls) as (url, own):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            client = Client(url, session)
            async with client.listening():
                before, began = own.cpu_times(), time.monotonic()
                await asyncio.gather(*(client.job(number) for number in range(jobs)))
                took, cpu = time.monotonic() - began, own.cpu_times()
                busy = (cpu.user + cpu.system - before.user - before.system) / took
                print(
                    f"\n{count} servers, jobs of 0.5 s: {jobs / took:.0f} jobs a second of {count / 0.5:.0f} possible, "
                    f"gateway's core {busy:.0%} busy, {own.memory_info().rss / 2**20:.0f} MiB"
                )


async def waiting(count: int) -> None:
    """Many jobs that wait, since their server runs one for an hour."""
    with servers(1, 1, 3600.0) as urls, gateway(urls) as (url, own):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as session:
            client = Client(url, session)
            before, numbers, began = own.memory_info().rss, iter(range(count)), time.monotonic()

            async def post() -> None:
                for number in numbers:
                    graph = json.loads(json.dumps(GRAPH))
                    graph["1"]["inputs"]["seed"] = number
                    await client.call("post", "POST", "/prompt", {"prompt": graph, "client_id": "bench"})

            await asyncio.gather(*(post() for _ in range(16)))
            took, rss = time.monotonic() - began, own.memory_info().rss
            print(
                f"\n{count} jobs wait: {rss / 2**20:.0f} MiB in all, {(rss - before) / count:.0f} bytes a job; "
                f"{count / took:.0f} posts a second"
            )


PARTS = ("latency", "throughput", "sockets", "farm", "waiting")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="whether all of it works, not how fast")
    words = parser.parse_args()
    quick = words.quick
    parts = {
        "latency": lambda: latency(30 if quick else 300),
        "throughput": lambda: throughput(3 if quick else 15),
        "sockets": lambda: sockets(50 if quick else 500, 5 if quick else 20),
        "farm": lambda: farm(10 if quick else 100, 40 if quick else 2000),
        "waiting": lambda: waiting(1000 if quick else 100_000),
    }
    print(f"{Path(sys.executable).name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for part in words.only or PARTS:
        asyncio.run(parts[part]())


if __name__ == "__main__":
    main()
