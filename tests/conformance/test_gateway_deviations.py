"""What a gateway does otherwise than a ComfyUI, each with the request that shows it."""

from __future__ import annotations

import ast
import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.deviations import DEVIATIONS, MOST
from tests.support.places import place
from tests.support.rig import sleeper

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["gateway", "gateways"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with place(request.param, speed=4) as found:
        yield found


async def posted(session: aiohttp.ClientSession, url: str, graph: dict[str, Any]) -> str:
    graph["2"]["inputs"]["seed"] = secrets.randbelow(2**31)
    async with session.post(f"{url}/prompt", json={"prompt": graph}) as reply:
        assert reply.status == 200, await reply.text()
        return str((await reply.json())["prompt_id"])


async def job_of(session: aiohttp.ClientSession, url: str, prompt_id: str, *states: str) -> dict[str, Any]:
    """The job, once it is in one of these states."""
    async with asyncio.timeout(10):
        while True:
            async with session.get(f"{url}/api/jobs/{prompt_id}") as reply:
                found: dict[str, Any] = await reply.json()
            if found.get("status") in states:
                return found
            await asyncio.sleep(0.02)


def test_they_are_few_and_each_is_in_the_docs_and_held_by_a_test() -> None:
    assert len(DEVIATIONS) <= MOST
    page = " ".join((ROOT / "docs" / "why" / "gateway.md").read_text(encoding="utf-8").split())
    for name, deviation in DEVIATIONS.items():
        path, _, test = deviation.held_by.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
        assert deviation.what in page, f"docs/why/gateway.md does not say of {name!r}: {deviation.what}"


def test_interrupt_without_a_body_stops_the_only_job_that_runs(url: str) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/interrupt") as reply:
                assert (reply.status, await reply.text()) == (200, ""), "nothing runs"
            job = await posted(session, url, sleeper(8.0))
            await job_of(session, url, job, "in_progress")
            async with session.post(f"{url}/interrupt") as reply:
                assert reply.status == 200
            assert (await job_of(session, url, job, "cancelled", "completed"))["status"] == "cancelled"

    asyncio.run(main())


def test_interrupt_without_a_body_stops_none_of_several() -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            jobs = [await posted(session, url, sleeper(3.0)) for _ in range(2)]
            for job in jobs:
                await job_of(session, url, job, "in_progress")
            async with session.post(f"{url}/interrupt") as reply:
                assert reply.status == 400
                assert "prompt_id" in (await reply.json())["error"]["message"]
            for job in jobs:
                await job_of(session, url, job, "completed")

    with place("gateways", speed=4) as url:
        asyncio.run(main(url))


def test_keys_that_comfyui_has_not(url: str) -> None:
    failing = sleeper(0.1)
    failing["2"] = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "no such thing", "seed": 1}}

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for graph, status in ((sleeper(0.1), "completed"), (failing, "failed")):
                job = await posted(session, url, graph)
                item = await job_of(session, url, job, "completed", "failed")
                assert item["status"] == status
                assert item["comfyload"]["attempts"][-1]["outcome"] == status
                assert item["comfyload"]["attempts"][-1]["server"] in ("gpu1", "gpu2")
                async with session.get(f"{url}/history/{job}") as reply:
                    shown = (await reply.json())[job]["status"]
                assert ("no such thing" in shown["error"]) if status == "failed" else "error" not in shown

    asyncio.run(main())


@pytest.mark.parametrize("node", [{"class_type": "PreviewImage"}, {"class_type": "PreviewImage", "inputs": None}])
def test_a_node_without_inputs_is_refused(url: str, node: dict[str, Any]) -> None:
    async def main() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/prompt", json={"prompt": sleeper(0.1) | {"9": node}}) as reply,
        ):
            assert reply.status == 400
            error = (await reply.json())["error"]
            assert error["type"] == "invalid_prompt" and "'#9'" in error["message"]

    asyncio.run(main())
