"""The servers as a page shows them: a ComfyUI, a gateway, one that is gone; asked only while somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from comfyload.gateway.fleet import ServerConfig
from comfyload.web import servers as module
from comfyload.web.servers import Models, Servers
from tests.support.servers import fronted, simulator
from tests.support.web_calls import page_of

pytestmark = pytest.mark.timeout(240)  # what is judged is judged in a process that gives way to others


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with simulator() as url:
        yield url


async def shown(*servers: tuple[str, str], looks: int = 1) -> list[dict[str, Any]]:
    known = Servers([ServerConfig(name=name, url=URL(url)) for name, url in servers])
    try:
        for _ in range(looks):
            async with page_of(known.routes()) as page:
                status, found = await page.get("servers")
                assert status == 200 and found["gateway"] is None
        return list(found["servers"])
    finally:
        await known.close()


def test_a_comfyui_with_a_probe(server: str) -> None:
    (found,) = asyncio.run(shown(("gpu1", server)))
    assert (found["name"], found["kind"], found["state"], found["why"]) == ("gpu1", "comfyui", "up", "")
    assert found["version"] and found["queue"] == 0 and found["answers_in"].endswith("s")
    assert found["probe"] == "there" and found["models"] == []
    (device,) = found["devices"]
    assert device["name"] and device["memory"]["words"].endswith("free")
    assert device["memory"]["free"] <= device["memory"]["total"]


def test_a_gateway_and_its_servers(server: str) -> None:
    with fronted([server]) as gateway:
        (found,) = asyncio.run(shown(("front", gateway)))
        assert (found["kind"], found["state"]) == ("gateway", "up"), found
        (member,) = found["members"]
        assert member["name"] == "gpu1" and member["state"] in ("up", "joining") and "circuit" in str(member)


def test_one_that_is_gone_is_said_to_be_so_and_what_was_known_stays(server: str) -> None:
    (found,) = asyncio.run(shown(("gone", "http://127.0.0.1:9/")))
    assert found["state"] == "down" and found["why"] and found["kind"] == "unknown"

    async def story() -> None:
        alive = True

        async def stats(_: web.Request) -> web.StreamResponse:
            if not alive:
                raise web.HTTPServiceUnavailable
            return web.json_response({"system": {"comfyui_version": "0.3.60\x1b[2J", "os": "posix"}, "devices": []})

        app = web.Application()
        app.router.add_get("/system_stats", stats)
        async with TestServer(app) as fake:
            known = Servers([ServerConfig(name="x", url=URL(str(fake.make_url("/"))))])
            (first,) = (await known.now())["servers"]
            assert first["state"] == "up" and "\x1b" not in first["version"] and first["probe"] == "none"
            alive = False
            await asyncio.sleep(module.EVERY_S)
            await known.now()
            await asyncio.sleep(0.5)
            (second,) = (await known.now())["servers"]
            assert second["state"] == "down" and second["version"] == first["version"]
            await known.close()

    asyncio.run(story())


def test_nothing_is_asked_while_nobody_looks_nor_twice_for_several_who_do() -> None:
    async def story() -> None:
        asked = 0

        async def stats(_: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return web.json_response({"system": {"os": "posix"}, "devices": []})

        app = web.Application()
        app.router.add_get("/system_stats", stats)
        async with TestServer(app) as fake:
            known = Servers([ServerConfig(name="x", url=URL(str(fake.make_url("/"))))])
            await asyncio.gather(*(known.now() for _ in range(20)))
            assert asked == 1
            await asyncio.sleep(module.EVERY_S + 0.3)
            assert asked == 1
            await known.now()
            await known.close()

    asyncio.run(story())


def test_a_server_that_never_answers_holds_nobody_up() -> None:
    async def story() -> None:
        async def never(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        app = web.Application()
        app.router.add_get("/{path:.*}", never)
        async with TestServer(app, handler_cancellation=True) as fake:
            known = Servers([ServerConfig(name="x", url=URL(str(fake.make_url("/"))))])
            loop = asyncio.get_running_loop()
            began = loop.time()
            (found,) = (await known.now())["servers"]
            assert loop.time() - began < module.FIRST_S + 2 and found["state"] == "asking"
            began = loop.time()
            await known.now()
            assert loop.time() - began < 1
            await known.close()

    asyncio.run(story())


def test_models_by_the_rows_of_the_probe() -> None:
    models = Models()
    for row in (
        {"event": "model", "action": "loaded", "model": "SDXL", "bytes": 5e9},
        {"event": "model", "action": "loaded", "model": "CLIP", "bytes": None},
        {"event": "node", "model": "SD3"},
        {"event": "model", "action": "loaded", "model": 7, "bytes": "x"},
        {"event": "model", "action": "unloaded", "model": "SDXL", "bytes": 2e9},
        {"event": "model", "action": "unloaded", "model": "CLIP", "bytes": 1e9},
        {"event": "model", "action": "unloaded", "model": "unheard of", "bytes": 1e9},
    ):
        models.take(row)
    assert models.held == {"SDXL": 3e9}
