"""Several tenants before the same servers: what one has, another can neither see, guess, cancel nor overwrite."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.gateway_port import Answer, Port, port
from tests.support.rig import sleeper

TOKENS = {"anna": "a" * 32, "bob": "b" * 32}


class Tenant:
    def __init__(self, gate: Port, name: str) -> None:
        self.gate = gate
        self.bearer = f"Authorization: Bearer {TOKENS[name]}"

    async def get(self, path: str) -> Answer:
        return await self.gate.ask(path, self.bearer)

    async def post(self, path: str, value: Any, *more: str) -> Answer:
        return await self.gate.post(value, self.bearer, *more, path=path)

    async def upload(self, name: str, content: bytes, *, what: str = "image", status: int = 200, **fields: str) -> Any:
        """What the gateway answers to an upload, which it must answer with that status."""
        form = aiohttp.FormData()
        form.add_field("image", BytesIO(content), filename=name)
        for key, value in fields.items():
            form.add_field(key, value)
        kind, _, value = self.bearer.partition(": ")
        async with self.gate.session.post(self.gate.url / "upload" / what, data=form, headers={kind: value}) as reply:
            assert reply.status == status, await reply.text()
            return await reply.json() if status == 200 else await reply.text()

    async def end_of(self, prompt_id: str) -> dict[str, Any]:
        while not (found := (await self.get(f"/history/{prompt_id}")).value):
            await asyncio.sleep(0.02)
        entry: dict[str, Any] = found[prompt_id]
        return entry


def test_jobs_are_their_tenant_s(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS) as gate:
            anna, bob = Tenant(gate, "anna"), Tenant(gate, "bob")
            socket = await gate.session.ws_connect(
                gate.url / "ws", params={"clientId": "c"}, headers={"Authorization": f"Bearer {TOKENS['bob']}"}
            )
            posted = {"prompt": sleeper(1.0), "client_id": "c", "prompt_id": str(uuid4())}
            first = (await anna.post("/prompt", posted, "Idempotency-Key: k")).value["prompt_id"]
            waiting = (await anna.post("/prompt", {"prompt": sleeper(0.1), "client_id": "c"})).value["prompt_id"]
            await asyncio.sleep(0.3)
            assert (await anna.get("/prompt")).value["exec_info"]["queue_remaining"] == 2
            for job_id in (first, waiting):
                assert (await bob.get(f"/history/{job_id}")).value == {}
                assert (await bob.get(f"/api/jobs/{job_id}")).status == 404
                assert (await bob.post(f"/api/jobs/{job_id}/cancel", {})).value == {"cancelled": False}
                assert (await bob.post("/interrupt", {"prompt_id": job_id})).status == 200
            assert (await bob.post("/api/jobs/cancel", {"job_ids": [first, waiting]})).value == {"cancelled": False}
            for body in ({"delete": [first, waiting]}, {"clear": True}):
                assert (await bob.post("/queue", body)).status == (await bob.post("/history", body)).status == 200
            assert (await bob.post("/interrupt", {})).status == 200
            assert (await bob.get("/queue")).value == {"queue_running": [], "queue_pending": []}
            assert (await bob.get("/api/jobs")).value["jobs"] == [] and (await bob.get("/history")).value == {}
            assert (await bob.get("/prompt")).value["exec_info"]["queue_remaining"] == 0
            taken = await bob.post("/prompt", posted)
            assert taken.status == 400 and taken.value["error"]["type"] == "invalid_prompt_id"
            own = await bob.post("/prompt", {"prompt": sleeper(0.1)}, "Idempotency-Key: k")
            assert own.status == 200 and own.value["prompt_id"] != first, "keys are each tenant's own"
            for job_id in (first, waiting):
                assert (await anna.end_of(job_id))["status"]["status_str"] == "success"
                assert (await bob.get(f"/history/{job_id}")).value == {}
            await bob.end_of(own.value["prompt_id"])
            for body in ({"delete": [first]}, {"clear": True}):
                await bob.post("/history", body)
            assert set((await anna.get("/history")).value) == {first, waiting}
            heard = []
            while not socket.closed:
                try:
                    heard.append((await socket.receive(0.5)).data)
                except TimeoutError:
                    break
            assert heard and not any(job_id in text for text in heard for job_id in (first, waiting))
            await socket.close()

    asyncio.run(main())


def test_files_are_their_tenant_s(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS, servers=2) as gate:
            anna, bob = Tenant(gate, "anna"), Tenant(gate, "bob")
            posted = await anna.post("/prompt", {"prompt": sleeper(0.1)})
            (image,) = (await anna.end_of(posted.value["prompt_id"]))["outputs"]["3"]["images"]
            name, folder = image["filename"], image["subfolder"]
            server, _, inner = folder.removeprefix("@").partition("/")
            assert inner == "t"
            ways = (
                f"filename={name}&subfolder={folder}&type=output",
                f"filename={name}%20[output]&subfolder={folder}&type=input",
                f"filename={folder}/{name}&type=output",
                f"filename={name}&subfolder=%40{server}%2Ft",
            )
            for query in ways:
                gate.home.lines.clear()
                assert (await bob.get(f"/view?{query}")).status == 404, query
                assert (await bob.get(f"/api/view?{query}&token=x")).status == 404, query
                assert gate.home.lines == []
                assert (await anna.get(f"/view?{query}&preview=webp;50&x=y")).status == 200, query
                assert gate.home.lines == [
                    f"GET /{server}/view?preview=webp%3B50&filename={name}&type=output&subfolder=t"
                ]
            for query in (
                f"filename={name}&subfolder=t",
                "filename=../x.png",
                "filename=x.png&type=input",
                "filename=",
            ):
                assert (await anna.get(f"/view?{query}")).status == 404, query
            reading = {
                **sleeper(0.1),
                "9": {"class_type": "SimSleep", "inputs": {"image": f"{folder}/{name} [output]"}},
            }
            refused = await bob.post("/prompt", {"prompt": reading})
            assert refused.status == 400 and name in refused.value["error"]["message"]
            assert "Invalid image" not in str((await anna.post("/prompt", {"prompt": reading})).body)

    asyncio.run(main())


class _Notes(Direct):
    """A way to a server that notes what is uploaded and posted."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.uploads: list[bytes] = []
        self.posts: list[Any] = []

    async def call(self, request: Request) -> Reply:
        if request.path == "upload/image":
            self.uploads.append(request.body or b"")
        if request.path == "prompt" and request.method == "POST":
            self.posts.append(json.loads(request.body or b""))
        return await super().call(request)


def test_uploads_are_their_tenant_s(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        server.start()
        way = _Notes(server)
        async with port(tmp_path, tokens=TOKENS, transports=[way]) as gate:
            anna, bob = Tenant(gate, "anna"), Tenant(gate, "bob")
            assert await anna.upload("x.png", b"anna's") == {"name": "x.png", "subfolder": "", "type": "input"}
            assert (await bob.get("/view?filename=x.png&type=input")).status == 404
            assert (await bob.upload("x.png", b"bob's", overwrite="true"))["name"] == "x.png"
            for tenant, content in ((anna, b"anna's"), (bob, b"bob's")):
                assert (await tenant.get("/view?filename=x.png&type=input&subfolder=")).body == content
            names = []
            for tenant in (anna, bob):
                graph = sleeper(0.05)
                graph["1"]["inputs"]["image"] = "x.png"
                answer = await tenant.post("/prompt", {"prompt": graph})
                assert answer.status == 200, answer
                await tenant.end_of(answer.value["prompt_id"])
                names.append(way.posts[-1]["prompt"]["1"]["inputs"]["image"])
            assert len(set(names)) == 2 and all(name.startswith("comfyload-") for name in names), names
            assert b"anna's" in way.uploads[0] and b"bob's" in way.uploads[1]
            assert gate.home.lines == []
        await server.stop()

    asyncio.run(main())


def png(color: str) -> bytes:
    """A picture of one colour, with its opacity."""
    image = pytest.importorskip("PIL.Image")
    out = BytesIO()
    image.new("RGBA", (8, 8), color).save(out, "png")
    return out.getvalue()


def pixel(content: bytes) -> Any:
    return pytest.importorskip("PIL.Image").open(BytesIO(content)).convert("RGBA").getpixel((0, 0))


def test_masks_are_put_onto_the_tenant_s_own_pictures(tmp_path: Path) -> None:
    """Onto an upload, which no server had yet, and onto what a job made; never onto another tenant's."""
    clear = png("#00000040")

    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS, servers=2) as gate:
            anna, bob = Tenant(gate, "anna"), Tenant(gate, "bob")
            await anna.upload("x.png", png("#ff0000"))
            await bob.upload("y.png", png("#0000ff"))
            posted = await bob.post("/prompt", {"prompt": sleeper(0.1)})
            (made,) = (await bob.end_of(posted.value["prompt_id"]))["outputs"]["3"]["images"]
            upload = {"filename": "x.png", "subfolder": "", "type": "input"}
            fields: dict[str, Any] = {"type": "input", "subfolder": "clipspace", "what": "mask"}
            stored = await anna.upload("m.png", clear, original_ref=json.dumps(upload), **fields)
            assert stored == {"name": "m.png", "subfolder": "clipspace", "type": "input"}
            where = "/view?filename=m.png&type=input&subfolder=clipspace"
            assert pixel((await anna.get(where)).body) == (255, 0, 0, 0x40)
            assert (await bob.get(where)).status == 404
            # The mask editor puts masks onto what it made before.
            again = {"filename": "clipspace/m.png [input]"}
            stored = await anna.upload("m.png", png("#00000080"), original_ref=json.dumps(again), **fields)
            assert stored["name"] == "m (1).png", "it is another picture"
            assert pixel((await anna.get(where.replace("m.png", "m%20(1).png"))).body) == (255, 0, 0, 0x80)
            assert made["subfolder"].startswith("@gpu")
            stored = await bob.upload("n.png", clear, original_ref=json.dumps(made), **fields)
            assert pixel((await bob.get(where.replace("m.png", "n.png"))).body)[3] == 0x40
            graph = sleeper(0.05)
            graph["1"]["inputs"]["image"] = f"clipspace/{stored['name']} [input]"
            answer = await bob.post("/prompt", {"prompt": graph})
            assert (await bob.end_of(answer.value["prompt_id"]))["status"]["status_str"] == "success"
            foreign = [(bob, upload), (bob, again), (anna, made), (anna, upload | {"filename": "y.png"})]
            foreign += [(anna, {**made, "subfolder": made["subfolder"].partition("/")[2]}), (anna, {"filename": ""})]
            for tenant, reference in foreign:
                said = await tenant.upload("o.png", clear, status=404, original_ref=json.dumps(reference), **fields)
                assert said == "there is no such picture", reference
                assert (await tenant.get(where.replace("m.png", "o.png"))).status == 404
            for odd in ("", "{", "[]", "{}", '{"filename": 1}', "[" * 100_000):  # a ComfyUI fails on it, too
                await anna.upload("o.png", clear, status=500, original_ref=odd, **fields)

    asyncio.run(main())


def test_a_mask_is_put_onto_a_picture_by_a_server_that_answers(tmp_path: Path) -> None:
    async def main() -> None:
        servers = [Server(), Server()]
        for server in servers:
            server.start()
        async with port(tmp_path, tokens=TOKENS, transports=[Direct(server) for server in servers]) as gate:
            anna = Tenant(gate, "anna")
            await anna.upload("x.png", png("#ff0000"))
            reference = json.dumps({"filename": "x.png", "type": "input"})
            home = gate.gateway.fleet.home
            assert home is not None
            servers[int(home.name[-1]) - 1].restart(downtime_s=1_000.0)
            stored = await anna.upload("m.png", png("#00000040"), what="mask", original_ref=reference)
            assert stored["name"] == "m.png"
            for server in servers:
                server.restart(downtime_s=1_000.0)
            said = await anna.upload("m.png", png("#00000040"), what="mask", status=503, original_ref=reference)
            assert "does not answer" in said
        for server in servers:
            await server.stop()

    asyncio.run(main())
