"""The shards of a run are the run, whatever their number: the same jobs, each once, due at the same instants."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload import clock
from comfyload.app.run.inputs import JobSource, load_inputs
from comfyload.load import Engine, Stop
from comfyload.record.model import Execution, Line, Prompt, Record
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Load, Open, Plan, Replay, Stage
from comfyload.record.shard import WHOLE, Shard, read_shard
from comfyload.workflow import ObjectInfo
from comfyload.workflow.vary import prompt_id

COUNTS = (1, 2, 4, 16)
rates = st.floats(0.05, 20)
stages = st.lists(
    st.builds(Stage, per_s=rates, to_per_s=st.none() | rates, seconds=st.floats(0.1, 20)), min_size=1, max_size=3
)
opens = st.builds(
    Open,
    stages=stages,
    arrivals=st.sampled_from(["constant", "poisson", "gamma"]),
    cv=st.floats(0.2, 3),
    max_in_flight=st.none() | st.integers(16, 40),
)
replays = st.lists(st.floats(0, 100), max_size=60).map(lambda offsets: Replay(offsets_s=sorted(offsets)))
closeds = st.builds(Closed, concurrency=st.integers(16, 40), ramp_up_s=st.sampled_from([0.0, 8.0]))


class Sleeper:
    """A client whose jobs all take as long, from none at all."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def run(self, prompt: Prompt) -> Execution:
        sent = clock.now()
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return Execution(outcome="completed", sent=sent, done=clock.now())


@pytest.fixture(scope="module")
def files() -> Any:
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 4}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            Path(folder, f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")
        yield [
            WorkflowChoice(file=str(Path(folder, "a.json")), weight=3),
            WorkflowChoice(file=str(Path(folder, "b.json"))),
        ]


def jobs_of(files: list[WorkflowChoice], plan: Plan, shard: Shard) -> list[tuple[Any, ...]]:
    """Of each job its index, when it was due, its workflow, its seed and its graph."""
    options = RunOptions(workflows=files, plan=plan, keep_prefix=True)
    inputs, info = load_inputs(options), ObjectInfo()
    inputs.settle(info)
    source, lines = JobSource(options, inputs, info, str(shard)), list[Line]()

    async def main() -> None:
        rng = Random(f"{plan.seed}/arrivals")
        await Engine(
            plan, source.prompt, Sleeper(), lines.append, clock=clock.stopwatch(), rng=rng, stop=Stop(), shard=shard
        ).run()

    clock.run_virtual(main())
    made = [line for line in lines if isinstance(line, Record)]
    dynamic = isinstance(plan.load, Closed)
    return [
        (
            one.index,
            None if dynamic or one.warmup else one.due,
            one.workflow,
            one.values["3.seed"],
            source.prompt(one.index).graph(),
            one.book,
            one.warmup,
        )
        for one in made
    ]


@settings(max_examples=40, deadline=None)
@given(
    load=st.one_of(opens, replays, closeds),
    jobs=st.integers(1, 60),
    warmup=st.integers(0, 20),
    pages=st.integers(1, 3),
    seed=st.integers(0, 2**53 - 1),
    cut=st.booleans(),
)
def test_shards_unite_to_the_run(
    files: list[WorkflowChoice], load: Load, jobs: int, warmup: int, pages: int, seed: int, cut: bool
) -> None:
    is_open = not isinstance(load, Closed)
    plan = Plan(
        load=load, jobs=jobs, duration_s=7.5 if cut and is_open else None, warmup=warmup, pages=pages, seed=seed
    )
    whole = sorted(jobs_of(files, plan, WHOLE), key=lambda job: job[0])
    assert len(whole) >= warmup * pages
    for of in COUNTS:
        union = [job for member in range(of) for job in jobs_of(files, plan, Shard((member,), of))]
        assert sorted(union, key=lambda job: job[0]) == whole


@pytest.mark.parametrize("of", COUNTS)
def test_users_begin_as_they_do_in_one_run(files: list[WorkflowChoice], of: int) -> None:
    plan = Plan(load=Closed(concurrency=20, ramp_up_s=10.0), jobs=20, seed=1)

    def begins(shard: Shard) -> list[float]:
        lines = list[Line]()

        async def main() -> None:
            source = lambda i: Prompt(id=str(i), index=i, workflow="w", warmup=False, graph_of=lambda _: b"")  # noqa: E731
            watch = clock.stopwatch()
            await Engine(
                plan, source, Sleeper(1000.0), lines.append, clock=watch, rng=Random(1), stop=Stop(), shard=shard
            ).run()

        clock.run_virtual(main())
        return [line.due for line in lines if isinstance(line, Record)]

    union = sorted(due for member in range(of) for due in begins(Shard((member,), of)))
    assert union == [0.5 * user for user in range(20)]


@given(count=st.integers(0, 500), first=st.integers(0, 50), of=st.integers(1, 40), data=st.data())
def test_a_share_is_what_it_takes(count: int, first: int, of: int, data: st.DataObject) -> None:
    members = data.draw(st.sets(st.integers(0, of - 1), min_size=1))
    shard = Shard(tuple(sorted(members)), of)
    taken = [number for number in range(first, first + count) if shard.takes(number)]
    assert shard.share(count, first) == len(taken)
    assert list(shard.numbers(count)) == [number for number in range(count) if shard.takes(number)]
    assert read_shard(str(shard)) == shard
    counts = Counter(number % of for number in range(count))
    assert shard.share(count) == sum(counts[member] for member in members)


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "0/0", "1/4/2", "a/b", "0/99999"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"/|shards"):
        read_shard(text)


def test_ids_of_shards_are_distinct() -> None:
    """Each shard has a run's id of its own; even with one id, no two have the same number."""
    ids = {prompt_id(f"run-{member}of4", index) for member in range(4) for index in range(member, 400, 4)}
    assert len(ids) == 400
