"""One prompt that is sent several times at once: all hear the same, and it is executed once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from comfyload import clock
from comfyload.gateway.intake import PromptRefused
from comfyload.record.policy import Breaker
from comfyload.retry.policy import default
from tests.support.direct import Direct
from tests.support.gateway import desk, farm
from tests.support.rig import sleeper


@pytest.mark.parametrize("how", ["prompt_id", "key"])
def test_a_file_that_is_fetched_first_makes_no_second_job(tmp_path: Path, how: str) -> None:
    """Between the arrival of the prompt and the store the gateway waits for the server that has the file."""

    async def main() -> None:
        async with (
            farm(2) as servers,
            desk(tmp_path, servers, transports=[Direct(server, latency_s=0.05) for server in servers]) as front,
        ):
            (made,) = (await front.run(sleeper(0.1)))["outputs"]["3"]["images"]
            graph = sleeper(0.2)
            name = f"{made['subfolder']}/{made['filename']} [output]"
            graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
            mark = {how: str(uuid4())}
            answers = await asyncio.gather(*(front.post(graph, **mark) for _ in range(4)))
            assert answers == [answers[0]] * 4
            await front.end_of(answers[0]["prompt_id"])
            assert sum(len(server.truth) for server in servers) == 2

    clock.run_virtual(main())


def test_a_refusal_is_heard_by_all(tmp_path: Path) -> None:
    """A client that gave its first POST up and sent it again must not wait for a job that never was."""
    bad: dict[str, Any] = sleeper(0.1)
    del bad["3"]["inputs"]["images"]

    async def main() -> None:
        async with (
            farm(1) as servers,
            desk(tmp_path, servers, transports=[Direct(servers[0], latency_s=0.05)]) as front,
        ):
            prompt_id = str(uuid4())
            posts = (front.post(bad, prompt_id=prompt_id) for _ in range(3))
            found = await asyncio.gather(*posts, return_exceptions=True)
            assert [each.status for each in found if isinstance(each, PromptRefused)] == [400] * 3
            assert not front.gateway.jobs

    clock.run_virtual(main())


@pytest.mark.parametrize("downtime_s", [2.1, 2.6, 3.1, 4.0, 5.0, 6.0])
def test_what_a_server_took_after_it_came_back_is_not_lost(tmp_path: Path, downtime_s: float) -> None:
    """Its event stream is tried anew every few seconds alone: until then it seems as if nothing listened there."""
    policy = structs.replace(default(300.0), attempts=10, breaker=Breaker(open_s=0.3))

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers, policy=policy) as front:
            ids = [(await front.post(sleeper(1.5 + number / 100)))["prompt_id"] for number in range(30)]
            for _ in range(3):
                await asyncio.sleep(8.0)
                servers[0].restart(downtime_s)
                await asyncio.sleep(downtime_s)
            for job_id in ids:
                assert (await front.end_of(job_id))["status"]["status_str"] == "success"
            done = [truth for truth in servers[0].truth if truth.outcome == "completed"]
            assert len(done) == len(ids)

    clock.run_virtual(main())
