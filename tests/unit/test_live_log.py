"""A run's rows come to the project's log as they happen, each once, whoever else writes the file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comfyload.app.baseline import _slice
from comfyload.app.check import log_errors
from comfyload.app.locate import default_log
from comfyload.app.run.live_log import OFF, Live, live_log
from comfyload.record.metrics.files import DEFAULT_LOG, older_files, project_log
from comfyload.record.metrics.log import log_row
from comfyload.record.metrics.own import job_row, run_row
from comfyload.record.metrics.writer import log_event
from comfyload.record.model import LogLine, Record
from comfyload.telemetry.live import LiveLog
from tests.unit.judge_runs import failed, manifest, one_by_one
from tests.unit.test_log_rows import AT, run_with

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TODAY = datetime.now(UTC).isoformat()
"""A log that is a week old is rotated."""


def probe(seq: int, **fields: Any) -> dict[str, Any]:
    return {"schema": 1, "event": "node", "boot": "1f2e3d4c", "seq": seq, "timestamp": TODAY, **fields}


def written(path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Put them into the log at `path`, and what is in it then."""
    log = LiveLog(path, hold_s=0)
    for row in rows:
        log.put(row)
    log.close()
    return read(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "m.ndjson"


def test_rows_are_written_as_they_are_and_in_their_order(log: Path) -> None:
    rows = [probe(1), {"event": "book.page", "context": {"é": [1, None]}}, probe(2)]
    assert written(log, *rows) == rows
    assert log.read_bytes().endswith(b"\n")


def test_a_row_with_a_name_that_is_no_unicode_is_written_and_read_like_any_other(log: Path) -> None:
    rows = [probe(1, file="caf\udce9.png"), {"event": "x", "\ud83d": ["\udce9"]}, probe(2)]
    assert written(log, *rows) == rows


def test_a_row_that_the_probe_or_another_run_wrote_is_not_written_again(log: Path) -> None:
    application = {"event": "book.page", "timestamp": TODAY, "n": 1}
    there = [probe(1), application, probe(2)]
    log.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in there))
    again = {"n": 1, "timestamp": TODAY, "event": "book.page"}  # as decoded from somewhere else
    assert written(log, probe(2), again, probe(3), probe(3)) == [*there, probe(3)]


def test_a_row_that_comes_to_the_file_while_it_waits_is_not_written_again(log: Path) -> None:
    """The probe puts a row into its ring, where we take it, before it puts it into its file."""
    live = LiveLog(log, hold_s=0.2)
    live.put(probe(1))
    log.write_bytes(msgspec.json.encode(probe(1)) + b"\n")
    live.close()
    assert read(log) == [probe(1)]


def test_rows_are_known_through_a_rotation_by_another_writer(log: Path) -> None:
    live = LiveLog(log, hold_s=0)
    live._write([probe(1)])
    with log.open("ab") as file:
        file.write(msgspec.json.encode(probe(2)) + b"\n")
    log.rename(f"{log}.1")
    log.write_bytes(msgspec.json.encode(probe(3)) + b"\n")
    live._write([probe(n) for n in range(1, 5)])
    live.close()
    assert read(log) == [probe(3), probe(4)]


def test_the_log_is_bounded_and_rotated_like_any_other(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_METRICS_LOG_MAX_MB", "0.002")
    monkeypatch.setenv("COMFYUI_METRICS_LOG_KEEP", "2")
    live = LiveLog(log, hold_s=0)
    for n in range(100):
        live._write([probe(n, text="x" * 100)])
    live.close()
    assert [path.name for path in older_files(log)] == ["m.ndjson.2", "m.ndjson.1"]
    assert all(path.stat().st_size <= 2100 for path in [log, *older_files(log)])


def test_a_log_of_months_ago_goes_on_so_that_tail_does(log: Path) -> None:
    old = probe(1, timestamp="2020-01-01T00:00:00Z")
    log.write_bytes(msgspec.json.encode(old) + b"\n")
    assert written(log, probe(2)) == [old, probe(2)]
    assert older_files(log) == []


def test_a_torn_line_of_another_writer_does_not_tear_ours(log: Path) -> None:
    log.write_bytes(b'{"event": "torn')
    os.utime(log, (1e9, 1e9))
    written_ = LiveLog(log, hold_s=0)
    written_.put(probe(1))
    written_.close()
    assert log.read_bytes().splitlines()[1] == msgspec.json.encode(probe(1))


@pytest.mark.parametrize("obstacle", ["a folder", "no folder"])
def test_what_cannot_be_written_is_said_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    path = tmp_path / "there" / "m.ndjson"
    if obstacle == "a folder":
        path.mkdir(parents=True)
    live = LiveLog(path, hold_s=0)
    with caplog.at_level(logging.WARNING, "comfyload"):
        for n in range(3):
            try:
                live._write([probe(n)])
            except OSError as error:
                live._warn(error)
        live.close()
    (said,) = caplog.messages
    assert str(path) in said and "they are in the run directory" in said


WRITER = """
import sys
from pathlib import Path
from comfyload.telemetry.live import LiveLog
live = LiveLog(Path(sys.argv[1]), hold_s=0)
for n in range(300):
    live.put({"boot": "1f2e3d4c", "seq": n, "event": "node", "text": "x" * (n % 97)})
    live.put({"event": "comfyload.job", "of": sys.argv[2], "n": n})
live.close()
"""


def test_two_runs_at_once_write_each_row_once_and_whole(log: Path) -> None:
    """Both are told the same rows by one probe."""
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(log), name]) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    rows = read(log)
    assert sorted(row["seq"] for row in rows if "seq" in row) == list(range(300))
    assert sorted((row["of"], row["n"]) for row in rows if "of" in row) == [(o, n) for o in "ab" for n in range(300)]


# --- where, and what


def test_a_project_is_found_from_any_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "co/infra/comfyui/load_test"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert project_log() is None and default_log(None) is None
    (tmp_path / "co/infra/observability").mkdir()
    assert project_log() == tmp_path / "co" / DEFAULT_LOG
    assert default_log(None) is None  # it is not there yet
    monkeypatch.chdir(tmp_path / "co")
    assert project_log() == DEFAULT_LOG
    monkeypatch.chdir(tmp_path)
    assert project_log() is None


def test_it_is_switched_off_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "infra/observability").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert live_log() is None  # as all tests have it
    monkeypatch.delenv(OFF)
    found = live_log()
    assert found is not None
    found.close()
    assert not DEFAULT_LOG.exists()  # without a row there is no file


@pytest.mark.parametrize("by_probe", [False, True])
def test_jobs_are_told_where_nobody_else_tells_them(log: Path, by_probe: bool) -> None:
    live = Live(LiveLog(log, hold_s=0), manifest(2), lambda: by_probe)
    live.began()
    if by_probe:
        live.row(LogLine(t=1.0, source="probe", row=probe(1)))
    for record in [*one_by_one([10.0]), failed(1, 0.0, 1.0, message="out of memory")]:
        live.job(record)
    live.ended(12.5)
    events = [row["event"] for row in read(log)]
    middle = ["node"] if by_probe else ["comfyload.job", "comfyload.job"]
    assert events == ["comfyload.run.began", *middle, "comfyload.run.ended"]


def test_our_rows_are_rows_of_an_application() -> None:
    rows = [
        run_row(manifest(2), "began", NOW),
        job_row(one_by_one([10.0])[0], "r", NOW),
        job_row(failed(1, 0.0, 1.0, message="out of memory"), "r", NOW),
    ]
    for row in rows:
        assert list(row) == ["event", "status", "error", "duration_ms", "timestamp", "context"]
        assert log_row(row).utc == NOW and log_row(row).of_the_harness
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    assert rows[1]["duration_ms"] == 10_000 and log_row(rows[1]).prompt_id == one_by_one([10.0])[0].prompt_id
    assert "out of memory" in str(log_row(rows[2]).error)


def test_an_application_that_writes_the_same_file_loses_no_row(log: Path) -> None:
    live = LiveLog(log, hold_s=0)
    for n in range(50):
        live.put(probe(n))
        log_event("book.page", log=log, n=n)
    live.close()
    rows = read(log)
    assert len([row for row in rows if row["event"] == "book.page"]) == 50
    assert sorted(row["seq"] for row in rows if "seq" in row) == list(range(50))


# --- what a baseline keeps


def test_a_baseline_keeps_what_the_log_and_the_run_were_told_each_once(tmp_path: Path, log: Path) -> None:
    inside, outside = {"event": "book.page", "timestamp": AT}, {"event": "book.page", "timestamp": "2020-01-01"}
    log.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in (outside, inside, probe(1, timestamp=AT))))
    found = run_with(tmp_path / "run", [probe(1, timestamp=AT), probe(2)])
    assert _slice(tmp_path, found.results, log) == "comfyui_metrics.ndjson"
    assert read(tmp_path / "comfyui_metrics.ndjson") == [inside, probe(1, timestamp=AT), probe(2)]


@pytest.mark.parametrize("live", [False, True])
def test_a_baseline_of_a_run_that_was_told_nothing_has_a_row_for_each_job_once(
    tmp_path: Path, log: Path, live: bool
) -> None:
    found = run_with(tmp_path / "run", [])
    records = [line for line in found.results[0].reader.lines() if isinstance(line, Record)]
    if live:
        at = datetime.fromisoformat(AT)
        log.write_bytes(b"".join(msgspec.json.encode(job_row(one, "r", at)) + b"\n" for one in records[:5]))
    _slice(tmp_path, found.results, log if live else None)
    rows = read(tmp_path / "comfyui_metrics.ndjson")
    assert [row["context"]["prompt_id"] for row in rows] == [record.prompt_id for record in records]
    assert [row["status"] for row in rows].count("error") == 1
    assert log_errors(found.results[0], tmp_path / "comfyui_metrics.ndjson") is None
