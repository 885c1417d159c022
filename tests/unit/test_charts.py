"""Charts say what the run did: every job is there or the description says it is not, and nothing unknown is drawn."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest
from msgspec import structs

from comfyload.advise.forecast import Estimate, Forecast
from comfyload.advise.rate import Rate
from comfyload.advise.saturation import Saturated
from comfyload.advise.validation import Prediction, Validation
from comfyload.errors import UsageError
from comfyload.judge.summary import Measured
from comfyload.record.model import Sample, Server
from comfyload.record.plan import Closed
from comfyload.report.charts import Chart, charts, concurrency_chart, png, script
from comfyload.report.charts.advice import saturation_chart
from comfyload.report.overview import Shown
from tests.unit.chart_runs import EVIL, gpu_samples, hostile, hostile_manifest, judged, shown, varied
from tests.unit.judge_runs import FACTS, job, manifest, one_by_one, planned, served

NAMES = ["latency", "distribution", "flow", "gpu", "nodes", "waterfall"]


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
        assert chart.title and chart.description.endswith(".") and chart.numbers is not None and chart.numbers.rows
        assert all(len(row) == len(chart.numbers.columns) for row in chart.numbers.rows)


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
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(steps) == 59
    assert steps[0]["t"] == 0
    assert "1 job cut off by the end of the run took longer than observed" in everything["distribution"].description


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
    assert few.numbers is not None and [row[1].words for row in few.numbers.rows] == ["11.0 s", "\N{EN DASH}"]


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


def _at(users: int, *, name: str = "book", **changes: Any) -> Measured:
    """A serial server and `users` who each send their next job when the last has ended."""
    seconds = [10.0 + 0.1 * (i % 3) for i in range(80)]
    due = [0.0] * users + list(accumulate(seconds))[: 80 - users]
    plan = structs.replace(planned(Closed(concurrency=users), 80), name=name, **changes)
    return judged(plan, list(served(due, seconds)))


def test_by_concurrency_each_run_has_a_point_and_the_knee_is_marked_once() -> None:
    chart = concurrency_chart(
        [_at(2), _at(1), _at(4)], [("p95_latency_s <= 45", 45.0), ("p95_latency_s <= 900", 900.0)]
    )
    points = _data(chart, "points")
    assert [(row["x"], row["what"]) for row in points] == [(x, w) for x in "124" for w in ("rate", "latency")]
    assert {row["x"] for row in points if row["knee"]} == {"1"}
    assert [row["y"] for row in _data(chart, "limits")] == [45.0]
    assert "The limit of 900 s (p95_latency_s <= 900) lies far above." in chart.description
    assert all(row["low"] is None or row["low"] <= row["value"] for row in points)
    assert png(chart, scale=1).startswith(b"\x89PNG")


def test_runs_that_are_no_steps_of_concurrency_are_drawn_side_by_side() -> None:
    chart = concurrency_chart([_at(1), _at(1, name="again")])
    assert chart.title == "Throughput and latency of each run"
    assert {row["x"] for row in _data(chart, "points")} == {"book at 1 in flight", "again at 1 in flight"}
    assert not any(row["knee"] for row in _data(chart, "points"))
    assert concurrency_chart([_at(1)]).spec is None and concurrency_chart([]).spec is None


def test_a_limit_is_drawn_only_where_it_is_near() -> None:
    other = [structs.replace(FACTS, name="fast", sha256="1" * 64)]
    fast = [measured_with(users, other) for users in (1, 2)]
    chart = concurrency_chart([_at(1), _at(2), *fast], [("p95_latency_s <= 25", 25.0)])
    assert [row["column"] for row in _data(chart, "limits")] == [0]


def measured_with(users: int, workflows: list[Any]) -> Measured:
    plan = structs.replace(planned(Closed(concurrency=users), 30), workflows=workflows, name="fast")
    return judged(
        plan, [structs.replace(one, workflow="fast") for one in served([1.0 * i for i in range(30)], [0.5] * 30)]
    )


def test_readings_of_the_simulator_say_so() -> None:
    device = {"name": "cuda:0 Simulated GPU : cudaMallocAsync", "type": "cuda"}
    run = hostile_manifest(server=Server(url="http://127.0.0.1:8188", devices=[device]))
    chart = _named(shown(run, list(varied()), gpu_samples(700)))["gpu"]
    assert chart.title == "Simulated GPU over time: no measurement"
    assert all(row["gpu"].startswith("simulated GPU 0") for row in _data(chart, "readings"))


def _forecasts() -> list[Forecast]:
    def at(rate: float, p95: float) -> Forecast:
        near = Estimate(estimate=p95, low=0.9 * p95, high=1.2 * p95)
        share = Estimate(estimate=rate / 3, low=rate / 3, high=rate / 3)
        return Forecast(rate_per_s=rate, servers=1, dispatch="affinity", load=share, stable=True, p50_s=near,
                        p95_s=near, p99_s=near, missed=None)  # fmt: skip

    return [at(0.5, 2.0), at(1.0, 3.0), at(2.0, 9.0), at(2.9, 80.0)]


@pytest.mark.parametrize("good", [True, False])
def test_saturation_draws_rate_limit_deploy_and_the_confirming_run(good: bool) -> None:
    passed = Prediction(name="replay", of="p95", measured_s=4.0 if good else 60.0, predicted_s=5.0,
                        error=0.25 if good else -0.9, inside=good, passed=good)  # fmt: skip
    waits = Prediction(name="structural", of="mean", measured_s=1.0, predicted_s=1.0, error=0.0, passed=True)
    rate = Rate(estimate=150.0, low=140.0, high=160.0, confirmed=good)
    found = Saturated(
        knee=2, serial=True, capacity_per_minute=Rate(estimate=180.0, low=170.0, high=190.0), limit_s=45.0, share=0.95,
        sla_rate_per_minute=rate, steps=[], interference=None, service_s=None, findings=[], paths=[],
        confirmation=Validation(jobs=24, left_out=0, checks=[waits, passed], unmodelled=False, reasons=[]),
        tried_per_minute=126.0, curve=_forecasts(),
    )  # fmt: skip
    chart = saturation_chart(found)
    assert [row["what"] for row in _data(chart, "rates")] == [*(["deploy 140"] if good else []), "capacity 180"]
    (point,) = _data(chart, "measured")
    assert (point["x"], point["good"]) == (126.0, good)
    assert [row["y"] for row in _data(chart, "limit")] == [45.0]
    assert [row["x"] for row in _data(chart, "points")] == [30.0, 60.0, 120.0, 174.0]
    assert png(chart, scale=1).startswith(b"\x89PNG")
    assert saturation_chart(structs.replace(found, curve=[])).spec is None


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
