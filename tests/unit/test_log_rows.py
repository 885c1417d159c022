"""What the probe and applications write is understood by the reader, and by the gate on unexpected errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comfyload.app.check import check, gate_set, log_errors
from comfyload.app.locate import Target, find
from comfyload.record.metrics.log import LogRow, row_of_line
from comfyload.record.model import LogLine, Sent
from comfyload.record.run import RunWriter
from comfyload.report.log_text import log_text, node_words
from tests.unit.judge_runs import failed, manifest, one_by_one

AT = "2026-01-01T00:30:00.000000Z"
ID = "aaaaaaaa-0000-4000-8000-000000000000"
NOBODY = "ffffffff-0000-4000-8000-000000000000"
GPU: dict[str, Any] = {
    "index": 0,
    "utilisation_percent": 98,
    "vram_used_bytes": 12 * 2**30,
    "vram_total_bytes": 16 * 2**30,
    "torch_allocated_bytes": None,
    "process_vram_bytes": None,
    "power_w": 171.6,
    "energy_j": 1e6,
    "temperature_c": 68,
    "clock_sm_mhz": 2407,
    "clock_memory_mhz": None,
    "throttle": ["power cap"],
    "pcie_rx_bytes_per_s": None,
    "pcie_tx_bytes_per_s": None,
}
NODE: dict[str, Any] = {"start_mono_s": 1000.5, "vram_allocated_bytes": 2**30, "vram_peak_bytes": 2**31}
ENDED: dict[str, Any] = {"start_mono_s": 1000.5, "nodes_run": 5, "nodes_cached": 7, "vram_peak_bytes": 2**31}
FAILED: dict[str, Any] = {"level": "error", "error": "out of memory", "exception_type": "OutOfMemoryError"}
FAILED |= {"node": "3", "class_type": "KSampler"}


def probe(event: str, seq: int = 1, **fields: Any) -> dict[str, Any]:
    own = {"schema": 1, "event": event, "timestamp": AT, "mono_s": 1000.25, "boot": "1f2e3d4c", "seq": seq}
    return {**own, **fields}


def read(row: dict[str, Any]) -> LogRow:
    found = row_of_line(json.dumps(row).encode())
    assert found is not None
    return found


# --- each row of the two writers, and how it is told: whether it is an error, the node's column, and what is said

PEAK = "VRAM up to 2.0 GiB"
STARTED: dict[str, Any] = {"version": "0.1.0", "comfyui_version": "0.33.0", "pid": 7, "hooks": {"a": "on"}}
ROWS: list[tuple[dict[str, Any], str | None, str, tuple[str, str]]] = [
    (probe("probe.started", **STARTED, missing=[]), None, "", ("", "probe 0.1.0, ComfyUI 0.33.0")),
    (
        probe("probe.started", **STARTED, missing=["node times"]),
        None,
        "",
        ("", "probe 0.1.0, ComfyUI 0.33.0; not available: node times"),
    ),
    (probe("probe.problem", level="warning", error="late"), None, "", ("WARNING", "late")),
    (probe("probe.problem", level="error", error="disk full"), "disk full", "", ("ERROR", "disk full")),
    (probe("probe.disabled", level="error", error="too slow"), "too slow", "", ("ERROR", "too slow")),
    (
        probe("prompt.queued", prompt_id=ID, number=3, queue_depth=2, node_count=12, attempt=2, retry_of=NOBODY),
        None,
        "",
        ("", "12 nodes, 2 before it, attempt 2 of ffffffff"),
    ),
    (probe("prompt.started", prompt_id=ID, waited_ms=12.5, queue_depth=0), None, "", ("", "waited 12.5 ms")),
    (probe("prompt.started", prompt_id=ID, waited_ms=None, queue_depth=0), None, "", ("", "")),
    (probe("prompt.ended", prompt_id=ID, status="ok", duration_ms=9.5, **ENDED), None, "5 run, 7 cached", ("ok", PEAK)),
    (
        probe("prompt.ended", prompt_id=ID, status="error", duration_ms=9.5, **ENDED, **FAILED),
        "out of memory",
        "3 KSampler",
        ("ERROR", "OutOfMemoryError: out of memory"),
    ),
    (
        probe("prompt.ended", prompt_id=ID, status="interrupted", duration_ms=None, **ENDED),
        None,
        "5 run, 7 cached",
        ("interrupted", PEAK),
    ),
    *[
        (
            probe("node", prompt_id=ID, node="3", class_type="KSampler", status=status, duration_ms=9.5, **NODE),
            error,
            "3 KSampler",
            (word, "" if error else PEAK),
        )
        for status, error, word in (
            ("run", None, "run"),
            ("cached", None, "cached"),
            ("error", "node", "ERROR"),
            ("interrupted", None, "interrupted"),
        )
    ],
    (
        probe("model", action="loaded", model="SDXL", bytes=5 * 2**30, duration_ms=9.5, device="cuda:0", prompt_id=ID),
        None,
        "SDXL",
        ("", "loaded, 5.0 GiB, cuda:0"),
    ),
    (
        probe("model", action="unloaded", model="SDXL", bytes=None, duration_ms=9.5, device="cpu", prompt_id=None),
        None,
        "SDXL",
        ("", "unloaded, cpu"),
    ),
    (
        probe("sample", queue_depth=1, process={"rss_bytes": 2**30, "cpu_s": 9.5}, gpus=[GPU]),
        None,
        "",
        ("", "1 in the queue, GPU 0 98 %, 12.0 GiB of 16.0 GiB, 172 W, 68 °C"),
    ),
    (
        {"event": "comfyui.queue", "status": "ok", "error": None, "duration_ms": 12.3, "timestamp": AT, "context": {}},
        None,
        "",
        ("ok", ""),
    ),
    (
        {"event": "comfyui.queue", "status": "error", "error": "gone", "timestamp": AT, "context": {"prompt_id": ID}},
        "gone",
        "",
        ("ERROR", "gone"),
    ),
    (
        {"event": "x", "level": "error", "exception": "ValueError: x", "timestamp": AT},
        "ValueError: x",
        "",
        ("ERROR", ""),
    ),
]


@pytest.mark.parametrize(("raw", "error", "node", "words"), ROWS, ids=lambda value: str(value)[:40])
def test_each_row_is_understood(raw: dict[str, Any], error: str | None, node: str, words: tuple[str, str]) -> None:
    row = read(raw)
    assert row.utc == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert (row.error, row.event) == (error, raw["event"])
    assert row.prompt_id == (raw.get("prompt_id") or raw.get("context", {}).get("prompt_id"))
    assert row.seq == (("1f2e3d4c", 1) if "boot" in raw else None)
    assert node_words(row) == node
    found = log_text(row)
    assert found.word == words[0]
    assert found.more == words[1] or (raw["event"] == "x" and found.more == "ValueError: x")


def test_a_row_of_a_runs_own_log_comes_out_of_its_envelope() -> None:
    line = msgspec.json.encode(LogLine(t=1.5, source="probe", row=probe("sample")))
    row = row_of_line(line)
    assert row is not None and (row.event, row.t) == ("sample", 1.5)


# --- the gate


def run_with(path: Path, rows: list[dict[str, Any]], source: str = "probe") -> Target:
    """Twelve jobs of which job 4 failed and job 5 went well, and a log of the run's own."""
    records = one_by_one([10.0] * 12)
    records[4] = failed(4, records[4].due, 1.0, message="out of memory")
    writer = RunWriter(path, manifest(12))
    for record in records:
        writer.write_line(Sent(index=record.index, prompt_id=record.prompt_id, due=record.due))
        writer.write_line(record)
    for row in rows:
        writer.write_log(LogLine(t=1.0, source="log" if source == "log" else "probe", row=row))
    writer.close()
    return find(str(path), path.parent)


def job(number: int) -> str:
    return one_by_one([10.0] * 12)[number].prompt_id if number != 4 else failed(4, 0.0, 1.0).prompt_id


def why(found: Target, log: Path | None = None, expect: str = "out of memory") -> tuple[str, str, float | None]:
    (verdict,) = check(found, gate_set(["unexpected_errors == 0"], None, [expect]), log=log).verdicts
    return verdict.verdict, verdict.why, verdict.value


def failure(prompt_id: str, seq: int) -> list[dict[str, Any]]:
    return [
        probe("node", seq, prompt_id=prompt_id, node="3", class_type="KSampler", status="error", duration_ms=9.5),
        probe("prompt.ended", seq + 1, prompt_id=prompt_id, status="error", duration_ms=9.5, **ENDED, **FAILED),
    ]


def test_a_run_without_a_log_says_so(tmp_path: Path) -> None:
    found = run_with(tmp_path / "run", [])
    assert log_errors(found.results[0], None) is None
    assert "no log was read." in why(found)[1]


def test_the_probes_rows_of_a_job_that_the_records_count_are_no_second_error(tmp_path: Path) -> None:
    found = run_with(tmp_path / "run", failure(job(4), 1))
    assert log_errors(found.results[0], None) == []
    verdict, text, value = why(found, expect="nothing of the kind")
    assert (verdict, value) == ("FAIL", 1) and "no log was read" not in text.lower()


def test_a_failure_that_only_the_log_tells_is_one_error(tmp_path: Path) -> None:
    found = run_with(tmp_path / "run", failure(job(5), 1))
    (error,) = log_errors(found.results[0], None) or []
    assert (error.where, error.text, error.count) == ("log", "OutOfMemoryError KSampler: out of memory", 1)
    (tmp_path / "two").mkdir()
    (alone,) = log_errors(run_with(tmp_path / "two" / "run", failure(job(5), 1)[:1]).results[0], None) or []
    assert alone.text == "KSampler: the node failed"


def test_rows_of_other_prompts_and_of_the_probe_itself_are_said_and_do_not_count(tmp_path: Path) -> None:
    rows = [
        *failure(NOBODY, 1),
        {"event": "render", "status": "error", "error": "bad", "context": {"prompt_id": NOBODY}, "timestamp": AT},
        probe("probe.problem", 5, level="warning", error="17 rows were dropped"),
        probe("probe.disabled", 6, level="error", error="too slow"),
        probe("prompt.ended", 7, prompt_id=job(5), status="interrupted", duration_ms=None, **ENDED),
    ]
    verdict, text, value = why(run_with(tmp_path / "run", rows))
    assert (verdict, value) == ("PASS", 0)
    assert "2 rows of other prompts were left out." in text
    assert "The probe reported: 17 rows were dropped (1 in all)." in text
    assert "The probe reported: too slow (1 in all)." in text


def test_a_row_that_is_in_the_runs_log_and_in_the_file_counts_once(tmp_path: Path) -> None:
    application = {"event": "render", "status": "error", "error": "bad", "timestamp": AT}
    other = {**application, "error": "worse"}
    log = tmp_path / "m.ndjson"
    rows = [application, *failure(job(5), 1)]
    log.write_text("".join(json.dumps(row) + "\n" for row in [*rows, other]))
    found = run_with(tmp_path / "run", rows, source="log")
    texts = {error.text: error.count for error in log_errors(found.results[0], log) or []}
    assert texts == {"bad": 1, "worse": 1, "OutOfMemoryError KSampler: out of memory": 1}
