"""The trouble of `comfyload faults`: a script that knows nothing of retries, through the gateway over two simulators,
beside the Python client with the same policy over two more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random

from aiohttp import web
from msgspec import structs
from yarl import URL

from comfyload.app import faults as app
from comfyload.app.faults import FaultOptions, Scenario
from comfyload.app.gateway import GatewayOptions, opened
from comfyload.app.naive_client import NaiveHttpClient, script
from comfyload.clock import stopwatch
from comfyload.comfy.api import api_of
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.link import ClientOptions
from comfyload.gateway.fleet import ServerConfig
from comfyload.load.engine import Client
from comfyload.record.options import RunOptions
from comfyload.retry.attempt_log import later_ids
from comfyload.retry.client import RetryingClient
from comfyload.retry.policy import default
from comfyload.sim import Server
from comfyload.sim.http import serve
from comfyload.sim.proxy import Proxy

__all__ = ["CLIENTS", "Fate", "compared"]

SERVERS = 2
CLIENTS = ("python", "gateway")
POLLS = 40
"""How often a script looks for its job within the deadline."""


@dataclass
class Fate:
    """Of jobs that could be done: how many were done in time. `twice`: jobs that were executed to their end twice.
    `lost`: jobs whose end nobody knows.
    """

    in_time: int
    of: int
    twice: int
    lost: int

    @property
    def share(self) -> float:
        return self.in_time / self.of


async def compared(
    scenario: Scenario, folder: Path, jobs: int, job_s: float, deadline_s: float, struck: int, plays: int = 1
) -> dict[str, Fate]:
    """What became of the jobs of each client in so many plays. `struck`: how many of two servers are in trouble."""
    options = FaultOptions(
        run=RunOptions(),
        policy=default(deadline_s),
        scenarios=[scenario],
        jobs=jobs,
        job_s=job_s,
        deadline_s=deadline_s,
    )
    pairs = [(name, play) for name in CLIENTS for play in range(plays)]
    played = await asyncio.gather(
        *(_play(options, scenario, name, folder / f"{name}{play}", struck, play) for name, play in pairs)
    )
    return {name: pooled(played[at : at + plays]) for at, name in zip((0, plays), CLIENTS, strict=True)}


def pooled(fates: list[Fate]) -> Fate:
    return Fate(*(sum(values) for values in zip(*map(astuple, fates), strict=True)))


async def _play(options: FaultOptions, scenario: Scenario, name: str, folder: Path, struck: int, play: int) -> Fate:
    pace = structs.replace(options, job_s=options.job_s / SERVERS)  # jobs come twice as fast, for two servers
    async with AsyncExitStack() as stack:
        servers, proxies = [], []
        for number in range(SERVERS):
            faults = app._inside(pace, scenario) if number < struck else None
            servers.append(await stack.enter_async_context(Server(faults=faults, seed=SERVERS * play + number)))
            url = URL(await stack.enter_async_context(serve(servers[-1])))
            rng = Random(f"{number}/{scenario}/{play}")
            proxies.append(await stack.enter_async_context(Proxy(url.host or "", url.port or 80, rng)))
            direct = await stack.enter_async_context(Http.connect(url, {}))
        clock = stopwatch()
        prompts = await app._prompts(options, direct, scenario)
        urls = [URL(proxy.url) for proxy in proxies]
        make = _through_gateway if name == "gateway" else _python
        async with make(options, urls, folder, clock) as client:
            pairs = list(zip(proxies, servers, strict=True))[:struck]
            trouble = asyncio.gather(*(app._make_trouble(pace, scenario, proxy, server) for proxy, server in pairs))
            sent = await app._send(pace, scenario, client, prompts, clock)
            await trouble
            await asyncio.sleep(2 * options.job_s)
        good = [job for job in sent if job.good]
        fates = Counter(app._fate(job, options.deadline_s) for job in good)
        ran = Counter(t.prompt_id for server in servers for t in server.truth if t.outcome == "completed")
        ids = [{job.ids[0], *job.ids, *later_ids(job.ids[0])} for job in sent]
        twice = sum(sum(ran[one] for one in each) > 1 for each in ids)
        return Fate(in_time=fates["in_time"], of=len(good), twice=twice, lost=fates["lost"])


@asynccontextmanager
async def _python(options: FaultOptions, urls: list[URL], _: Path, clock: Callable[[], float]) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        transports = [await stack.enter_async_context(Http.connect(url, {})) for url in urls]
        servers = [(transport, await identify(transport, transport.name, [])) for transport in transports]
        yield await stack.enter_async_context(
            RetryingClient.open(servers, options.policy, clock, rng=Random(app.SEED), options=ClientOptions())
        )


@asynccontextmanager
async def _through_gateway(
    options: FaultOptions, urls: list[URL], folder: Path, clock: Callable[[], float]
) -> AsyncIterator[Client]:
    given = [ServerConfig(name=f"gpu{number}", url=url) for number, url in enumerate(urls, 1)]
    async with (
        opened(GatewayOptions(servers=given, policy=options.policy, ledger=folder)) as (_, _, front),
        AsyncExitStack() as stack,
    ):
        runner = web.AppRunner(front.app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        transport = await stack.enter_async_context(Http.connect(url, {}))
        attempt = script(api_of(transport, await identify(transport, transport.name, [])), options.deadline_s / POLLS)
        yield NaiveHttpClient(app._naive("no retry", options.deadline_s), attempt, clock, Random(app.SEED))
