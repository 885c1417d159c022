"""Schedules, rates, tables and mixes: pure functions, tested by numbers."""

from __future__ import annotations

import itertools
import math
import statistics
from random import Random
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.load.arrivals import expected_jobs, offered_per_s, offsets
from comfyload.load.grammar import parse_arrivals, parse_duration, parse_rate, parse_stages
from comfyload.record.plan import Arrivals, Closed, Open, Plan, Replay, Stage
from comfyload.workflow.mix import Mix


def gaps(arrivals: Arrivals, cv: float = 1.0, count: int = 10_000) -> list[float]:
    load = Open(stages=[Stage(per_s=5.0)], arrivals=arrivals, cv=cv)
    due = list(itertools.islice(offsets(load, Random(1)), count))
    return [later - earlier for earlier, later in itertools.pairwise(due)]


def variation_of(values: list[float]) -> float:
    return statistics.stdev(values) / statistics.mean(values)


@pytest.mark.parametrize(
    ("arrivals", "cv", "low", "high"),
    [("constant", 1.0, 0, 0.02), ("poisson", 1.0, 0.95, 1.05), ("gamma", 0.5, 0.48, 0.52), ("gamma", 2.0, 1.85, 2.15)],
)
def test_gaps_have_the_variation_asked_for(arrivals: Arrivals, cv: float, low: float, high: float) -> None:
    found = gaps(arrivals, cv)
    assert low <= variation_of(found) <= high
    assert statistics.mean(found) == pytest.approx(0.2, rel=0.05)


def test_constant_arrivals_do_not_drift_over_a_million() -> None:
    load = Open(stages=[Stage(per_s=3.0)], arrivals="constant")
    (millionth,) = itertools.islice(offsets(load, Random(1)), 1_000_000, 1_000_001)
    assert millionth == pytest.approx(1_000_000 / 3, abs=1e-6)


def test_stages_follow_one_another_and_ramps_are_even() -> None:
    load = Open(
        stages=[Stage(per_s=1, seconds=10), Stage(per_s=1, to_per_s=3, seconds=10), Stage(per_s=3, seconds=10)],
        arrivals="constant",
    )
    due = list(offsets(load, Random(1)))
    assert [sum(a <= t < a + 10 for t in due) for a in (0, 10, 20)] == [10, 20, 30]
    ramp = [t - 10 for t in due if 10 <= t < 20]
    for number, t in enumerate(ramp):
        assert t + 0.1 * t * t == pytest.approx(number, abs=1e-9)
    assert offered_per_s(load) == pytest.approx(2.0)


def test_a_rate_may_fall_to_nothing() -> None:
    load = Open(stages=[Stage(per_s=2, to_per_s=0, seconds=10)], arrivals="constant")
    due = list(offsets(load, Random(1)))
    assert len(due) == 10
    assert due == sorted(due)
    assert all(math.isfinite(t) for t in due)


def test_the_same_seed_gives_the_same_schedule() -> None:
    load = Open(stages=[Stage(per_s=2, seconds=100)], arrivals="gamma", cv=0.7)
    assert list(offsets(load, Random("x/arrivals"))) == list(offsets(load, Random("x/arrivals")))
    first = list(itertools.islice(offsets(Open(stages=[Stage(per_s=2)]), Random("7/arrivals")), 3))
    assert first == pytest.approx([2.0378573, 2.6583106, 2.6966839], abs=1e-6)  # as on every machine


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45", 45), ("45s", 45), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("2.5 min", 150), (".5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "per_s"), [("10/s", 10), ("12/min", 0.2), ("12/m", 0.2), ("600 / h", 1 / 6)])
def test_rates(text: str, per_s: float) -> None:
    assert parse_rate(text) == pytest.approx(per_s)


def test_stages_are_read() -> None:
    assert parse_stages("30s@2/min, 5m@6/min..12/min") == [
        Stage(per_s=2 / 60, seconds=30),
        Stage(per_s=0.1, to_per_s=0.2, seconds=300),
    ]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_duration, "soon"),
        (parse_duration, ""),
        (parse_duration, "5x"),
        (parse_rate, "10"),
        (parse_rate, "0/s"),
        (parse_rate, "-1/s"),
        (parse_stages, "2/min"),
        (parse_stages, "0s@2/min"),
        (parse_stages, "30s@2/min,"),
        (parse_arrivals, "uniform"),
        (parse_arrivals, "gamma"),
        (parse_arrivals, "gamma:0"),
    ],
)
def test_what_is_not_written_so_is_refused_with_an_example(parse: Any, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("plan", "jobs"),
    [
        (Plan(load=Closed(), jobs=7, pages=3), 21),
        (Plan(load=Closed(), duration_s=9), None),
        (Plan(load=Open(stages=[Stage(per_s=10)], arrivals="constant"), duration_s=15), 150),
        (Plan(load=Open(stages=[Stage(per_s=10)]), jobs=9), 9),
        (Plan(load=Open(stages=[Stage(per_s=10)]), jobs=9, duration_s=0.5), 5),
        (Plan(load=Open(stages=[Stage(per_s=10)])), None),
        (Plan(load=Replay(offsets_s=[0, 1, 2, 3]), duration_s=2.5), 3),
        (Plan(load=Replay(offsets_s=[0, 1, 2, 3]), jobs=2), 2),
    ],
)
def test_how_many_jobs_a_plan_comes_to(plan: Plan, jobs: int | None) -> None:
    assert expected_jobs(plan) == jobs


def test_a_mix_keeps_its_weights() -> None:
    mix = Mix([3, 1], seed=1)
    picks = [mix.pick(number) for number in range(4000)]
    assert picks.count(1) == pytest.approx(1000, abs=100)
    assert picks == [Mix([3, 1], seed=1).pick(number) for number in range(4000)]


def test_a_sticky_mix_changes_as_seldom_as_asked() -> None:
    mix = Mix([1, 1], order="sticky", stickiness=0.9, seed=1)
    picks = [mix.pick(number) for number in range(4000)]
    changes = sum(a != b for a, b in itertools.pairwise(picks))
    assert changes == pytest.approx(4000 * 0.1 * 0.5, rel=0.2)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_designed_mix_has_every_pair_equally_often(count: int) -> None:
    mix = Mix([1.0] * count, order="aabb")
    picks = [mix.pick(number) for number in range(3 * count * count + 1)]
    pairs = list(itertools.pairwise(picks))
    assert {pairs.count((a, b)) for a in range(count) for b in range(count)} == {3}
    if count == 2:
        assert picks[:4] == [0, 0, 1, 1]
