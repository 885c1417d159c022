"""`comfyload.connect` from a program's side: what is refused, what is raised, what is given back."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import comfyload
from comfyload.app.library.given import changed, read
from comfyload.errors import JobFailed, ServerUnreachable, UsageError, WorkflowError
from comfyload.record.model import Execution, Failure
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve
from tests.support.rig import SLEEPER
from tests.support.servers import in_thread


def test_a_workflow_is_a_dict_a_text_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "portrait.json"
    path.write_text(json.dumps(SLEEPER))
    found = [read(SLEEPER), read(json.dumps(SLEEPER)), read(path), read(str(path))]
    assert all(workflow.graph == SLEEPER for workflow in found)
    assert found[0].name == found[1].name and found[2].name == found[3].name == "portrait"


@pytest.mark.parametrize("workflow", [{}, {"1": 2}, "{", "{}", "no/such/file.json", {"1": {3, 4}}])
def test_what_is_no_workflow_is_refused(workflow: Any) -> None:
    with pytest.raises(WorkflowError):
        read(workflow)


def test_seeds_and_values_change_a_copy() -> None:
    workflow = read(SLEEPER)
    other = changed(workflow, 5, {"1.color": 9, "SaveImage.filename_prefix": "a"})
    assert other.graph["2"]["inputs"]["seed"] == 5 and other.graph["1"]["inputs"]["color"] == 9
    assert workflow.graph == SLEEPER and other.name == workflow.name
    with pytest.raises(UsageError):
        changed(workflow, None, {"1.nothing": 1})
    with pytest.raises(UsageError):
        changed(workflow, None, {"1.color": object()})
    with pytest.raises(UsageError):
        changed(read({"1": SLEEPER["1"]}), 5, {})


@pytest.mark.parametrize(
    ("inputs", "more", "place", "value"),
    [
        ({"wildcard_seed": 1}, {}, ("2", "wildcard_seed"), 5),
        ({"noise_seed": "1"}, {}, ("2", "noise_seed"), "5"),
        ({"mode.seed": 7.0}, {}, ("2", "mode.seed"), 5),
        ({"seed": ["9", 0]}, {"9": {"class_type": "PrimitiveInt", "inputs": {"value": 1}}}, ("9", "value"), 5),
    ],
)
def test_the_seeds_of_a_program_are_those_of_a_run(inputs: Any, more: Any, place: tuple[str, str], value: Any) -> None:
    graph = {"2": {"class_type": "Sampler", "inputs": inputs}, **more}
    assert changed(read(graph), 5, {}).graph[place[0]]["inputs"][place[1]] == value


@pytest.mark.parametrize(
    "made",
    [
        lambda: comfyload.connect([]),
        lambda: comfyload.connect("ftp://x"),
        lambda: comfyload.connect("http://x", "no/such/retry.json"),
        lambda: comfyload.connect("http://x", headers={"bad name": "x"}),
        lambda: comfyload.connect("http://x", headers={"A": "env:NO_SUCH_VARIABLE_HERE"}),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(made: Any) -> None:
    with pytest.raises(UsageError):
        made()


def test_nobody_there_is_raised_and_leaves_nothing_running() -> None:
    before = threading.active_count()
    with pytest.raises(ServerUnreachable), comfyload.connect("http://127.0.0.1:9"):
        raise AssertionError
    assert threading.active_count() == before


def test_a_failure_is_a_value_until_it_is_asked_to_be_raised() -> None:
    Execution(outcome="completed").raise_for_failure()
    failure = Failure(kind="oom", node_class="KSampler", message="no memory")
    with pytest.raises(JobFailed, match="the job failed: oom in KSampler, no memory"):
        Execution(outcome="failed", failure=failure).raise_for_failure()
    with pytest.raises(JobFailed, match="the job timed out"):
        Execution(outcome="timed_out").raise_for_failure()


def test_a_graph_that_would_kill_the_worker_is_not_sent() -> None:
    deadly = json.loads(json.dumps(SLEEPER))
    deadly["1"]["inputs"]["old"] = ["77", 0]
    dead_node = SLEEPER | {"9": {"class_type": "ImageInvert", "inputs": {"image": ["77", 0]}}}
    with in_thread(lambda: Server(speed=50)) as (url, _), comfyload.connect(url) as comfy:
        with pytest.raises(WorkflowError, match="kill its worker"):
            comfy.run(deadly)
        assert comfy.run(dead_node).outcome == "completed"


def test_threads_share_a_connection_and_servers_that_are_down_are_named() -> None:
    with in_thread(lambda: Server(faults=Faults(node_error=Which(at=(1,))))) as (url, server):
        done: list[Execution] = []
        with comfyload.connect([url, "http://127.0.0.1:9"]) as comfy:
            assert list(comfy.left_out) == ["http://127.0.0.1:9"]

            def one(seed: int) -> None:
                done.append(comfy.run(SLEEPER, seed=seed, set={"2.seconds": 0.01}))

            threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [execution.outcome for execution in done] == ["completed"] * 4
            name, content = comfy.fetch(done[0])[0]
            assert name.startswith("output/") and content.startswith(b"\x89PNG")
        assert sum(len(execution.attempts) for execution in done) == 2
        assert sum(server.posts.values()) == 5


def test_a_server_that_was_down_gets_jobs_once_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyload.app.library.async_comfy.TRY_AGAIN_S", (0.05,))

    async def main() -> None:
        async with Server() as first, Server() as second, serve(first) as url:
            async with serve(second) as other:
                pass  # The port is free again, and known.
            async with comfyload.connect([url, other]) as comfy:
                assert list(comfy.left_out) == [other]
                async with serve(second, port=urlsplit(other).port or 0):
                    while comfy.left_out:
                        await asyncio.sleep(0.01)
                    jobs = (comfy.run(SLEEPER, seed=seed, set={"2.seconds": 0.2}) for seed in range(4))
                    done = await asyncio.gather(*jobs)
                    assert {execution.outcome for execution in done} == {"completed"}
                    assert sum(first.posts.values()) == sum(second.posts.values()) == 2
                    for execution in done:
                        assert len(await comfy.fetch(execution)) == 1
            async with comfyload.connect([url, other]) as comfy:
                assert comfy.left_out  # Leaving while it is still asked ends the asking.
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_leaving_takes_off_the_server_what_has_not_ended() -> None:
    with in_thread(Server) as (url, server):
        ended: list[Execution] = []
        with comfyload.connect(url) as comfy:
            running = threading.Thread(target=lambda: ended.append(comfy.run(SLEEPER, set={"2.seconds": 0.3})))
            waiting = threading.Thread(target=lambda: ended.append(comfy.run(SLEEPER, set={"2.seconds": 60.0})))
            running.start()
            waiting.start()
            while sum(server.posts.values()) < 2:
                threading.Event().wait(0.01)
        running.join(10)
        waiting.join(10)
        assert not running.is_alive() and not waiting.is_alive() and len(ended) == 2
        assert server._state.queue.remaining <= 1


def test_the_public_names_are_loaded_when_asked_for() -> None:
    assert comfyload.Policy().attempts == 3 and comfyload.Execution is Execution
    with pytest.raises(AttributeError):
        comfyload.nothing  # noqa: B018
