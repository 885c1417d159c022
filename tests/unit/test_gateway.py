"""The gateway over simulated servers, on virtual time: what becomes of jobs, whatever happens to their servers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from comfyload import clock
from comfyload.gateway.intake import PromptRefused
from comfyload.record.model import Record
from comfyload.record.policy import Policy
from comfyload.record.run import RunReader
from comfyload.retry.policy import default
from tests.support.gateway import desk, farm, frames_of
from tests.support.rig import sleeper


def records(folder: Path) -> list[Record]:
    """All records of a ledger."""
    runs = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return [line for run in runs for line in RunReader(run).lines() if isinstance(line, Record)]


def test_a_job_ends_as_on_a_bare_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            socket = front.listen("me")
            answer = await front.post(sleeper(1.0), client_id="me")
            assert answer["node_errors"] == {} and answer["number"] == 0
            entry = await front.end_of(answer["prompt_id"])
            assert entry["status"]["status_str"] == "success" and "error" not in entry["status"]
            assert entry["prompt"][1] == answer["prompt_id"]
            assert entry["prompt"][2] == sleeper(1.0)
            assert entry["prompt"][3]["client_id"] == "me"
            assert entry["outputs"]["3"]["images"][0] == {
                "filename": "x_00001_.png",
                "subfolder": "t",
                "type": "output",
            }
            kinds = [frame["type"] for frame in frames_of(socket) if frame["type"] != "status"]
            assert kinds[:2] == ["execution_start", "execution_cached"]
            assert kinds[-2:] == ["execution_success", "executing"]
            assert servers[0].posts == {answer["prompt_id"]: 1}, "the first attempt has the public id"

    clock.run_virtual(main())
    (record,) = records(tmp_path)
    assert record.execution.outcome == "completed" and record.prompt_id == record.prompt_id


def test_a_lost_server_s_job_is_done_by_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        policy = Policy(**{**_fields(default(60.0)), "liveness_s": 5.0})
        async with farm(2) as servers, desk(tmp_path, servers, policy=policy) as front:
            socket = front.listen("me")
            answer = await front.post(sleeper(3.0), client_id="me")
            prompt_id = answer["prompt_id"]
            await asyncio.sleep(1.0)
            assert front.status_of(prompt_id) == "in_progress"
            first = next(server for server in servers if server.posts[prompt_id])
            first.restart(downtime_s=30.0)
            while not any(server.truth and server.truth[-1].outcome == "" for server in servers if server is not first):
                assert front.status_of(prompt_id) in ("pending", "in_progress"), "never shown as gone"
                await asyncio.sleep(0.1)
            entry = await front.end_of(prompt_id)
            assert entry["status"]["status_str"] == "success"
            frames = [frame for frame in frames_of(socket) if frame["type"] != "status"]
            assert {frame["data"].get("prompt_id") for frame in frames} == {prompt_id}
            kinds = [frame["type"] for frame in frames]
            assert kinds.count("execution_start") == 2 and "execution_error" not in kinds
            assert entry["outputs"]["3"]["images"][0]["subfolder"].startswith("@gpu")
            job = front.history.job(prompt_id, "default")
            assert job is not None and len(job["comfyload"]["attempts"]) == 2

    clock.run_virtual(main())
    (record,) = records(tmp_path)
    assert [attempt.outcome for attempt in record.execution.attempts] == ["lost", "completed"]
    (event,) = [line for run in tmp_path.glob("*/events.ndjson") for line in RunReader(run.parent).events()]
    assert (event.index, event.prompt_id, event.attempt, event.why) == (0, record.prompt_id, 2, "lost")
    sent_again = record.execution.attempts[1].sent
    assert sent_again is not None and record.due < event.t <= sent_again


def test_a_graph_that_fails_is_told_in_words(tmp_path: Path) -> None:
    failing = sleeper(0.1)
    failing["2"] = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "no such thing", "seed": 1}}

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            socket = front.listen("me")
            entry = await front.run(failing, client_id="me")
            assert entry["status"]["status_str"] == "error"
            assert "no such thing" in entry["status"]["error"]
            kinds = [frame["type"] for frame in frames_of(socket) if frame["type"] != "status"]
            assert kinds[-2:] == ["execution_error", "executing"]
            (needing,) = front.gateway.store.ended(None, attention=True)
            assert json.loads(needing.graph) == failing, "it can be sent again"

    clock.run_virtual(main())


def test_a_prompt_that_is_taken_in_part_completes_for_its_client_and_in_the_ledger(tmp_path: Path) -> None:
    graph = sleeper(0.1) | {"9": {"class_type": "PreviewImage", "inputs": {}}}

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            answer = await front.post(graph)
            assert list(answer["node_errors"]) == ["9"]
            entry = await front.end_of(answer["prompt_id"])
            assert entry["status"]["status_str"] == "success" and list(entry["outputs"]) == ["3"]
            job = front.history.job(answer["prompt_id"], "default")
            assert job is not None and job["status"] == "completed"
            assert [each["outcome"] for each in job["comfyload"]["attempts"]] == ["completed"]
            assert front.gateway.store.needing(None) == []

    clock.run_virtual(main())
    (record,) = records(tmp_path)
    assert (record.execution.outcome, record.execution.failure) == ("completed", None)


def test_a_server_s_refusal_is_the_answer(tmp_path: Path) -> None:
    bad = sleeper(0.1)
    del bad["3"]["inputs"]["images"]

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            with pytest.raises(PromptRefused) as refused:
                await front.post(bad)
            assert refused.value.status == 400
            assert json.loads(refused.value.body)["node_errors"]["3"]["errors"][0]["type"] == "required_input_missing"
            assert not front.gateway.jobs and not list(front.gateway.store.unended())

    clock.run_virtual(main())
    assert records(tmp_path) == []


def test_the_same_prompt_runs_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            prompt_id = str(uuid4())
            first, again = await asyncio.gather(
                front.post(sleeper(0.5), prompt_id=prompt_id), front.post(sleeper(0.5), prompt_id=prompt_id)
            )
            assert first == again
            await front.end_of(prompt_id)
            assert (await front.post(sleeper(0.5), prompt_id=prompt_id)) == first
            by_key = await front.post(sleeper(0.2), key="order-7")
            assert (await front.post(sleeper(0.2), key="order-7")) == by_key
            with pytest.raises(PromptRefused) as refused:
                await front.post(sleeper(0.3), key="order-7")
            assert refused.value.status == 422
            await front.end_of(by_key["prompt_id"])
            assert servers[0].posts == {prompt_id: 1, by_key["prompt_id"]: 1}

    clock.run_virtual(main())


def test_jobs_survive_the_gateway(tmp_path: Path) -> None:
    """One that ran, one that waited on the server and five that waited here: each is executed once."""

    async def main() -> None:
        async with farm(1) as servers:
            ids = []
            async with desk(tmp_path, servers) as front:
                ids += [(await front.post(sleeper(2.0 + number / 100)))["prompt_id"] for number in range(7)]
                await asyncio.sleep(1.0)
                assert [front.status_of(each) for each in ids] == ["in_progress"] + ["pending"] * 6
            async with desk(tmp_path, servers) as front:
                for each in ids:
                    assert (await front.end_of(each))["status"]["status_str"] == "success"
            ran = [truth.prompt_id for truth in servers[0].truth if truth.outcome == "completed"]
            assert ran == ids

    clock.run_virtual(main())
    assert len(records(tmp_path)) == 7


@pytest.mark.parametrize("when", ["here", "there", "running"])
def test_a_job_is_cancelled_wherever_it_is(tmp_path: Path, when: str) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            socket = front.listen("me")
            ids = [(await front.post(sleeper(2.0 + n / 100), client_id="me"))["prompt_id"] for n in range(3)]
            await asyncio.sleep(1.0)
            mine = ids[("running", "there", "here").index(when)]
            assert await front.gateway.cancel(mine, "default")
            assert not await front.gateway.cancel(mine, "somebody else")
            others = [each for each in ids if each != mine]
            for each in others:
                assert (await front.end_of(each))["status"]["status_str"] == "success"
            frames = frames_of(socket)
            events = [frame["type"] for frame in frames if frame["data"].get("prompt_id") == mine]
            if when == "running":
                entry = await front.end_of(mine)
                assert front.status_of(mine) == "cancelled"
                assert entry["status"]["messages"][-1][0] == "execution_interrupted"
                assert events[-2:] == ["execution_interrupted", "executing"]
            else:
                assert front.status_of(mine) is None and events == []
            ran = {truth.prompt_id for truth in servers[0].truth if truth.outcome == "completed"}
            assert ran == set(others)

    clock.run_virtual(main())
    assert sorted(record.execution.outcome for record in records(tmp_path)) == ["cancelled", "completed", "completed"]


def test_tenants_share_a_server_alike(tmp_path: Path) -> None:
    """One sends forty jobs, another two: its two do not wait behind the forty."""

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            await front.run(sleeper(1.0))
            many = [(await front.post(sleeper(1.0 + n / 1000)))["prompt_id"] for n in range(40)]
            few = [(await front.post(sleeper(1.5 + n / 1000), tenant="other"))["prompt_id"] for n in range(2)]
            for each in few:
                await front.end_of(each, "other")
            done = sum(front.status_of(each) == "completed" for each in many)
            assert done <= 5

    clock.run_virtual(main())


def test_what_cannot_be_done_in_time_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers, policy=default(10.0)) as front:
            for _ in range(3):
                await front.run(sleeper(1.0 + len(servers[0].truth) / 1000))
            taken, refused = [], []
            for number in range(30):
                try:
                    taken.append((await front.post(sleeper(1.1 + number / 1000)))["prompt_id"])
                except PromptRefused as error:
                    refused.append(error)
            assert 7 <= len(taken) <= 10
            assert {error.status for error in refused} == {503}
            assert int(refused[0].headers["Retry-After"]) >= 1
            assert "Try again in" in json.loads(refused[0].body)["error"]["message"]
            ends = [(await front.end_of(each))["status"]["status_str"] for each in taken]
            assert ends.count("success") >= len(taken) - 1

    clock.run_virtual(main())


def test_jobs_that_are_late_already_keep_no_new_one_out(tmp_path: Path) -> None:
    """The server was away for most of their time: most of the jobs that wait will not be done in theirs."""

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers, policy=default(20.0)) as front:
            for number in range(3):
                await front.run(sleeper(1.0 + number / 1000))
            servers[0].restart(downtime_s=16.0)
            await asyncio.sleep(0.5)
            old = [(await front.post(sleeper(1.1 + number / 1000)))["prompt_id"] for number in range(15)]
            while not servers[0].up:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)
            new = [(await front.post(sleeper(1.2 + number / 1000)))["prompt_id"] for number in range(6)]
            ends = [(await front.end_of(each))["status"]["status_str"] for each in new]
            assert ends == ["success"] * 6
            late = [(await front.end_of(each))["status"]["status_str"] for each in old]
            assert "error" in late and "success" in late

    clock.run_virtual(main())


def test_what_jobs_take_is_known_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                for number in range(3):
                    await front.run(sleeper(2.0 + number / 100))
            async with desk(tmp_path, servers, policy=default(5.0)) as front:
                taken = [await front.post(sleeper(2.1 + number / 100)) for number in range(2)]
                with pytest.raises(PromptRefused):
                    await front.post(sleeper(2.2))
                for answer in taken:
                    assert (await front.end_of(answer["prompt_id"]))["status"]["completed"]

    clock.run_virtual(main())


def test_a_class_no_server_has_is_refused_in_comfyui_s_words(tmp_path: Path) -> None:
    unknown = sleeper(0.1)
    unknown["2"]["class_type"] = "NobodyHasThis"

    async def main() -> None:
        async with farm(2) as servers, desk(tmp_path, servers) as front:
            with pytest.raises(PromptRefused) as refused:
                await front.post(unknown)
            error = json.loads(refused.value.body)["error"]
            assert error["type"] == "missing_node_type" and "NobodyHasThis" in error["message"]
            assert error["extra_info"]["node_id"] == "2"
            assert not servers[0].posts and not servers[1].posts

    clock.run_virtual(main())


def _fields(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in policy.__struct_fields__}
