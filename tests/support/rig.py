"""A small rig: one load against one simulated server in process, on virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from comfyload import clock
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.identify import describe_classes, identify
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.link import ClientOptions, Link
from comfyload.comfy.noticed import Noticed
from comfyload.comfy.room import Room
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.wire.calls import Transport
from comfyload.load import Engine, Stop
from comfyload.record.model import Line, Observation, Record, Sent
from comfyload.record.model import Server as ServerFacts
from comfyload.record.plan import Closed, Load, Plan
from comfyload.sim import Faults, Server
from comfyload.workflow import ObjectInfo, Variation, parse
from tests.support.direct import Direct

SLEEPER: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SimSleep", "inputs": {"image": ["1", 0], "seconds": 0.1, "seed": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t/x"}},
}
"""A job of a tenth of a second that makes one image."""


def sleeper(seconds: float) -> dict[str, Any]:
    graph = json.loads(json.dumps(SLEEPER))
    graph["2"]["inputs"]["seconds"] = seconds
    return dict(graph)


@dataclass
class Played:
    """What came of a play, and what really happened."""

    records: list[Record] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    facts: ServerFacts | None = None
    variation: Variation | None = None
    left: dict[str, Any] = field(default_factory=dict)
    zero: float = 0.0

    def codes(self) -> set[str]:
        return {observation.code for observation in self.observations}

    def outcomes(self) -> list[str]:
        return [record.execution.outcome for record in sorted(self.records, key=lambda record: record.index)]

    def kinds(self) -> list[str | None]:
        ordered = sorted(self.records, key=lambda record: record.index)
        return [r.execution.failure.kind if r.execution.failure else None for r in ordered]


def link(
    inflight: InFlight,
    *,
    clock: Callable[[], float],
    api: Any = None,
    stream: Any = None,
    note: Callable[[str, str], None] = lambda _code, _text: None,
) -> Link:
    """What one part of a client gets to see, with stand-ins for the others."""
    noticed = Noticed(clock, lambda observation: note(observation.code, observation.text))
    transport: Any = None
    return Link(
        transport=transport,
        api=api,
        inflight=inflight,
        stream=stream,
        clock=clock,
        options=ClientOptions(),
        noticed=noticed,
    )


Script = Callable[[Server, ComfyClient, Stop], Awaitable[None]]


async def play_on(
    transport: Transport,
    *,
    graph: dict[str, Any] = SLEEPER,
    jobs: int | None = 3,
    concurrency: int = 1,
    warmup: int = 0,
    load: Load | None = None,
    timeout_s: float | None = None,
    timeouts: Timeouts | None = None,
    as_is: bool = False,
    fetch: bool = False,
    script: Callable[[ComfyClient, Stop], Awaitable[None]] | None = None,
    run_id: str = "play",
    variation: Variation | None = None,
    room: Callable[[Stop], Room] | None = None,
    **rules: Any,
) -> Played:
    """Run a load on any transport; `script` runs beside it. `variation`: the jobs, in place of those of `graph`.
    `room`: what holds jobs back.
    """
    played = Played()
    workflow = parse(json.dumps(graph).encode(), "g")
    played.facts = await identify(transport, "http://server/", [])
    info = ObjectInfo(await describe_classes(transport, (workflow.class_of(node) for node in graph)))
    varied = variation or Variation(workflow, info, seed=7, as_is=as_is, output_folder="comfyload/play")
    played.variation = varied
    watch, stop = clock.stopwatch(), Stop()
    played.zero = clock.now() - watch()

    def emit(line: Line) -> None:
        played.lines.append(line)
        if isinstance(line, Record):
            played.records.append(line)

    async with ComfyClient.open(
        transport,
        played.facts,
        watch,
        ClientOptions(
            timeouts=timeouts or Timeouts(job_s=timeout_s),
            fetch=fetch,
            observe=played.observations.append,
            on_queue=lambda _t, n: played.queue.append(n),
            room=None if room is None else room(stop),
        ),
    ) as client:
        beside = asyncio.ensure_future(script(client, stop)) if script is not None else None
        plan = Plan(load=load or Closed(concurrency=concurrency), jobs=jobs, warmup=warmup, **rules)
        engine = Engine(
            plan,
            lambda i: varied.prompt(run_id, i, warmup=i < warmup * plan.pages),
            client,
            emit,
            clock=watch,
            rng=Random(7),
            stop=stop,
        )

        def on_last() -> None:
            if not plan.drain:
                cut.append(asyncio.ensure_future(client.cancel_all("censored")))

        cut: list[asyncio.Future[None]] = []
        await engine.run(on_last=on_last)
        if beside is not None:
            await beside
    sent = [line.prompt_id for line in played.lines if isinstance(line, Sent)]
    ended = [r.prompt_id for r in played.records if r.execution.outcome != "dropped" or r.execution.held_s]
    assert sorted(sent) == sorted(ended), "a job that was sent and has no record"
    return played


def play(
    faults: Faults | None = None,
    *,
    script: Script | None = None,
    server: dict[str, Any] | None = None,
    latency_s: float = 0.001,
    before: Callable[[Server], None] | None = None,
    **load: Any,
) -> tuple[Played, Server]:
    """Play a load against a new simulated server on virtual time; returns it with the server, for its `truth`."""

    async def main() -> tuple[Played, Server]:
        simulated = Server(faults=faults, **(server or {}))
        async with simulated:
            if before is not None:
                before(simulated)
            played = await asyncio.wait_for(
                play_on(
                    Direct(simulated, latency_s=latency_s),
                    script=None if script is None else (lambda client, stop: script(simulated, client, stop)),
                    **load,
                ),
                timeout=36_000,
            )
            reply = await simulated.call(_queue_request()) if simulated.up else None
            played.left = json.loads(reply.body) if reply is not None and reply.status == 200 else {}
        return played, simulated

    return clock.run_virtual(main())


def _queue_request() -> Any:
    from comfyload.comfy.wire.calls import Request

    return Request(method="GET", path="queue")
