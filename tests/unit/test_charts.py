"""Charts say what the run did: every job is there or the description says it is not, and nothing unknown is drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.record.model import Sample
from comfyload.report.charts import Chart, charts, png, script
from comfyload.report.html import Shown
from tests.unit.chart_runs import EVIL, gpu_samples, hostile, hostile_manifest, judged, shown, varied
from tests.unit.judge_runs import job, manifest, one_by_one, planned, served

NAMES = ["latency", "distribution", "flow", "gpu", "nodes", "waterfall", "classes"]


def _named(run: Shown) -> dict[str, Chart]:
    return {chart.name: chart for chart in run.charts}


def _data(chart: Chart, name: str) -> list[dict[str, Any]]:
    assert chart.spec is not None
    rows: list[dict[str, Any]] = chart.spec["datasets"][name]
    return rows


@pytest.fixture(scope="module")
def everything() -> dict[str, Chart]:
    return _named(hostile())


@pytest.fixture(scope="module")
def long() -> Shown:
    records = varied(5000)
    return shown(hostile_manifest(5000), list(records), gpu_samples(20_000))


def test_every_picture_is_there_in_order_with_words_and_numbers(everything: dict[str, Chart]) -> None:
    assert list(everything) == NAMES
    for chart in everything.values():
        assert chart.title and chart.description.endswith(".") and chart.columns and chart.rows
        assert all(len(row) == len(chart.columns) for row in chart.rows)


@pytest.mark.parametrize("name", NAMES)
def test_each_draws_a_png(everything: dict[str, Chart], name: str) -> None:
    picture = png(everything[name], scale=1)
    assert picture.startswith(b"\x89PNG") and len(picture) > 4000


def test_a_bar_is_as_high_as_its_job_took_and_made_of_its_phases() -> None:
    run = _named(shown(planned_open(), served([0.0, 1.0, 2.0], 5.0)))
    bars = _data(run["latency"], "bars")
    tops = {row["job"]: max(other["to"] for other in bars if other["job"] == row["job"]) for row in bars}
    assert tops == {0: 5.0, 1: 9.0, 2: 13.0}
    waits = {row["job"]: row["took"] for row in bars if row["phase"] == "in the queue"}
    assert waits == {1: 4.0, 2: 8.0}


def planned_open() -> Any:
    from comfyload.record.plan import Open, Stage

    return planned(Open(stages=[Stage(per_s=1.0)]), 3)


def test_jobs_that_ended_otherwise_are_marked_by_shape_and_word(everything: dict[str, Chart]) -> None:
    marks = {row["job"]: row["end"] for row in _data(everything["latency"], "marks")}
    expected = {13: "failed", 17: "timed out", 20: "all from the cache", 21: "partly from the cache"}
    assert marks == {**expected, 61: "cut off: took longer"}
    assert everything["latency"].spec is not None
    (layer,) = [layer for layer in everything["latency"].spec["layer"] if "shape" in layer["encoding"]]
    assert len(set(layer["encoding"]["shape"]["scale"]["range"])) == len(expected) + 1


def test_warm_up_is_shaded_and_counted_apart(everything: dict[str, Chart]) -> None:
    assert _data(everything["latency"], "shade") == [{"a": -0.5, "b": 1.5, "words": "warm-up"}]
    assert "62 jobs, 2 of them warm-up. Of 57 completed counted jobs" in everything["latency"].description


def test_the_share_of_jobs_climbs_from_none_to_all(everything: dict[str, Chart]) -> None:
    steps = _data(everything["distribution"], "steps")
    shares = [row["share"] for row in steps]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(steps) == 58
    assert "1 job cut off by the end of the run took longer than was seen" in everything["distribution"].description


def test_a_limit_is_drawn_and_named() -> None:
    lines = one_by_one([10.0 + i % 3 for i in range(30)])
    measured = judged(manifest(30), list(lines))
    chart = {c.name: c for c in charts(measured, lines, limits=[("p95 <= 15 s", 15.0), ("p95 <= 45 s", 45.0)])}[
        "distribution"
    ]
    assert _data(chart, "walls") == [{"t": 15.0, "words": "p95 <= 15 s"}]
    assert "Limit p95 <= 45 s: 45.0 s." in chart.description


def test_a_percentile_that_is_withheld_is_not_drawn() -> None:
    few = _named(shown(manifest(12), list(one_by_one([10.0 + i % 3 for i in range(12)]))))["distribution"]
    assert [row["what"] for row in _data(few, "lines")] == ["p50"]
    assert "The p95 is withheld: 12 completed jobs; a p95 needs 20." in few.description
    assert few.rows[0][-2] == "\N{EN DASH}"


def test_gpu_readings_that_said_nothing_are_gaps(everything: dict[str, Chart]) -> None:
    power = [row for row in _data(everything["gpu"], "readings") if row["kind"] == "power"]
    silent = [row["t"] * 60 for row in power if row["v"] is None]
    assert round(min(silent)) == 200 and round(max(silent)) == 259 and len(silent) == 60
    assert all(row["v"] is None or row["v"] > 100 for row in power)


def test_a_source_that_fell_silent_leaves_a_gap_too() -> None:
    reading = "gpu.0.power_w"
    samples = [Sample(t=float(t), source="nvml", name=reading, value=100.0) for t in [*range(20), *range(60, 80)]]
    records = one_by_one([10.0] * 12)
    rows = _data(_named(shown(manifest(12), list(records), samples))["gpu"], "readings")
    assert [row["t"] for row in rows if row["v"] is None] == [20.0]


def test_without_telemetry_the_gpu_is_withheld_with_the_reason() -> None:
    chart = _named(shown(manifest(12), list(one_by_one([10.0] * 12))))["gpu"]
    assert chart.spec is None and chart.withheld == "this run recorded no GPU telemetry"
    with pytest.raises(UsageError, match="no GPU telemetry"):
        png(chart)


def test_a_run_with_nothing_in_it_draws_nothing_and_says_why() -> None:
    for chart in shown(manifest(0), []).charts:
        assert chart.spec is None and chart.withheld and chart.withheld in chart.description


def test_arrivals_and_completions_end_at_their_counts(everything: dict[str, Chart]) -> None:
    counted = _data(everything["flow"], "counted")
    assert max(row["n"] for row in counted if row["what"] == "came due") == 62
    assert max(row["n"] for row in counted if row["what"] == "completed") == 59


def test_jobs_in_flight_are_counted_between_sent_and_done() -> None:
    run = _named(shown(planned_open(), served([0.0, 1.0, 2.0], 5.0)))["flow"]
    flight = [(row["t"], row["n"]) for row in _data(run, "held") if row["what"] == "in flight"]
    assert flight == [(0.0, 1), (1.0, 2), (2.0, 3), (5.0, 2), (10.0, 1), (15.0, 0)]
    assert "3 in flight at most." in run.description and "queue was not recorded" in run.description


def test_the_waterfall_starts_with_the_slowest_and_says_what_can_be_chosen(long: Shown) -> None:
    chart = _named(long)["waterfall"]
    assert chart.spec is not None
    (choice,) = chart.spec["params"]
    assert choice["value"] == choice["bind"]["options"][0] == "17"
    assert choice["bind"]["labels"][0] == "job 17: 30.0 s, timed out"
    assert len(choice["bind"]["options"]) <= 200 and "of 5 002 jobs can be chosen" in chart.description


def test_of_a_long_run_groups_are_drawn_and_it_is_said(long: Shown) -> None:
    by_name = _named(long)
    assert "More than 1000 jobs are drawn in 80 groups" in by_name["latency"].description
    bands = _data(by_name["latency"], "bands")
    assert len(bands) == 80 and sum(row["jobs"] for row in bands) == 5002
    assert sum(row["bad"] for row in bands) == 2
    assert "mean of several of more than 1000 readings" in by_name["gpu"].description
    assert "Drawn at 400 points" in by_name["flow"].description
    assert sum(len(json.dumps(chart.spec)) for chart in long.charts) < 1_000_000


def test_text_of_strangers_stays_text_in_a_definition(everything: dict[str, Chart]) -> None:
    labels = [row["node"] for row in _data(everything["nodes"], "nodes")]
    assert labels[0] == f"3 {EVIL}"


def test_a_second_record_of_a_job_is_drawn_once() -> None:
    records = [*one_by_one([10.0] * 12), job(3, 30.0, 10.0)]
    bars = _data(_named(shown(manifest(12), list(records)))["latency"], "bars")
    assert sum(row["job"] == 3 and row["phase"] == "execution" for row in bars) == 1


def test_the_script_needs_no_network() -> None:
    text = script()
    assert "window.vegaEmbed" in text and "</script" not in text.lower()
