"""The gateway, nginx and a round-robin script before the same two simulated servers, with the same trouble.

The application is always the same: it posts, asks for the history until it is told an end, and opens the picture. It
retries nothing and knows nothing of what stands before the servers. `python -m bench.gateway.side_by_side`; nginx is
left out where it is not installed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import numpy as np
from msgspec import Struct, structs

from comfyload.retry.policy import default, encode
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve

JOBS, JOB_S, PER_S = 60, 0.4, 3.0
"""Jobs, seconds each takes a server, and how many come a second: 0.6 of what two servers can do."""

LIMIT_S, POLL_S = 30.0, 0.1
"""How long the application waits for a job, and how often it asks."""

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000008000000080802000000"
    "4b6d29dc0000001149444154789c63f8ffff3f030ec030b412005a1f1ce8"
    "5c0a8f3f0000000049454e44ae426082"
)


class Trouble(Struct, frozen=True, kw_only=True):
    """What goes wrong: by the settings of the first server, or by what is done to it after a third of the jobs."""

    name: str
    first: Faults = Faults()
    strikes: Callable[[Server], Any] | None = None
    uploads: bool = False


TROUBLES = (
    Trouble(name="nothing"),
    Trouble(name="one server is killed, back after 8 s without its queue", strikes=lambda server: server.restart(8.0)),
    Trouble(name="one server's worker dies", strikes=lambda server: server.kill_worker()),
    Trouble(name="every eighth job of one server runs out of memory", first=Faults(oom=Which(every=8))),
    Trouble(name="every seventh answer to a POST of one server is lost", first=Faults(drop_reply=Which(every=7))),
    Trouble(name="jobs with an uploaded picture", uploads=True),
)


class Result(Struct, kw_only=True):
    """What the application saw of its jobs, and what the servers really did."""

    done: int = 0
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: list[float] = msgspec.field(default_factory=list)
    twice: int = 0


Base = Callable[[int], str]
"""The address that a job is sent to, by its number."""


@asynccontextmanager
async def bare(urls: list[str], _: Path) -> AsyncIterator[Base]:
    """A script that takes turns."""
    yield lambda number: urls[number % len(urls)]


@asynccontextmanager
async def nginx(urls: list[str], folder: Path) -> AsyncIterator[Base]:
    """As its documentation balances: least_conn, WebSockets passed on."""
    port = 18777
    servers = "\n".join(f"server {url.removeprefix('http://')};" for url in urls)
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 100m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream comfyui {{ least_conn; {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://comfyui; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}""")
    running = await asyncio.create_subprocess_exec("nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder))
    try:
        await asyncio.sleep(0.5)
        yield lambda _: f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def gateway(urls: list[str], folder: Path) -> AsyncIterator[Base]:
    policy = structs.replace(default(LIMIT_S - 2.0), liveness_s=3.0, connect_s=1.0)
    (folder / "retry.json").write_bytes(encode(policy))
    words = [word for url in urls for word in ("--server", url)]
    command = [sys.executable, "-m", "comfyload", "gateway", *words, "--retry-policy", str(folder / "retry.json")]
    command += ["--ledger", str(folder / "ledger"), "--port", "0"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert running.stdout is not None
        url = (await running.stdout.readline()).decode().strip()
        yield lambda _: url
    finally:
        running.terminate()
        await running.wait()


WAYS: dict[str, Callable[[list[str], Path], Any]] = {
    "round-robin script": bare,
    "nginx, least_conn": nginx,
    "comfyload gateway": gateway,
}


def graph_of(number: int, *, picture: str) -> dict[str, Any]:
    source = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    if picture:
        source = {"class_type": "LoadImage", "inputs": {"image": picture}}
    return {
        "1": source,
        "2": {"class_type": "SimSleep", "inputs": {"image": ["1", 0], "seconds": JOB_S, "seed": number}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "side/x"}},
    }


class Application:
    """Posts a job and asks until it is told an end."""

    def __init__(self, session: aiohttp.ClientSession, base: Base, result: Result) -> None:
        self._session = session
        self._base = base
        self._result = result

    async def job(self, number: int, *, upload: bool) -> None:
        began, base = time.monotonic(), self._base(number)
        try:
            async with asyncio.timeout(LIMIT_S):
                said = await self._run(base, number, upload=upload)
        except TimeoutError:
            said = f"no end within {LIMIT_S:g} s"
        except (aiohttp.ClientError, ValueError) as error:
            said = f"{type(error).__name__}"
        if said:
            self._result.errors[said] += 1
        else:
            self._result.done += 1
            self._result.seconds.append(time.monotonic() - began)

    async def _run(self, base: str, number: int, *, upload: bool) -> str:
        """Why it failed; "": it did not."""
        picture = ""
        if upload:
            form = aiohttp.FormData()
            form.add_field("image", PICTURE, filename=f"page{number}.png", content_type="image/png")
            async with self._session.post(f"{base}/upload/image", data=form) as reply:
                reply.raise_for_status()
                picture = (await reply.json())["name"]
        body = {"prompt": graph_of(number, picture=picture), "client_id": "application"}
        async with self._session.post(f"{base}/prompt", json=body) as reply:
            if reply.status != 200:
                return f"POST answered {reply.status}"
            prompt_id = (await reply.json())["prompt_id"]
        while True:
            await asyncio.sleep(POLL_S)
            async with self._session.get(f"{base}/history/{prompt_id}") as reply:
                entry = (await reply.json()).get(prompt_id) if reply.status == 200 else None
            if entry is None:
                continue
            if entry["status"].get("error") or entry["status"]["status_str"] == "error":
                return "failed"
            image = entry["outputs"]["3"]["images"][0]
            async with self._session.get(f"{base}/view", params=image) as reply:
                return "" if reply.status == 200 else f"the picture: {reply.status}"


async def played(way: str, trouble: Trouble) -> Result:
    result = Result()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [Server(faults=trouble.first, seed=1), Server(seed=2)]
        urls = []
        for server in servers:
            await stack.enter_async_context(server)
            urls.append(await stack.enter_async_context(serve(server)))
        base = await stack.enter_async_context(WAYS[way](urls, folder))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        application, rng, began, due = Application(session, base, result), Random(5), time.monotonic(), 0.0
        tasks: list[asyncio.Task[None]] = []
        for number in range(JOBS):
            due += rng.expovariate(PER_S)
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            if number == JOBS // 3 and trouble.strikes is not None:
                trouble.strikes(servers[0])
            tasks.append(asyncio.create_task(application.job(number, upload=trouble.uploads)))
        await asyncio.gather(*tasks)
        ran = Counter(truth.prompt_id for server in servers for truth in server.truth if truth.outcome == "completed")
        result.twice = sum(count > 1 for count in ran.values())
    return result


async def main() -> None:
    ways = [way for way in WAYS if way != "nginx, least_conn" or shutil.which("nginx")]
    print(f"{JOBS} jobs of {JOB_S} s, {PER_S:g} a second, on two simulated servers; load {os.getloadavg()[0]:.1f}\n")
    print("| trouble | before the servers | done | p95, s | the application was told | executed twice |")
    print("|---|---|---|---|---|---|")
    for trouble in TROUBLES:
        for way in ways:
            found = await played(way, trouble)
            p95 = f"{np.quantile(found.seconds, 0.95):.1f}" if found.seconds else "none"
            errors = ", ".join(f"{said}: {count}" for said, count in found.errors.most_common()) or "nothing"
            print(f"| {trouble.name} | {way} | {found.done} of {JOBS} | {p95} | {errors} | {found.twice} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
