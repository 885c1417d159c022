"""The page in a gateway, and a gateway among the servers of `comfyload ui`: the same paths, and what may pass them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfyload.app.gateway_config import servers_of
from comfyload.gateway.http import TENANT
from comfyload.web.gateways import _badges
from comfyload.web.on_demand import page_on_demand
from tests.support.dashboard import CSP_OF_PAGE, JSON, UI, UPGRADE, WS, Page, Tab, page
from tests.support.gateway_port import Port, port
from tests.support.rig import sleeper
from tests.unit.test_gateway_again import failing

OPS, SHOP = "the-token-of-operations", "the-token-of-the-shop"
API = "/comfyload/api"
SEEDS = itertools.count()


@asynccontextmanager
async def gateway(folder: Path, **options: Any) -> AsyncIterator[Port]:
    """A gateway with its page, as the command makes it."""
    ledger, static = folder / "ledger", folder / "static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "index.html").write_text("<!doctype html><title>page</title>", encoding="utf-8")
    operators = options.get("operators")

    def may(call: web.Request) -> bool:
        return operators is None or call[TENANT] in operators

    async with (
        page_on_demand(ledger, folder / "archive", may, static) as made,
        port(ledger, more=made.routes, **options) as found,
    ):
        yield found
        await made.close()


async def job_that_failed(gate: Port, *more: str) -> str:
    """The id of one that needs attention."""
    answer = await gate.post({"prompt": failing(), "client_id": "me"}, *more)
    job: str = answer.value["prompt_id"]
    while job in gate.gateway.jobs:
        await asyncio.sleep(0.02)
    return job


async def job_that_is_done(gate: Port, *more: str) -> str:
    """The id of one that made a picture of its own."""
    graph = sleeper(0.01)
    graph["2"]["inputs"]["seed"] = next(SEEDS)
    answer = await gate.post({"prompt": graph, "client_id": "me"}, *more)
    job: str = answer.value["prompt_id"]
    while job in gate.gateway.jobs:
        await asyncio.sleep(0.02)
    return job


def test_the_page_stands_in_a_gateway_and_shows_its_ledger(tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway(tmp_path) as gate:
            job = await job_that_failed(gate)
            index = await gate.ask("/comfyload/")
            assert index.status == 200 and index.headers["content-security-policy"] == CSP_OF_PAGE
            session = (await gate.ask(f"{UI}/session")).value
            assert session["gateway"] is True and session["servers"] == []
            async with gate.session.ws_connect(gate.url.with_path(WS)) as socket:
                tab = Tab(socket)
                jobs = (await tab.watch(1, "gateway"))["data"]
                assert [each["id"] for each in jobs["attention"]["jobs"]] == [job] and jobs["unended"]["jobs"] == []
                (run,) = (await tab.watch(2, "runs"))["data"]["runs"]
                assert run["running"] and run["counts"]["attention"] == 1
                seen = (await tab.watch(3, "run", run=run["id"]))["data"]
                assert seen["actions"] == [] and seen["running"]
                again = await gate.post({}, path=f"{API}/jobs/{job}/retry")
                assert again.status == 200 and again.value["instead_of"] == job
                while (frame := await tab.next()).get("watch") != 1 or job in json.dumps(frame["data"]["attention"]):
                    pass
            token = (JSON, f"X-Comfyload-Token: {session['token']}")
            for path in ("runs", "preflight", f"runs/{run['id'].replace('/', '%2F')}/again", "plans"):
                answer = await gate.ask(f"{UI}/{path}", *token, method="POST", body=b"{}")
                assert answer.status == 404, (path, "a gateway's servers are for its jobs")
            for foreign in ("Origin: http://evil.test", "Sec-Fetch-Site: cross-site", "Host: evil.test"):
                assert (await gate.ask(f"{UI}/session", foreign)).status in (403, 421)
                assert (await gate.ask(WS, *UPGRADE, foreign)).status in (403, 421)
            assert gate.home.lines == [], "nothing of it reached a server"

    asyncio.run(main())


def test_in_a_gateway_with_tenants_only_an_operator_sees_the_page(tmp_path: Path) -> None:
    async def main() -> None:
        tokens = {"ops": OPS, "shop": SHOP}
        async with gateway(tmp_path, tokens=tokens, operators=frozenset(["ops"])) as gate:
            await job_that_failed(gate, f"Authorization: Bearer {SHOP}")
            for path in ("/comfyload/", f"{UI}/session", f"{UI}/static/index.html", f"{UI}/runs/x/page"):
                assert (await gate.ask(path)).status == 401, path
                shop = await gate.ask(path, f"Authorization: Bearer {SHOP}")
                assert shop.status == 403 and b"operator" in shop.body, path
                assert (await gate.ask(path, f"Authorization: Bearer {OPS}")).status in (200, 404), path
            for token, status in ((SHOP, 403), (OPS, 101)):
                assert (await gate.ask(WS, *UPGRADE, f"Authorization: Bearer {token}")).status == status
            assert (await gate.ask(WS, *UPGRADE)).status == 401

    asyncio.run(main())


async def pictures(gate: Port, *more: str) -> dict[str, str]:
    """Where the page has the first thing that each job made, by the job's id."""
    found: dict[str, str] = {}
    async with gate.session.ws_connect(
        gate.url.with_path(WS), headers=dict(line.split(": ", 1) for line in more)
    ) as socket:
        tab = Tab(socket)
        for number, run in enumerate((await tab.watch(0, "runs"))["data"]["runs"], 1):
            rows = (await tab.watch(number, "jobs", run=run["id"]))["data"]["rows"]
            found |= {row["id"]: f"{UI}/runs/{run['id']}/jobs/{row['index']}/outputs/0" for row in rows}
    return found


@pytest.mark.parametrize("servers", [1, 2])
def test_what_a_job_made_is_shown(servers: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway(tmp_path, servers=servers) as gate:
            jobs = [await job_that_is_done(gate) for _ in range(3)]
            places = await pictures(gate)
            assert set(places) == set(jobs)
            for place in places.values():
                shown = await gate.ask(place)
                assert (shown.status, shown.headers["content-type"]) == (200, "image/png")
                assert shown.body.startswith(b"\x89PNG") and shown.headers["content-security-policy"] == CSP_OF_PAGE
            for odd in ("1", "0/x", "999999", "..%2f0"):
                assert (await gate.ask(places[jobs[0]].removesuffix("0") + odd)).status in (400, 404), odd
            assert gate.home.lines == [], "a server is asked by its own connection, and nothing is passed on"

    asyncio.run(main())


@pytest.mark.parametrize("servers", [1, 2])
def test_an_operator_is_shown_no_other_tenant_s_pictures(servers: int, tmp_path: Path) -> None:
    async def main() -> None:
        tokens = {"ops": OPS, "shop": SHOP}
        async with gateway(tmp_path, tokens=tokens, servers=servers, operators=frozenset(tokens)) as gate:
            ops, shop = (f"Authorization: Bearer {token}" for token in (OPS, SHOP))
            own, others = await job_that_is_done(gate, ops), await job_that_is_done(gate, shop)
            places = await pictures(gate, ops)
            for bearer, mine, theirs in ((ops, own, others), (shop, others, own)):
                assert (await gate.ask(places[mine], bearer)).status == 200
                refused = await gate.ask(places[theirs], bearer)
                assert refused.status == 404 and refused.value["error"] == "it is another tenant's"
            assert (await gate.ask(places[own])).status == 401
            gate.gateway.store._db.execute("DELETE FROM jobs")  # as of jobs that ended ten thousand jobs ago
            assert [(await gate.ask(places[job], ops)).status for job in (own, others)] == [200, 404]
            gate.gateway.store._db.execute("DELETE FROM files")
            assert (await gate.ask(places[own], ops)).status == 404, "nobody knows whose it is"

    asyncio.run(main())


def test_the_page_of_a_gateway_shows_what_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway(tmp_path) as gate:
            done = [await job_that_is_done(gate) for _ in range(3)]
            failed = [await job_that_failed(gate) for _ in range(2)]
            await gate.post({}, path=f"{API}/jobs/{failed[0]}/dismiss")
            async with gate.session.ws_connect(gate.url.with_path(WS)) as socket:
                tab, ended = Tab(socket), {}
                for number, state in enumerate(("", "done", "ended", "attention", 5)):
                    seen = (await tab.watch(number, "gateway", state=state))["data"]
                    assert seen["counts"] == {"pending": 0, "rendering": 0, "attention": 1, "done": 3, "ended": 1}
                    assert seen["kept"] == 10_000 and [job["id"] for job in seen["attention"]["jobs"]] == [failed[1]]
                    ended[state] = [job["id"] for job in seen["ended"]["jobs"]]
                    assert seen["ended"]["total"] == len(ended[state])
            every = [failed[0], *reversed(done)]
            assert ended == {"": every, "done": every[1:], "ended": every[:1], "attention": every, 5: every}

    asyncio.run(main())


def test_a_gateway_of_before_is_shown_without_counts() -> None:
    said = {"counts": {"pending": 1, "in_progress": 2, "completed": 3, "failed": 4, "cancelled": 5}}
    assert _badges(said | {"needing_attention": 1}) == {
        "pending": 1, "rendering": 2, "attention": 1, "done": 3, "ended": 8
    }  # fmt: skip
    for older in ({}, said, {"counts": {}, "needing_attention": 1}, {"counts": 5, "needing_attention": 1}):
        assert _badges(older) is None


def test_a_gateway_among_the_servers_is_asked_under_the_same_paths(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            gateway(tmp_path / "gate", tokens={"ops": OPS}) as gate,
            page(tmp_path, servers=servers_of(["http://127.0.0.1:9", f"gate={gate.url}"]), gateway_token=OPS) as found,
        ):
            bearer = f"Authorization: Bearer {OPS}"
            job = await job_that_failed(gate, bearer)
            assert (await found.ask(f"{API}/jobs")).value == (await gate.ask(f"{API}/jobs", bearer)).value
            assert (await found.ask(f"{API}/jobs/{job}")).value["attention"] is True
            assert (await found.ask(f"{API}/jobs?attention=1&limit=1&gateway=gate")).value["total"] == 1
            assert (await found.ask(f"{API}/servers")).value["servers"][0]["name"] == "gpu1"
            async with found.tab() as tab:
                assert (await tab.watch(1, "gateway"))["data"]["attention"]["total"] == 1
            assert (await _act(found, f"{API}/servers/gpu1/drain")).value["state"] == "drained"
            assert (await _act(found, f"{API}/servers/gpu1/resume")).value["state"] == "up"
            assert (await _act(found, f"{API}/jobs/{job}/dismiss")).value == {"dismissed": [job]}
            for what in ("nothing/retry", f"{job}/now", f"{job}/give-up"):
                assert (await _act(found, f"{API}/jobs/{what}")).status == 409, what
            assert (await found.ask(f"{API}/jobs?gateway=other")).status == 404
            for path in ("servers", "servers/gpu1/leave", "jobs/x/other", "servers/gpu1"):
                assert (await _act(found, f"{API}/{path}")).status in (404, 405), path
            assert (await found.ask(f"{API}/jobs/retry", method="POST", body=b"{}")).status == 403, "no token"
            for odd in ("..", "%2e%2e", "x%2f..%2fservers", "x%3fy=1", "x%23", "a%2fb"):
                answer = await found.ask(f"{API}/jobs/{odd}")
                assert answer.status in (400, 404, 409), odd

    asyncio.run(main())


async def _act(found: Page, path: str) -> Any:
    lines = (JSON, f"X-Comfyload-Token: {found.token}")
    return await found.ask(path, *lines, method="POST", body=b"{}")


def test_without_a_gateway_that_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with page(tmp_path, servers=servers_of(["http://127.0.0.1:9"])) as found, found.tab() as tab:
            assert (await found.ask(f"{API}/jobs")).value["error"] == "none of the servers is a gateway"
            assert "none of the servers" in (await tab.watch(1, "gateway"))["error"]

    asyncio.run(main())
