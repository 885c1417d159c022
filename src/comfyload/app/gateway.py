"""`gateway`: serve ComfyUI's protocol in front of servers, until it is stopped."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import aiohttp
from msgspec import Struct, structs

from comfyload.app.gateway_port import listening
from comfyload.comfy.http import Http
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.timeouts import Timeouts
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Connect, Fleet, Given
from comfyload.gateway.guard import Guard
from comfyload.gateway.http import Front
from comfyload.gateway.intake import Intake, recover
from comfyload.gateway.ledger import Ledger, wall_clock
from comfyload.gateway.passing import Passing
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import Store
from comfyload.gateway.tap import HELLO
from comfyload.record.lock import alone_in
from comfyload.record.policy import Policy
from comfyload.retry.client import RetryingClient
from comfyload.tasks import end_tasks

PREFETCHED = 1
"""Prompts that wait on a server beside the one that runs: more would only be harder to move, cancel and order."""

REFUSED_S = 2.0
"""How long nothing listens at a server's address before its jobs are sent elsewhere: its process is gone, and a queue
does not outlive it."""

SETTLE_S = 5.0
MOST_PAGE_CONNECTIONS = 100


class GatewayOptions(Struct, frozen=True, kw_only=True):
    """How a gateway serves. `tokens`: each tenant's; None: nobody is asked for one. `drain_s`: how long jobs that run
    may go on after it is told to stop; those that wait are taken up by the next process.
    """

    servers: Sequence[Given]
    policy: Policy
    ledger: Path
    host: str = "127.0.0.1"
    port: int = 8189
    tokens: Mapping[str, str] | None = None
    allowed_hosts: Sequence[str] = ()
    tls: tuple[str, str] | None = None
    keep_workflow: bool = False
    connect: Connect | None = None
    drain_s: float = 30.0


@asynccontextmanager
async def opened(options: GatewayOptions) -> AsyncIterator[tuple[Gateway, Intake, Front]]:
    """The gateway at work, without a socket.

    Raises:
        UsageError: a server's address or files are not valid, or another process uses the ledger.
    """
    policy = options.policy
    depth = policy.admission.depth
    within = PREFETCHED if depth is None else min(PREFETCHED, depth)
    policy = structs.replace(policy, admission=structs.replace(policy.admission, depth=within))
    clock, midnight = wall_clock()
    options.ledger.mkdir(parents=True, exist_ok=True)
    unsure: set[str] = set()
    async with AsyncExitStack() as stack:
        stack.enter_context(alone_in(options.ledger))
        store = Store(options.ledger / "jobs.sqlite")
        stack.callback(store.close)
        ledger = Ledger(options.ledger, midnight, policy, keep_graphs=options.keep_workflow)
        stack.callback(lambda: ledger.close(clock()))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=MOST_PAGE_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=policy.connect_s, sock_read=300.0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        )
        gateway: Gateway | None = None

        def wake() -> None:
            if gateway is not None:
                gateway.wake()

        client = await stack.enter_async_context(
            RetryingClient.open(
                [],
                policy,
                clock,
                rng=Random(secrets.randbits(64)),
                options=ClientOptions(
                    timeouts=Timeouts(refused_s=REFUSED_S), unconfirmed_ids=unsure, on_queue=lambda _t, _n: wake()
                ),
            )
        )
        for workflow, took_s in ledger.times():
            client.learn(workflow, took_s)
        files = Files(options.ledger / "uploads", lambda: [given.name for given in options.servers])
        gateway = Gateway(
            policy=policy,
            client=client,
            store=store,
            ledger=ledger,
            folder=files,
            clock=clock,
            unsure=unsure,
            keep_payloads=options.keep_workflow,
        )
        connect = options.connect or partial(_connect, connect_s=policy.connect_s)
        fleet = gateway.fleet = Fleet(client, gateway, connect=connect, on_change=gateway.wake)
        stack.push_async_callback(fleet.close)
        for given in options.servers:
            await fleet.add(given)
        await fleet.settle(SETTLE_S)
        recover(gateway)
        running = asyncio.create_task(gateway.run())
        intake = Intake(gateway)
        guard = Guard(options.tokens, options.allowed_hosts, loopback=options.host in ("127.0.0.1", "::1", "localhost"))
        passing = Passing(fleet, session, files, gateway.inputs)
        try:
            yield gateway, intake, Front(gateway, intake, guard, passing)
        finally:
            client.leave_jobs()
            await end_tasks([running])


def _connect(given: Given, *, connect_s: float) -> AbstractAsyncContextManager[Http]:
    return Http.connect(
        given.url, given.headers, ca_file=given.ca_file, insecure=given.insecure, connect_s=connect_s, hello=HELLO
    )


async def serve_gateway(options: GatewayOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `say` gets the address once it listens.

    Raises:
        UsageError: it cannot listen there.
    """
    stop = asyncio.Event()
    with suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with opened(options) as (gateway, intake, front), AsyncExitStack() as stack:
        say(await stack.enter_async_context(listening(front.app(), options.host, options.port, options.tls)))
        ended = asyncio.create_task(gateway.over.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        await end_tasks([ended, stopped])
        intake.closed = True
        await gateway.drain(options.drain_s)
        gateway.sockets.close(aiohttp.WSCloseCode.GOING_AWAY)
