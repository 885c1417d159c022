"""ComfyUI's own page through the gateway, over two simulators: nothing in it is other than on a bare server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from comfyload.app.gateway import GatewayOptions, opened
from comfyload.app.sim import page_folder
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.intake import Intake
from comfyload.gateway.service import Gateway
from comfyload.record.policy import Policy
from comfyload.sim import Server
from comfyload.sim.http import serve
from comfyload.workflow import graph as graphs
from tests.browser.chromium import Page
from tests.browser.comfyui import BROKEN, IN_VAIN, OTHER, SOUND, failed_requests, queue, reload, the_page
from tests.browser.tab import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

PICTURE = json.loads((Path(graphs.__file__).parents[1] / "sim" / "picture.json").read_text(encoding="utf-8"))
POLICY = Policy(liveness_s=2.0)
FIT = "app.extensionManager.command.execute('Comfy.Canvas.FitView').then(() => 0)"
"""Pictures are loaded where they can be seen."""

SAMPLER_BAR = "app.rootGraph?.nodes.find((n) => n.type === 'KSampler')?.progress"


@dataclass
class Place:
    """What stands behind the page."""

    page: Page
    url: str
    gateway: Gateway
    intake: Intake
    servers: list[Server]

    async def jobs(self) -> list[dict[str, Any]]:
        """As the page lists them, the newest first."""
        found = await self.page.value("fetch('/api/jobs').then((r) => r.json())")
        return list(found["jobs"])

    async def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Queue a graph and wait until the page shows that it was completed."""
        before = len(await self.jobs())
        await queue(self.page, graph)
        async with asyncio.timeout(30):
            while len(jobs := await self.jobs()) == before or jobs[0]["status"] in ("pending", "in_progress"):
                await asyncio.sleep(0.05)
        assert jobs[0]["status"] == "completed", jobs[0]
        return jobs[0]


def see(folder: Path, look: Callable[[Place], Awaitable[None]], **settings: Any) -> None:
    frontend = page_folder("auto")
    if frontend is None:
        pytest.skip("comfyui-frontend-package is not installed")

    async def main() -> None:
        async with AsyncExitStack() as stack:
            servers, given = [], []
            for number in (1, 2):
                server = await stack.enter_async_context(
                    Server(**{"speed": 20, "frontend": frontend, "previews": True, "seed": number, **settings})
                )
                url = await stack.enter_async_context(serve(server))
                servers.append(server)
                given.append(ServerConfig(name=f"gpu{number}", url=URL(url + "/")))
            options = GatewayOptions(servers=given, policy=POLICY, ledger=folder / "ledger")
            gateway, intake, front = await stack.enter_async_context(opened(options))
            runner = web.AppRunner(front.app(), access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            page = await stack.enter_async_context(the_page(folder, url))
            await look(Place(page, url, gateway, intake, servers))
            assert failed_requests(page, url) <= IN_VAIN
            assert page.events_of("Runtime.exceptionThrown") == []

    asyncio.run(main())


def picture(steps: int, seed: int) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(json.dumps(PICTURE))
    graph["5"]["inputs"] |= {"steps": steps, "seed": seed}
    return graph


def load(name: str, prefix: str) -> dict[str, Any]:
    """Load an image and save it."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def upload(kind: str, name: str, colour: str, fields: dict[str, str]) -> str:
    """A picture that the page draws and uploads; the answer."""
    more = "".join(f"f.append({json.dumps(key)}, {json.dumps(value)});" for key, value in fields.items())
    return f"""(async () => {{
        const c = document.createElement('canvas'); c.width = 64; c.height = 48;
        const x = c.getContext('2d'); x.fillStyle = '{colour}'; x.fillRect(0, 0, 32, 48);
        const f = new FormData(); f.append('image', await new Promise((ok) => c.toBlob(ok)), '{name}'); {more}
        return (await app.api.fetchApi('/upload/{kind}', {{ method: 'POST', body: f }})).json();
    }})()"""


def test_a_job_shows_progress_and_previews_and_its_picture_opens(tmp_path: Path) -> None:
    async def look(place: Place) -> None:
        page = place.page
        assert await page.value("Object.keys(LiteGraph.registered_node_types).length") > 40
        await queue(page, picture(100, 1))
        await until(page, f"{SAMPLER_BAR} > 0.1")
        await until(page, "app.nodePreviewImages['5']?.length")
        await until(page, "document.body.innerText.includes('1 active')")
        await until(page, "app.nodeOutputs['7']?.images?.length")
        image = json.loads(await page.value("JSON.stringify(app.nodeOutputs['7'].images[0])"))
        (job,) = await place.jobs()
        assert image["subfolder"] == "@" + job["comfyload"]["server"]
        await page.value(FIT)
        await until(page, "app.rootGraph.nodes.find((n) => n.type === 'SaveImage').imgs?.[0]?.naturalWidth === 1024")
        await until(page, "document.body.innerText.includes('0 active')")

    see(tmp_path, look, speed=4)


def test_a_reload_in_mid_run_shows_the_job_as_before(tmp_path: Path) -> None:
    async def look(place: Place) -> None:
        page = place.page
        await queue(page, picture(1000, 1))
        await until(page, f"{SAMPLER_BAR} > 0")
        await reload(page)
        (job,) = await place.jobs()
        assert job["status"] == "in_progress"
        await until(page, "document.body.innerText.includes('1 active')")
        await until(page, f"{SAMPLER_BAR} > 0")
        await until(page, "app.nodePreviewImages['5']?.length")
        await page.value(f"app.api.fetchApi('/jobs/{job['id']}/cancel', {{ method: 'POST' }}).then(() => 0)")
        await until(page, "document.body.innerText.includes('0 active')")
        assert [job["status"] for job in await place.jobs()] == ["cancelled"]

    see(tmp_path, look, speed=5)


def test_a_retry_elsewhere_is_one_job_whose_bar_begins_anew(tmp_path: Path) -> None:
    async def look(place: Place) -> None:
        page = place.page
        await page.value(f"window.bars = [], app.api.addEventListener('progress', () => bars.push({SAMPLER_BAR})), 0")
        await queue(page, picture(200, 1))
        await until(page, f"{SAMPLER_BAR} > 0.5")
        (job,) = await place.jobs()
        seen = []
        place.servers[int(job["comfyload"]["server"][-1]) - 1].restart(downtime_s=60.0)
        while (job := (await place.jobs())[0])["status"] != "completed":
            seen.append(job["status"])
            await asyncio.sleep(0.05)
        bars = [bar for bar in await page.value("bars") if bar is not None]
        fall = next(at for at in range(1, len(bars)) if bars[at] < bars[at - 1])
        assert max(bars[:fall]) > 0.5 and bars[fall] < 0.2 and max(bars[fall:]) > 0.9
        assert bars[fall:] == sorted(bars[fall:])
        assert set(seen) == {"in_progress"} and len(await place.jobs()) == 1
        assert [attempt["outcome"] for attempt in job["comfyload"]["attempts"]] == ["lost", "completed"]
        assert job["execution_end_time"] - job["execution_start_time"] > 4000, "both attempts"
        await page.value(FIT)
        await until(page, "app.rootGraph.nodes.find((n) => n.type === 'SaveImage').imgs?.[0]?.naturalWidth")
        assert await page.value("app.lastExecutionError") is None
        # The dead one may have been the page's home.
        await reload(page)
        assert await page.value("Object.keys(LiteGraph.registered_node_types).length") > 40

    see(tmp_path, look, speed=5)


def test_files_reach_whichever_server_runs_the_job(tmp_path: Path) -> None:
    """An upload, a mask, and an output of one server run on the other, and are shown."""

    async def look(place: Place) -> None:
        page, fleet = place.page, place.gateway.fleet
        first = await place.run(SOUND)
        sent = await page.value(upload("image", "pic.png", "red", {}))
        assert sent == {"name": "pic.png", "subfolder": "", "type": "input"}
        assert (await page.value(upload("image", "pic.png", "blue", {})))["name"] == "pic (1).png"
        reference = {"filename": "pic.png", "subfolder": "", "type": "input"}
        fields = {"original_ref": json.dumps(reference), "type": "input", "subfolder": "clipspace"}
        masked = await page.value(upload("mask", "masked.png", "white", fields))
        assert masked == {"name": "masked.png", "subfolder": "clipspace", "type": "input"}
        made = first["preview_output"]
        names = ["pic.png", "clipspace/masked.png [input]", f"{made['subfolder']}/{made['filename']} [output]"]
        for number, member in enumerate(fleet.members):
            for other in fleet.members:
                fleet.drain(other.name, other is not member)
            for name in names:
                job = await place.run(load(name, f"u{number}"))
                assert job["comfyload"]["server"] == member.name
                await until(page, "app.rootGraph.nodes.find((n) => n.type === 'LoadImage').imgs?.[0]?.naturalWidth")
        drawn = (
            "Promise.all(['preview=webp;60', 'channel=rgb', 'channel=a'].map((how) => "
            "fetch('/api/view?filename=pic.png&type=input&' + how).then((r) => r.status)))"
        )
        assert await page.value(drawn) == [200] * 3
        listed = await page.value("fetch('/api/object_info/LoadImage').then((r) => r.json())")
        assert {"pic.png", "pic (1).png"} <= set(listed["LoadImage"]["input"]["required"]["image"][0])

    see(tmp_path, look)


def test_errors_are_shown_and_so_is_why_nothing_is_taken(tmp_path: Path) -> None:
    async def look(place: Place) -> None:
        page = place.page
        await queue(page, BROKEN)
        await until(page, "app.lastExecutionError")
        error = json.loads(await page.value("JSON.stringify(app.lastExecutionError)"))
        assert (error["node_type"], error["exception_type"]) == ("SimFail", "RuntimeError")
        await until(page, "document.body.innerText.includes('Fail failed')")
        place.intake.closed = True
        await queue(page, OTHER)
        await until(page, "document.body.innerText.includes('The gateway is being stopped. Try again in 10 s.')")
        refused = [event["response"] for event in page.events_of("Network.responseReceived")]
        assert [reply["status"] for reply in refused if reply["url"].endswith("/api/prompt")] == [200, 503]
        page.events.clear()

    see(tmp_path, look)


def test_workflows_settings_and_the_history_are_kept_and_forgotten(tmp_path: Path) -> None:
    async def look(place: Place) -> None:
        page = place.page
        stored = "app.api.storeUserData('workflows/a b.json', {nodes: []}).then((r) => r.status)"
        assert await page.value(stored) == 200
        await page.value("app.api.storeSetting('Comfy.Test', [1]).then(() => 0)")
        await place.run(SOUND)
        await place.run(OTHER)
        await reload(page)
        listed = "app.api.listUserDataFullInfo('workflows').then((found) => found.map((f) => [f.path, f.size]))"
        assert await page.value(listed) == [["a b.json", 12]]
        assert await page.value("app.api.getSetting('Comfy.Test')") == [1]
        newest, oldest = await place.jobs()
        await page.value(f"app.api.deleteItem('history', '{newest['id']}').then(() => 0)")
        assert [job["id"] for job in await place.jobs()] == [oldest["id"]]
        await page.value("app.api.clearItems('history').then(() => 0)")
        assert await place.jobs() == []

    see(tmp_path, look)
