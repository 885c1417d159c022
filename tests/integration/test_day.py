"""A run of a day, on virtual time: what its process holds does not grow with the number of jobs."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from rich.console import Console

from comfyload import clock
from comfyload.app.run import launch
from comfyload.app.run.caps import Caps
from comfyload.app.run.options import RunOptions
from comfyload.app.run.servers import Connected
from comfyload.app.run.session import Session
from comfyload.cli import progress
from comfyload.cli.progress import RunProgress
from comfyload.load import selfcheck
from comfyload.record.model import Line, Record
from comfyload.record.options import WorkflowChoice
from comfyload.record.plan import Open, Plan, Stage
from comfyload.record.run import RunReader, RunWriter
from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from tests.support.direct import Direct
from tests.support.rig import SLEEPER

DAY_S = 86_400.0
EVERY = 86
"""Jobs between two looks at the memory."""


class Looking(RunProgress):
    """Progress as it is drawn where there is no terminal, to nobody. At some jobs it looks at what is allocated; what
    the simulated server keeps of its jobs is taken from it before.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(Console(file=io.StringIO()))
        self._server = server
        self._jobs = 0
        self.held: list[int] = []

    def line(self, line: Line) -> None:
        super().line(line)
        if not isinstance(line, Record):
            return
        self._jobs += 1
        if self._jobs % EVERY == 0:
            forget(self._server)
            assert isinstance(self._console.file, io.StringIO)
            self._console.file.truncate(0)
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


def forget(server: Server) -> None:
    """Let the simulator forget what a real server keeps, on its disk or on another machine."""
    server.truth.clear()
    server.posts.clear()
    files, history = server._state.files, server._state.queue._history
    files._files.pop("output", None)
    files._with_texts.clear()
    for old in list(history)[:-20]:
        del history[old]


def held_over(
    tmp_path: Path, plan: Plan, faults: Faults | None = None, policy: dict[str, Any] | None = None
) -> list[int]:
    """Bytes that are allocated, every few jobs of a run of this plan."""
    (tmp_path / "graph.json").write_text(json.dumps(SLEEPER))
    if policy is not None:
        (tmp_path / "policy.json").write_text(json.dumps(policy))
    options = RunOptions(
        server="http://sim/",
        workflows=[WorkflowChoice(file=str(tmp_path / "graph.json"))],
        telemetry=False,
        plan=plan,
        policy=None if policy is None else str(tmp_path / "policy.json"),
    )

    async def main() -> list[int]:
        async with Server(faults=faults) as server:
            transport: Any = Direct(server)
            transport.name = options.server
            prepared = await launch.prepare(options, [Connected(http=transport, name="", headers=[])])
            viewer = Looking(server)
            with RunWriter(tmp_path / "run", prepared.manifest) as writer:
                caps = Caps(options)
                await Session(prepared, writer, viewer, clock.stopwatch(), caps=caps).run([transport])
            return viewer.held

    tracemalloc.start(1)
    try:
        return clock.run_virtual(main())
    finally:
        tracemalloc.stop()


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer ticks of our own timer, of which a day has millions; and what is bounded is full after few jobs."""
    monkeypatch.setattr(selfcheck, "CANARY_S", 5.0)
    monkeypatch.setattr(progress, "NAMES", 100)


def assert_flat(held: list[int]) -> None:
    """After the first tenth, no tenth of the run holds more than the second one, within 5 %."""
    tenth = len(held) // 10
    tenths = [median(held[tenth * number : tenth * (number + 1)]) for number in range(1, 10)]
    assert max(tenths) <= 1.05 * tenths[0], tenths


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_day_of_jobs_takes_no_more_memory_than_its_first_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    plan = Plan(load=Open(stages=[Stage(per_s=0.1)], arrivals="constant"), duration_s=DAY_S, seed=1)
    held = held_over(tmp_path, plan)
    assert len(held) == 8_640 // EVERY
    assert_flat(held)
    records = [line for line in RunReader(tmp_path / "run").lines() if isinstance(line, Record)]
    assert len(records) == 8_640 and records[-1].due == pytest.approx(DAY_S, abs=11)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_jobs_that_fail_and_are_sent_again_take_no_memory_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    plan = Plan(load=Open(stages=[Stage(per_s=0.1)], arrivals="constant"), duration_s=28_800.0, seed=1)
    faults = Faults(node_error=Which(every=5))
    held = held_over(tmp_path, plan, faults, policy={"format": 1})
    assert len(held) == 2_880 // EVERY
    assert_flat(held)
