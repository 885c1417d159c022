"""A run directory that is followed while it grows, whatever is in its files."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.errors import RunFilesError
from comfyload.record.lock import alone_in, is_taken
from comfyload.record.model import Attempt, Record, RetryLine, Sample, Sent
from comfyload.record.plan import Plan, Replay
from comfyload.record.run import RunReader, RunWriter
from comfyload.web.columns import GrowingColumns
from comfyload.web.folder import RunFolder
from comfyload.web.follow import RunFollower
from comfyload.web.rows import rows
from comfyload.web.states import Filter, View
from tests.support.dashboard import page
from tests.unit.judge_runs import FACTS, failed, job, manifest

RETRY: dict[str, Any] = {
    "prompt_id": "id-0",
    "server": "http://a",
    "why": "oom",
    "message": "out of memory",
    "rule": "oom: memory held by other models is freed",
}


def sent(index: int, due: float = 0.0) -> Sent:
    return Sent(index=index, prompt_id=f"id-{index}", due=due)


def retry(index: int, t: float, wait_s: float, attempt: int = 2) -> RetryLine:
    return RetryLine(**RETRY, index=index, t=t, wait_s=wait_s, attempt=attempt, of=3)


def under_way(path: Path, **changes: Any) -> RunWriter:
    """A run that has not ended."""
    return RunWriter(path, manifest(20, end=None, ended_utc=None, **changes))


def caught_up(path: Path, **options: Any) -> RunFollower:
    follower = RunFollower(path, **options)
    follower.refresh()
    while follower.behind:
        follower.refresh()
    return follower


def fines(follower: RunFollower) -> list[str]:
    return [row.fine for row in rows(follower, Filter(), limit=200, order="due")[1]]


def content(follower: RunFollower) -> dict[str, list[Any]]:
    """All columns, NaN as None."""
    jobs = follower.jobs
    names = ("index", "due", "sent", "done", "queue_wait", "execution", "book", "fine", "attempt", "kind", "offset")
    return {name: [None if value != value else value for value in getattr(jobs, name).tolist()] for name in names}


# --- growing


def test_what_is_appended_is_there_after_the_next_refresh(tmp_path: Path) -> None:
    with RunWriter(tmp_path, manifest(3)) as writer:
        follower = RunFollower(tmp_path)
        assert not follower.refresh() and follower.version == 0
        writer.write_line(sent(0))
        assert follower.refresh() and follower.version == 1
        writer.write_line(job(0, 0.0, 2.0))
        writer.write_line(failed(1, 1.0, 3.0))
        writer.write_sample(Sample(t=4.5, source="comfy", name="queue_remaining", value=1.0))
        assert follower.refresh() and follower.version == 2
        assert not follower.refresh() and follower.version == 2
    total, page = rows(follower, Filter())
    assert total == 2
    assert [(row.index, row.id, row.badge, row.latency) for row in page] == [
        (1, "id-1", "attention", 3.0),
        (0, "id-0", "done", 2.0),
    ]
    assert follower.latest_s == 4.5
    assert follower.samples["comfy", "queue_remaining"].value.tolist() == [1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), max_size=30))
def test_whatever_parts_a_file_is_written_in_the_same_is_read(tmp_path_factory: Any, parts: list[int]) -> None:
    whole, growing = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("growing")
    with RunWriter(whole, manifest(6)) as writer:
        for index in range(6):
            writer.write_line(sent(index, float(index)))
            writer.write_line(job(index, float(index), 2.0) if index % 3 else failed(index, float(index), 1.5))
    shutil.copy(whole / "manifest.json", growing)
    written = (whole / "records.ndjson").read_bytes()
    follower = RunFollower(growing)
    with (growing / "records.ndjson").open("ab", buffering=0) as file:
        at = 0
        for size in [*parts, len(written)]:
            file.write(written[at : at + size])
            at += size
            follower.refresh()
    assert content(follower) == content(caught_up(whole))
    records = [line for line in RunReader(whole).lines() if isinstance(line, Record)]
    assert [follower.record(record.index) for record in records] == records
    assert follower.damaged == 0


def test_each_line_of_the_journal_can_be_read_again(tmp_path: Path) -> None:
    records = [job(0, 0.0, 1.0), failed(5, 1.0, 1.0, message="ä\n" * 200), job(2, 2.0, 1.0)]
    with under_way(tmp_path) as writer:
        for record in records:
            writer.write_line(sent(record.index, record.due))
        for record in reversed(records):
            writer.write_line(record)
        writer.write_line(sent(7, 9.0))
    follower = caught_up(tmp_path)
    assert [follower.record(record.index) for record in records] == records
    assert follower.record(7) == sent(7, 9.0)
    assert follower.record(1) is None and follower.record(-1) is None and follower.record(2**53) is None


def test_a_refresh_reads_a_bounded_part(tmp_path: Path) -> None:
    with under_way(tmp_path) as writer:
        for index in range(30_000):
            writer.write_line(sent(index, 0.001 * index))
    follower = RunFollower(tmp_path)
    read: list[int] = []
    while not read or follower.behind:
        follower.refresh()
        read.append(follower.jobs.n)
    assert len(read) > 1 and 10_000 < read[0] < 30_000
    assert read[-1] == 30_000


# --- odd files


def test_a_line_without_its_end_is_read_when_it_is_whole(tmp_path: Path) -> None:
    line = msgspec.json.encode(job(0, 0.0, 1.0))
    with under_way(tmp_path):
        pass
    follower = RunFollower(tmp_path)
    (tmp_path / "records.ndjson").write_bytes(line[:200])
    assert not follower.refresh() and follower.jobs.n == 0
    (tmp_path / "records.ndjson").write_bytes(line + b"\n" + line[:7])
    assert follower.refresh() and follower.jobs.n == 1
    assert not follower.refresh()


def test_a_resumed_run_goes_on_after_its_torn_line_is_cut_off(tmp_path: Path) -> None:
    with under_way(tmp_path) as writer:
        writer.write_line(job(0, 0.0, 1.0))
        writer.write_event(retry(1, 1.0, 2.0))
    for name in ("records.ndjson", "events.ndjson"):
        with (tmp_path / name).open("ab") as file:
            file.write(b'{"line":"rec')
    follower = caught_up(tmp_path)
    assert follower.jobs.n == 1
    with RunWriter.reopen(tmp_path) as writer:
        again = RunReader(tmp_path).manifest
        again.resumed.append(50.0)
        writer.write_manifest(again)
        writer.write_line(job(1, 50.0, 1.0))
        writer.write_event(retry(2, 51.0, 2.0))
    assert follower.refresh()
    assert follower.jobs.index.tolist() == [0, 1] and follower.manifest.resumed == [50.0]
    assert follower.damaged == 0
    assert [line.index for line in RunReader(tmp_path).events()] == [1, 2]
    assert follower.retries_of(1) == [retry(1, 1.0, 2.0)] and follower.retries_of(3) == []


def test_a_run_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with under_way(run, run_id="first") as writer:
        for index in range(3):
            writer.write_line(job(index, 1.0 * index, 1.0))
    follower = caught_up(run)
    shutil.rmtree(run)
    assert follower.refresh() and follower.jobs.n == 0
    with under_way(run, run_id="second") as writer:
        for index in range(5):
            writer.write_line(failed(index, 1.0 * index, 1.0))
    assert follower.refresh()
    assert follower.manifest.run_id == "second"
    assert fines(follower) == ["failed"] * 5
    (run / "records.ndjson").write_bytes(msgspec.json.encode(job(9, 0.0, 1.0)) + b"\n")  # shorter, in the same file
    assert follower.refresh() and follower.jobs.index.tolist() == [9]


def test_the_first_record_of_a_job_counts(tmp_path: Path) -> None:
    with under_way(tmp_path) as writer:
        writer.write_line(job(0, 0.0, 1.0))
        writer.write_line(failed(0, 0.0, 2.0))
        writer.write_line(sent(0, 3.0))
        follower = caught_up(tmp_path)
        writer.write_line(failed(0, 0.0, 2.0))
        writer.write_line(sent(0, 3.0))
        follower.refresh()
    assert fines(follower) == ["completed"] and follower.jobs.due.tolist() == [0.0]
    assert follower.record(0) == job(0, 0.0, 1.0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[" * 5_000,
        b"\xff\xfe",
        b'{"line":"sent","index":1,"prompt_id":"x","due":1e308}',
        b'{"line":"sent","index":1,"prompt_id":"x","due":NaN}',
        b'{"line":"sent","index":-1,"prompt_id":"x","due":0}',
        b'{"line":"sent","index":99999999999999999999,"prompt_id":"x","due":0}',
        b'{"line":"other","index":1,"prompt_id":"x","due":0}',
    ],
)
def test_a_damaged_line_is_counted_and_the_rest_is_read(tmp_path: Path, line: bytes) -> None:
    good = msgspec.json.encode(job(0, 0.0, 1.0)) + b"\n", msgspec.json.encode(job(3, 3.0, 1.0)) + b"\n"
    with under_way(tmp_path):
        pass
    for name in ("samples.ndjson", "events.ndjson"):
        (tmp_path / name).write_bytes(line + b"\n")
    (tmp_path / "records.ndjson").write_bytes(good[0] + line + b"\n" + good[1])
    follower = caught_up(tmp_path)
    assert follower.jobs.index.tolist() == [0, 3]
    assert follower.damaged == 3
    assert follower.record(3) == job(3, 3.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"{", b'{"line":"sent"']), max_size=12))
def test_no_bytes_stop_the_follower(tmp_path_factory: Any, parts: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("odd")
    with under_way(path) as writer:
        writer.write_event(retry(3, 1.0, 1.0))
    follower = RunFollower(path)
    for part in parts:
        for name in ("records.ndjson", "samples.ndjson", "events.ndjson"):
            with (path / name).open("ab") as file:
                file.write(part)
        follower.refresh()
    assert follower.jobs.n == 0
    assert rows(follower, Filter())[0] == 0


def test_numbers_at_the_ends_of_their_bounds(tmp_path: Path) -> None:
    odd = msgspec.structs.replace(job(2**53, -1e10, 1.0), book=2**53, prompt_id="not a \udc80 uuid")
    content = json.dumps(msgspec.to_builtins(odd) | {"line": "record"}).encode()
    with under_way(tmp_path) as writer:
        writer.write_sample(Sample(t=1e10, source="nvml", name="gpu.0.power_w", value=1e18))
    (tmp_path / "records.ndjson").write_bytes(content + b"\n")
    follower = caught_up(tmp_path)
    assert follower.damaged == 0
    ((row,),) = [rows(follower, Filter(text=str(2**53)))[1]]
    assert (row.index, row.book, row.id) == (2**53, 2**53, r"not a \udc80 uuid")
    assert follower.jobs.nbytes < 100_000


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyload.web.tail.MOST_LINE_BYTES", 4 << 19)
    with under_way(tmp_path):
        pass
    good = msgspec.json.encode(job(0, 0.0, 1.0)) + b"\n", msgspec.json.encode(job(3, 3.0, 1.0)) + b"\n"
    (tmp_path / "records.ndjson").write_bytes(good[0] + b"x" * (30 << 19) + b"\n" + good[1])
    follower = caught_up(tmp_path)
    assert follower.jobs.index.tolist() == [0, 3] and follower.damaged == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_fifo_does_not_hold_the_follower_up(tmp_path: Path) -> None:
    with under_way(tmp_path):
        pass
    (tmp_path / "samples.ndjson").unlink()
    os.mkfifo(tmp_path / "samples.ndjson")
    assert caught_up(tmp_path).samples == {}


def test_a_manifest_that_cannot_be_read_leaves_the_last_one(tmp_path: Path) -> None:
    with pytest.raises(RunFilesError):
        RunFollower(tmp_path)
    with under_way(tmp_path, name="known"):
        follower = RunFollower(tmp_path)
        (tmp_path / "manifest.json").write_text("{")
        assert not follower.refresh()
        assert follower.manifest.name == "known"


def test_a_run_without_jobs_has_none(tmp_path: Path) -> None:
    with under_way(tmp_path):
        pass
    follower = caught_up(tmp_path)
    assert rows(follower, Filter()) == (0, [])
    assert set(View(follower).counts().values()) == {0}
    assert list(View(follower).chips(Filter())) == []
    (tmp_path / "records.ndjson").unlink()
    (tmp_path / "samples.ndjson").unlink()
    assert rows(caught_up(tmp_path), Filter()) == (0, [])


# --- clocks


def test_the_present_instant_goes_on_while_a_process_is_at_work(tmp_path: Path) -> None:
    wall = [1_700_000_000.0]
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        follower = RunFollower(tmp_path, wall=lambda: wall[0])
        writer.write_sample(Sample(t=10.0, source="comfy", name="queue_remaining", value=0.0))
        os.utime(tmp_path / "samples.ndjson", (wall[0], wall[0]))
        for name in ("manifest.json", "records.ndjson"):
            os.utime(tmp_path / name, (wall[0] - 10, wall[0] - 10))
        wall[0] += 7.0
        follower.refresh()
        assert (follower.alive, round(follower.now_s, 3)) == (True, 17.0)
        wall[0] -= 3600.0  # set back: it never goes back behind what is known
        assert follower.now_s == 10.0
    wall[0] += 7200.0
    follower.refresh()
    assert (follower.alive, follower.now_s) == (False, 10.0)


def test_that_a_pause_is_over_is_a_change_without_a_line(tmp_path: Path) -> None:
    wall = [1_700_000_000.0]
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        writer.write_line(sent(0, 1.0))
        writer.write_event(retry(0, 10.0, 5.0))
        for name in ("events.ndjson", "records.ndjson", "samples.ndjson"):
            os.utime(tmp_path / name, (wall[0], wall[0]))
        follower = RunFollower(tmp_path, wall=lambda: wall[0])
        assert follower.refresh() and fines(follower) == ["retrying"]
        wall[0] += 4.9
        assert not follower.refresh() and fines(follower) == ["retrying"]
        wall[0] += 0.2
        assert follower.refresh() and fines(follower) == ["sent"]
        assert not follower.refresh()


# --- jobs that have not ended


def test_who_runs_and_who_waits_is_told_as_far_as_it_is_known(tmp_path: Path) -> None:
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        for index in range(4):
            writer.write_line(sent(index, 1.0 * index))
        follower = caught_up(tmp_path)
        assert fines(follower) == ["sent"] * 4, "the queue's length is not known"
        for length, expected in (
            (4.0, ["running", "queued", "queued", "queued"]),
            (2.0, ["running", "queued", "sent", "sent"]),
            (5.0, ["sent"] * 4),  # some are of others
            (0.0, ["sent"] * 4),
            (None, ["sent"] * 4),
        ):
            writer.write_sample(Sample(t=5.0, source="comfy", name="queue_remaining", value=length))
            follower.refresh()
            assert fines(follower) == expected
        assert View(follower).counts()["pending"] == 4
    assert fines(caught_up(tmp_path)) == ["unknown"] * 4, "nobody is at work on it any more"


def test_a_job_that_will_be_sent_again_says_when_and_why(tmp_path: Path) -> None:
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        for index in range(3):
            writer.write_line(sent(index, 0.0))
        writer.write_event(retry(0, 10.0, 1e6))
        writer.write_event(retry(1, 10.0, 0.0, attempt=3))
        writer.write_sample(Sample(t=20.0, source="comfy", name="queue_remaining", value=2.0))
        follower = caught_up(tmp_path)
        assert fines(follower) == ["retrying", "queued", "running"]
        first, second, _ = rows(follower, Filter(), order="due")[1]
        assert (first.words, first.badge, first.until_s, first.of, first.attempt) == (
            "retrying 2/3",
            "pending",
            10.0 + 1e6,
            3,
            2,
        )
        assert first.why == second.why == "out of memory" and second.until_s is None
        assert [row.index for row in rows(follower, Filter(state="retrying"))[1]] == [0]
        assert [row.index for row in rows(follower, Filter(attempt=3))[1]] == [1]
        tried = [Attempt(server=f"http://{name}", prompt_id=name, outcome="completed") for name in "ab"]
        writer.write_line(job(0, 0.0, 40.0, attempts=tried))
        follower.refresh()
    assert follower.retries.keys() == {1}
    (row,) = rows(follower, Filter(attempt=2, state="done"))[1]
    assert (row.index, row.attempt, row.until_s, row.server) == (0, 2, None, "http://b")


def test_an_event_of_a_job_that_has_ended_changes_nothing(tmp_path: Path) -> None:
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        writer.write_line(job(0, 0.0, 1.0))
        writer.write_event(retry(0, 0.5, 1e6))
        writer.write_event(retry(77, 0.5, 1e6))  # of a job that the journal does not have
        follower = caught_up(tmp_path)
    assert fines(follower) == ["completed"] and follower.jobs.n == 1


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (job(0, 0.0, 1.0), ("done", "completed")),
        (job(0, 0.0, 1.0, cached=["9"]), ("done", "cached")),
        (job(0, 0.0, 1.0, cached=["4"]), ("done", "completed")),
        (failed(0, 0.0, 1.0), ("attention", "failed")),
        (failed(0, 0.0, 1.0, "lost", kind="lost"), ("attention", "lost")),
        (failed(0, 0.0, 1.0, "timed_out", kind="timeout"), ("attention", "timeout")),
        (failed(0, 0.0, 1.0, "timed_out", kind="shed"), ("ended", "shed")),
        (failed(0, 0.0, 1.0, "cancelled", kind="cancelled"), ("ended", "cancelled")),
        (failed(0, 0.0, 1.0, "dropped", kind="dropped"), ("ended", "dropped")),
    ],
)
def test_every_end_has_its_badge(tmp_path: Path, record: Record, expected: tuple[str, str]) -> None:
    with under_way(tmp_path) as writer:
        writer.write_line(record)
    (row,) = rows(caught_up(tmp_path), Filter())[1]
    assert (row.badge, row.fine) == expected


def test_what_the_end_of_the_run_cut_off_is_no_failure(tmp_path: Path) -> None:
    cut = failed(0, 0.0, 1.0, "cancelled", kind="censored")
    with under_way(tmp_path) as writer:
        writer.write_line(msgspec.structs.replace(cut, censored=True))
    (row,) = rows(caught_up(tmp_path), Filter())[1]
    assert (row.badge, row.fine, row.words) == ("ended", "censored", "cut off")


# --- size


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40) | st.integers(0, 2**53), max_size=60), max_size=8))
def test_each_job_has_one_row_however_jobs_are_numbered(blocks: list[list[int]]) -> None:
    columns, expected = GrowingColumns(), dict[int, int]()
    for block in [*blocks, list(range(5_000)), [3_000, 2**53]]:
        for index in block:
            expected.setdefault(index, len(expected))
        assert columns.rows(block).tolist() == [expected[index] for index in block]
    assert columns.index.tolist() == list(expected)
    assert all(columns.row(index) == row for index, row in expected.items())
    assert columns.row(2**53 - 1) == expected.get(2**53 - 1, -1)


@pytest.mark.long
@pytest.mark.alone
def test_a_hundred_thousand_jobs_are_read_soon_and_take_little_memory(tmp_path: Path) -> None:
    with RunWriter(tmp_path, manifest(100_000)) as writer:
        lines = bytearray()
        for index in range(100_000):
            record = job(index, 0.01 * index, 2.0) if index % 50 else failed(index, 0.01 * index, 2.0)
            lines += msgspec.json.encode(sent(index, 0.01 * index)) + b"\n" + msgspec.json.encode(record) + b"\n"
        assert writer.path == tmp_path
        (tmp_path / "records.ndjson").write_bytes(lines)
    took = plain = np.inf
    for _ in range(3):
        gc.collect()
        began = time.process_time()
        follower = caught_up(tmp_path)
        took = min(took, time.process_time() - began)
        began = time.process_time()
        assert sum(1 for _ in RunReader(tmp_path).lines()) == 200_000
        plain = min(plain, time.process_time() - began)
    assert follower.jobs.n == 100_000 and follower.damaged == 0
    assert follower.jobs.nbytes <= 100 * 100_000
    assert took < max(1.5, 5 * plain), "a fast machine reads and decodes them in 0.2 s"
    assert np.count_nonzero(follower.jobs.kind) == 2_000


# --- the folder


def test_runs_are_found_three_levels_deep_and_the_newest_comes_first(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for name, started in (
        ("a", "2026-01-02"),
        ("b/c/d", "2026-01-03"),
        ("b/e", "2026-01-01"),
        ("1/2/3/4", "2026-01-09"),
    ):
        large = [msgspec.structs.replace(FACTS, graph={"1": {}})]
        with under_way(root / name, started_utc=f"{started}T00:00:00+00:00", workflows=large):
            pass
    (root / "broken").mkdir()
    (root / "broken" / "manifest.json").write_text("{")
    folder = RunFolder(root, None)
    assert folder.find("a") is None, "nothing was scanned yet"
    assert [entry.id for entry in folder.scan()] == ["b/c/d", "a", "b/e"]
    (unread,) = folder.unread
    assert unread.folder == "broken" and unread.why.startswith("manifest.json is damaged: "), "and why it is left out"
    found = folder.find("b/c/d")
    assert found is not None and found.path == root / "b/c/d" and not found.running
    assert found.manifest.workflows == [FACTS]
    for wrong in ("../a", "/a", "b/c/../c/d", "", "1/2/3/4", "b\\e"):
        assert folder.find(wrong) is None
    with alone_in(root / "a"):
        assert [entry.id for entry in folder.scan() if entry.running] == ["a"]
    shutil.rmtree(root / "b")
    (root / "broken" / "manifest.json").unlink()
    assert [entry.id for entry in folder.scan()] == ["a"] and folder.find("b/e") is None and folder.unread == []


def test_a_folder_that_cannot_be_read_is_named_and_its_manifest_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "later", "shut"):
        (tmp_path / name).mkdir()
    bad = tmp_path / "bad" / "manifest.json"
    bad.write_text('{"format": 1}\x1b[2J')
    (tmp_path / "later" / "manifest.json").write_text('{"format": 1000}')
    listed, read = os.scandir, []

    def scandir(folder: str) -> Any:
        if folder.endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    def counted(path: Path, **more: Any) -> RunReader:
        read.append(path.name)
        return RunReader(path, **more)

    monkeypatch.setattr("comfyload.web.folder.os.scandir", scandir)
    monkeypatch.setattr("comfyload.web.folder.RunReader", counted)
    folder = RunFolder(tmp_path)
    for _ in range(2):
        assert folder.scan() == []
        assert {one.folder: one.why for one in folder.unread}.keys() == {"bad", "later", "shut"}
        assert sorted(read) == ["bad", "later"]
    why = {one.folder: one.why for one in folder.unread}
    assert why["shut"] == "Permission denied" and "reads up to" in why["later"] and "\x1b" not in why["bad"]
    bad.write_text("[]")
    folder.scan()
    assert sorted(read) == ["bad", "bad", "later"]
    assert RunFolder(tmp_path / "none").scan() == [] and RunFolder(tmp_path / "bad" / "manifest.json").scan() == []


def test_the_list_says_what_it_leaves_out(tmp_path: Path) -> None:
    async def listed() -> Any:
        async with page(tmp_path) as found, found.tab() as tab:
            return (await tab.watch(1, "runs"))["data"]

    with under_way(tmp_path / "runs" / "one"):
        assert asyncio.run(listed())["unread"] is None
        for name in ("bad", "worse"):
            (tmp_path / "runs" / name).mkdir()
            (tmp_path / "runs" / name / "manifest.json").write_text("{")
        seen = asyncio.run(listed())
    assert [run["id"] for run in seen["runs"]] == ["one"] and seen["total"] == 1
    assert seen["unread"]["count"] == 2 and seen["unread"]["folder"] == "bad"
    assert seen["unread"]["why"].startswith("manifest.json is damaged")


def test_what_lies_elsewhere_is_no_run_of_the_folder(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for path in (root / "mine", elsewhere / "run", root / "archive" / "kept"):
        with under_way(path):
            pass
    (root / "link").symlink_to(elsewhere / "run", target_is_directory=True)
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    names = ("manifest.json", "records.ndjson", "samples.ndjson", "events.ndjson", "log.ndjson")
    for name in names:
        partly = root / f"partly-{name}"
        shutil.copytree(root / "mine", partly)
        (partly / name).unlink(missing_ok=True)
        (partly / name).symlink_to(elsewhere / "run" / name)
    folder = RunFolder(root, root / "archive")
    found = {entry.id for entry in folder.scan()}
    assert found == {"mine"}, "and what lies in it is listed once, wherever a link leads"
    assert {one.folder: one.why for one in folder.unread} == {
        f"partly-{name}": f"its {name} is a link to another place" for name in names
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_run_whose_name_no_address_can_hold_is_left_out(tmp_path: Path) -> None:
    for name in ("100% #1?", "ünï 日本", "\u202eright", "a%2Fb", "new\nline", os.fsdecode(b"bad\xff")):
        with under_way(tmp_path / name):
            pass
    folder = RunFolder(tmp_path)
    assert {entry.id for entry in folder.scan()} == {"100% #1?", "ünï 日本", "\u202eright", "a%2Fb"}
    assert {one.folder for one in folder.unread} == {r"new\nline", r"bad\udcff"}
    assert {one.why for one in folder.unread} == {"no address can hold its name"}


def test_days_of_a_gateway_are_runs_that_go_on_while_it_works(tmp_path: Path) -> None:
    plan = Plan(load=Replay(offsets_s=[], source="the gateway's traffic"), as_is=True)
    with alone_in(tmp_path), RunWriter(tmp_path / "2026-01-01-gpu1", manifest(end=None, plan=plan)) as writer:
        writer.write_line(job(0, 70_000.0, 2.0))
        writer.write_event(retry(0, 70_001.0, 0.0))
        (entry,) = RunFolder(tmp_path, None).scan()
        assert entry.running and entry.id == "2026-01-01-gpu1"
        follower = caught_up(entry.path)
        assert follower.alive and fines(follower) == ["completed"]
        assert follower.retries == {} and len(follower.retries_of(0)) == 1
    assert not RunFolder(tmp_path, None).scan()[0].running


def test_looking_keeps_nobody_out(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        assert is_taken(tmp_path)
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as file:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX)

        def leave(seconds: float) -> None:
            fcntl.flock(file, fcntl.LOCK_UN)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("comfyload.record.lock.time.sleep", leave)
            with alone_in(tmp_path) as why:
                assert why is None
