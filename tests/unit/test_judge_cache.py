"""A job answered from the cache is completed and made nothing: what counts as an image, and what is said of it."""

from __future__ import annotations

import msgspec
import pytest

from comfyload.judge.columns.cache import CacheJudge
from comfyload.judge.summary import Summary, summarise
from comfyload.record.model import NodeFacts, Output, Record, ServerTimes, Span
from comfyload.record.plan import Plan, Replay
from comfyload.retry.policy import default
from tests.unit.judge_runs import FACTS, job, manifest

SAME = [Output(node="9", kind="images", count=1, files=["output//book_00001_.png"])]


def _finding(summary: Summary, code: str) -> tuple[str, str]:
    return next((finding.level, finding.text) for finding in summary.findings if finding.code == code)


def _baseline() -> list[Record]:
    """The baseline as it was published: one seed for twelve jobs, 12.3 s for the first and 20 ms for each other."""
    records, due = [job(0, 0.0, 12.3, outputs=SAME)], 12.3
    for index in range(1, 12):
        start = round(1000 * due) + 1_700_000_000_000
        times = ServerTimes(create_ms=start, start_ms=start + 1, end_ms=start + 8)
        records.append(job(index, due, 0.02, cached=["3", "4", "8", "9"], nodes=[], server=times, outputs=SAME))
        due += 0.02
    return records


def test_the_published_baseline_was_one_image_and_eleven_cache_hits() -> None:
    summary = summarise(manifest(12), _baseline())
    flat = summary.summary
    assert flat["completed"] == 12 and flat["success_rate"] == 1.0
    assert flat["cached"] == 11 and flat["cached_fully"] == 11
    assert flat["images"] == 1
    assert flat["p95_latency_s"] is None
    wall = flat["wall_clock_s"]
    assert wall == pytest.approx(12.3 + 11 * 0.02)
    assert flat["images_per_minute"] == pytest.approx(60 / (12.3 + 11 * 0.02))
    assert isinstance(flat["avg_latency_s"], float) and isinstance(flat["max_latency_s"], float)
    assert flat["avg_latency_s"] <= flat["max_latency_s"]
    assert flat["valid"] is False
    level, text = _finding(summary, "cached_jobs")
    assert (level, text) == ("invalid", "11 of 12 jobs were served from the cache: 1 image was made.")
    assert summary.cache["fresh"].avg_latency_s.value == pytest.approx(12.3)


def test_as_is_asked_for_the_cache_so_it_is_a_warning() -> None:
    summary = summarise(manifest(12, as_is=True), _baseline())
    assert _finding(summary, "cached_jobs")[0] == "warning"
    assert summary.summary["images"] == 1


def test_in_traffic_a_cache_hit_is_a_count_and_no_warning() -> None:
    traffic = manifest(12)
    traffic.plan = Plan(load=Replay(offsets_s=[], source="the gateway's traffic"), as_is=True)
    traffic.retry = default()
    summary = summarise(traffic, _baseline())
    assert summary.findings == [] and summary.valid
    assert summary.summary["cached"] == 11 and summary.summary["images"] == 1


def test_a_job_is_partly_cached_if_its_sampler_was_and_its_image_is_not_new() -> None:
    truth = CacheJudge([FACTS]).judge(job(0, 0.0, 1.0, cached=["3", "4"]))
    assert truth.cache == "partial" and truth.new == [] and len(truth.kinds) == 1


def test_loaders_from_the_cache_are_no_cache_hit() -> None:
    truth = CacheJudge([FACTS]).judge(job(0, 0.0, 1.0, cached=["4"]))
    assert truth.cache == "fresh" and len(truth.new) == 1


def test_two_nodes_that_save_the_same_file_made_one_image() -> None:
    twice = [Output(node=node, kind="images", count=1, files=["output//a.png"]) for node in ("9", "10")]
    assert CacheJudge([FACTS]).judge(job(0, 0.0, 1.0, outputs=twice)).new == [0]


def test_a_file_seen_before_is_no_new_image_though_the_server_reported_no_hit() -> None:
    records = [job(i, float(i), 1.0, outputs=SAME, nodes=[]) for i in range(12)]
    summary = summarise(manifest(12), records)
    assert summary.summary["images"] == 1 and summary.summary["cached"] == 0
    level, text = _finding(summary, "repeated_files")
    assert level == "invalid" and "11 jobs were" in text and "1, 2, 3, 4, 5, …" in text


def test_a_file_that_was_seen_to_be_written_again_is_a_warning() -> None:
    records = [job(i, float(i), 1.0, outputs=SAME) for i in range(12)]
    assert _finding(summarise(manifest(12), records), "repeated_files")[0] == "warning"


def test_the_file_of_a_warm_up_job_is_not_new_afterwards() -> None:
    lines = [job(0, 0.0, 1.0, warmup=True, outputs=SAME), job(1, 1.0, 1.0, outputs=SAME, nodes=[])]
    summary = summarise(manifest(1, warmup=1), lines)
    assert summary.summary["images"] == 0 and summary.summary["images_per_minute"] is None


def test_output_nodes_that_show_the_same_in_every_job_are_no_images() -> None:
    facts = msgspec.structs.replace(FACTS, constant=["10"])
    outputs = [*SAME, Output(node="10", kind="images", count=1, files=["temp//mask.png"])]
    truth = CacheJudge([facts]).judge(job(0, 0.0, 1.0, outputs=outputs, cached=["10"]))
    assert truth.cache == "fresh" and truth.new == [0]


def test_without_samplers_only_the_output_node_decides() -> None:
    nodes = {"1": NodeFacts(class_type="LoadImage"), "9": NodeFacts(class_type="SaveImage", output=True)}
    truth = CacheJudge([msgspec.structs.replace(FACTS, nodes=nodes)])
    assert truth.judge(job(0, 0.0, 1.0, cached=["1"])).cache == "fresh"
    assert truth.judge(job(1, 0.0, 1.0, cached=["1", "9"])).cache == "cached"


def test_a_workflow_without_facts_is_judged_by_what_it_returned() -> None:
    assert CacheJudge([]).judge(job(0, 0.0, 1.0, cached=["9"], nodes=[Span("3", 0.0, 1.0)])).cache == "cached"
