"""Charts of a run that is followed: thinned to columns of pixels, with nothing lost that matters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.record.model import Sample
from comfyload.record.run import RunWriter
from comfyload.web.follow import RunFollower
from comfyload.web.series import HEADS, MOST_WIDTH, ChartColumns, Window, chart, charts_of, held, thinned
from tests.unit.judge_runs import failed, job, manifest
from tests.unit.test_web_follow import caught_up, sent

POINTS = st.lists(st.tuples(st.floats(-20, 120), st.floats(-1e6, 1e6) | st.just(math.nan)), max_size=60)
WINDOWS = st.builds(
    lambda begin, span, width: Window(begin, begin + span, width),
    st.floats(-10, 100),
    st.floats(0.001, 150),
    st.integers(1, 40),
)
EXACT = st.builds(
    lambda begin, step, width: Window(begin, begin + step * width, width),
    st.integers(-10, 100),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.sampled_from([1, 2, 8, 32]),
)
"""Windows whose columns begin at exact numbers."""


def columns(points: list[tuple[float, float]], window: Window) -> dict[int, list[tuple[float, float]]]:
    """The points in each column of pixels, by time."""
    found: dict[int, list[tuple[float, float]]] = {}
    for t, value in sorted(points, key=lambda point: point[0]):
        if window.begin <= t <= window.end and not math.isnan(value):
            at = math.floor((t - window.begin) / (window.end - window.begin) * window.width)
            found.setdefault(min(at, window.width - 1), []).append((t, value))
    return found


@settings(max_examples=300, deadline=None)
@given(POINTS, WINDOWS)
def test_no_extreme_is_lost_by_thinning(points: list[tuple[float, float]], window: Window) -> None:
    t, values = (np.array([point[n] for point in points], np.float64) for n in (0, 1))
    found, counts = thinned(t, values, window)
    expected = columns(points, window)
    assert counts.tolist() == [len(expected.get(at, [])) for at in range(window.width)]
    for at in range(window.width):
        inside = [value for _, value in expected.get(at, [])]
        if not inside:
            assert all(math.isnan(found[name][at]) for name in found)
            continue
        assert (found["min"][at], found["max"][at]) == (min(inside), max(inside))
        latest = max(t for t, _ in expected[at])
        assert found["last"][at] in [value for t, value in expected[at] if t == latest]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-80, 480).map(lambda n: n / 4), st.floats(0, 9)), max_size=40), EXACT)
def test_a_value_that_holds_is_drawn_until_the_next(points: list[tuple[float, float]], window: Window) -> None:
    points = sorted(dict(points).items())
    t, values = (np.array([point[n] for point in points], np.float64) for n in (0, 1))
    found = held(t, values, window, math.inf)
    for at, begin in enumerate(window.begin + window.starts()):
        end = window.begin + (window.starts()[at + 1] if at + 1 < window.width else window.end - window.begin)
        before = [value for when, value in points if when < begin][-1:]
        inside = [value for when, value in columns(points, window).get(at, [])]
        holding = before + inside
        if holding:
            assert (found["min"][at], found["max"][at]) == (min(holding), max(holding))
        else:
            assert math.isnan(found["min"][at]) and math.isnan(found["max"][at])
        until = [value for when, value in points if when < end or (at + 1 == window.width and when <= window.end)]
        assert math.isnan(found["last"][at]) if not until else found["last"][at] == until[-1]


def followed(path: Path, *lines: Any, samples: tuple[Sample, ...] = (), **changes: Any) -> RunFollower:
    with RunWriter(path, manifest(**changes)) as writer:
        for line in lines:
            writer.write_line(line)
        for sample in samples:
            writer.write_sample(sample)
    return caught_up(path)


def drawn(follower: RunFollower, name: str, *window: Any) -> ChartColumns:
    found = chart(follower, name, *window)
    assert found is not None
    assert found.head == HEADS[name]
    assert len(found.names) == len(found.columns) and all(len(each) == found.n for each in found.columns)
    assert all(each.dtype == np.float32 and each.flags.c_contiguous for each in found.columns)
    assert (np.diff(found.columns[0]) > 0).all()
    return found


def column(data: ChartColumns, name: str) -> list[float]:
    return [float(value) for value in data.columns[data.names.index(name)]]


def test_the_slowest_of_many_jobs_is_in_the_picture_at_any_width(tmp_path: Path) -> None:
    records = [job(n, 0.1 * n, 55.5 if n == 777 else 1.0) for n in range(2_000)]
    follower = followed(tmp_path, *records)
    for width in (1, 7, 800):
        data = drawn(follower, "latency", None, None, width)
        assert np.nanmax(column(data, "Done.max")) == pytest.approx(55.5, abs=1e-3)
        assert data.n <= width
    near = drawn(follower, "latency", 77.7 + 55.4, 77.7 + 55.6, 800)
    assert max(column(near, "Done.max")) == pytest.approx(55.5, abs=1e-3)


def test_failures_are_a_series_of_their_own(tmp_path: Path) -> None:
    data = drawn(followed(tmp_path, job(0, 0.0, 2.0), failed(1, 1.0, 3.0)), "latency", 0.0, 10.0, 10)
    assert data.names == [
        "t",
        *(f"{badge}.{part}" for badge in ("Done", "Needs attention") for part in ("min", "max", "last")),
    ]
    assert data.columns[0].tolist() == [2.5, 4.5], "columns in which something ended"
    assert column(data, "Needs attention.max")[1] == 3.0 and math.isnan(column(data, "Done.max")[1])


def test_phases_add_up_to_the_latency(tmp_path: Path) -> None:
    data = drawn(followed(tmp_path, job(0, 0.0, 2.0), job(1, 0.1, 4.0)), "phases", 0.0, 10.0, 1)
    assert sum(float(each[0]) for each in data.columns[1:]) == pytest.approx(3.0, abs=1e-5)


def test_jobs_in_flight_and_the_queue_hold_until_they_change(tmp_path: Path) -> None:
    samples = tuple(
        Sample(t=t, source="comfy", name="queue_remaining", value=value)
        for t, value in ((0.5, 2.0), (6.0, None), (9.5, 1.0))
    )
    follower = followed(tmp_path, sent(2, 3.0), job(0, 0.0, 4.0), job(1, 1.0, 4.0), samples=samples)
    data = drawn(follower, "queue", 0.0, 10.0, 10)
    assert column(data, "in flight.max") == [1, 2, 2, 3, 3, 2, 1, 1, 1, 1]
    assert column(data, "in flight.last") == [1, 2, 2, 3, 2, 1, 1, 1, 1, 1]
    queue = column(data, "queued or running.last")
    assert queue[:6] == [2.0] * 6 and all(math.isnan(value) for value in queue[6:9]) and queue[9] == 1.0


def test_totals_begin_at_nothing_and_end_with_all(tmp_path: Path) -> None:
    data = drawn(followed(tmp_path, job(0, 1.0, 4.0), failed(1, 2.0, 1.0)), "flow", 0.0, 5.0, 5)
    assert column(data, "came due.last") == [0, 1, 2, 2, 2]
    assert column(data, "completed.last") == [0, 0, 0, 0, 1]


def test_readings_of_the_gpu_are_of_the_source_that_is_believed(tmp_path: Path) -> None:
    def reading(t: float, source: str, name: str, value: float | None) -> Sample:
        return Sample(t=t, source=source, name=name, value=value)

    samples = (
        reading(1.0, "nvml", "gpu.0.utilisation_percent", 11.0),
        reading(1.0, "probe", "gpu.0.utilisation_percent", 97.0),
        reading(1.0, "nvml", "gpu.1.utilisation_percent", 5.0),
        reading(1.0, "nvml", "gpu.0.vram_used_bytes", 3.0 * 2**30),
        reading(1.0, "nvml", "gpu.0.power_w", None),
        reading(2.0, "nvml", "gpu.0.power_mw", 250_000.0),
    )
    follower = followed(tmp_path, job(0, 0.0, 4.0), samples=samples)
    assert [head.name for head in charts_of(follower)] == list(HEADS)
    gpu = drawn(follower, "gpu")
    assert column(gpu, "GPU 0.max") == [97.0] and column(gpu, "GPU 1.max") == [5.0]
    assert column(drawn(follower, "vram"), "GPU 0.last") == [3.0]
    assert column(drawn(follower, "power"), "GPU 0.last") == [250.0]


def test_a_run_shows_only_the_charts_that_it_has_numbers_for(tmp_path: Path) -> None:
    assert charts_of(followed(tmp_path / "none")) == []
    assert [head.name for head in charts_of(followed(tmp_path / "sent", sent(0)))] == ["flow", "queue"]
    one = followed(tmp_path / "one", job(0, 0.0, 2.0))
    assert [head.name for head in charts_of(one)] == ["latency", "phases", "flow", "queue"]
    assert chart(one, "no such") is None


@pytest.mark.parametrize("window", [(5.0, 5.0, 10), (9.0, 2.0, 10), (math.nan, math.inf, 0), (-1e300, 1e300, 10**9)])
@pytest.mark.parametrize("jobs", [0, 1])
def test_any_window_can_be_asked_for(tmp_path: Path, window: tuple[float, float, int], jobs: int) -> None:
    follower = followed(tmp_path, *(job(n, 0.0, 2.0) for n in range(jobs)))
    for name in HEADS:
        data = drawn(follower, name, *window)
        assert data.n <= MOST_WIDTH and data.to_s > data.from_s
