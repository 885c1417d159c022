"""A trend marks where a level changed, seldom where it did not, and shows a point as sure as it is."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from comfyload.judge.comparison.history import Change, LevelShift, LevelShifts, TrendSeries, changes, history
from comfyload.judge.summary import Measured, jsonable, measure
from comfyload.record.plan import Closed
from comfyload.report.history import history_page
from comfyload.report.render.markdown import as_markdown
from comfyload.report.render.terminal import render
from tests.unit.judge_runs import failed, job, manifest, one_by_one, planned


def _run(level: float, seed: int = 0, **changes: Any) -> Measured:
    rng = np.random.default_rng(seed)
    run = manifest(40, **changes)
    return measure(f"r{seed}", run, one_by_one([float(x) for x in level * rng.lognormal(0, 0.03, 40)]))


def _entries(levels: list[float]) -> list[tuple[str, str, Measured]]:
    return [(f"b{i}", f"2026-01-{i + 1:02}T00:00:00+00:00", _run(level, i)) for i, level in enumerate(levels)]


def _series(found: list[TrendSeries], metric: str) -> TrendSeries:
    (series,) = (series for series in found if series.metric == metric)
    return series


def _changes(values: list[float], half: float = 0.001) -> LevelShifts:
    value = np.array(values)
    return changes(value, value * math.exp(-half), value * math.exp(half))


def _steps(values: list[float], half: float = 0.001) -> list[int]:
    return [at for at, _ in _changes(values, half).steps]


def _rounded(steps: list[Change]) -> list[tuple[int, float]]:
    return [(at, round(ratio or 0.0, 2)) for at, ratio in steps]


def test_a_second_point_confirms_a_step_and_one_alone_is_a_possible_one() -> None:
    level = [10.0, 10.1, 9.9, 10.0, 10.05]
    one = _changes([*level, 12.0])
    assert one.steps == [] and one.possible is not None and _rounded([one.possible]) == [(5, 1.2)]
    two = _changes([*level, 12.0, 12.1])
    assert _rounded(two.steps) == [(5, 1.2)] and two.possible is None


def test_a_point_far_off_that_the_next_does_not_confirm_is_no_step_and_hides_none() -> None:
    level = [10.0, 10.1, 9.9, 13.0, 10.0, 10.05, 9.95, 10.0]
    assert _changes(level) == LevelShifts(steps=[], possible=None)
    assert _rounded(_changes([*level, 11.5, 11.6, 11.5]).steps) == [(8, 1.15)]


def test_a_step_is_followed_by_no_step_back_and_dated_where_it_began() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        values = 10 * np.exp(rng.normal(0, 0.01, 24)) * np.where(np.arange(24) < 12, 1.0, 1.2)
        assert _steps([float(x) for x in values]) == [12]


def test_two_changes_are_two_steps() -> None:
    found = _changes([10.0] * 6 + [12.0] * 6 + [10.0] * 6).steps
    assert _rounded(found) == [(6, 1.2), (12, 0.83)]


def test_noise_of_a_series_raises_what_counts_as_a_step() -> None:
    quiet = [10.0, 10.1, 9.9, 10.0, 10.05, 9.95, 11.4, 11.5]
    loud = [10.0, 10.9, 9.4, 10.8, 9.3, 10.1, 11.4, 11.5]
    assert _steps(quiet) == [6] and _steps(loud) == []


def test_points_are_no_surer_than_their_intervals() -> None:
    values = [10.0, 10.0, 10.0, 10.0, 12.0, 12.0]
    assert _steps(values, 0.05) == [4] and _steps(values, 0.4) == []


def test_less_than_five_percent_is_no_step_however_sure() -> None:
    assert _steps([10.0] * 15 + [10.4] * 15) == [] and _steps([10.0] * 15 + [10.8] * 15) == [15]


def test_an_interval_that_is_open_above_is_as_wide_as_below() -> None:
    values = np.array([10.0] * 6 + [13.0] * 4)
    assert [at for at, _ in changes(values, values * 0.97, np.full(10, np.inf)).steps] == [6]
    assert changes(values, values * 0.3, np.full(10, np.inf)).steps == []


def test_points_without_intervals_tell_how_far_they_stray_from_four_on() -> None:
    unknown, endless = np.zeros(8), np.full(8, np.inf)

    def found(before: int) -> list[Change]:
        return changes(np.array([10.0] * before + [15.0] * (8 - before)), unknown, endless).steps

    assert found(3) == [] and [at for at, _ in found(4)] == [4]


@pytest.mark.parametrize("values", [[], [10.0], [10.0, 20.0], [0.0, 0.0, 0.0]])
def test_two_points_and_less_have_no_step(values: list[float]) -> None:
    assert _changes(values).steps == []


def test_a_zero_is_no_step_and_hides_none() -> None:
    assert _steps([1.0, 1.0, 0.0, 1.0, 1.5, 1.5]) == [4]


def test_a_series_has_a_point_for_each_baseline_in_the_order_of_time() -> None:
    entries = _entries([10.0, 10.0, 10.0, 13.0, 13.0])
    found = history(entries[::-1])
    execution, rate = _series(found, "p50_execution_s"), _series(found, "images_per_minute")
    assert [point.name for point in execution.points] == ["b0", "b1", "b2", "b3", "b4"]
    assert execution.load == "book, 1 in flight" and execution.unit == "s"
    point, statistic = execution.points[0], entries[0][2].summary.statistics["p50_execution_s"]
    assert (point.value, point.low, point.high, point.n) == (statistic.value, statistic.low, statistic.high, 40)
    assert [(step.at, step.verdict) for step in execution.steps] == [(3, "slower")]
    assert rate.possible is None and execution.possible is None


def test_a_rate_that_falls_is_slower() -> None:
    series = _series(history(_entries([10.0] * 5 + [13.0] * 3)), "images_per_minute")
    assert [(step.at, step.verdict) for step in series.steps] == [(5, "slower")]


def test_loads_are_series_of_their_own_and_invalid_runs_are_none() -> None:
    two = measure("two", planned(Closed(concurrency=2), 12), one_by_one([9.0] * 12))
    broken = measure("bad", manifest(12), [job(i, 10.0 * i, 9.0, cached=["3", "9"] if i else []) for i in range(12)])
    found = history([("a", "1", _run(10.0)), ("b", "2", two), ("c", "3", broken)], ["p50_latency_s", "p95_latency_s"])
    assert [(series.load, series.metric, len(series.points)) for series in found] == [
        ("book, 1 in flight", "p50_latency_s", 1),
        ("book, 1 in flight", "p95_latency_s", 1),
        ("book, 2 in flight", "p50_latency_s", 1),
    ]


def test_success_that_falls_is_lower_and_a_failure_or_two_are_chance() -> None:
    def rate(*failing: int) -> TrendSeries:
        runs = [
            measure("z", manifest(40), [(failed if j < bad else job)(j, 10.0 * j, 9.0) for j in range(40)])
            for bad in failing
        ]
        found = history([(f"b{i}", f"2026-01-{i + 1:02}", run) for i, run in enumerate(runs)], ["success_rate"])
        return _series(found, "success_rate")

    (step,) = rate(0, 0, 1, 10, 12).steps
    assert (step.at, step.verdict) == (3, "lower") and step.ratio == pytest.approx((29 / 40) / (119 / 120))
    assert rate(0, 0, 1, 2, 2).steps == [] and rate(0, 0, 0, 0, 1).possible is None


def test_a_share_that_rises_from_0_has_no_factor() -> None:
    value, nothing, jobs = np.array([0.0] * 3 + [0.5] * 3), np.zeros(6), np.full(6, 40.0)
    assert changes(value, nothing, nothing, jobs).steps == [(3, None)]
    series = history(_entries([10.0] * 6), ["success_rate"])[0]
    shown = structs.replace(series, steps=[LevelShift(at=3, ratio=None, verdict="higher")])
    assert "step: from 0, higher" in as_markdown(history_page([shown]))


def _drawn(found: list[TrendSeries]) -> str:
    raw = io.StringIO()
    render(history_page(found), Console(file=raw, width=80, color_system=None))
    assert max(map(len, raw.getvalue().splitlines())) <= 80 and "…" not in raw.getvalue()
    return raw.getvalue()


def test_a_trend_reads_in_80_columns_and_marks_the_step_at_its_baseline() -> None:
    found = history(_entries([10.0, 10.0, 10.0, 10.0, 13.0, 13.0]))
    lines = _drawn(found).splitlines()
    assert "p50 execution  9.95 s  12.9 s  +29.2 %  step: +29.3 %, slower (b4)" in lines
    marked = [line for line in lines if line.startswith("b") and "step: " in line]
    assert marked and all(line.startswith("b4 ") and "2026-01-05" in line for line in marked)
    assert jsonable(found)[0]["steps"][0]["at"] == 4


def test_a_last_baseline_that_is_far_off_is_shown_as_a_possible_step() -> None:
    found = history(_entries([10.0, 10.0, 10.0, 10.0, 13.0]), ["p50_execution_s"])
    text = _drawn(found)
    assert (
        "a step? +29.9 %, slower" in text
        and "0 steps in 1 series" in text
        and "the next baseline confirms it" in text
        and "Intervals are of 95 %" in text
    )
    assert jsonable(found)[0]["possible"]["verdict"] == "slower"
    assert "a step? +29.9 %, slower" in as_markdown(history_page(found))


def test_markup_in_a_baseline_name_stays_text() -> None:
    found = history([("<b>|x", "2026", _run(10.0)), ("<i>", "2027", _run(10.0))])
    page = as_markdown(history_page(found), all=True)
    assert "<b>" not in page and "&lt;b&gt;\\|x" in page
