"""The instrumentation log followed through whatever is done to it, with real files."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from comfyload import clock
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.errors import RunFilesError
from comfyload.record.metrics.files import LogFiles
from comfyload.telemetry.collector import Collector
from comfyload.telemetry.log import AT_ONCE, MetricsLog
from comfyload.telemetry.probe import Probe
from tests.unit.test_telemetry_watch import Received


def append(path: Path, *rows: object) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")


def rotate(path: Path, keep: int = 5) -> None:
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def drained(files: LogFiles, looks: int = 1) -> list[str]:
    """All that so many looks find."""
    return [line.decode().removesuffix("\n") for _ in range(looks) for _, line in files.lines(growing=True)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "comfyui_metrics.ndjson"
    append(path, "old")
    return path


def started(path: Path) -> LogFiles:
    return LogFiles(path, from_end=True)


def test_lines_count_from_the_end_that_the_file_had(log: Path) -> None:
    follow = started(log)
    assert drained(follow) == []
    append(log, "a", "b")
    assert drained(follow) == ["a", "b"]
    follow.close()


def test_a_line_comes_when_it_is_whole_and_one_begun_before_is_left_out(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write("from bef")
        file.flush()
        follow = started(log)
        file.write("ore\nhal")
        file.flush()
        assert drained(follow) == []
        file.write("f\n")
        file.flush()
        assert drained(follow) == ["half"]
    follow.close()


def test_a_rotated_file_is_finished_before_the_new_one(log: Path) -> None:
    follow = started(log)
    append(log, "a")
    rotate(log)
    append(log, "new")
    assert drained(follow) == ["a"]  # left at the next look
    append(log.with_name(f"{log.name}.1"), "written by one that had not noticed")
    assert drained(follow) == ["written by one that had not noticed", "new"]
    append(log, "newer")
    assert drained(follow) == ["newer"]
    follow.close()


def test_files_that_came_and_went_between_two_looks_are_read_too(log: Path) -> None:
    follow = started(log)
    append(log, "a")
    for text in ("b", "c", "d"):
        rotate(log)
        append(log, text)
    assert drained(follow, looks=2) == ["a", "b", "c", "d"]
    follow.close()


def test_a_file_that_is_cut_is_read_from_its_start(log: Path) -> None:
    append(log, "x" * 50)
    follow = started(log)
    log.write_text("after\n", encoding="utf-8")
    assert drained(follow) == ["after"]
    follow.close()


def test_a_file_that_comes_later_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follow = started(path)
    with pytest.raises(RunFilesError):
        drained(follow)
    append(path, "first")
    assert drained(follow) == ["first"]
    follow.close()


def test_a_file_that_is_gone_is_said_so_after_a_while_and_its_successor_read(log: Path) -> None:
    server: Any = Silence()
    source = MetricsLog(log, lambda: 0.0, [Probe(server, lambda: 0.0)])
    assert source._part()[2] == ""
    log.unlink()
    assert [source._part()[2] for _ in range(4)] == ["", "", "the file is gone", "the file is gone"]
    append(log, {"n": "again"})
    parts = [source._part(), source._part()]
    assert [row.raw for rows, _, _ in parts for row in rows] == [{"n": "again"}]
    assert parts[-1][2] == ""
    source._close_files()


def test_much_comes_in_parts(log: Path) -> None:
    follow = started(log)
    rows = [f"{n:06}" for n in range(30_000)]
    append(log, *rows)
    first = [line.decode().strip() for _, line in islice(follow.lines(growing=True), AT_ONCE)]
    assert len(first) == AT_ONCE
    assert first + drained(follow) == rows
    follow.close()


def test_a_long_log_is_read_in_parts_and_whole(log: Path) -> None:
    received = followed(log, Silence(), lambda: append(log, *({"n": n} for n in range(3 * AT_ONCE + 7))))
    assert [line.row["n"] for line in received.lines] == list(range(3 * AT_ONCE + 7))


class Silence:
    """A server without a probe, or with one that gives these rows."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows = rows

    async def call(self, request: Request) -> Reply:
        if self.rows is None:
            return Reply(status=404, body=b"")
        body: dict[str, Any] = {"boot": "b", "mono_s": clock.now(), "seq": 0}
        if "events" in request.path:
            given = [row for row in self.rows if row["seq"] > int(request.path.split("after=")[1].split("&")[0])]
            body = {"boot": "b", "next": given[-1]["seq"] if given else 0, "missed": 0, "rows": given}
        return Reply(status=200, body=json.dumps(body).encode())


def followed(log: Path, server: Any, write: Any) -> Received:
    """Follow a log for as long as it takes to write it, with the probe beside it."""
    received = Received()

    async def main() -> None:
        run = clock.stopwatch()
        probe = Probe(server, run)
        watch = Collector(
            [probe, MetricsLog(log, run, [probe])],
            run,
            emit=received.samples.append,
            emit_log=received.lines.append,
            note=received.observations.append,
        )
        await watch.begin()
        write()
        await watch.end()

    asyncio.run(main())
    return received


def test_rows_are_kept_as_they_were_written_and_what_is_none_is_counted(log: Path) -> None:
    received = followed(log, Silence(), lambda: append(log, {"event": "x", "n": 1}, "no json", "[1]", '{"n": NaN}', ""))
    assert [(line.t, line.source) for line in received.lines] == [(None, "log")] * 2
    assert received.lines[0].row == {"event": "x", "n": 1}
    assert received.said == ["log: lines of comfyui_metrics.ndjson that are no JSON object: 2, such as 'no json'"]


def test_rows_that_the_probe_tells_itself_are_not_kept_twice(log: Path) -> None:
    rows = [{"event": "node", "boot": "b", "seq": n, "mono_s": 1e12} for n in range(1, 6)]
    lost = {"event": "node", "boot": "b", "seq": 6, "mono_s": 1e12}
    received = followed(log, Silence(rows), lambda: append(log, *rows, {"event": "own"}, lost))
    assert [(line.source, line.row.get("seq")) for line in received.lines] == [
        *(("probe", n) for n in range(1, 6)),
        ("log", None),
        ("log", 6),
    ]


def test_a_log_that_never_comes_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "none.ndjson"
    received = followed(path, Silence(), lambda: None)
    assert received.said == [f"log: {path} was never there"]
