"""A trend marks where a level changed, seldom where it did not, and shows a point as sure as it is."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from comfyload.judge.comparison.history import Series, history, steps
from comfyload.judge.summary import Measured, measure
from comfyload.record.plan import Closed
from comfyload.report.history import history_json, history_markdown, render_history
from tests.unit.judge_runs import failed, job, manifest, one_by_one, planned

Floats = NDArray[np.float64]
TRIALS = 300


def _run(level: float, seed: int = 0, **changes: Any) -> Measured:
    rng = np.random.default_rng(seed)
    run = manifest(40, **changes)
    return measure(f"r{seed}", run, one_by_one([float(x) for x in level * rng.lognormal(0, 0.03, 40)]))


def _entries(levels: list[float]) -> list[tuple[str, str, Measured]]:
    return [(f"b{i}", f"2026-01-{i + 1:02}T00:00:00+00:00", _run(level, i)) for i, level in enumerate(levels)]


def _series(found: list[Series], metric: str) -> Series:
    (series,) = (series for series in found if series.metric == metric)
    return series


def _found(values: Floats, half: float) -> list[tuple[int, float]]:
    return steps(values, values * math.exp(-half), values * math.exp(half))


@pytest.mark.parametrize("half", [1.96 * 0.02, 0.0])
def test_a_constant_level_seldom_has_a_step_and_a_real_one_is_found(half: float) -> None:
    rng = np.random.default_rng(3)
    flat = np.exp(rng.normal(0, 0.02, (TRIALS, 20)))
    false = np.mean([len(_found(x, half)) for x in flat])
    stepped = flat * np.where(np.arange(20) < 10, 1.0, 1.15)
    right = np.mean([any(at == 10 and ratio > 1.05 for at, ratio in _found(x, half)) for x in stepped])
    assert false <= 0.05
    assert right >= 0.9


def test_noise_of_a_series_raises_what_counts_as_a_step() -> None:
    quiet = np.array([10.0, 10.1, 9.9, 10.0, 10.05, 11.0])
    loud = np.array([10.0, 10.6, 9.7, 10.5, 9.6, 11.3])
    assert [at for at, _ in _found(quiet, 0.001)] == [5]
    assert _found(loud, 0.001) == []


def test_overlapping_intervals_are_no_step() -> None:
    values = np.array([10.0, 10.0, 10.0, 12.0])
    assert _found(values, 0.2) == []
    assert _found(values, 0.05) == [(3, pytest.approx(1.2))]  # type: ignore[comparison-overlap]


def test_a_side_without_a_bound_proves_nothing() -> None:
    values, ends = np.array([10.0, 10.0, 20.0]), np.full(3, np.inf)
    assert steps(values, np.zeros(3), ends) == []


def test_a_zero_is_no_step_and_hides_none() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.5])
    assert [at for at, _ in _found(values, 0.001)] == [3]


def test_a_series_has_a_point_for_each_baseline_in_the_order_of_time() -> None:
    entries = _entries([10.0, 10.0, 10.0, 13.0])
    found = history(entries[::-1])
    execution, rate = _series(found, "p50_execution_s"), _series(found, "images_per_minute")
    assert [point.name for point in execution.points] == ["b0", "b1", "b2", "b3"]
    assert execution.load == "book, 1 in flight" and execution.unit == "s"
    point, statistic = execution.points[0], entries[0][2].summary.statistics["p50_execution_s"]
    assert (point.value, point.low, point.high, point.n) == (statistic.value, statistic.low, statistic.high, 40)
    assert [(step.at, step.verdict) for step in execution.steps] == [(3, "slower")]
    assert [(step.at, step.verdict) for step in rate.steps] == [(3, "slower")]


def test_loads_are_series_of_their_own_and_invalid_runs_are_none() -> None:
    two = measure("two", planned(Closed(concurrency=2), 12), one_by_one([9.0] * 12))
    broken = measure("bad", manifest(12), [job(i, 10.0 * i, 9.0, cached=["3", "9"] if i else []) for i in range(12)])
    found = history([("a", "1", _run(10.0)), ("b", "2", two), ("c", "3", broken)], ["p50_latency_s", "p95_latency_s"])
    assert [(series.load, series.metric, len(series.points)) for series in found] == [
        ("book, 1 in flight", "p50_latency_s", 1),
        ("book, 1 in flight", "p95_latency_s", 1),
        ("book, 2 in flight", "p50_latency_s", 1),
    ]


def test_success_that_falls_is_lower() -> None:
    half = [failed(i, 10.0 * i, 9.0) if i % 2 else job(i, 10.0 * i, 9.0) for i in range(40)]
    entries = [*_entries([10.0, 10.0]), ("z", "2027", measure("z", manifest(40), half))]
    series = _series(history(entries), "success_rate")
    assert [(step.at, step.verdict) for step in series.steps] == [(2, "lower")]


def test_a_trend_reads_in_80_columns_and_marks_the_step_at_its_baseline() -> None:
    found = history(_entries([10.0, 10.0, 10.0, 13.0]))
    raw = io.StringIO()
    render_history(found, Console(file=raw, width=80, color_system=None))
    lines = raw.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in raw.getvalue()
    marked = [line for line in lines if "step: " in line]
    assert marked and all(line.startswith("b3 ") and "2026-01-04" in line for line in marked)
    assert json.loads(history_json(found))[0]["steps"][0]["at"] == 3


def test_markup_in_a_baseline_name_stays_text() -> None:
    found = history([("<b>|x", "2026", _run(10.0)), ("<i>", "2027", _run(10.0))])
    page = history_markdown(found)
    assert "<b>" not in page and "&lt;b&gt;\\|x" in page
