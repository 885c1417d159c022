"""The instrumentation log is read with patience, and only between two instants."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from comfyload.errors import RunFilesError
from comfyload.record.metrics import lines as metrics_lines
from comfyload.record.metrics.log import LogSlice, read_log, write_slice

SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UNTIL = SINCE + timedelta(minutes=10)
INSIDE = SINCE + timedelta(minutes=5)


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    log = path / "comfyui_metrics.ndjson"
    log.write_bytes(b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines))
    return log


def read(path: Path, *lines: dict[str, Any] | bytes, ids: frozenset[str] = frozenset()) -> LogSlice:
    return read_log(write(path, *lines), SINCE, UNTIL, ids)


@pytest.mark.parametrize("key", ["timestamp", "time", "ts", "t"])
@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T12:05:00Z",
        "2026-03-01T14:05:00+02:00",
        "2026-03-01T12:05:00",
        "2026-03-01 12:05:00.000",
        INSIDE.timestamp(),
        int(INSIDE.timestamp() * 1000),
        str(INSIDE.timestamp()),
    ],
)
def test_a_time_is_understood_in_every_spelling(tmp_path: Path, key: str, value: object) -> None:
    (row,) = read(tmp_path, {key: value}).rows
    assert row.utc == INSIDE


@pytest.mark.parametrize("value", ["yesterday", True, None, [], 1e300, "0001-01-01T00:00:00+14:00", "nan"])
def test_a_time_that_cannot_be_read_is_none(tmp_path: Path, value: object) -> None:
    found = read(tmp_path, {"timestamp": value})
    assert (found.rows, found.lines, found.begins) == ([], 1, None)


def test_the_first_key_that_can_be_read_tells_the_time(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"timestamp": "soon", "ts": INSIDE.timestamp()}).rows
    assert row.utc == INSIDE


def test_both_ends_of_the_window_belong_to_it_and_nothing_beyond(tmp_path: Path) -> None:
    step = timedelta(microseconds=1)
    times = [SINCE - step, SINCE, UNTIL, UNTIL + step]
    found = read(tmp_path, *({"ts": time.isoformat(), "n": n} for n, time in enumerate(times)))
    assert [row.raw["n"] for row in found.rows] == [1, 2]
    assert (found.begins, found.ends) == (times[0], times[-1])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"status": "error", "message": "out of memory"}, "out of memory"),
        ({"level": "CRITICAL", "event": "gone"}, "gone"),
        ({"level": "fatal"}, "an error without a text"),
        ({"error": "boom", "message": "other"}, "boom"),
        ({"exception": "ValueError: x"}, "ValueError: x"),
        ({"error": {"type": "OOM"}}, '{"type": "OOM"}'),
        ({"level": "warning", "message": "hot"}, None),
        ({"status": "ok", "error": None, "exception": ""}, None),
        ({"error": False}, None),
    ],
)
def test_an_error_row_is_known_by_its_status_level_or_text(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    (found,) = read(tmp_path, {"ts": "2026-03-01T12:05:00Z", **row}).rows
    assert found.error == text


def test_a_row_without_time_is_kept_only_if_it_names_a_job_of_ours(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt_id": "ours"},
        {"context": {"prompt_id": "ours"}},
        {"prompt_id": "theirs"},
        {"context": "x"},
    ]
    found = read(tmp_path, *rows, ids=frozenset({"ours"}))
    assert [row.prompt_id for row in found.rows] == ["ours", "ours"]


def test_lines_that_are_no_object_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    good: dict[str, Any] = {"ts": "2026-03-01T12:05:00Z"}
    found = read(tmp_path, good, b"Traceback:\n", b"\n", b"[1]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", good)
    assert len(found.rows) == 2
    assert found.unread == 4
    assert found.first_unread == "line 2: Traceback:"


def test_an_error_beside_a_nan_is_not_lost(tmp_path: Path) -> None:
    (row,) = read(tmp_path, b'{"ts": "2026-03-01T12:05:00Z", "loss": NaN, "error": "boom"}\n').rows
    assert row.error == "boom"


def test_a_torn_last_line_is_neither_read_nor_counted(tmp_path: Path) -> None:
    found = read(tmp_path, {"ts": "2026-03-01T12:05:00Z"}, b'{"ts": "2026-03-01T12:0')
    assert (len(found.rows), found.unread) == (1, 0)


def test_a_line_too_long_to_be_a_row_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_lines, "LINE_LIMIT", 100)
    found = read(tmp_path, b'{"a": "' + b"x" * 1000 + b'"}\n', {"ts": "2026-03-01T12:05:00Z", "n": 2})
    assert [row.raw["n"] for row in found.rows] == [2]
    assert found.unread == 1


def test_a_slice_has_the_lines_of_every_window_byte_for_byte(tmp_path: Path) -> None:
    odd = b'{ "ts":"2026-03-01T12:05:00Z",  "text" : "\\u00e9\xc3\xa9" }\r\n'
    between = b'{"ts": "2026-03-01T13:00:00Z"}\n'
    late = b'{"ts": "2026-03-01T14:00:00Z"}\n'
    ours = b'{"prompt_id": "ours"}\n'
    doubt = b"no json\n"  # it may be of the second window: the row after it is
    log = write(tmp_path, odd, between, b"of neither window\n", between, doubt, late, ours)
    windows = [(SINCE, UNTIL), (SINCE + timedelta(hours=2), UNTIL + timedelta(hours=2))]
    target = tmp_path / "slice.ndjson"
    assert write_slice(log, target, windows, {"ours"}) == 4
    assert target.read_bytes() == odd + doubt + late + ours
    with pytest.raises(RunFilesError, match="slice"):
        write_slice(log, target, windows)
    assert target.read_bytes() == odd + doubt + late + ours


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFilesError, match=r"nowhere\.ndjson"):
        read_log(tmp_path / "nowhere.ndjson", SINCE, UNTIL)
    with pytest.raises(RunFilesError, match=r"nowhere\.ndjson"):
        write_slice(tmp_path / "nowhere.ndjson", tmp_path / "out", [(SINCE, UNTIL)])
    assert list(tmp_path.iterdir()) == []
