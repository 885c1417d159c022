"""What the routes answer, over HTTP: the rows, the clock, the facts, the counters, the overview; and clear refusals."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

import comfyload_probe
from comfyload_probe import routes
from comfyload_probe.probe import Probe
from tests.pack.comfyui import ComfyUI, Rig, assert_valid, chain

Client = TestClient[web.Request, web.Application]
V1 = "/comfyload/v1"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("COMFYUI_METRICS_LOG", str(tmp_path / "log.ndjson"))
    monkeypatch.setenv("COMFYLOAD_PROBE_SAMPLE_HZ", "20")
    comfyui = ComfyUI(monkeypatch, tmp_path)
    comfyui.server.routes = web.RouteTableDef()
    probe = comfyload_probe._start()
    assert isinstance(probe, Probe)
    yield Rig(comfyui, probe)
    probe.stop()


def over_http(rig: Rig, talk: Callable[[Client], Awaitable[None]]) -> None:
    """Talk with a server that has the probe's routes twice, as ComfyUI does, and its check of origins."""

    async def run() -> None:
        app = web.Application(middlewares=[_same_site])
        app.add_routes(rig.comfyui.server.routes)
        twins = web.RouteTableDef()
        for route in rig.comfyui.server.routes:
            twins.route(route.method, "/api" + route.path)(route.handler)
        app.add_routes(twins)
        async with TestClient(TestServer(app)) as client:
            await talk(client)

    asyncio.run(run())


@web.middleware
async def _same_site(request: web.Request, handler: Any) -> Any:
    return web.Response(status=403) if request.headers.get("Sec-Fetch-Site") == "cross-site" else await handler(request)


async def get(client: Client, path: str, status: int = 200, **headers: str) -> Any:
    async with client.get(URL(path, encoded=True), headers=headers) as reply:
        assert reply.status == status, await reply.text()
        assert reply.headers["Content-Type"].startswith("application/json")
        value = json.loads(await reply.read())
        if status >= 400:
            assert value.keys() == {"error", "hint"}
            assert all(value.values())
        return value


def test_events_are_handed_out_piece_by_piece(rig: Rig) -> None:
    for _ in range(10):
        rig.comfyui.run("Run", "Cached")
    rig.rows()

    async def talk(client: Client) -> None:
        rows: list[Any] = []
        after = 0
        while True:
            got = await get(client, f"{V1}/events?after={after}&limit=7&boot={rig.probe.boot}")
            assert (got["schema"], got["boot"], got["missed"]) == (1, rig.probe.boot, 0)
            if not got["rows"]:
                break
            assert len(got["rows"]) <= 7
            rows += got["rows"]
            after = got["next"]
        for row in rows:
            assert_valid(row)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert sum(row["event"] == "prompt.ended" for row in rows) == 10
        assert (await get(client, f"/api{V1}/events?after=3&limit=1"))["rows"][0]["seq"] == 4

    over_http(rig, talk)


def test_another_boot_begins_anew_and_a_far_after_gets_nothing(rig: Rig) -> None:
    rig.rows()

    async def talk(client: Client) -> None:
        assert (await get(client, f"{V1}/events?after=50&boot=00000000"))["rows"][0]["seq"] == 1
        far = await get(client, f"{V1}/events?after={10**18 - 1}")
        assert (far["rows"], far["next"], far["missed"]) == ([], 10**18 - 1, 0)

    over_http(rig, talk)


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=",
        "after=1.5",
        "after=abc",
        "after=+1",
        "after=1e3",
        "after=1%200",
        "after=%D9%A1",
        "after=1&after=2",
        "after=1000000000000000000",
        f"after={'9' * 5000}",
        "limit=0",
        "limit=5001",
        "limit=-5",
        "limit=1&limit=1",
        "limit=%00",
        "boot=a&boot=b",
        "after=%FF%FE",
    ],
)
def test_a_bad_question_is_refused_with_its_reason(rig: Rig, query: str) -> None:
    async def talk(client: Client) -> None:
        await get(client, f"{V1}/events?{query}", 400)

    over_http(rig, talk)


def test_any_question_gets_json_and_none_an_error_of_ours(rig: Rig) -> None:
    rng = random.Random(5)
    signs = [
        "%00",
        "%FF",
        "9",
        "-",
        "&",
        "=",
        "after",
        "limit",
        "boot",
        "[",
        "é",
        "%",
        "+",
        "0x1f",
        ";",
        "\ud83d\ude00",
    ]

    async def talk(client: Client) -> None:
        for _ in range(300):
            query = "".join(rng.choices(signs, k=rng.randrange(12))).encode("utf-8", "surrogatepass")
            path = f"{V1}/{rng.choice(['events', 'clock', 'environment', 'overview'])}?"
            url = URL(path + "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in query), encoded=True)
            async with client.get(url) as reply:
                assert reply.status in (200, 400)
                json.loads(await reply.read())

    over_http(rig, talk)
    assert rig.probe.errors == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_sent(rig: Rig, method: str) -> None:
    async def talk(client: Client) -> None:
        async with client.request(method, f"{V1}/events") as reply:
            assert reply.status == 405

    over_http(rig, talk)


def test_a_page_of_another_site_is_refused_by_comfyui(rig: Rig) -> None:
    async def talk(client: Client) -> None:
        async with client.get(f"{V1}/events", headers={"Sec-Fetch-Site": "cross-site"}) as reply:
            assert reply.status == 403

    over_http(rig, talk)


def test_with_a_token_everything_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYLOAD_PROBE_TOKEN", "open sesame é")
    monkeypatch.setenv("COMFYLOAD_PROBE_SAMPLE_HZ", "0")
    comfyui = ComfyUI(monkeypatch, tmp_path)
    comfyui.server.routes = web.RouteTableDef()
    probe = comfyload_probe._start()
    token = "open sesame é"

    async def talk(client: Client) -> None:
        for path in ("events", "clock", "environment", "overview", "metrics"):
            for wrong in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer"}, {"X-Comfyload-Token": "open"}):
                await get(client, f"{V1}/{path}", 401, **wrong)
            for right in ({"Authorization": f"Bearer {token}"}, {"X-Comfyload-Token": token}):
                async with client.get(f"{V1}/{path}", headers=right) as reply:
                    assert reply.status == 200

    over_http(Rig(comfyui, probe), talk)
    assert token not in repr(probe.environment()) + repr(probe.snapshot()) + repr(probe.overview())
    probe.stop()


def test_the_clock_is_that_of_the_rows(rig: Rig) -> None:
    rig.comfyui.run("Run")
    ended = rig.rows("prompt.ended")[0]

    async def talk(client: Client) -> None:
        clock = await get(client, f"{V1}/clock")
        assert clock.keys() == {"schema", "boot", "mono_s", "unix_s", "seq"}
        assert 0 < clock["mono_s"] - ended["mono_s"] < 30
        assert clock["seq"] >= ended["seq"]

    over_http(rig, talk)


def test_the_environment_tells_facts_hooks_and_gaps(rig: Rig) -> None:
    async def talk(client: Client) -> None:
        environment = await get(client, f"{V1}/environment")
        assert environment.keys() == {"schema", "boot", "facts", "hooks", "missing", "probe"}
        assert environment["hooks"]["queue.put"] == "on"
        log = environment["probe"].pop("log")
        assert environment["probe"] == {"version": "0.1.0", "active": True, "dropped": 0, "errors": 0}
        assert log is None or Path(log).is_absolute()
        assert all(fact.keys() == {"value", "source"} for fact in environment["facts"].values())
        assert environment["facts"]["comfyui.version"]["value"] == "0.33.0"

    over_http(rig, talk)


def test_the_counters_are_written_for_a_scraper(rig: Rig) -> None:
    rig.comfyui.run("Run", "Cached", "Fail")
    rig.rows()

    async def talk(client: Client) -> None:
        async with client.get(f"{V1}/metrics") as reply:
            assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await reply.text()
        assert 'comfyload_probe_prompts_total{status="error"} 1' in text
        assert 'comfyload_probe_nodes_total{status="cached"} 1' in text

    over_http(rig, talk)


def test_a_bug_in_a_route_is_one_bad_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.probe, "overview", lambda: 1 / 0)

    async def talk(client: Client) -> None:
        for _ in range(10):
            assert "ZeroDivisionError" in (await get(client, f"{V1}/overview", 500))["error"]
        await get(client, f"{V1}/clock")

    over_http(rig, talk)
    assert (rig.probe.active, rig.probe.errors) == (True, 10)


def test_a_probe_that_went_off_still_answers(rig: Rig) -> None:
    rig.comfyui.run("Run")
    rig.probe._switch_off("a test")
    rig.rows()

    async def talk(client: Client) -> None:
        assert not (await get(client, f"{V1}/overview"))["active"]
        assert not (await get(client, f"{V1}/environment"))["probe"]["active"]
        assert (await get(client, f"{V1}/events"))["rows"][-1]["event"] == "probe.disabled"

    over_http(rig, talk)


def test_what_runs_now_is_in_the_overview(rig: Rig) -> None:
    seen: list[Any] = []
    rig.comfyui.between = lambda: seen.append(rig.probe.overview()["queue"])
    rig.comfyui.post(chain("Overlap", "Run"), "first")
    rig.comfyui.post(chain("Run"), "second")
    rig.comfyui.work()
    (running,) = seen[1]["running"]
    assert (running["prompt_id"], running["node"], running["class_type"]) == ("first", "1", "Overlap")
    assert running["started_mono_s"] > 0
    assert (seen[1]["waiting"], seen[-1]["waiting"]) == (1, 0)
    assert rig.probe.overview()["queue"] == {"running": [], "waiting": 0}


def test_every_route_is_a_get(rig: Rig) -> None:
    assert {(route.method, route.path) for route in rig.comfyui.server.routes} == {
        ("GET", f"{routes.PREFIX}/{name}") for name in ("events", "clock", "environment", "metrics", "overview")
    }
