"""What we say against what happened, over real sockets: the simulator in a thread knows the truth on the same clock."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from comfyload import clock
from comfyload.comfy.address import parse_server
from comfyload.comfy.http import Http
from comfyload.sim import Server
from tests.support.rig import Played, play_on, sleeper
from tests.support.servers import in_thread
from tests.support.stalls import again_after_a_stall


def play_over_sockets(url: str, **load: Any) -> tuple[Played, float]:
    """The play, and the system's monotonic clock at the run's zero (to some microseconds)."""

    async def main() -> tuple[Played, float]:
        async with Http.connect(parse_server(url), {}) as transport:
            played = await play_on(transport, **load)
            return played, played.zero

    return clock.run(main())


pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def prompt_threads() -> Iterator[None]:
    """Server and client share one interpreter here: they must not wait 5 ms for each other."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


@pytest.mark.long
@again_after_a_stall
def test_mean_latency_is_within_10_ms_of_the_servers_own() -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        played, _ = play_over_sockets(url, jobs=100, concurrency=1, graph=sleeper(0.1))
    assert played.outcomes() == ["completed"] * 100
    ours = [(r.execution.done or 0) - r.due for r in played.records]
    theirs = [(truth.ended or 0) - truth.created for truth in server.truth]
    assert len(theirs) == 100
    assert sum(ours) / 100 - sum(theirs) / 100 == pytest.approx(0.005, abs=0.005)


@again_after_a_stall
def test_completion_is_seen_within_5_ms_at_p99_with_100_jobs_in_flight() -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        played, zero = play_over_sockets(url, jobs=300, concurrency=100, graph=sleeper(0.01))
        ended = {truth.prompt_id: truth.finished for truth in server.truth}
    assert played.outcomes() == ["completed"] * 300
    late = sorted((r.execution.done or 0) + zero - (ended[r.prompt_id] or 0) for r in played.records)
    assert late[0] > -0.0005
    assert late[int(0.99 * len(late))] < 0.005


def test_an_instant_is_finer_than_a_millisecond_whatever_the_loop() -> None:
    async def main() -> float:
        watch = clock.stopwatch()
        return min(abs(watch() - watch()) for _ in range(10)) or time.get_clock_info("monotonic").resolution

    assert clock.run(main()) < 0.0005
    assert asyncio.run(main()) < 0.0005
