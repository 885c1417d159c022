"""Runs in shards on virtual time, each written to a directory as its process would: against one simulated server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from msgspec import UNSET

from comfyload import clock
from comfyload.app.run.beginning import Beginning
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.identify import describe_classes, identify
from comfyload.comfy.link import ClientOptions
from comfyload.load import Engine, Stop
from comfyload.record.fleet import FleetManifest, ShardPlace, write_fleet
from comfyload.record.model import Manifest, Sample
from comfyload.record.options import RunOptions
from comfyload.record.plan import Plan
from comfyload.record.run import RunWriter
from comfyload.record.shard import Shard
from comfyload.sim import Server
from comfyload.workflow import ObjectInfo, Variation, parse
from tests.support.direct import Direct
from tests.support.rig import SLEEPER

WALL = 1_800_000_000.0
"""The wall clock at zero of the loop's."""
BEGINS = 60.0


def places(count: int) -> list[ShardPlace]:
    return [ShardPlace(directory=f"shard-{number}", host="here", clock_ahead_s=0.0) for number in range(count)]


def fleet_of(path: Path, shards: Sequence[ShardPlace], **changes: Any) -> None:
    """Write `fleet.json` of a run that began at `BEGINS`."""
    base: dict[str, Any] = {"format": 1, "tool": "comfyload 0", "run_id": "fleet", "name": "book"}
    start = datetime.fromtimestamp(WALL + BEGINS, UTC).isoformat()
    write_fleet(path, FleetManifest(**{**base, "start_at": start, "shards": list(shards), **changes}))


async def made(
    server: Server, path: Path, manifest: Manifest, variation: Variation, shard: Shard, *, part: bool
) -> None:
    """One process of a run: it begins at its own time, and writes its directory."""
    await asyncio.sleep(0.5 * shard.members[0])  # so that no two clocks have one zero
    plan, watch, stop = manifest.plan, clock.stopwatch(), Stop()
    zero = clock.now()
    manifest.shard = str(shard) if part else UNSET
    manifest.run_id = f"run-{shard.members[0]}"
    manifest.started_utc = datetime.fromtimestamp(WALL + zero, UTC).isoformat()
    start = datetime.fromtimestamp(WALL + BEGINS, UTC).isoformat()
    beginning = Beginning(manifest, RunOptions(start_at=start), watch, lambda: WALL + clock.now())
    transport = Direct(server, latency_s=0.001)
    facts = await identify(transport, "http://server/", [])
    with RunWriter(path, manifest) as writer:
        async with ComfyClient.open(
            transport,
            facts,
            watch,
            ClientOptions(
                shared=part,
                observe=manifest.observations.append,
                on_queue=lambda t, n: writer.write_sample(Sample(t=t, source="comfy", name="queue_remaining", value=n)),
            ),
        ) as client:
            engine = Engine(
                plan,
                lambda i: variation.prompt(manifest.run_id, i, warmup=i < plan.warmup * plan.pages),
                client,
                writer.write_line,
                clock=watch,
                rng=Random(7),
                stop=stop,
                shard=shard,
                start=beginning.start(stop, lambda _: None, manifest.observations.append),
            )

            def on_counted() -> None:
                manifest.counted_from = beginning.counted_from()

            await engine.run(on_counted)
        manifest.counted_to = watch()
        manifest.end, manifest.ended_utc = "complete", datetime.fromtimestamp(WALL + clock.now(), UTC).isoformat()
        writer.write_manifest(manifest)


def make(path: Path, plan: Plan, of: int, manifest: Any, graph: dict[str, Any] = SLEEPER, foreign: int = 0) -> Server:
    """The plan as a run in so many shards, or in one piece with 0; `manifest()` makes the manifest that it begins
    with. So many prompts of somebody else come in the midst of it. The server, for its truth.
    """

    async def others(server: Server) -> None:
        await asyncio.sleep(BEGINS + 3)
        for number in range(foreign):
            theirs = json.loads(json.dumps(graph))
            theirs["2"]["inputs"]["seed"] = 10_000 + number
            server.foreign(theirs)

    async def main() -> Server:
        async with Server(speed=1) as server:
            classes = await describe_classes(Direct(server), {node["class_type"] for node in graph.values()})
            workflow = parse(json.dumps(graph).encode(), "book")
            variation = Variation(workflow, ObjectInfo(classes), seed=7, output_folder="comfyload/run")
            jobs = []
            for number in range(max(1, of)):
                one = manifest()
                one.plan, one.workflows, one.scheduled = plan, [variation.facts({}, keep_graph=False)], plan.jobs
                folder = path / f"shard-{number}" if of else path
                jobs.append(made(server, folder, one, variation, Shard((number,), max(1, of)), part=of > 0))
            await asyncio.gather(*jobs, others(server))
        return server

    with mock.patch("comfyload.sim.settings.time.time", lambda: WALL):  # its stamps are whole milliseconds
        server = clock.run_virtual(main())
    if of:
        fleet_of(path, places(of))
    return server
