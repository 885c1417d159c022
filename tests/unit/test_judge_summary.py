"""What a run comes to: the ledger, the numbers, and what is withheld."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.judge.columns.fold import Fold
from comfyload.judge.summary import Summary, jsonable, summarise
from comfyload.record.model import Fetch, Output, Record, Sample, Sent, ServerTimes, Span
from tests.unit.judge_runs import failed, job, manifest, one_by_one

KEYS = [
    "total_jobs",
    "completed",
    "failed",
    "timeouts",
    "cancelled",
    "lost",
    "dropped",
    "cached",
    "success_rate",
    "avg_latency_s",
    "p50_latency_s",
    "p90_latency_s",
    "p95_latency_s",
    "p99_latency_s",
    "max_latency_s",
    "avg_latency_sent_s",
    "p50_latency_sent_s",
    "p95_latency_sent_s",
    "avg_execution_s",
    "p50_execution_s",
    "p95_execution_s",
    "avg_queue_wait_s",
    "p95_queue_wait_s",
    "images",
    "images_per_minute",
    "jobs_per_minute",
    "image_bytes",
    "wall_clock_s",
    "warmup_jobs",
    "valid",
    "p50_latency_with_failures_s",
    "p95_latency_with_failures_s",
    "p99_latency_with_failures_s",
    "unfinished",
]


def _durations(n: int) -> list[float]:
    return [float(x) for x in np.random.default_rng(7).lognormal(2.3, 0.15, n)]


def _codes(summary: Summary) -> list[str]:
    return [finding.code for finding in summary.findings]


def _with_failures() -> list[Record]:
    records = one_by_one(_durations(100))
    for index, outcome in ((13, "failed"), (40, "lost"), (77, "timed_out")):
        records[index] = failed(index, records[index].due, 30.0, outcome)
    return records


def test_the_summary_has_every_promised_key_whatever_happened() -> None:
    for lines in ([], one_by_one(_durations(12)), [failed(0, 0.0, 1.0)], _with_failures()):
        flat = summarise(manifest(len(lines)), lines).summary
        assert set(KEYS) <= set(flat)


def test_offered_is_the_sum_of_the_outcomes() -> None:
    flat = summarise(manifest(100), _with_failures()).summary
    ends = ("completed", "failed", "timeouts", "cancelled", "lost", "dropped")
    assert flat["total_jobs"] == 100 == sum(int(flat[end] or 0) for end in ends)
    assert (flat["completed"], flat["failed"], flat["lost"], flat["timeouts"]) == (97, 1, 1, 1)
    assert flat["success_rate"] == 0.97


def test_numbers_are_those_of_the_jobs() -> None:
    seconds = [4.0, 2.0, 3.0, 1.0, 5.0, 3.0]
    flat = summarise(manifest(6), one_by_one(seconds)).summary
    assert flat["avg_latency_s"] == pytest.approx(3.0)
    assert flat["p50_latency_s"] == pytest.approx(3.0)
    assert flat["max_latency_s"] == pytest.approx(5.0)
    assert flat["avg_latency_sent_s"] == pytest.approx(2.999)
    assert flat["avg_queue_wait_s"] == pytest.approx(0.003)
    assert flat["avg_execution_s"] == pytest.approx(3.0 - 0.008)
    assert flat["wall_clock_s"] == pytest.approx(18.0)
    assert flat["images_per_minute"] == pytest.approx(20.0)
    assert flat["jobs_per_minute"] == pytest.approx(20.0)


def test_nothing_offered_is_unknown_and_not_zero() -> None:
    summary = summarise(manifest(0), [])
    flat = summary.summary
    counts = {"total_jobs", "completed", "images", "cached", "warmup_jobs", "unfinished"}
    assert all(flat[key] == 0 for key in counts)
    assert all(flat[key] is None for key in flat if key.endswith(("_s", "_rate", "_per_minute", "_bytes")))
    assert flat["valid"] is False and "nothing_measured" in _codes(summary)


def test_twelve_jobs_carry_no_p95_and_the_reason_is_given() -> None:
    summary = summarise(manifest(12), one_by_one(_durations(12)))
    assert summary.summary["p95_latency_s"] is None
    assert summary.statistics["p95_latency_s"].reason == "12 completed jobs; a p95 needs 20"
    assert summary.other_methods["p95_latency_linear_s"] is not None
    assert summary.valid


def test_failures_are_infinitely_slow_in_the_percentiles_that_count_them() -> None:
    summary = summarise(manifest(100), _with_failures())
    without, with_failures = summary.summary["p95_latency_s"], summary.summary["p95_latency_with_failures_s"]
    assert isinstance(without, float) and isinstance(with_failures, float) and with_failures > without
    failing = [failed(i, float(i), 1.0) for i in range(30)]
    assert summarise(manifest(30), failing).summary["p95_latency_with_failures_s"] == "inf"


def test_warm_up_jobs_are_in_no_number_but_their_own_count() -> None:
    counted = one_by_one(_durations(12), first=2)
    shifted = [msgspec.structs.replace(r, due=r.due + 1000, execution=_later(r, 1000)) for r in counted]
    warm = [job(0, 0.0, 500.0, warmup=True), failed(1, 500.0, 5.0)]
    warm[1] = msgspec.structs.replace(warm[1], warmup=True)
    both = summarise(manifest(12, warmup=2), [*warm, *shifted])
    alone = summarise(manifest(12), shifted)
    assert both.summary["warmup_jobs"] == 2 and both.summary["failed"] == 0
    assert {**both.summary, "warmup_jobs": 0} == alone.summary
    assert both.warmup == {"completed": 1, "failed": 1}


def _later(record: Record, seconds: float) -> Any:
    run = record.execution
    assert run.sent is not None and run.done is not None and run.acknowledged is not None
    return msgspec.structs.replace(
        run, sent=run.sent + seconds, done=run.done + seconds, acknowledged=run.acknowledged + seconds
    )


def test_the_order_of_lines_does_not_matter() -> None:
    records = _with_failures()
    forward, backward = summarise(manifest(100), records), summarise(manifest(100), reversed(records))
    assert forward.summary == backward.summary
    assert forward.statistics == backward.statistics


def test_a_rate_is_by_wall_clock_and_has_an_interval_around_it() -> None:
    summary = summarise(manifest(100), _with_failures())
    flat, rate = summary.summary, summary.statistics["images_per_minute"]
    wall = flat["wall_clock_s"]
    assert isinstance(wall, float)
    assert rate.value == pytest.approx(97 / wall * 60)
    assert rate.low is not None and rate.high is not None and rate.low < 97 / wall * 60 < rate.high


def test_one_image_has_a_rate_without_an_interval() -> None:
    cached = [job(i, float(i), 1.0, cached=["3", "9"] if i else []) for i in range(12)]
    rate = summarise(manifest(12), cached).statistics["images_per_minute"]
    assert rate.value == pytest.approx(5.0) and rate.low is None and "fewer than 2" in rate.reason


def test_failures_are_grouped_by_cause_with_a_printable_example() -> None:
    records = [failed(i, float(i), 1.0, message=f"bad\x1b[31m\n{'x' * 500}") for i in range(3)]
    records.append(failed(3, 3.0, 1.0, kind="oom", type="OutOfMemoryError"))
    rows = summarise(manifest(4), records).failures
    assert [(row.kind, row.type, row.node_class, row.count, row.index) for row in rows] == [
        ("execution_error", "RuntimeError", "KSampler", 3, 0),
        ("oom", "OutOfMemoryError", "KSampler", 1, 3),
    ]
    assert len(rows[0].example) == 200 and rows[0].example.isprintable()


def test_node_times_are_of_nodes_that_ran_and_share_the_execution() -> None:
    records = one_by_one([10.0] * 6)
    run = records[5].execution
    records[5] = msgspec.structs.replace(
        records[5], execution=msgspec.structs.replace(run, nodes=[*run.nodes, Span("8", 60.0, None)])
    )
    rows = summarise(manifest(6), records).nodes
    assert [(row.node, row.class_type, row.n) for row in rows] == [("3", "KSampler", 6), ("9", "SaveImage", 6)]
    assert rows[0].avg_s.value == pytest.approx(8.99, rel=1e-3)
    assert rows[0].share == pytest.approx(0.9, abs=0.01)


def test_a_node_that_seems_to_run_for_longer_than_its_jobs_has_no_share() -> None:
    """Its messages came late, all at once: a server whose loop was held up for a second sends them so."""
    spans = [[Span("3", 10.0 * i, 10.0 * i + 0.9), Span("9", 10.0 * i, 10.0 * i + 0.01)] for i in range(6)]
    times = [ServerTimes(start_ms=10_000 * i, end_ms=10_000 * i + 20) for i in range(6)]
    records = [job(i, 10.0 * i, 1.0, nodes=spans[i], server=times[i]) for i in range(6)]
    late, well = summarise(manifest(6), records).nodes
    assert (late.node, late.share) == ("3", None) and late.avg_s.value == pytest.approx(0.9)
    assert well.node == "9" and well.share == pytest.approx(0.5)


def test_bytes_are_known_only_if_files_were_fetched() -> None:
    assert summarise(manifest(1), [job(0, 0.0, 1.0)]).summary["image_bytes"] is None
    fetches = [Fetch(file="output//a.png", bytes=100, seconds=0.1), Fetch(file="output//a.txt", bytes=7, seconds=0.1)]
    summary = summarise(manifest(1, fetch=True), [job(0, 0.0, 1.0, fetches=fetches)])
    assert summary.summary["image_bytes"] == 100
    assert summary.fetched is not None and summary.fetched.bytes == 107


def test_outputs_are_counted_by_kind_and_images_by_type() -> None:
    outputs = [
        Output(node="9", kind="images", count=1, files=["output/r/a.PNG"]),
        Output(node="9", kind="images", count=1, files=["temp//b.webp"]),
        Output(node="9", kind="gifs", count=1, files=["temp//b2.webp"]),
        Output(node="9", kind="video", count=1, files=["output//c.mp4"]),
        Output(node="10", kind="text", count=2),
    ]
    summary = summarise(manifest(1), [job(0, 0.0, 1.0, outputs=outputs)])
    flat = summary.summary
    assert (flat["images"], flat["previews"], flat["videos"], flat["texts"]) == (1, 1, 2, 2)
    assert summary.images_by_type == {"output": 1, "temp": 1}
    assert summary.made["video"] == {"output": 1, "temp": 1} and summary.made["text"] == {"shown": 2}
    assert summary.outputs["text"].count == 2 and summary.outputs["video"].files == {"output": 1}


def test_telemetry_is_folded_by_source_and_name_and_unknown_is_not_zero() -> None:
    samples = [Sample(t=float(t), source="comfy", name="queue", value=v) for t, v in enumerate([1.0, None, 3.0])]
    reading = summarise(manifest(1), [job(0, 0.0, 1.0)], samples).telemetry["comfy.queue"]
    assert (reading.n, reading.unknown, reading.mean, reading.low, reading.high) == (2, 1, 2.0, 1.0, 3.0)


def test_sent_lines_are_no_jobs_of_their_own() -> None:
    records = one_by_one(_durations(12))
    lines = [line for r in records for line in (Sent(index=r.index, prompt_id=r.prompt_id, due=r.due), r)]
    assert summarise(manifest(12), lines).summary == summarise(manifest(12), records).summary


def test_it_becomes_json_without_tokens_that_json_lacks() -> None:
    text = json.dumps(jsonable(summarise(manifest(100), _with_failures())), allow_nan=False)
    assert "Infinity" not in text and "NaN" not in text
    assert jsonable([math.inf, -math.inf, math.nan, {"a": (1.5,)}]) == ["inf", "-inf", None, {"a": [1.5]}]


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e6, 1e6)), min_size=2, max_size=40))
@settings(deadline=None)
def test_how_fast_a_reading_grows_is_its_least_squares_slope(points: list[tuple[float, float]]) -> None:
    fold = Fold([])
    for t, value in points:
        fold.sample(Sample(t=t, source="x", name="y", value=value))
    times = np.array([t for t, _ in points])
    found = fold.readings["x", "y"].per_s
    if np.ptp(times) > 1:
        slope = np.polyfit(times - times.mean(), [value for _, value in points], 1)[0]
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-6)
