"""Start, advice and servers behind the dashboard's own guard, found among the runs of its folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from comfyload.gateway.fleet import ServerConfig
from comfyload.web.server import DashboardOptions, app_of, dashboard
from tests.support.rig import sleeper
from tests.support.servers import simulator

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def test_a_run_from_the_page_is_one_that_advice_knows(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        servers = [ServerConfig(name="gpu1", url=URL(url))]
        options = DashboardOptions(runs=tmp_path / "runs", archive=tmp_path / "archive", servers=servers)
        async with dashboard(options) as found, TestClient(TestServer(app_of(found, options))) as client:
            ui = "/comfyload/ui"
            token = (await (await client.get(f"{ui}/session")).json())["token"]
            form = {"server": "gpu1", "workflows": [{"name": "book.json", "text": json.dumps(sleeper(0.1))}]}
            refused = await client.post(f"{ui}/runs", json=form)
            assert refused.status == 403
            form["options"] = {"jobs": 8, "no_telemetry": True}
            reply = await client.post(f"{ui}/runs", json=form, headers={"X-Comfyload-Token": token})
            started = await reply.json()
            assert reply.status == 201, started
            for _ in range(200):
                state = await (await client.get(f"{ui}/starts/{started['id']}")).json()
                if state["state"] == "ended":
                    break
                await asyncio.sleep(0.1)
            basis = await (await client.get(f"{ui}/advice/basis", params={"of": started["id"]})).json()
            assert 4 <= basis["jobs"] <= 8, basis
            shown = await client.get(f"{ui}/advice/capacity", params={"of": started["id"], "p95": "1s"})
            assert shown.status == 200 and (await shown.json())["servers"] == 1
            assert (await client.get(f"{ui}/advice/saturation", params={"run": "../etc"})).status == 404
            listed = await (await client.get(f"{ui}/servers")).json()
            assert [one["state"] for one in listed["servers"]] == ["up"]

    with simulator(speed=1) as url:
        asyncio.run(story(url))
