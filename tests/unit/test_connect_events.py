"""What a program is told of its job on the way, and in which order it gets what the job made."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

import comfyload
from comfyload import JobEvent, Progress, Queued, Retrying
from comfyload.app.library.made import files_of, in_order_of
from comfyload.comfy.inflight import progress_of
from comfyload.comfy.wire.messages import decode_message
from comfyload.record.model import Execution, Output
from comfyload.sim import Faults, Server, Which
from tests.support.rig import SLEEPER
from tests.support.servers import in_thread
from tests.unit.retrying import Scene, ask, scene


def test_places_in_the_queue_are_counted_down_also_past_the_jobs_of_others() -> None:
    async def script(found: Scene) -> list[JobEvent]:
        events: list[JobEvent] = []
        for seconds in (2.0, 3.0):
            found.servers[0].foreign(json.loads(ask(seconds).graph()), client_id="another")
        await asyncio.sleep(0.5)
        ours = asyncio.create_task(found.client.run(ask(1.0, nodes=2), tell=events.append))
        await asyncio.sleep(0.5)
        found.servers[0].foreign(json.loads(ask(1.0).graph()), client_id="another")  # behind ours
        assert (await ours).outcome == "completed"
        return events

    events, _ = scene([Server()], comfyload.Policy(), script)
    waited = [event.before for event in events if isinstance(event, Queued)]
    assert waited == [2, 1, 0] and all(event.server == "http://s0/" for event in events if isinstance(event, Queued))
    assert [event.node for event in events if isinstance(event, Progress)] == ["10", "11", "3"]
    assert not isinstance(events[-1], Queued)


def test_retries_are_told_with_their_reason_and_pause() -> None:
    async def script(found: Scene) -> list[JobEvent]:
        events: list[JobEvent] = []
        await found.client.run(ask(1.0), tell=events.append)
        return events

    events, _ = scene([Server(faults=Faults(node_error=Which(at=(1,))))], comfyload.Policy(), script)
    retries = [event for event in events if isinstance(event, Retrying)]
    assert [(event.attempt, event.why, event.wait_s) for event in retries] == [(2, "execution_error", 0.0)]
    assert [(event.of, event.rule) for event in retries] == [(3, "transient: it may pass by itself")]
    assert [event.server for event in retries] == ["http://s0/"]


@pytest.mark.parametrize(
    ("frame", "step"),
    [
        ('{"type": "progress", "data": {"value": 3, "max": 20, "node": "5", "prompt_id": "p"}}', (3, 20)),
        ('{"type": "progress", "data": {"value": 3.5, "max": 20.0, "node": "5"}}', (3, 20)),
        ('{"type": "progress", "data": {"value": "three", "max": null, "node": 5}}', None),
        ('{"type": "progress", "data": {"value": 1, "max": 0, "node": "5"}}', None),
        ('{"type": "progress", "data": {"value": NaN, "max": 2, "node": "5"}}', None),
        ('{"type": "progress", "data": {"value": 1e400, "max": Infinity, "node": "5"}}', None),
        ('{"type": "progress", "data": {"value": {"a": 1}, "max": [], "node": "5"}}', None),
        ('{"type": "progress", "data": {"value": 1, "max": 2}}', None),
        ('{"type": "executing", "data": {"node": null}}', None),
    ],
)
def test_steps_are_told_as_far_as_a_node_tells_them(frame: str, step: tuple[int, int] | None) -> None:
    message = decode_message(frame)
    assert message is not None
    progress = progress_of(message)
    assert progress == (None if step is None else Progress(node="5", step=step[0], steps=step[1]))


def test_a_node_of_an_expansion_is_told_as_the_node_that_is_shown() -> None:
    message = decode_message('{"type": "executing", "data": {"node": "7.0.2", "display_node": "7"}}')
    assert message is not None and progress_of(message) == Progress(node="7")


def test_events_come_on_the_connections_thread_with_the_class_of_each_node() -> None:
    events: list[tuple[str, JobEvent]] = []
    with in_thread(lambda: Server(speed=20)) as (url, _), comfyload.connect(url) as comfy:
        comfy.run(SLEEPER, on_event=lambda event: events.append((threading.current_thread().name, event)))
    assert {name for name, _ in events} == {"comfyload"}
    nodes = [(event.node, event.node_class) for _, event in events if isinstance(event, Progress)]
    assert nodes == [("1", "EmptyImage"), ("2", "SimSleep"), ("3", "SaveImage")]


def test_an_error_of_the_program_ends_no_job_and_is_said_once(caplog: Any) -> None:
    def on_event(_: JobEvent) -> None:
        raise ValueError("no bar")

    caplog.set_level(logging.WARNING, logger="comfyload")
    with in_thread(lambda: Server(speed=20)) as (url, _), comfyload.connect(url) as comfy:
        assert comfy.run(SLEEPER, on_event=on_event).outcome == "completed"
    assert [record.getMessage() for record in caplog.records] == ["on_event failed; the job goes on"]
    assert "no bar" in caplog.text


# --- what was made


def test_outputs_come_in_the_order_of_the_graph_and_previews_when_asked_for() -> None:
    made = [
        Output(node="9", kind="images", count=2, files=["output/b.png", "output/a.png"]),
        Output(node="x", kind="images", count=1, files=["output/unknown.png"]),
        Output(node="10.0.3", kind="images", count=1, files=["output/inner.png"]),
        Output(node="2", kind="images", count=2, files=["temp/p.png", "output/a.png"]),
    ]
    execution = in_order_of(["10", "2", "9"], Execution(outcome="completed", outputs=made))
    assert [output.node for output in execution.outputs] == ["10.0.3", "2", "9", "x"]
    files = ["output/inner.png", "output/a.png", "output/b.png", "output/unknown.png"]
    assert files_of(execution, previews=False) == files
    assert files_of(execution, previews=True) == [files[0], "temp/p.png", *files[1:]]


def test_files_are_fetched_in_that_order() -> None:
    graph = {
        "1": SLEEPER["1"],
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "late"}},
        "2": SLEEPER["2"],
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "early"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with in_thread(lambda: Server(speed=20)) as (url, _), comfyload.connect(url) as comfy:
        execution = comfy.run(graph)
        assert [output.node for output in execution.outputs] == ["9", "3", "4"]
        names = [name for name, _ in comfy.fetch(execution)]
        assert names == ["output/late_00001_.png", "output/early_00001_.png"]
        assert len(comfy.fetch(execution, previews=True)) == 3


def test_the_public_names_are_listed_before_they_are_loaded() -> None:
    assert set(comfyload.__all__) <= set(dir(comfyload))
