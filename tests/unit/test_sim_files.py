"""The simulated server's files: written by nodes, uploaded, viewed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from comfyload.clock import run_virtual
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Server, files
from comfyload.sim.drawing import png
from comfyload.sim.frames import Frame
from tests.unit.test_sim_helpers import call, get, image_graph, sampler_graph, settled, sleep_graph, submit


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


def test_previews_need_pillow_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    async def main() -> None:
        async with Server() as server:
            assert await upload(server, png(Frame(8, 8), b"", {})) == "p.png"
            for query in ("preview=webp", "channel=a"):
                reply = await call(server, "GET", f"view?filename=p.png&type=input&{query}")
                assert (reply.status, b"pip install 'comfyload[sim]'" in reply.body) == (501, True)
            assert (await call(server, "GET", "view?filename=p.png&type=input")).status == 200

    run_virtual(main())


def test_only_the_newest_files_hold_their_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TEXTS_KEPT", 2)

    async def main() -> None:
        async with Server() as server:
            for color in range(3):
                await submit(server, image_graph(color))
            await settled(server, 3)
            saved = [await call(server, "GET", f"view?subfolder=run&filename=a_0000{n}_.png") for n in (1, 2, 3)]
            assert [b"tEXtprompt" in reply.body for reply in saved] == [False, True, True]
            assert len({reply.body for reply in saved}) == 3

    run_virtual(main())


def test_a_picture_is_the_same_whenever_it_is_fetched_and_each_of_a_batch_is_another() -> None:
    async def main() -> None:
        async with Server() as server:
            await submit(server, sampler_graph(batch=2))
            await settled(server, 1)
            one, again, two = [(await call(server, "GET", f"view?filename=fox_0000{n}_.png")).body for n in (1, 1, 2)]
            assert one == again != two
            assert 1_000_000 < len(one) < 2_000_000  # as of a real picture of a megapixel

    run_virtual(main())


@pytest.mark.parametrize("wild", [1e400, -1e400, float("nan"), 10**400, -(10**400), -5, 0, "x", None, [], True])
def test_no_number_that_was_not_checked_ends_the_worker(wild: Any) -> None:
    """An undeclared link leads to nodes that no check has looked at."""

    async def main() -> None:
        async with Server() as server:
            graph = image_graph()
            graph["8"] = {
                "class_type": "EmptyImage",
                "inputs": dict.fromkeys(("width", "height", "batch_size", "color"), wild),
            }
            graph["9"] = {
                "class_type": "ImageScaleBy",
                "inputs": {"image": ["8", 0], "upscale_method": "area", "scale_by": wild},
            }
            graph["2"]["inputs"]["undeclared"] = ["9", 0]
            await submit(server, graph)
            await submit(server, sleep_graph())
            await settled(server, 2)
            assert [truth.outcome for truth in server.truth] == ["failed", "completed"]

    run_virtual(main())


def test_batches_of_batches_end_in_want_of_memory() -> None:
    async def main() -> None:
        async with Server() as server:
            graph = image_graph()
            del graph["2"]
            last = "1"
            for number in range(100, 300):
                inputs = {"image1": [last, 0], "image2": [last, 0]}
                last = str(number)
                graph[last] = {"class_type": "ImageBatch", "inputs": inputs}
            graph["3"]["inputs"]["images"] = [last, 0]
            await submit(server, graph)
            await settled(server, 1)
            assert server.truth[0].outcome == "failed"

    run_virtual(main())
