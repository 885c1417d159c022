"""The simulated server's files: written by nodes, uploaded, viewed."""

from __future__ import annotations

import json

from comfyload.clock import run_virtual
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Server
from tests.unit.test_sim_helpers import call, get, sampler_graph, settled, submit


def test_saved_files_can_be_viewed_and_uploads_keep_their_names_apart() -> None:
    async def main() -> None:
        async with Server() as server:
            graph = sampler_graph(batch=2)
            prompt_id = await submit(server, graph)
            await settled(server, 1)
            images = (await get(server, f"history/{prompt_id}"))[prompt_id]["outputs"]["7"]["images"]
            assert [image["filename"] for image in images] == ["fox_00001_.png", "fox_00002_.png"]
            seen = await call(server, "GET", "view?filename=fox_00002_.png&subfolder=&type=output")
            assert (seen.status, seen.content_type, seen.body[:4]) == (200, "image/png", b"\x89PNG")
            head = await call(server, "HEAD", "view?filename=fox_00002_.png")
            assert (head.body, head.headers["Content-Length"]) == (b"", str(len(seen.body)))
            assert (await call(server, "GET", "view?filename=nope.png&type=output")).status == 404
            assert (await call(server, "GET", "view?filename=../x.png")).status == 400
            names = [await upload(server, data) for data in (b"one", b"one", b"two")]
            assert names == ["p.png", "p.png", "p (1).png"]

    run_virtual(main())


async def upload(server: Server, data: bytes) -> str:
    head = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="p.png"\r\n\r\n'
    body = head + data + b"\r\n--XX--\r\n"
    kind = "multipart/form-data; boundary=XX"
    reply = await server.call(Request(method="POST", path="upload/image", body=body, content_type=kind))
    return str(json.loads(reply.body)["name"])
