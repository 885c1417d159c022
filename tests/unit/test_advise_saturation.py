"""Where a server saturates, against servers whose truth is known: simulated in process, on virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from msgspec import structs

from comfyload.advise.interference import interference
from comfyload.advise.rate import Rate
from comfyload.advise.saturation import LADDER, Step, capacity, knee, next_step, step, vague
from comfyload.advise.service_times import Workload, pools_of
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Line, Record, ServerTimes
from tests.support.rig import play, sleeper
from tests.unit.judge_runs import FACTS, job, manifest

pytestmark = pytest.mark.long

GAP_S = 0.02
Draw = Callable[[np.random.Generator, int], list[float]]


def _run(services: list[float], concurrency: int, overhead_s: float = 0.2) -> Measured:
    """A closed load on a server that runs one job at a time: what a run directory of it would fold to."""
    return measure("run", manifest(len(services), concurrency), _lines(services, concurrency, overhead_s))


def _lines(services: list[float], concurrency: int, overhead_s: float = 0.2) -> list[Line]:
    free, users, lines = 0.0, [0.0] * concurrency, list[Line]()
    for index, seconds in enumerate(services):
        user = min(range(concurrency), key=users.__getitem__)
        due = users[user]
        begin = max(due + overhead_s, free)
        end = begin + seconds
        free, users[user] = end + GAP_S, end
        lines.append(_job(index, due, begin, end))
    return lines


def _job(index: int, due: float, begin: float, end: float) -> Line:
    zero = 1_700_000_000_000
    times = ServerTimes(
        create_ms=zero + round(1000 * (due + 0.1)), start_ms=zero + round(1000 * begin), end_ms=zero + round(1000 * end)
    )
    record = job(index, due, end - due)
    return structs.replace(record, execution=structs.replace(record.execution, server=times, done=end))


def _unimodal(rng: np.random.Generator, n: int) -> list[float]:
    return list(rng.lognormal(math.log(8.0), 0.2, n).tolist())


def _bimodal(rng: np.random.Generator, n: int) -> list[float]:
    return list(np.where(rng.random(n) < 0.15, 20.0, 8.0) * rng.lognormal(0.0, 0.05, n))


def test_two_modes_with_a_cause_tell_the_capacity_of_a_mix_within_3_percent() -> None:
    """Jobs of 8 s and of 20 s are two workflows here: how often each comes is known, and need not be measured."""
    found = []
    mix = Workload(shares=[0.85, 0.15])
    truth = 60 / (0.85 * 8.0 + 0.15 * 20.0 + GAP_S)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        order = [0, 0, 1, 1] * 19
        seconds = [float((8.0, 20.0)[workflow] * rng.lognormal(-0.005, 0.1)) for workflow in order]
        lines = _lines(seconds, 1)
        lines = [
            structs.replace(line, workflow=("book", "other")[workflow])
            for line, workflow in zip(lines, order, strict=True)
        ]
        both = [FACTS, structs.replace(FACTS, name="other", sha256="1" * 64)]
        pools = pools_of([measure("run", structs.replace(manifest(76, 1), workflows=both), lines)])
        found.append((capacity(pools, mix).estimate or math.nan) / truth - 1)
    assert float(np.sqrt(np.mean(np.square(found)))) <= 0.03


def test_two_workflows_with_switches_are_measured_by_design_and_predicted_by_cause() -> None:
    """AABB: each job is seen warm and after a switch; the capacity of a random mix follows within 3 %."""
    rng = np.random.default_rng(3)
    warm, cost = np.array([8.0, 11.0]), 9.0
    order = [0, 0, 1, 1] * 16
    lines: list[Line] = []
    free = 0.0
    for index, workflow in enumerate(order):
        switched = index > 0 and order[index - 1] != workflow
        seconds = float((warm[workflow] + cost * switched) * rng.lognormal(0, 0.05))
        line = _job(index, free, free + 0.1, free + 0.1 + seconds)
        free += 0.1 + seconds + GAP_S
        lines.append(structs.replace(line, workflow=("book", "other")[workflow]))
    both = [FACTS, structs.replace(FACTS, name="other", sha256="1" * 64)]
    pools = pools_of([measure("run", structs.replace(manifest(64, 1), workflows=both), lines)])
    assert pools.made_up == []
    mix = Workload(shares=[0.5, 0.5])
    truth = 60 / (float(warm.mean()) + cost / 2 + GAP_S)
    found = capacity(pools, mix)
    assert found.estimate == pytest.approx(truth, rel=0.03)
    assert found.low is not None and found.high is not None and found.low < truth < found.high


def test_a_server_that_does_not_tell_the_wait_tells_what_a_client_adds_where_there_is_none() -> None:
    """Before 0.3.69 no job has a time of creation. With more in flight nothing is known, and nothing is warned of."""
    runs = []
    for concurrency in (1, 2):
        lines = [
            structs.replace(
                line,
                execution=structs.replace(
                    line.execution, server=structs.replace(line.execution.server, create_ms=None)
                ),
            )
            for line in _lines([8.0] * 12, concurrency, overhead_s=0.5)
            if isinstance(line, Record)
        ]
        runs.append(measure("run", manifest(12, concurrency), lines))
    assert pools_of(runs).overhead_s == pytest.approx(0.5, abs=0.01)
    assert pools_of(runs[1:]).overhead_s == 0.0


def _step(concurrency: int, busy: float | None, rate: float = 6.0, *, beside: bool = False) -> Step:
    return Step(
        concurrency=concurrency,
        jobs=12,
        server_busy=busy,
        gpu_busy_percent=None,
        service_s=10.0,
        jobs_per_minute=rate,
        p95_latency_s=None,
        side_by_side=beside,
    )


def test_more_is_measured_only_while_it_tells_something() -> None:
    assert next_step([]) == 1
    assert next_step([_step(1, 0.7)]) == 2
    assert next_step([_step(1, 0.96), _step(2, 0.995)]) is None
    assert next_step([_step(1, 0.5), _step(2, 0.8)]) == 3
    assert next_step([_step(1, 0.5), _step(2, 0.8), _step(3, 0.81)]) is None
    assert next_step([_step(1, None), _step(2, None)]) is None
    beside = [_step(1, 0.9), _step(2, 1.8, beside=True)]
    assert next_step(beside) == LADDER[2]


def test_the_knee_is_where_the_server_is_as_busy_as_it_gets() -> None:
    assert knee([_step(1, 0.99), _step(2, 0.995)]) == 1
    assert knee([_step(1, 0.75), _step(2, 0.99)]) == 2
    assert knee([_step(1, 0.4), _step(2, 0.7), _step(3, 0.97)]) == 3
    assert knee([_step(1, None), _step(2, None)]) is None
    ladder = [_step(1, None, 6), _step(2, None, 11, beside=True), _step(4, None, 20), _step(8, None, 20.5)]
    assert knee(ladder) == 4


def test_half_load_is_not_called_saturated() -> None:
    """A client that takes as long as the job: with one in flight the server is half idle, and that is said."""
    run = _run([8.0] * 40, 1, overhead_s=8.0)
    found = run.summary.saturation
    assert found.server_busy == pytest.approx(0.5, abs=0.01)
    assert found.server_saturated is False and found.saturated is False
    steps = [step(run), step(_run([8.0] * 12, 2, overhead_s=8.0))]
    assert knee(steps) == 2


def test_a_job_that_is_slowed_by_one_that_waits_is_seen_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    alone, waiting = rng.lognormal(2, 0.1, 40), rng.lognormal(2, 0.1, 12)
    found = interference([alone], [waiting])
    assert found is not None and not found.disturbed
    slowed = interference([alone], [1.3 * waiting])
    assert slowed is not None and slowed.disturbed and slowed.ratio.estimate == pytest.approx(1.3, abs=0.1)
    assert interference([alone[:3]], [waiting]) is None


def test_a_few_slow_jobs_among_those_that_wait_are_no_interference() -> None:
    """Of jobs that take 2.5 times as long, chance puts three among twelve as easily as none."""
    rng = np.random.default_rng(2)
    alone, waiting = rng.lognormal(2, 0.1, 40), rng.lognormal(2, 0.1, 12)
    waiting[:3] *= 2.5
    found = interference([alone], [waiting])
    assert found is not None and not found.disturbed
    faster = interference([alone], [0.7 * waiting[3:]])
    assert faster is not None and not faster.disturbed


def test_several_workflows_are_aligned_before_their_ranks_are_compared() -> None:
    rng = np.random.default_rng(3)
    quick, slow = rng.lognormal(1, 0.1, (2, 20)), rng.lognormal(3, 0.1, (2, 20))
    found = interference([quick[0], slow[0]], [1.25 * quick[1][:6], 1.25 * slow[1][:6]])
    assert found is not None and found.disturbed and found.ratio.estimate == pytest.approx(1.25, abs=0.1)


def test_a_search_through_the_engine_and_the_client_finds_the_capacity() -> None:
    """On virtual time: 40 jobs of two seconds one by one, and 12 with one waiting."""
    runs = []
    for concurrency, jobs in ((1, 40), (2, 12)):
        played, _ = play(graph=sleeper(2.0), jobs=jobs, concurrency=concurrency)
        facts = structs.replace(FACTS, name="g")
        found = structs.replace(manifest(jobs, concurrency), workflows=[facts])
        runs.append(measure("run", found, played.lines))
    assert knee([step(run) for run in runs]) in (1, 2)
    assert capacity(pools_of(runs), Workload(shares=[1.0])).estimate == pytest.approx(30, rel=0.03)


def test_fewer_than_59_jobs_do_not_tell_how_low_a_capacity_may_be() -> None:
    rng = np.random.default_rng(5)
    few, more = (capacity(pools_of([_run(_unimodal(rng, n), 1)]), Workload(shares=[1.0])) for n in (50, 70))
    assert few.low is None and few.high is not None and few.estimate is not None and few.estimate < few.high
    assert more.low is not None


def test_a_vague_capacity_says_how_many_jobs_would_tell_it() -> None:
    rng = np.random.default_rng(5)
    found = vague(capacity(pools_of([_run(_bimodal(rng, 76), 1)]), Workload(shares=[1.0])), 76)
    assert found is not None and 0.05 < found[0] < 0.15
    again = vague(capacity(pools_of([_run(_bimodal(rng, found[1]), 1)]), Workload(shares=[1.0])), found[1])
    assert again is None
    assert vague(capacity(pools_of([_run(_unimodal(rng, 200), 1)]), Workload(shares=[1.0])), 200) is None
    assert vague(Rate(estimate=5.0, low=None, high=None), 1) is None
