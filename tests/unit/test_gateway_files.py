"""Files of several servers under one roof: uploads, masks and outputs are where the job runs that needs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfyload import clock
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.gateway import merged
from comfyload.gateway.files import Files
from comfyload.gateway.intake import PromptRefused
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.gateway import Desk, desk, farm

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 7}}


def save(prefix: str, color: int = 7) -> dict[str, Any]:
    return {
        "1": EMPTY | {"inputs": EMPTY["inputs"] | {"color": color}},  # type: ignore[operator]
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def load(name: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }


async def run_on(front: Desk, name: str, graph: dict[str, Any]) -> dict[str, Any]:
    """Run the graph on that server alone; its entry."""
    for member in front.gateway.fleet.members:
        front.gateway.fleet.drain(member.name, member.name != name)
    return await front.run(graph)


async def input_of_last(server: Server) -> str:
    """What the last prompt that the server ran loads."""
    last = server.truth[-1].prompt_id
    found = json.loads((await server.call(Request(method="GET", path=f"history/{last}"))).body)
    return str(found[last]["prompt"][2]["1"]["inputs"]["image"])


async def picture(server: Server) -> bytes:
    """Some picture, as bytes."""
    reply = await server.call(Request(method="GET", path="view?filename=x_00001_.png&subfolder=tr&type=output"))
    assert reply.status == 200
    return reply.body


def test_marks_are_put_before_and_taken_away() -> None:
    files = Files(Path("none"), lambda: ["gpu1", "gpu2"])
    output = {"images": [{"filename": "x.png", "subfolder": "", "type": "temp"}], "text": ["filename"]}
    assert files.tagged(output, "gpu2") == {
        "images": [{"filename": "x.png", "subfolder": "@gpu2", "type": "temp"}],
        "text": ["filename"],
    }
    assert files.view({"filename": "x.png [output]", "subfolder": "@gpu2/tr", "type": "input"}) == (
        "gpu2",
        {"filename": "x.png [output]", "subfolder": "tr", "type": "input"},
    )
    assert files.view({"filename": "x.png", "subfolder": "@gpu9/tr"})[0] is None
    graph = {
        "1": {"inputs": {"image": "@gpu2/tr/x.png [output]", "text": "@gpu2 is\nnice", "seed": 1}},
        "2": {"inputs": {"image": "@nobody/x.png", "other": ["1", 0]}},
    }
    assert files.inputs_elsewhere(graph) == {"@gpu2/tr/x.png [output]"}


def test_an_output_is_the_input_of_a_job_on_any_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            made = (await run_on(front, "gpu2", save("tr/x")))["outputs"]["2"]["images"][0]
            assert made["subfolder"] == "@gpu2/tr"
            name = f"{made['subfolder']}/{made['filename']} [output]"
            for server in ("gpu2", "gpu1"):
                entry = await run_on(front, server, load(name))
                assert entry["status"]["status_str"] == "success"
                assert entry["outputs"]["2"]["images"][0]["subfolder"] == f"@{server}"
                assert entry["prompt"][2]["1"]["inputs"]["image"] == name, "the client finds what it wrote"
            read = [await input_of_last(server) for server in servers]
            assert read == ["@gpu2/tr/x_00001_.png", "tr/x_00001_.png [output]"]

    clock.run_virtual(main())


def test_an_output_outlives_its_server_once_a_job_was_taken_that_reads_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            await run_on(front, "gpu2", save("tr/x"))
            front.gateway.fleet.drain("gpu1", True)
            front.gateway.fleet.drain("gpu2", True)
            answer = await front.post(load("@gpu2/tr/x_00001_.png [output]"))
            servers[1].restart(downtime_s=10_000.0)
            front.gateway.fleet.drain("gpu1", False)
            assert (await front.end_of(answer["prompt_id"]))["status"]["status_str"] == "success"

    clock.run_virtual(main())


def test_a_job_that_reads_a_file_of_a_silent_server_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            await run_on(front, "gpu2", save("tr/x"))
            front.gateway.fleet.drain("gpu1", False)
            servers[1].restart(downtime_s=20.0)
            answer = await front.post(load("@gpu2/tr/x_00001_.png [output]"))
            entry = await front.end_of(answer["prompt_id"])
            assert entry["status"]["status_str"] == "success", entry["status"]
            assert front.gateway.fleet.get("gpu1") is not None and len(servers[0].truth) == 0

    clock.run_virtual(main())


def test_an_upload_is_brought_to_each_server_once_and_under_a_free_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(2) as servers:
            posts: list[tuple[int, str]] = []

            def noting(number: int) -> Any:
                async def note(request: Request) -> None:
                    if request.path.startswith("upload/"):
                        posts.append((number, request.path))

                return note

            ways = [Direct(server, before_call=noting(number)) for number, server in enumerate(servers, 1)]
            async with desk(tmp_path, servers, transports=ways) as front:
                await run_on(front, "gpu1", save("tr/x", 1))
                first = await picture(servers[0])
                await run_on(front, "gpu1", save("tr/y", 2))
                front.gateway.files.keep("a.png", first)
                # Somebody else's file of that name is on the second server already.
                other = await front_upload(servers[1], "a.png", b"what was there")
                assert other == "a.png"
                for _again in range(2):
                    for server in ("gpu1", "gpu2"):
                        entry = await run_on(front, server, load("a.png"))
                        assert entry["status"]["status_str"] == "success"
                assert posts == [(1, "upload/image"), (2, "upload/image")]
                assert await input_of_last(servers[1]) == "a (1).png"

    clock.run_virtual(main())


async def front_upload(server: Server, name: str, content: bytes) -> str:
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    body = head + content + b"\r\n--b--\r\n"
    request = Request(
        method="POST", path="upload/image", body=body, content_type="multipart/form-data; boundary=b", timeout_s=5
    )
    reply = await server.call(request)
    return str(json.loads(reply.body)["name"])


def test_a_file_that_one_server_had_before_is_found_there(tmp_path: Path) -> None:
    """It was put there before the gateway stood before them: what another server refuses is sent to that one."""

    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            await run_on(front, "gpu2", save("tr/x"))
            for member in front.gateway.fleet.members:
                front.gateway.fleet.drain(member.name, False)
            await front_upload(servers[1], "old.png", await picture(servers[1]))
            for _ in range(3):
                entry = await front.run(load("old.png"))
                assert entry["status"]["status_str"] == "success"
            with pytest.raises(PromptRefused) as refused:
                await front.post(load("nowhere.png"))
            assert refused.value.status == 400 and b"Invalid image file: nowhere.png" in refused.value.body

    clock.run_virtual(main())


def test_a_mask_is_cut_by_the_server_that_has_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("PIL")

    async def main() -> None:
        async with farm(2, speed=100) as servers, desk(tmp_path, servers) as front, served(front) as send:
            await run_on(front, "gpu2", save("tr/x"))
            content = await picture(servers[1])
            reference = {"filename": "x_00001_.png", "subfolder": "@gpu2/tr", "type": "output"}
            made = await send("mask", "m.png", content, subfolder="clipspace", original_ref=json.dumps(reference))
            assert made == {"name": "m.png", "subfolder": "clipspace", "type": "input"}
            assert (await send("image", "a.png", content))["name"] == "a.png"
            home = front.gateway.fleet.home
            assert home is not None
            front.gateway.fleet.away(home)  # the other has not got the picture yet
            reference = {"filename": "a.png", "subfolder": "", "type": "input"}
            made = await send("mask", "n.png", content, subfolder="clipspace", original_ref=json.dumps(reference))
            assert made["name"] == "n.png"
            for name in ("m.png", "n.png"):
                for server in ("gpu1", "gpu2"):
                    entry = await run_on(front, server, load(f"clipspace/{name} [input]"))
                    assert entry["status"]["status_str"] == "success", entry["status"]

    asyncio.run(main())


def test_another_home_gives_no_name_twice(tmp_path: Path) -> None:
    """Two files of one name, uploaded while other servers are home: both stay what they were."""

    async def main() -> None:
        async with farm(2, speed=100) as servers, desk(tmp_path, servers) as front, served(front) as send:
            names = []
            for content in (b"1", b"2", b"3", b"1"):
                names.append((await send("image", "a.png", content, subfolder="in"))["name"])
                home = front.gateway.fleet.home
                assert home is not None
                front.gateway.fleet.away(home)
                for member in front.gateway.fleet.members:
                    member.away_until = member.away_until if member is home else 0.0
            assert names == ["a.png", "a (1).png", "a (2).png", "a.png"]
            kept = [front.gateway.files.content(f"in/{name}") for name in names]
            assert kept == [b"1", b"2", b"3", b"1"]

    asyncio.run(main())


@asynccontextmanager
async def served(front: Desk) -> AsyncIterator[Callable[..., Awaitable[dict[str, Any]]]]:
    """Uploads to the gateway."""
    runner = web.AppRunner(front.front.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def send(kind: str, name: str, content: bytes, **fields: str) -> dict[str, Any]:
        form = aiohttp.FormData(fields)
        form.add_field("image", content, filename=name)
        async with client.post(f"http://127.0.0.1:{runner.addresses[0][1]}/upload/{kind}", data=form) as reply:
            assert reply.status == 200, await reply.text()
            found: dict[str, Any] = await reply.json()
            return found

    async with aiohttp.ClientSession() as client:
        yield send
    await runner.cleanup()


def test_uploads_are_known_to_the_next_process(tmp_path: Path) -> None:
    first = Files(tmp_path, lambda: ["a", "b"])
    first.keep("sub/x.png", b"1")
    first.keep("y.png [temp]", b"2")
    again = Files(tmp_path, lambda: ["a", "b"])
    assert again.content("sub/x.png") == b"1" and again.listed() == []
    assert again.named_in({"1": {"inputs": {"image": "sub/x.png [input]", "b": "y.png [temp]"}}}) == (
        "sub/x.png",
        "y.png [temp]",
    )
    assert again.upload_in({"filename": "x.png", "subfolder": "sub", "type": "input"}) == "sub/x.png"
    assert again.upload_in({"filename": "x.png [input]", "subfolder": "sub"}) == "sub/x.png"
    assert again.upload_in({"filename": "x.png", "subfolder": "sub"}) is None


def classes(models: list[str], files: list[str]) -> dict[str, Any]:
    return {
        "Loader": {"input": {"required": {"name": [models, {"tooltip": "x"}]}, "hidden": {"id": "UNIQUE_ID"}}},
        "New": {"input": {"required": {"name": ["COMBO", {"options": models}], "n": ["INT", {"default": 1}]}}},
        "LoadImage": {"input": {"required": {"image": [files, {"image_upload": True}]}}, "name": "LoadImage"},
    }


def test_classes_of_all_servers_offer_what_any_of_them_has() -> None:
    each = {"gpu1": classes(["a", "b"], ["one.png", "up.png"]), "gpu2": classes(["b", "c"], ["one.png", "two.png"])}
    each["gpu2"]["Only"] = {"input": {}}
    found = merged.classes(each)
    assert found["Loader"]["input"]["required"]["name"] == [["a", "b", "c"], {"tooltip": "x"}]
    assert found["Loader"]["input"]["hidden"] == {"id": "UNIQUE_ID"}
    assert found["New"]["input"]["required"] == {
        "name": ["COMBO", {"options": ["a", "b", "c"]}],
        "n": ["INT", {"default": 1}],
    }
    assert found["Only"] == {"input": {}} and list(found) == ["Loader", "New", "LoadImage", "Only"]
    files = found["LoadImage"]["input"]["required"]["image"][0]
    assert files == ["one.png", "@gpu1/up.png", "@gpu2/two.png"]
    shown = merged.with_uploads(found, ["new.png", "up.png"])
    assert shown["LoadImage"]["input"]["required"]["image"][0] == ["one.png", "@gpu2/two.png", "new.png", "up.png"]
    assert shown["Loader"] is found["Loader"]
    assert merged.classes({"a": each["gpu1"], "b": each["gpu1"]})["Loader"] is each["gpu1"]["Loader"]


def test_lists_have_each_item_once() -> None:
    assert merged.lists([["a", "b"], [], ["b", "c"]]) == ["a", "b", "c"]
    assert merged.lists([[{"name": "a", "n": 1}], [{"name": "a", "n": 2}, {"name": "b"}]]) == [
        {"name": "a", "n": 1},
        {"name": "b"},
    ]


def test_a_model_that_another_server_has_is_no_error(tmp_path: Path) -> None:
    """The first server refuses the prompt, the second takes it: that is the answer."""

    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            graph = save("x")
            lacking = _Refusing(Direct(servers[0]))
            member = front.gateway.fleet.get("gpu1")
            assert member is not None
            member.tap._inner = lacking
            front.gateway.fleet.drain("gpu2", True)
            post = asyncio.create_task(front.post(graph))
            await asyncio.sleep(0.05)
            front.gateway.fleet.drain("gpu2", False)
            answer = await post
            assert answer["node_errors"] == {}
            entry = await front.end_of(answer["prompt_id"])
            assert entry["status"]["status_str"] == "success"
            assert lacking.refused == 1 and servers[1].posts[answer["prompt_id"]] == 1

    clock.run_virtual(main())


class _Refusing:
    """A server that lacks the model of each prompt."""

    def __init__(self, inner: Direct) -> None:
        self._inner = inner
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def call(self, request: Request) -> Reply:
        if request.method == "POST" and request.path == "prompt":
            self.refused += 1
            error = {"type": "value_not_in_list", "message": "Value not in list", "details": "x", "extra_info": {}}
            body = {
                "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
                "node_errors": {"1": {"errors": [error], "dependent_outputs": ["2"], "class_type": "EmptyImage"}},
            }
            return Reply(status=400, body=json.dumps(body).encode(), content_type="application/json")
        return await self._inner.call(request)
