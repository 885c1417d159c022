"""Exports: what other tools read back is what the journal holds."""

from __future__ import annotations

import csv
import json
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import parquet

from comfyload.errors import UsageError
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Line, Manifest, Record
from comfyload.report.document import jobs
from comfyload.report.export.csv import write_csv
from comfyload.report.export.otlp import send_otlp, write_otlp
from comfyload.report.export.parquet import write_parquet
from comfyload.report.export.prometheus import metrics_text
from comfyload.report.export.table import columns
from comfyload.telemetry.buckets import BUCKETS_S
from tests.support.rig import play
from tests.unit.judge_runs import FACTS, censored, failed, job, manifest, one_by_one


def _run(count: int = 6) -> tuple[Manifest, list[Line]]:
    """A run on a simulated server, with a job to warm up."""
    played, _ = play(jobs=count, concurrency=2, warmup=1)
    return manifest(count, 2, warmup=1, workflows=[structs.replace(FACTS, name="g")]), played.lines


def _records(lines: list[Line]) -> list[Record]:
    return [line for line in lines if isinstance(line, Record)]


def _awkward() -> list[Line]:
    """Jobs of every kind: warm-up, failed, dropped, cut off, twice recorded, with values of several kinds."""
    first = structs.replace(job(0, 0.0, 3.0, warmup=True), values={"3.seed": 2**64 - 1, "6.text": "=1+1", "7.x": -1})
    second = structs.replace(
        job(1, 3.0, 4.0), values={"3.seed": 7, "6.text": 'plain, with "marks"\nand lines', "7.x": 0.5}
    )
    third = failed(2, 8.0, 2.0, message="=cmd|' /C calc'!A0", node="-3")
    dropped = failed(3, 9.0, 0.0, "dropped", kind="dropped")
    dropped = structs.replace(
        dropped, execution=structs.replace(dropped.execution, sent=None, acknowledged=None, done=None, nodes=[])
    )
    return [first, second, third, dropped, censored(job(4, 10.0, 1.0)), second]


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- CSV


def test_csv_has_a_line_for_each_job_with_the_numbers_of_the_document(tmp_path: Path) -> None:
    run, lines = _run()
    assert write_csv(tmp_path / "jobs.csv", run, lambda: lines) == 7
    read, listed = _read_csv(tmp_path / "jobs.csv"), list(jobs(run, lines))
    assert len(read) == len(listed) == 7
    for row, known in zip(read, listed, strict=True):
        for name in ("due_s", "sent_s", "done_s", "latency_s", "queue_wait_s", "execution_s"):
            assert float(row[name]) == known[name]
        assert row["outcome"] == known["outcome"] and row["warmup"] == str(known["warmup"]).lower()
        assert json.loads(row["files"]) == known["files"]
        assert int(row["value.2.seed"]) == known["values"]["2.seed"]
    assert list(tmp_path.iterdir()) == [tmp_path / "jobs.csv"]


def test_csv_runs_no_formula_that_a_server_or_a_workflow_wrote(tmp_path: Path) -> None:
    write_csv(tmp_path / "jobs.csv", manifest(), _awkward)
    first, second, third, dropped, cut = _read_csv(tmp_path / "jobs.csv")
    assert (
        first["value.6.text"] == "'=1+1"
        and third["failure_message"].startswith("'=cmd")
        and third["failure_node"] == "'-3"
    )
    assert second["value.6.text"] == 'plain, with "marks"\nand lines'
    assert float(first["value.7.x"]) == -1  # a number is no formula
    assert int(first["value.3.seed"]) == 2**64 - 1
    assert dropped["done_s"] == "" and dropped["sent_utc"] == "" and dropped["due_utc"] == "2026-01-01T00:00:09+00:00"
    assert cut["censored"] == "true"


def test_a_file_that_cannot_be_written_is_a_usage_error_and_an_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_csv(tmp_path / "none" / "jobs.csv", manifest(), _awkward)
    old = tmp_path / "jobs.csv"
    old.write_text("old")

    def breaks() -> Iterator[Record]:
        yield job(0, 0.0, 1.0)
        raise UsageError("damaged")

    with pytest.raises(UsageError, match="damaged"):
        write_csv(old, manifest(), breaks)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


# --- Parquet


def test_parquet_gives_back_every_job_with_its_types_and_its_run(tmp_path: Path) -> None:
    run, lines = _run()
    assert write_parquet(tmp_path / "jobs.parquet", run, lambda: lines) == 7
    table = parquet.read_table(tmp_path / "jobs.parquet")
    for row, known in zip(table.to_pylist(), jobs(run, lines), strict=True):
        for name in ("index", "prompt_id", "outcome", "warmup", "due_s", "done_s", "latency_s", "execution_s", "files"):
            assert row[name] == known[name], name
        assert (row["done_utc"] - row["due_utc"]).total_seconds() == pytest.approx(known["latency_s"], abs=2e-6)
        assert row["value.2.seed"] == known["values"]["2.seed"]
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["due_s"] == "double" and kinds["warmup"] == "bool" and kinds["due_utc"] == "timestamp[us, tz=UTC]"
    assert kinds["outcome"].startswith("dictionary")
    metadata = table.schema.metadata
    assert metadata[b"comfyload.run_id"].decode() == run.run_id and metadata[b"comfyload.quantile_method"] == b"hf8"
    assert table.schema.field("latency_s").metadata[b"unit"] == b"s"


def test_parquet_holds_seeds_of_64_bits_and_what_is_not_known_is_null(tmp_path: Path) -> None:
    write_parquet(tmp_path / "jobs.parquet", manifest(), _awkward)
    first, second, third, dropped, _cut = parquet.read_table(tmp_path / "jobs.parquet").to_pylist()
    assert (first["value.3.seed"], second["value.3.seed"]) == (2**64 - 1, 7)
    assert (first["value.7.x"], second["value.7.x"], third["value.7.x"]) == (-1.0, 0.5, None)
    assert dropped["done_s"] is None and dropped["done_utc"] is None and dropped["failure_kind"] == "dropped"


def test_parquet_streams_in_row_groups(tmp_path: Path) -> None:
    many = one_by_one([1.0] * 20_001)
    assert write_parquet(tmp_path / "jobs.parquet", manifest(20_001), lambda: many) == 20_001
    groups = parquet.ParquetFile(tmp_path / "jobs.parquet")
    sizes = [groups.metadata.row_group(at).num_rows for at in range(groups.num_row_groups)]
    assert sizes == [10_000, 10_000, 1]


def test_an_empty_run_is_a_table_without_rows(tmp_path: Path) -> None:
    assert write_parquet(tmp_path / "jobs.parquet", manifest(0), list) == 0
    assert write_csv(tmp_path / "jobs.csv", manifest(0), list) == 0
    names = [column.name for column in columns(list)]
    assert parquet.read_table(tmp_path / "jobs.parquet").column_names == names
    assert (tmp_path / "jobs.csv").read_text() == ",".join(names) + "\n"


@pytest.mark.parametrize(
    ("module", "write", "extra"),
    [
        ("pyarrow", write_parquet, "parquet"),
        ("opentelemetry.exporter.otlp.proto.common.trace_encoder", write_otlp, "otlp"),
    ],
)
def test_a_missing_extra_is_named(
    module: str, write: Any, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as caught:
        write(tmp_path / "x", manifest(), list)
    assert caught.value.hint == f"pip install 'comfyload[{extra}]'"


# --- Prometheus


def _measured(lines: list[Line], **changes: Any) -> Measured:
    return measure("run", manifest(len(_records(lines)), **changes), lines)


def _samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset((key, value) for key, value in sample.labels.items() if key != "run")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def _key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_prometheus_reads_back_every_number_of_the_summary_in_base_units(tmp_path: Path) -> None:
    seconds = [4.0 + 0.1 * (index * 7 % 13) for index in range(40)]
    measured = _measured(list(one_by_one(seconds)))
    (tmp_path / "run.prom").write_bytes(metrics_text(measured))
    found, flat = _samples((tmp_path / "run.prom").read_bytes()), measured.summary.summary
    whole = {"workflow": "", "bound": "value"}
    assert found[_key("comfyload_p95_latency_seconds", **whole)] == flat["p95_latency_s"]
    text = (tmp_path / "run.prom").read_text(encoding="utf-8")
    assert "# HELP comfyload_images_per_second Images per minute, in base units: " in text
    assert "# HELP comfyload_valid Valid: " in text
    low = measured.summary.statistics["p50_latency_s"].low
    assert found[_key("comfyload_p50_latency_seconds", workflow="", bound="low")] == low
    assert found[_key("comfyload_p50_latency_seconds", workflow="book", bound="low")] == low
    per_minute = flat["images_per_minute"]
    assert isinstance(per_minute, float)
    assert found[_key("comfyload_images_per_second", **whole)] == pytest.approx(per_minute / 60)
    assert found[_key("comfyload_success_ratio", **whole)] == 1.0
    assert found[_key("comfyload_jobs_total", outcome="completed")] == 40
    gauges = {name for name, labels in found if ("workflow", "") in labels}
    assert len(gauges) == sum(value is not None for value in flat.values())


def test_the_latency_histogram_counts_completed_jobs_up_to_each_edge() -> None:
    lines: list[Line] = [*one_by_one([0.1, 0.3, 4.0, 4.0, 5000.0]), failed(5, 6000.0, 1.0)]
    found = _samples(metrics_text(_measured(lines)))
    counts = {
        edge: found[_key("comfyload_job_latency_seconds_bucket", workflow="book", le=str(float(edge)))]
        for edge in BUCKETS_S
    }
    assert (counts[0.1], counts[0.25], counts[0.5], counts[5], counts[3600]) == (1, 1, 2, 4, 4)
    assert found[_key("comfyload_job_latency_seconds_bucket", workflow="book", le="+Inf")] == 5
    assert found[_key("comfyload_job_latency_seconds_count", workflow="book")] == 5
    assert found[_key("comfyload_job_latency_seconds_sum", workflow="book")] == pytest.approx(5008.4)


def test_what_is_withheld_is_absent_and_never_zero_and_infinity_is_infinity() -> None:
    measured = _measured([failed(index, float(index), 1.0) for index in range(3)])
    found = _samples(metrics_text(measured))
    assert measured.summary.summary["p95_latency_s"] is None
    assert not any(name.startswith("comfyload_p95_latency_seconds") for name, _ in found)
    assert found[_key("comfyload_p50_latency_with_failures_seconds", workflow="", bound="value")] == math.inf
    assert found[_key("comfyload_completed", workflow="", bound="value")] == 0  # known, and none


def test_a_name_with_quotes_and_line_breaks_is_a_label_all_the_same() -> None:
    odd = 'a "b"\n\\c'
    facts = structs.replace(FACTS, name=odd)
    lines: list[Line] = [structs.replace(job(0, 0.0, 1.0), workflow=odd)]
    found = _samples(metrics_text(_measured(lines, workflows=[facts])))
    assert found[_key("comfyload_total_jobs", workflow=odd, bound="value")] == 1


# --- OTLP


@contextmanager
def _collector(status: int = 200) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector on this machine, and what it took."""
    taken: list[ExportTraceServiceRequest] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            taken.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(requests: list[ExportTraceServiceRequest]) -> list[Span]:
    return [span for request in requests for r in request.resource_spans for s in r.scope_spans for span in s.spans]


def _attributes(held: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in held.attributes}


def test_a_collector_gets_a_trace_for_each_job_on_the_clients_clock() -> None:
    run, lines = _run()
    with _collector() as (url, taken):
        sent = send_otlp(url, run, lines)
    spans = _spans(taken)
    roots = {span.trace_id: span for span in spans if span.name == "comfyui.prompt"}
    assert len(spans) == sent and len(roots) == 7
    began = 1_767_225_600 * 10**9
    for record in _records(lines):
        root = next(span for span in roots.values() if _attributes(span)["comfyload.job"] == record.index)
        assert root.start_time_unix_nano == began + round(record.due * 1e9)
        assert record.execution.done is not None
        assert root.end_time_unix_nano == began + round(record.execution.done * 1e9)
        times = record.execution.server
        assert times.start_ms is not None and times.end_ms is not None
        assert _attributes(root)["comfyui.server.execution_s"] == (times.end_ms - times.start_ms) / 1000
        of_it = [span for span in spans if span.trace_id == root.trace_id]
        by_id = {span.span_id: span for span in of_it}
        assert len(by_id) == len(of_it) and [span.name for span in of_it[1:4]] == [
            "comfyui.wait",
            "comfyui.queue",
            "comfyui.execution",
        ]
        nodes = [span for span in of_it if span.name.startswith("comfyui.node")]
        assert len(nodes) == len([span for span in record.execution.nodes if span.end is not None])
        assert {by_id[span.parent_span_id].name for span in nodes} == {"comfyui.execution"}
        for child in of_it[1:]:
            assert root.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
            assert child.end_time_unix_nano <= root.end_time_unix_nano
    resource = _attributes(taken[0].resource_spans[0].resource)
    assert resource == {"service.name": "comfyui", "server.address": "127.0.0.1", "comfyload.run_id": run.run_id}


def test_failures_are_errors_and_jobs_that_were_cut_off_are_none() -> None:
    with _collector() as (url, taken):
        send_otlp(f"{url}/", manifest(), _awkward())
    roots = {_attributes(span)["comfyload.job"]: span for span in _spans(taken) if span.name == "comfyui.prompt"}
    assert sorted(roots) == [0, 1, 2, 3, 4]
    assert [roots[at].status.code for at in range(5)] == [
        Status.STATUS_CODE_UNSET,
        Status.STATUS_CODE_UNSET,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert roots[2].status.message == "execution_error RuntimeError =cmd|' /C calc'!A0"
    assert _attributes(roots[2])["error.type"] == "execution_error"
    assert _attributes(roots[3])["comfyload.end_known"] is False
    assert roots[3].start_time_unix_nano == roots[3].end_time_unix_nano


def test_many_jobs_go_in_batches_and_sent_again_are_the_same_spans() -> None:
    lines = one_by_one([1.0] * 300)
    with _collector() as (url, taken):
        assert send_otlp(url, manifest(300), lines) == send_otlp(url, manifest(300), lines) == len(_spans(taken)) / 2
    assert len(taken) > 4
    assert len({span.span_id for span in _spans(taken)}) == len(_spans(taken)) / 2


def test_a_collector_that_does_not_answer_or_refuses_is_a_usage_error() -> None:
    with _collector() as (gone, _):
        pass
    with pytest.raises(UsageError, match=r"127\.0\.0\.1 did not take the traces"):
        send_otlp(gone, manifest(), one_by_one([1.0]), timeout_s=0.5)
    with _collector(status=400) as (url, _), pytest.raises(UsageError, match=r"did not take.*400"):
        send_otlp(url, manifest(), one_by_one([1.0]), timeout_s=0.5)


def test_a_file_of_traces_is_otlps_json(tmp_path: Path) -> None:
    run, lines = _run()
    count = write_otlp(tmp_path / "traces.json", run, lines)
    with _collector() as (url, taken):
        send_otlp(url, run, lines)
    written = [json.loads(line) for line in (tmp_path / "traces.json").read_text(encoding="utf-8").splitlines()]
    spans = [span for one in written for r in one["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]
    assert len(spans) == count
    assert [span["traceId"] for span in spans] == [span.trace_id.hex() for span in _spans(taken)]
    assert [int(span["startTimeUnixNano"]) for span in spans] == [span.start_time_unix_nano for span in _spans(taken)]
