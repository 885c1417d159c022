"""A log of which not all can be read may show an error, and never that there was none."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from comfyload.app.check import check, gate_set
from comfyload.app.locate import find
from comfyload.app.log_place import locate
from comfyload.app.logs import LogQuery, print_log
from comfyload.record.metrics.log import read_log, write_slice
from comfyload.record.model import Observation
from comfyload.record.run import RunReader, RunWriter
from comfyload.report.console import Screen
from comfyload.report.logs import Printer
from tests.unit.test_log_rows import AT, NOBODY, job, run_with, why

WITHIN = datetime.fromisoformat(AT)
DAY = timedelta(days=1)
BOOM = "CUDA error: boom"


def row(at: datetime | None = WITHIN, **fields: Any) -> bytes:
    time = {} if at is None else {"ts": at.isoformat()}
    return json.dumps({**time, "event": "queued", **fields}).encode() + b"\n"


def error(at: datetime | None = WITHIN, **fields: Any) -> bytes:
    return row(at, level="error", message=BOOM, **fields)


def utf16(line: bytes) -> bytes:
    """As PowerShell 5 appends it."""
    return line.decode().replace("\n", "\r\n").encode("utf-16-le")


def judged(tmp_path: Path, log: bytes) -> tuple[str, str]:
    (tmp_path / "m.ndjson").write_bytes(log)
    verdict, said, _ = why(run_with(tmp_path / "run", []), tmp_path / "m.ndjson")
    return verdict, said


def judged_again(tmp_path: Path, log: Path | None) -> tuple[str, str]:
    gates = gate_set(["unexpected_errors == 0"], None, ["out of memory"])
    (verdict,) = check(find(str(tmp_path / "run"), tmp_path), gates, log=log).verdicts
    return verdict.verdict, verdict.why


@pytest.mark.parametrize(
    "log",
    [
        b"\xff\xfe" + utf16(error()),
        utf16(error()),
        row() + utf16(error()),
        row()[:-1] + utf16(error()),
        b"\xff\xfe" + utf16(row()) + error(),
        b"\xff\xfe" + utf16(row())[:-9] + b"\n" + error(),
        b"\xfe\xff" + error().decode().encode("utf-16-be"),
        b"hello, this is no log\n" + error(),
        row()[:20] + b"\0" * 512 + error(),
        b'{"ts": "%s", "level": "error", "message": "CUDA error: boom\xe9"}\n' % AT.encode(),
    ],
)
def test_an_error_that_can_be_read_fails_the_run_whatever_else_is_in_the_log(tmp_path: Path, log: bytes) -> None:
    verdict, said = judged(tmp_path, log)
    assert verdict == "FAIL" and BOOM in said


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (b"hello\n", "1 of 1 line of m.ndjson could not be read, first: line 1: hello."),
        (row() + b"Traceback:\n", "1 of 2 lines of m.ndjson could not be read, first: line 2: Traceback:."),
        (row() + b"\0" * 64 + b"\n" + row(), "first: line 2: (64 zero bytes)."),
        (row()[:20] + error() + row()[20:], "2 of 2 lines of m.ndjson could not be read"),
        (error().decode().encode("utf-32"), "could not be read"),
        (b"", "No row of m.ndjson is of the run's time: it is empty."),
        (b"\n\n", "it is empty."),
        (row(None), "no time in it can be read."),
        (error(WITHIN - DAY), "its last row is of 2025-12-31 00:30:00 UTC, before the run."),
        (error(WITHIN + DAY), "its first row is of 2026-01-02 00:30:00 UTC, after the run."),
        (row(WITHIN - DAY) + row(WITHIN + DAY), "it has rows from before and after."),
        (row() + error(None), "1 row of m.ndjson with an error and without a time that can be read, first: line 2."),
    ],
)
def test_what_cannot_be_read_leaves_the_gate_undecided_and_is_named(tmp_path: Path, log: bytes, says: str) -> None:
    verdict, said = judged(tmp_path, log)
    assert verdict == "INCONCLUSIVE"
    assert says in said


@pytest.mark.parametrize(
    "log",
    [
        row(),
        b"\xef\xbb\xbf" + row(),
        b"hello\n" + row(WITHIN - DAY) + b"\0" * 64 + b"\n" + row(WITHIN - DAY) + row(),
        row() + row(WITHIN + DAY) + b"hello\n" + row(WITHIN + DAY),
        row() + error(None, prompt_id=NOBODY),
        row() + row(None),
        row() + b'{"ts": "20',
    ],
)
def test_what_is_of_another_time_or_prompt_or_is_being_written_is_no_doubt(tmp_path: Path, log: bytes) -> None:
    verdict, said = judged(tmp_path, log)
    assert verdict == "PASS" and "and the log" in said


def test_a_last_line_that_was_torn_long_ago_is_a_doubt(tmp_path: Path) -> None:
    judged(tmp_path, row() + b'{"ts": "20')
    os.utime(tmp_path / "m.ndjson", (1e9, 1e9))
    verdict, said = judged_again(tmp_path, tmp_path / "m.ndjson")
    assert verdict == "INCONCLUSIVE" and "line 2" in said


def test_the_usual_log_that_says_nothing_of_the_run_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody named it, and it may be that of another server."""
    log = tmp_path / "infra/observability/comfyui_metrics.ndjson"
    log.parent.mkdir(parents=True)
    log.write_bytes(error(WITHIN - DAY))
    monkeypatch.chdir(tmp_path)
    verdict, said, _ = why(run_with(tmp_path / "run", []), log)
    assert verdict == "PASS" and said.endswith("no log was read.")


def test_our_own_rows_are_no_log_and_count_no_job_twice(tmp_path: Path) -> None:
    ours = {"event": "comfyload.job", "status": "error", "error": "out of memory", "timestamp": AT}
    line = json.dumps({**ours, "context": {"prompt_id": job(4)}}).encode() + b"\n"
    verdict, said = judged(tmp_path, line)
    assert verdict == "PASS" and said.endswith("no log was read.")


def test_lines_that_a_run_could_not_read_while_it_went_on_are_a_doubt_later(tmp_path: Path) -> None:
    found = run_with(tmp_path / "run", [{"event": "queued", "timestamp": AT}], source="log")
    text = "log: lines of m.ndjson that are no JSON object: 3, such as 'hello'"
    made = RunReader(tmp_path / "run").manifest
    made.observations.append(Observation(t=1.0, code="telemetry", text=text))
    writer = RunWriter.reopen(tmp_path / "run")
    writer.write_manifest(made)
    writer.close()
    assert why(found)[0] == "PASS"  # as it was read before
    verdict, said = judged_again(tmp_path, None)
    assert verdict == "INCONCLUSIVE"
    assert "During the run, lines of m.ndjson that are no JSON object: 3, such as 'hello'." in said


def test_a_slice_keeps_what_is_in_doubt(tmp_path: Path) -> None:
    log, target = tmp_path / "m.ndjson", tmp_path / "slice.ndjson"
    log.write_bytes(
        b"long ago\n" + row(WITHIN - DAY) + utf16(row()) + b"what is this?\n" + row(WITHIN + DAY) + b"late\n"
    )
    since, until = WITHIN - timedelta(minutes=1), WITHIN + timedelta(minutes=1)
    assert write_slice(log, target, [(since, until)]) == 2
    assert target.read_bytes() == row().replace(b"\n", b"\r\n") + b"what is this?\n"
    assert read_log(target, since, until).unread == 1


def test_rows_of_a_log_in_utf16_are_shown_and_lines_that_are_none_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "m.ndjson"
    log.write_bytes(b"\xff\xfe" + utf16(error()) + b"no row\n")
    print_log(locate(log, follow=False), LogQuery(), Printer(Screen(), as_json=False))
    printed = capsys.readouterr()
    assert BOOM in printed.out
    assert printed.err == "1 line without a JSON object; the first is line 2: no row\n"


def _in_some_encoding(line: str, rng: Random) -> bytes:
    code, mark, end = rng.choice([("utf-8", b"", "\n")] * 2 + [("utf-8", b"\xef\xbb\xbf", "\n"), *UTF16])
    return mark + (line + end).encode(code)


UTF16 = [("utf-16-le", b"", "\r\n"), ("utf-16-le", b"\xff\xfe", "\n")]
JUNK = [b"\0" * 30, b"\0" * 7 + b"\n", b"Traceback (most recent):\n", b"[1]\n", b"\x80\x81\xfe\n"]


@pytest.mark.parametrize("seed", range(300))
def test_no_error_is_lost_and_nothing_said(tmp_path: Path, seed: int) -> None:
    """Rows of every encoding between zeros, text and torn rows: an error is read, or something is in doubt."""
    rng, out, errors = Random(seed), b"", 0
    for _ in range(rng.randrange(1, 9)):
        broken, at = rng.random(), WITHIN + timedelta(seconds=rng.uniform(0, 60))
        if broken < 0.2:
            out += rng.choice(JUNK)
            continue
        fields = {"ts": at.isoformat(), "event": "e", "context": {"a": "Ω漢😀"}}
        is_error = rng.random() < 0.5
        line = json.dumps(fields | ({"error": BOOM} if is_error else {}), ensure_ascii=rng.random() < 0.5)
        written = _in_some_encoding(line, rng)
        if broken < 0.35:
            written = written[: rng.randrange(1, len(written) - 4)] + rng.choice([b"\n", b""])
        out += written
        errors += is_error and broken >= 0.35
    log = tmp_path / "m.ndjson"
    log.write_bytes(out)
    found = read_log(log, WITHIN - timedelta(minutes=1), WITHIN + timedelta(minutes=5))
    read = len([one for one in found.rows if one.error is not None])
    assert read <= errors
    assert read == errors or found.unread
