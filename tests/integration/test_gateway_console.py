"""The gateway's own API over sockets: who may call what, jobs that need attention, and servers that come and go."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from comfyload.app.gateway import opened
from comfyload.app.gateway_options import GatewayOptions
from comfyload.app.gateway_reload import reload
from comfyload.errors import UsageError
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.history import History
from comfyload.retry.policy import default
from comfyload.sim import Server
from comfyload.sim.http import serve
from tests.support.gateway import Desk, desk, farm
from tests.support.rig import sleeper

pytestmark = pytest.mark.long  # gateways and servers over sockets

PEM = Path(__file__).parents[1] / "data" / "loopback.pem"
API = "/comfyload/api"
OURS = ["livez", "readyz", "api/jobs", "api/servers", "api/jobs/nothing", "nothing"]
TOKENS = {"shop": "the-token-of-the-shop", "bot": "the-token-of-the-bot", "ops": "the-token-of-operations"}


class Caller:
    """Calls a gateway under test, as one of its tenants."""

    def __init__(self, front: Desk, client: TestClient[Any, Any]) -> None:
        self.front = front
        self._client = client

    async def call(self, method: str, path: str, *, tenant: str = "", **more: Any) -> ClientResponse:
        headers = {"Authorization": f"Bearer {TOKENS[tenant]}"} if tenant else {}
        return await self._client.request(method, path, headers=headers | more.pop("headers", {}), **more)

    async def get(self, path: str, tenant: str = "") -> Any:
        reply = await self.call("GET", f"{API}/{path}", tenant=tenant)
        assert reply.status == 200, await reply.text()
        return await reply.json()

    async def post(self, path: str, tenant: str = "", **body: Any) -> tuple[int, Any]:
        reply = await self.call("POST", f"{API}/{path}", tenant=tenant, json=body)
        return reply.status, await reply.json()

    async def state_of(self, name: str) -> str | None:
        found = await self.get("servers")
        return next((each["state"] for each in found["servers"] if each["name"] == name), None)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def called(folder: Path, count: int = 2, **options: Any) -> AsyncIterator[tuple[Caller, list[Server]]]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(farm(count, speed=20.0))
        front = await stack.enter_async_context(desk(folder, servers, **options))
        client = await stack.enter_async_context(TestClient(TestServer(front.front.app())))
        yield Caller(front, client), servers


def failing() -> dict[str, Any]:
    graph = sleeper(0.1)
    graph["2"] = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "no such thing", "seed": 1}}
    return graph


def test_everything_of_ours_has_a_strict_policy_and_is_not_stored(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path) as (caller, _):
            for path in OURS:
                for method in ("GET", "POST", "DELETE"):
                    reply = await caller.call(method, f"/comfyload/{path}")
                    assert "default-src 'none'" in reply.headers["Content-Security-Policy"], path
                    assert reply.headers["Cache-Control"] == "no-store"
                    assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert "Content-Security-Policy" not in (await caller.call("GET", "/prompt")).headers
            reply = await caller.call("GET", "/comfyload/api/jobs", headers={"Origin": "http://elsewhere"})
            assert (reply.status, reply.headers["Cache-Control"]) == (403, "no-store")

    asyncio.run(main())


def test_a_supervisor_needs_no_token_and_learns_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path, tokens=TOKENS, operators={"ops"}) as (caller, servers):
            for path in ("livez", "readyz"):
                reply = await caller.call("GET", f"/comfyload/{path}")
                assert (reply.status, await reply.text()) == (200, "ok\n")
            for path in ("api/jobs", "api/servers", "livez/", "nothing"):
                assert (await caller.call("GET", f"/comfyload/{path}")).status == 401
            caller.front.intake.closed = True
            assert (await caller.call("GET", "/comfyload/livez")).status == 200
            assert (await caller.call("GET", "/comfyload/readyz")).status == 503
            caller.front.intake.closed = False
            for server in servers:
                server.restart(downtime_s=30.0)
            for backend in caller.front.gateway.client._pool.backends:
                backend.circuit.trip(caller.front.gateway.clock())
            assert (await caller.call("GET", "/comfyload/readyz")).status == 503
            states = {each["state"] for each in (await caller.get("servers", "ops"))["servers"]}
            assert states == {"down"}

    asyncio.run(main())


def test_who_may_see_and_do_what(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path, tokens=TOKENS, operators={"ops"}) as (caller, _):
            theirs = (await caller.front.post(failing(), tenant="shop"))["prompt_id"]
            await caller.front.end_of(theirs, "shop")
            assert [job["id"] for job in (await caller.get("jobs", "shop"))["jobs"]] == [theirs]
            assert (await caller.get("jobs", "bot"))["jobs"] == []
            assert (await caller.get("jobs", "ops"))["jobs"][0]["tenant"] == "shop"
            assert (await caller.get("jobs?tenant=bot", "ops"))["jobs"] == []
            for path in (f"jobs/{theirs}/retry", f"jobs/{theirs}/dismiss"):
                assert (await caller.post(path, "bot"))[0] == 404
            assert (await caller.call("GET", f"{API}/jobs/{theirs}", tenant="bot")).status == 404
            assert (await caller.post("jobs/dismiss", "bot"))[1] == {"dismissed": []}
            for tenant in ("shop", "bot"):
                assert (await caller.call("GET", f"{API}/servers", tenant=tenant)).status == 403
                for path in ("servers", "servers/gpu1/drain", "servers/gpu1/resume", "servers/gpu1/leave"):
                    assert (await caller.post(path, tenant, url="http://x"))[0] == 403
            assert (await caller.post(f"jobs/{theirs}/dismiss", "ops"))[0] == 200
            assert (await caller.get("jobs", "shop"))["needing_attention"] == 0

    asyncio.run(main())


def test_jobs_are_listed_and_those_that_failed_sent_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path) as (caller, _):
            bad = []
            for _ in range(3):
                bad.append((await caller.front.post(failing()))["prompt_id"])
                await caller.front.end_of(bad[-1])
            good = (await caller.front.post(sleeper(0.2)))["prompt_id"]
            await caller.front.end_of(good)
            slow = (await caller.front.post(sleeper(60.0)))["prompt_id"]
            found = await caller.get("jobs")
            assert [job["id"] for job in found["jobs"]] == [slow, good, *bad[::-1]]
            assert (found["total"], found["needing_attention"]) == (5, 3)
            assert [job["attention"] for job in found["jobs"]] == [False, False, True, True, True]
            assert [job["id"] for job in (await caller.get("jobs?limit=2&offset=1"))["jobs"]] == [good, bad[2]]
            assert [job["id"] for job in (await caller.get("jobs?attention=1"))["jobs"]] == bad[::-1]
            assert [job["id"] for job in (await caller.get("jobs?state=completed"))["jobs"]] == [good]
            states = {job["id"] for job in (await caller.get("jobs?state=pending,in_progress"))["jobs"]}
            assert states == {slow}
            for wrong in ("state=odd", "limit=x", "offset=-1"):
                assert (await caller.call("GET", f"{API}/jobs?{wrong}")).status == 400

            one = await caller.get(f"jobs/{bad[0]}")
            assert one["state"] == "failed" and "no such thing" in one["error"]
            assert one["attempts"] and all(attempt["server"] for attempt in one["attempts"])
            first, again = await asyncio.gather(*(caller.post(f"jobs/{bad[0]}/retry") for _ in range(2)))
            assert first == again and first[0] == 200 and first[1]["id"] not in bad
            await caller.front.end_of(first[1]["id"])
            assert (await caller.get(f"jobs/{bad[0]}"))["became"] == first[1]["id"]
            assert (await caller.post(f"jobs/{bad[1]}/dismiss"))[0] == 200
            status, done = await caller.post("jobs/retry")
            assert status == 200 and done["refused"] == []
            assert [each["instead_of"] for each in done["sent"]] == [bad[2], first[1]["id"]]
            for each in done["sent"]:
                await caller.front.end_of(each["id"])
            assert (await caller.post(f"jobs/{good}/retry"))[0] == 409
            assert (await caller.post("jobs/nothing/retry"))[0] == 404

    asyncio.run(main())


def test_a_server_is_drained_and_gets_jobs_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path) as (caller, servers):
            found = await caller.get("servers")
            assert [each["name"] for each in found["servers"]] == ["gpu1", "gpu2"]
            assert all(each["state"] == "up" and each["comfyui"] for each in found["servers"])
            assert found["differ"] == {}
            status, said = await caller.post("servers/gpu1/drain")
            assert (status, said["state"], said["drained"]) == (200, "drained", True)
            for _ in range(3):
                await caller.front.run(sleeper(0.1))
            assert not servers[0].posts and sum(servers[1].posts.values()) == 3
            assert (await caller.post("servers/gpu2/drain"))[0] == 200
            job = (await caller.front.post(sleeper(0.1)))["prompt_id"]
            await asyncio.sleep(0.3)
            assert caller.front.status_of(job) == "pending", "no server may take it"
            assert (await caller.post("servers/gpu1/resume"))[1]["state"] == "up"
            await caller.front.end_of(job)
            assert servers[0].posts
            assert (await caller.post("servers/gpu9/drain"))[0] == 404

    asyncio.run(main())


def test_a_server_joins_and_leaves_while_jobs_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with called(tmp_path, count=1) as (caller, _), Server(speed=20.0) as third, serve(third) as url:
            real = caller.front.gateway.fleet._connect

            def connect(given: ServerConfig) -> Any:
                from comfyload.app.gateway import _connect

                return real(given) if given.name == "gpu1" else _connect(given, connect_s=5.0)

            caller.front.gateway.fleet._connect = connect
            status, said = await caller.post("servers", url=url, name="extra")
            assert (status, said["name"], said["state"]) == (200, "extra", "up"), said
            assert (await caller.post("servers", url=url, name="twice"))[0] == 409
            assert (await caller.post("servers", url="ftp://x"))[0] == 400
            assert (await caller.post("servers", url=url, name="../x"))[0] == 400
            assert (await caller.post("servers"))[0] == 400
            assert (await caller.post("servers/gpu1/drain"))[0] == 200
            entry = await caller.front.run(sleeper(0.1))
            assert entry["outputs"]["3"]["images"][0]["subfolder"].startswith("@extra/")
            assert (await caller.post("servers/gpu1/resume"))[0] == 200

            job = (await caller.front.post(sleeper(20.0)))["prompt_id"]
            await until(lambda: _is(caller.front.status_of(job) == "in_progress"))
            there = next(name for name in ("gpu1", "extra") if _runs_on(caller, job, name))
            status, said = await caller.post(f"servers/{there}/leave")
            assert (status, said["state"]) == (200, "leaving")
            assert (await caller.post(f"servers/{there}/resume"))[0] == 409
            assert await caller.state_of(there) == "leaving", "its job is not done"
            assert (await caller.front.end_of(job))["status"]["status_str"] == "success"
            await until(lambda: _gone(caller, there))
            assert (await caller.front.run(sleeper(0.15)))["status"]["status_str"] == "success"

    asyncio.run(main())


async def _is(value: bool) -> bool:
    return value


def _runs_on(caller: Caller, job: str, name: str) -> bool:
    return caller.front.gateway.jobs[job].server == name


async def _gone(caller: Caller, name: str) -> bool:
    return await caller.state_of(name) is None


# --- SIGHUP


def test_a_reload_takes_policy_and_servers_and_an_invalid_file_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(farm(3, speed=20.0))
            front = await stack.enter_async_context(desk(tmp_path, servers))
            gateway, said = front.gateway, list[str]()
            each = [member.given for member in gateway.fleet.members]
            before = GatewayOptions(servers=each, policy=default(), ledger=tmp_path)

            async def read(options: GatewayOptions | UsageError) -> GatewayOptions:
                def answer(_: Any) -> GatewayOptions:
                    if isinstance(options, UsageError):
                        raise options
                    return options

                return await reload(gateway, before, answer, None, said.append)

            def with_(**more: Any) -> GatewayOptions:
                return GatewayOptions(**{"servers": each, "policy": default(), "ledger": tmp_path, **more})

            assert await read(UsageError("port is odd", "mend it")) is before
            assert said[-1] == "reload: port is odd (mend it); nothing was changed"
            await read(with_())
            assert said[-1] == "reload: nothing has changed"

            job = (await front.post(sleeper(10.0)))["prompt_id"]
            before = await read(with_(servers=each[1:], policy=default(44.0), port=1))
            assert said[-1] == (
                "reload: gpu1 leaves; the retry policy is another; port: restart the gateway to change it"
            )
            assert gateway.policy.deadline_s == 44.0 and gateway.policy.admission.depth == 1
            assert (await front.end_of(job))["status"]["status_str"] == "success"
            await until(lambda: _is(gateway.fleet.get("gpu1") is None))

            before = await read(with_(servers=each, policy=default(44.0)))
            assert said[-1].startswith("reload: gpu1 joins")
            await until(lambda: _is(len(gateway.fleet.joined) == 3))
            # Another header: the server leaves, and comes back with it.
            other = ServerConfig(name="gpu2", url=each[1].url, headers={"X": "y"})
            before = await read(with_(servers=[each[0], other, each[2]], policy=default(44.0)))
            assert said[-1] == "reload: gpu2 leaves; gpu2 joins"
            await until(lambda: _is((member := gateway.fleet.get("gpu2")) is not None and member.given == other))
            await until(lambda: _is(len(gateway.fleet.joined) == 3))
            assert (await front.run(sleeper(0.1)))["status"]["status_str"] == "success"

    asyncio.run(main())


def test_a_name_that_two_servers_would_have_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            for given in (
                ServerConfig(name="gpu1", url=URL("http://x/")),
                ServerConfig(name="b", url=URL("http://gpu1/")),
            ):
                with pytest.raises(UsageError, match="is there already"):
                    await front.gateway.fleet.add(given)

    asyncio.run(main())


# --- a server behind TLS


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def behind_tls(url: str) -> AsyncIterator[str]:
    """The server at that address, spoken to in TLS with a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", URL(url).port)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    listening = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        listening.close()


@pytest.mark.parametrize("more", [{"ca_file": str(PEM)}, {"insecure": True}, {}])
def test_the_page_and_jobs_reach_a_server_with_a_certificate_of_its_own(tmp_path: Path, more: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            simulated = await stack.enter_async_context(Server(speed=20.0))
            plain = await stack.enter_async_context(serve(simulated))
            url = URL(await stack.enter_async_context(behind_tls(plain)))
            given = ServerConfig(name="gpu1", url=url, **more)
            options = GatewayOptions(servers=[given], policy=default(), ledger=tmp_path)
            gateway, intake, front = await stack.enter_async_context(opened(options))
            client = await stack.enter_async_context(TestClient(TestServer(front.app())))
            if not more:
                assert "certificate" in gateway.fleet.members[0].why
                assert (await client.get("/extensions")).status == 503
                return
            assert (await client.get("/extensions")).status == 200
            caller = Caller(Desk(gateway, intake, front, History(gateway)), client)
            assert (await caller.front.run(sleeper(0.1)))["status"]["status_str"] == "success"

    asyncio.run(main())
