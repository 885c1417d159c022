"""Deadlines of jobs while the wall clock is set, and over restarts of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfyload import clock
from comfyload.gateway.steady import LEAST_MS, SteadyClock
from comfyload.gateway.store import Store
from tests.support.gateway import Desk, desk, farm
from tests.support.rig import sleeper

HOUR = 3600.0
JOBS, JOB_S, DEADLINE_S = 60, 0.5, 60.0

Wall = Callable[[float], None]


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """Sets the wall clock, which goes with the virtual one, by so many seconds."""
    began, ahead = time.time(), [0.0]

    def read() -> float:
        return began + ahead[0] + asyncio.get_running_loop().time()

    def set_by(seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr(time, "time", read)
    return set_by


async def posted(front: Desk) -> list[str]:
    graphs = [sleeper(JOB_S + number / 1000) for number in range(JOBS)]
    return [(await front.post(graph, deadline_s=DEADLINE_S))["prompt_id"] for graph in graphs]


async def ends(front: Desk, ids: list[str]) -> set[str]:
    return {(await front.end_of(each))["status"]["status_str"] for each in ids}


def test_a_clock_that_is_set_ends_no_job(tmp_path: Path, wall: Wall) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            ids = await posted(front)
            for seconds in (HOUR, -2 * HOUR, HOUR):
                await asyncio.sleep(5.0)
                wall(seconds)
            assert await ends(front, ids) == {"success"}

    clock.run_virtual(main())


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_clock_that_is_set_ends_no_job_over_a_restart(tmp_path: Path, wall: Wall, seconds: float) -> None:
    """Twice: the second process was not there when they came."""

    async def main() -> None:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                ids = await posted(front)
                await asyncio.sleep(3.0)
                wall(seconds)
                await asyncio.sleep(3.0)
            for _ in range(2):
                async with desk(tmp_path, servers) as front:
                    assert set(front.gateway.jobs) <= set(ids)
                    await asyncio.sleep(3.0)
                    wall(seconds)
                    await asyncio.sleep(3.0)
            async with desk(tmp_path, servers) as front:
                assert await ends(front, ids) == {"success"}

    clock.run_virtual(main())


def test_the_time_without_a_gateway_counts(tmp_path: Path, wall: Wall) -> None:
    async def main() -> None:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                front.gateway.fleet.drain("gpu1")
                ids = await posted(front)
                wall(-HOUR)
                await asyncio.sleep(1.0)
            await asyncio.sleep(DEADLINE_S)
            async with desk(tmp_path, servers) as front:
                assert await ends(front, ids) == {"error"}

    clock.run_virtual(main())


def test_what_the_wall_clock_was_set_by_is_kept_when_it_changes(tmp_path: Path, wall: Wall) -> None:
    async def main() -> None:
        store = Store(tmp_path / "jobs.sqlite")
        first = SteadyClock(clock.stopwatch(), store)
        at = first.now_ms()
        for seconds in (0.9 * LEAST_MS / 1000, HOUR, -3 * HOUR):
            wall(seconds)
            first.note()
            await asyncio.sleep(10.0)
        assert first.age_s(at) == pytest.approx(30.0, abs=0.01)
        assert SteadyClock(clock.stopwatch(), store).age_s(at) == pytest.approx(30.0, abs=0.01)
        store.close()

    clock.run_virtual(main())
