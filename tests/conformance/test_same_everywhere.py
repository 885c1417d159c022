"""The same behaviour in process, over sockets, through a gateway and, with COMFYLOAD_LIVE_URL, on real servers.

The graphs need no model, so that any ComfyUI without a GPU can run them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import pytest

from comfyload import clock
from comfyload.comfy.address import parse_server
from comfyload.comfy.api import api_of
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.http import Http
from comfyload.comfy.identify import describe_packs, identify
from comfyload.comfy.stream import frames_of
from comfyload.comfy.wire.calls import Request, Transport
from comfyload.load import Stop
from comfyload.sim import Server
from comfyload.sim.http import serve
from tests.support.direct import Direct
from tests.support.places import KINDS, place
from tests.support.rig import Played, play_on

T = TypeVar("T")
Place = Callable[[], AbstractAsyncContextManager[Transport]]


@asynccontextmanager
async def in_process() -> AsyncIterator[Transport]:
    async with Server() as server:
        yield Direct(server, latency_s=0.001)


@asynccontextmanager
async def over_sockets() -> AsyncIterator[Transport]:
    async with (
        Server(speed=4) as server,
        serve(server, base_path="/comfy") as url,
        Http.connect(parse_server(url), {}) as transport,
    ):
        yield transport


@asynccontextmanager
async def at(url: str) -> AsyncIterator[Transport]:
    async with Http.connect(parse_server(url), {}) as transport:
        yield transport


class On:
    """Runs a coroutine function on a transport, on the clock that fits it. `live`: on real servers, which others use.
    `servers`: how many are behind it, each with a cache of its own; 0: it is none but itself.
    """

    def __init__(self, place: Place, kind: str = "", *, virtual: bool = False) -> None:
        self._place = place
        self._virtual = virtual
        self.live = kind.startswith("live")
        self.servers = 2 if kind.endswith("gateways") else 1 if kind.endswith("gateway") else 0

    @property
    def caches(self) -> int:
        return max(1, self.servers)

    def __call__(self, body: Callable[[Transport], Awaitable[T]]) -> T:
        async def main() -> T:
            async with self._place() as transport:
                return await body(transport)

        return clock.run_virtual(main()) if self._virtual else clock.run(main())


@pytest.fixture(scope="module", params=["in process", "over sockets", *KINDS[1:]])
def on(request: pytest.FixtureRequest) -> Iterator[On]:
    if request.param == "in process":
        yield On(in_process, virtual=True)
    elif request.param == "over sockets":
        yield On(over_sockets)
    else:
        with place(request.param, speed=4) as url:
            yield On(partial(at, url), request.param)


def noisy(size: int = 64, batch: int = 1) -> dict[str, Any]:
    """A graph of its own: no server has seen this colour with this size before."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": batch, "color": secrets.randbelow(2**24)},
        },
        "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": 1, "strength": 0.5}},
        "3": {
            "class_type": "ImageScale",
            "inputs": {
                "image": ["2", 0],
                "upscale_method": "bicubic",
                "width": size,
                "height": size,
                "crop": "disabled",
            },
        },
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "conformance"}},
    }


def files(played: Played) -> list[str]:
    return [f for record in played.records for output in record.execution.outputs for f in output.files]


def test_fresh_jobs_make_an_image_each_and_tell_their_times(on: On) -> None:
    played: Played = on(
        lambda t: play_on(t, graph=noisy(), jobs=4, concurrency=2, fetch=True, run_id=secrets.token_hex(4))
    )
    assert played.outcomes() == ["completed"] * 4
    assert len(set(files(played))) == 4
    for record in played.records:
        execution = record.execution
        assert "4" not in execution.cached
        assert execution.end_source == "events"
        assert execution.executions == 1
        assert [span.node for span in execution.nodes][-1] == "4"
        assert execution.server.start_ms is not None
        assert execution.server.end_ms is not None
        assert execution.server.end_ms >= execution.server.start_ms
        assert [fetch.problem for fetch in execution.fetches] == [""]
        assert record.due <= (execution.sent or -1) <= (execution.acknowledged or -1)
        assert (execution.started or -1) <= (execution.done or -2)
    assert played.codes() <= {"foreign_load"} if on.live else not played.codes()


def test_the_same_graph_again_is_served_from_the_cache_and_seen_to_be(on: On) -> None:
    played: Played = on(lambda t: play_on(t, graph=noisy(), jobs=12, as_is=True, run_id=secrets.token_hex(4)))
    assert played.outcomes() == ["completed"] * 12
    cached = [len(record.execution.cached) for record in played.records]
    fresh = cached.count(0)
    assert cached[0] == 0 and 1 <= fresh <= on.caches
    assert cached.count(4) == 12 - fresh
    assert len(set(files(played))) == fresh


def test_a_graph_without_a_seed_is_salted_and_executes_every_time(on: On) -> None:
    graph = noisy()
    graph["2"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    played: Played = on(lambda t: play_on(t, graph=graph, jobs=3, run_id=secrets.token_hex(4)))
    assert played.variation is not None
    assert played.variation.salted == ["1"]
    assert [record.execution.cached for record in played.records] == [[], [], []]
    assert len(set(files(played))) == 3


@pytest.mark.parametrize("form", ["integer", "text", "float", "linked"])
def test_a_seed_of_any_form_varies_and_what_stands_before_it_stays_in_the_cache(on: On, form: str) -> None:
    graph = noisy()
    seeds = {"integer": 7, "text": "7", "float": 7.0, "linked": ["9", 0]}
    graph["2"]["inputs"]["seed"] = seeds[form]
    if form == "linked":
        graph["9"] = {"class_type": "PrimitiveInt", "inputs": {"value": 7}}
    played: Played = on(lambda t: play_on(t, graph=graph, jobs=4, run_id=secrets.token_hex(4)))
    assert played.outcomes() == ["completed"] * 4
    assert played.variation is not None
    assert played.variation.varied == (["9.value"] if form == "linked" else ["2.seed"])
    again = [record.execution for record in sorted(played.records, key=lambda record: record.index)][1:]
    warm = [execution for execution in again if execution.cached]
    assert len(warm) >= 4 - on.caches
    assert [execution.cached for execution in warm] == [["1"]] * len(warm)
    assert [{span.node for span in execution.nodes} for execution in warm] == [played.variation.reach.runs] * len(warm)
    assert len(set(files(played))) == 4


@pytest.mark.parametrize("fault", ["missing class", "value", "missing input", "no output", "dropped output"])
def test_refusals_have_their_reason(on: On, fault: str) -> None:
    graph = noisy()
    expected = "validation"
    if fault == "missing class":
        graph["2"]["class_type"] = "NoSuchNodeAnywhere"
        expected = "missing_node"
    elif fault == "value":
        graph["2"]["inputs"]["strength"] = 99
    elif fault == "missing input":
        del graph["3"]["inputs"]["width"]
    elif fault == "no output":
        del graph["4"]
    else:
        graph["5"] = {"class_type": "PreviewImage", "inputs": {}}
        expected = "partial_validation"
    played: Played = on(lambda t: play_on(t, graph=graph, jobs=1, run_id=secrets.token_hex(4)))
    assert played.kinds() == [expected]


def test_where_a_prompt_is_can_be_asked(on: On) -> None:
    async def body(transport: Transport) -> list[str]:
        server = await identify(transport, "x", [])
        api = api_of(transport, server)
        seen = [await api.prompt_state("00000000-0000-4000-8000-00000000dead")]
        played = await play_on(transport, graph=noisy(), jobs=1, run_id=secrets.token_hex(4))
        seen.append(await api.prompt_state(played.records[0].prompt_id))
        assert await api.queue_remaining() == 0
        assert await api.history(played.records[0].prompt_id) is not None
        assert await describe_packs(transport) is not None
        return seen

    assert on(body) == ["absent", "finished"]


def test_abandoned_jobs_leave_the_servers_queue(on: On) -> None:
    async def body(transport: Transport) -> tuple[Played, Any]:
        async def script(client: ComfyClient, stop: Stop) -> None:
            while not any(job.tracker.started is not None for job in client.inflight):
                await asyncio.sleep(0.02)
            stop.request()
            await client.cancel_all()

        graph = noisy(size=1024, batch=4)
        played = await play_on(
            transport, graph=graph, jobs=30, concurrency=10, script=script, run_id=secrets.token_hex(4)
        )
        reply = await transport.call(Request(method="GET", path="queue"))
        return played, json.loads(reply.body)

    played, queue = on(body)
    assert set(played.outcomes()) <= {"completed", "cancelled"}
    assert played.outcomes().count("cancelled") >= 8
    ours = {record.prompt_id for record in played.records}
    assert not [item for group in queue.values() for item in group if item[1] in ours]


def test_a_job_that_takes_too_long_is_given_up_and_taken_off(on: On) -> None:
    async def body(transport: Transport) -> tuple[Played, Any]:
        graph = noisy(size=2048, batch=4)
        played = await play_on(
            transport, graph=graph, jobs=4, concurrency=4, timeout_s=0.005, run_id=secrets.token_hex(4)
        )
        await asyncio.sleep(0.1)
        reply = await transport.call(Request(method="GET", path="queue"))
        return played, json.loads(reply.body)

    played, queue = on(body)
    assert set(played.outcomes()) == {"timed_out"}
    ours = {record.prompt_id for record in played.records}
    assert not [item for item in queue["queue_pending"] if item[1] in ours]


def test_events_come_in_the_recorded_order(on: On) -> None:
    async def body(transport: Transport) -> list[str]:
        kinds: list[str] = []
        async with frames_of(transport, "conformance-" + secrets.token_hex(4)) as frames:
            first = json.loads((await anext(frames))[0])
            graph = json.dumps({"prompt": noisy(), "client_id": first["data"]["sid"]})
            await transport.call(Request(method="POST", path="prompt", body=graph.encode()))
            async for frame, is_text in frames:
                message = json.loads(frame) if is_text else {"type": "binary", "data": {}}
                kinds.append(message["type"])
                if message["type"] == "executing" and message["data"]["node"] is None:
                    return kinds
        return kinds

    left_out = ("progress", "status") if on.servers else ("progress",)  # a deviation: "own"
    kinds = [kind for kind in on(body) if kind not in left_out]
    per_node = ["progress_state", "executing", "progress_state"]
    expected = ["status", "status", "execution_start", "execution_cached", *per_node * 3]
    expected += [
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
        "status",
        "executing",
    ]
    expected = [kind for kind in expected if kind not in left_out]
    assert sorted(kinds) == sorted(expected)
    assert kinds[:4] == expected[:4]
    assert kinds[-3:] == expected[-3:]
