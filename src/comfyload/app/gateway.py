"""`gateway`: serve ComfyUI's protocol in front of servers, until it is stopped."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

import aiohttp
from yarl import URL

from comfyload.app.gateway_options import GatewayOptions, is_loopback
from comfyload.app.gateway_port import listening
from comfyload.app.gateway_reload import load_certificate, reload
from comfyload.app.signals import Signals
from comfyload.app.supervisor import notify
from comfyload.comfy.http import Http
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import RunFilesError, file_errors
from comfyload.gateway.binding import late_bound
from comfyload.gateway.console import Console
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Fleet, ServerConfig, free_name
from comfyload.gateway.guard import AccessGuard
from comfyload.gateway.http import Front, Route
from comfyload.gateway.intake import Intake
from comfyload.gateway.ledger import TrafficLedger, wall_clock
from comfyload.gateway.passing import Passing
from comfyload.gateway.recovery import recover
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import Store
from comfyload.gateway.tap import HELLO
from comfyload.record.lock import alone_in
from comfyload.retry.client import RetryingClient
from comfyload.tasks import end_tasks

__all__ = ["GatewayOptions", "opened", "serve_gateway"]

REFUSED_S = 2.0
"""How long nothing listens at a server's address before its jobs are sent elsewhere: its process is gone, and a queue
does not outlive it."""

More = Callable[[Console], Sequence[Route]]
"""Makes the routes of a page under `/comfyload/`, which may call the console."""

SETTLE_S = 5.0
LOOPBACKS = ("127.0.0.1", "::1", "localhost")
MOST_PAGE_CONNECTIONS = 100


@asynccontextmanager
async def opened(options: GatewayOptions, more: More = lambda _: ()) -> AsyncIterator[tuple[Gateway, Intake, Front]]:
    """The gateway at work, without a socket.

    Raises:
        UsageError: a server's address or files are not valid, or another process uses the ledger.
    """
    policy = late_bound(options.policy)
    clock, midnight = wall_clock()
    with file_errors(f"cannot keep jobs in {options.ledger}", "name a folder you can write"):
        options.ledger.mkdir(parents=True, exist_ok=True)
    unsure: set[str] = set()
    async with AsyncExitStack() as stack:
        unlocked = stack.enter_context(alone_in(options.ledger))
        if unlocked is not None:
            raise RunFilesError(unlocked, "name a folder you can write")
        store = Store(options.ledger / "jobs.sqlite")
        stack.callback(store.close)
        ledger = TrafficLedger(options.ledger, midnight, policy, keep_graphs=options.keep_workflow)
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
        guard = AccessGuard(options.tokens, options.allowed_hosts, loopback=is_loopback(options.host))
        uploads = options.ledger / "uploads"
        files = Files(
            uploads,
            lambda: [member.name for member in fleet.members],
            apart=guard.apart,
            most_bytes=round(options.uploads_gb * 1e9),
        )
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
        before = await _add_holders(fleet, store)
        await fleet.settle(SETTLE_S)
        recover(gateway)
        for name, holder in before.items():
            fleet.leave(
                name, asyncio.gather(*(gateway.ended(job) for job in gateway.jobs.values() if job.server == holder))
            )
        running = asyncio.create_task(gateway.run())
        intake = Intake(gateway)
        console = Console(gateway, intake, options.operators)
        passing = Passing(fleet, session, files, gateway.inputs)
        try:
            yield gateway, intake, Front(gateway, intake, guard, passing, [*console.routes(), *more(console)])
        finally:
            client.leave_jobs()
            await end_tasks([running])


async def _add_holders(fleet: Fleet, store: Store) -> dict[str, str]:
    """Add the servers that are ours no more and may have jobs of an earlier process; what each was called then."""
    added = {}
    for holder, address in store.holders().items():
        if address and fleet.at(address) is None:
            name = free_name([each.name for each in fleet.members]) if fleet.get(holder) is not None else holder
            await fleet.add(ServerConfig(name=name, url=URL(address)))
            added[name] = holder
    return added


def _connect(given: ServerConfig, *, connect_s: float) -> AbstractAsyncContextManager[Http]:
    return Http.connect(
        given.url, given.headers, ca_file=given.ca_file, insecure=given.insecure, connect_s=connect_s, hello=HELLO
    )


async def serve_gateway(
    options: GatewayOptions,
    say: Callable[[str], None],
    *,
    read: Callable[[Mapping[URL, str]], GatewayOptions] | None = None,
    note: Callable[[str], None] = lambda _: None,
    more: More = lambda _: (),
) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends it without waiting for jobs. `say` gets the address once it
    listens, `note` what an operator should know later. `read`: what the options are at a SIGHUP, given the names of
    servers by their addresses. `more`: the page that shows the console.

    Raises:
        UsageError: it cannot listen there, or its certificate cannot be read.
    """
    tls = None if options.tls is None else _tls(options.tls)
    with Signals() as signals:
        async with opened(options, more) as (gateway, intake, front), AsyncExitStack() as stack:
            say(await stack.enter_async_context(listening(front.app(), options.host, options.port, tls)))
            notify("READY=1")
            ended = asyncio.create_task(gateway.over.wait())
            stack.push_async_callback(end_tasks, [ended])
            while (order := await signals.next(ended)) == "reload":
                if read is not None:
                    options = await reload(gateway, options, read, tls, note)
            notify("STOPPING=1")
            intake.closed = True
            if order == "stop":
                drained = asyncio.create_task(gateway.drain(options.drain_s))
                stack.push_async_callback(end_tasks, [drained])
                while not drained.done() and await signals.next(drained) == "reload":
                    pass
            gateway.sockets.close(aiohttp.WSCloseCode.GOING_AWAY)


def _tls(files: tuple[str, str]) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(tls, files)
    return tls
