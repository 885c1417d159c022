"""A hundred simulated servers and sixteen shards on virtual time, and the table of why/scale.md."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from bench.scale import ROOT, SOURCES, measured, table

from comfyload import clock
from comfyload.app.run.beginning import Beginning
from comfyload.app.summary import read_run
from comfyload.comfy.identify import describe_classes, identify
from comfyload.comfy.link import ClientOptions
from comfyload.load import Engine, Stop
from comfyload.record.model import Manifest, Record
from comfyload.record.options import RunOptions
from comfyload.record.plan import Open, Plan, Stage
from comfyload.record.policy import Policy
from comfyload.record.run import RunReader, RunWriter
from comfyload.record.shard import Shard
from comfyload.retry.client import RetryingClient
from comfyload.sim import Server
from comfyload.workflow import ObjectInfo, Variation, parse
from tests.support.direct import Direct
from tests.support.rig import sleeper
from tests.support.shards import BEGINS, WALL, fleet_of, places
from tests.unit import judge_runs

SERVERS, SHARDS, JOBS, JOB_S, LOAD = 100, 16, 2_000, 10.0, 0.8
PAGE = ROOT / "docs" / "why" / "scale.md"


def test_the_page_has_the_table_that_the_script_prints() -> None:
    assert table(measured()) in PAGE.read_text(encoding="utf-8")


def test_each_number_is_still_where_the_script_reads_it(tmp_path: Path) -> None:
    for page, _ in SOURCES.values():
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"performance\.md says job_us in other words now"):
        measured(tmp_path)
    assert measured().gateway_servers == 100


async def make_shard(path: Path, number: int, servers: list[Server], plan: Plan, variation: Variation) -> None:
    """One generator, with the servers that are dealt to it."""
    await asyncio.sleep(0.1 * number)
    watch, stop, zero = clock.stopwatch(), Stop(), clock.now()
    manifest: Manifest = judge_runs.manifest(
        self_check=None, plan_sha256="a" * 64, ended_utc=None, end=None, plan=plan, scheduled=plan.jobs,
        workflows=[variation.facts({}, keep_graph=False)], shard=f"{number}/{SHARDS}", run_id=f"run-{number}",
        started_utc=datetime.fromtimestamp(WALL + zero, UTC).isoformat(),
    )  # fmt: skip
    start = datetime.fromtimestamp(WALL + BEGINS, UTC).isoformat()
    beginning = Beginning(manifest, RunOptions(start_at=start), watch, lambda: WALL + clock.now())
    ways = [Direct(server, latency_s=0.001) for server in servers]
    facts = [(way, await identify(way, f"http://{number}-{place}/", [])) for place, way in enumerate(ways)]
    options = ClientOptions(shared=True, observe=manifest.observations.append)
    with RunWriter(path / f"shard-{number}", manifest) as writer:
        async with RetryingClient.open(facts, Policy(), watch, rng=Random(number), options=options) as client:
            engine = Engine(
                plan,
                lambda index: variation.prompt(manifest.run_id, index, warmup=False),
                client,
                writer.write_line,
                clock=watch,
                rng=Random(7),
                stop=stop,
                shard=Shard((number,), SHARDS),
                start=beginning.start(stop, lambda _: None, manifest.observations.append),
            )

            def on_counted() -> None:
                manifest.counted_from = beginning.counted_from()

            await engine.run(on_counted)
        manifest.counted_to = watch()
        manifest.end, manifest.ended_utc = "complete", datetime.fromtimestamp(WALL + clock.now(), UTC).isoformat()
        writer.write_manifest(manifest)


async def make_all(path: Path) -> Counter[str]:
    """All shards at once; how often each prompt was posted, by the servers' own count."""
    plan = Plan(load=Open(stages=[Stage(per_s=LOAD * SERVERS / JOB_S)]), jobs=JOBS, seed=7)
    graph = sleeper(JOB_S)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Server(speed=1)) for _ in range(SERVERS)]
        classes = await describe_classes(Direct(servers[0]), {node["class_type"] for node in graph.values()})
        workflow = parse(json.dumps(graph).encode(), "book")
        variation = Variation(workflow, ObjectInfo(classes), seed=7, output_folder="comfyload/run")
        dealt = [servers[number::SHARDS] for number in range(SHARDS)]
        await asyncio.gather(*(make_shard(path, n, dealt[n], plan, variation) for n in range(SHARDS)))
        return sum((server.posts for server in servers), Counter())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_sixteen_shards_load_a_hundred_servers_as_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began, cpu = time.monotonic(), time.process_time()
    with mock.patch("comfyload.sim.settings.time.time", lambda: WALL):
        posts = clock.run_virtual(make_all(tmp_path))
    fleet_of(tmp_path, places(SHARDS))
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    assert len(posts) == JOBS and set(posts.values()) == {1}
    records = [line for line in RunReader(tmp_path).lines() if isinstance(line, Record)]
    assert sorted(record.index for record in records) == list(range(JOBS))
    summary = read_run(tmp_path).runs[0].summary
    offered_s = JOBS / (LOAD * SERVERS / JOB_S)
    due = max(record.due for record in records) - min(record.due for record in records)
    assert due == pytest.approx(offered_s, rel=0.1)
    assert summary.valid, [finding.code for finding in summary.findings if finding.level == "invalid"]
    journal = sum(file.stat().st_size for file in tmp_path.glob("shard-*/records.ndjson"))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{JOBS} jobs, {took:.0f} s, {cpu:.0f} CPU s, {journal / JOBS:.0f} bytes a job in the journals\n"
        )
    page = re.search(r"([\d,]+) bytes a job in the journals", PAGE.read_text(encoding="utf-8"))
    assert page is not None and float(page[1].replace(",", "")) == pytest.approx(journal / JOBS, rel=0.1)
