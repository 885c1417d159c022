"""The simulated server on a real socket, spoken to by a real client."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve
from tests.support import captures
from tests.unit.test_sim_helpers import image_graph, sleep_graph


@pytest.mark.parametrize("base_path", ["", "/comfy/one"])
def test_a_prompt_runs_over_http_and_websocket(base_path: str) -> None:
    graph = captures.load("ws_cold_run")["submitted"]

    async def main() -> None:
        async with (
            Server(speed=50.0, previews=True) as server,
            serve(server, base_path=base_path) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws?clientId=me") as socket,
        ):
            assert base_path in url
            async with session.post(f"{url}/prompt", json={"prompt": graph, "client_id": "me"}) as reply:
                assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
                prompt_id = (await reply.json())["prompt_id"]
            kinds: list[str] = []
            while kinds.count("status") < 4 or kinds[-1] != "executing":
                kinds.append((await socket.receive_json(timeout=5))["type"])
            recorded = captures.load("ws_cold_run")["messages"]
            assert kinds == [message["msg"]["type"] for message in recorded]
            async with session.get(f"{url}/api/history/{prompt_id}") as reply:
                images = (await reply.json())[prompt_id]["outputs"]["4"]["images"]
            async with session.get(f"{url}/view", params=images[0]) as reply:
                body = await reply.read()
                assert (reply.status, reply.content_length, body[:4]) == (200, len(body), b"\x89PNG")
            async with session.head(f"{url}/view", params=images[0]) as reply:
                assert reply.content_length == len(body)
            async with session.get(f"{url}/nope") as reply:
                assert reply.status == 404
            form = aiohttp.FormData()
            form.add_field("image", b"bytes", filename="p.png")
            async with session.post(f"{url}/upload/image", data=form) as reply:
                assert await reply.json() == {"name": "p.png", "subfolder": "", "type": "input"}

    asyncio.run(main())


def test_a_lost_reply_closes_the_connection() -> None:
    async def main() -> None:
        async with (
            Server(speed=50.0, faults=Faults(drop_reply=Which(at=(1,)))) as server,
            serve(server) as url,
            aiohttp.ClientSession() as session,
        ):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(f"{url}/prompt", json={"prompt": image_graph()})
            assert sum(server.posts.values()) == 1

    asyncio.run(main())


def test_a_restart_cuts_sockets_and_closes_the_port_meanwhile() -> None:
    async def main() -> None:
        async with (
            Server(speed=50.0) as server,
            serve(server) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws?clientId=me") as socket,
        ):
            await socket.receive_json(timeout=5)
            server.restart(downtime_s=0.3)
            message = await socket.receive(timeout=5)
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE)
            assert socket.close_code == 1006
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{url}/prompt")
            await asyncio.sleep(0.4)
            async with session.get(f"{url}/prompt") as reply:
                assert reply.status == 200

    asyncio.run(main())


def test_previews_with_metadata_are_negotiated_over_the_socket() -> None:
    async def main() -> None:
        async with (
            Server(speed=50.0) as server,
            serve(server) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws?clientId=me") as socket,
        ):
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            assert (await socket.receive_json(timeout=5))["type"] == "status"
            flags = await socket.receive_json(timeout=5)
            assert flags["data"]["supports_preview_metadata"] is True
            await socket.ping()
            body = {"prompt": sleep_graph(0.1), "client_id": "me"}
            async with session.post(f"{url}/prompt", data=json.dumps(body)) as reply:
                assert reply.status == 200  # the content type is not looked at

    asyncio.run(main())
