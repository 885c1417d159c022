"""The JSON of `--output`: strict JSON, and whole."""

from __future__ import annotations

import io
import json
from typing import Any

from comfyload.judge.summary import summarise
from comfyload.record.model import Manifest, Record, Sent
from comfyload.report.document import jobs, write_document
from tests.unit.judge_runs import failed, job, manifest, one_by_one


def _lines() -> list[Record | Sent]:
    records = [job(0, 0.0, 3.0, warmup=True), *one_by_one([4.0, 5.0, 6.0], first=1)]
    return [*records, failed(4, 20.0, 2.0, "timed_out", kind="timeout"), records[1]]


def _refuse(token: str) -> Any:
    raise AssertionError(token)


def _document(run: Manifest, lines: list[Record | Sent]) -> dict[str, Any]:
    file = io.BytesIO()
    write_document(file, run, summarise(run, lines), jobs(run, lines))
    read: dict[str, Any] = json.loads(file.getvalue(), parse_constant=_refuse)
    return read


def _whole() -> dict[str, Any]:
    return _document(manifest(4, warmup=1), _lines())


def test_its_parts_come_in_the_order_of_reading() -> None:
    assert list(_whole()) == ["summary", "statistics", "workflows", "findings", "jobs", "manifest"]


def test_it_has_a_flat_object_for_each_job_and_none_twice() -> None:
    listed = _whole()["jobs"]
    assert [one["index"] for one in listed] == [0, 1, 2, 3, 4]
    assert listed[0]["warmup"] is True
    second = listed[2]
    assert second["outcome"] == "completed" and second["latency_s"] == 5.0 and second["images"] == 1
    assert second["cached"] is False and second["failure"] is None and second["values"] == {"3.seed": 2}
    last = listed[4]
    assert last["failure"]["kind"] == "timeout" and last["failure"]["node"] is None and last["images"] == 0


def test_jobs_add_up_to_the_summary() -> None:
    whole = _whole()
    counted = [one for one in whole["jobs"] if not one["warmup"]]
    assert whole["summary"]["total_jobs"] == len(counted)
    assert whole["summary"]["completed"] == sum(one["outcome"] == "completed" for one in counted)
    assert whole["summary"]["images"] == sum(one["images"] for one in counted)


def test_infinity_is_a_string_and_the_method_of_quantiles_is_named() -> None:
    whole = _document(manifest(3), [failed(i, float(i), 1.0) for i in range(3)])
    assert whole["summary"]["p50_latency_with_failures_s"] == "inf"
    assert whole["statistics"]["p50_latency_with_failures_s"]["value"] == "inf"
    assert whole["statistics"]["quantile_method"] == "hf8"
    assert whole["statistics"]["failures"][0]["count"] == 3


def test_an_empty_run_is_a_document_too() -> None:
    assert _document(manifest(0), [])["jobs"] == []
