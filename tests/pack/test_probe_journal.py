"""Rows get to ring and file in order, without making anybody wait, and the file is rotated among its writers."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import comfyload
from comfyload_probe import journal as journals
from comfyload_probe import logfile
from comfyload_probe.journal import Journal
from comfyload_probe.logfile import LogFile
from comfyload_probe.rows import Entry, encoded, timestamp
from tests.pack.comfyui import assert_valid

NOW = 1_800_000_000.0
HOUR = 3600.0


def entry(n: int = 0, unix_s: float = NOW) -> Entry:
    return Entry("probe.problem", float(n), unix_s, {"level": "warning", "error": f"row {n}"})


def line(n: int = 0, unix_s: float = NOW) -> bytes:
    return encoded(entry(n, unix_s), "00000000", n + 1)[1]


def log_file(path: Path, **changes: Any) -> LogFile:
    return LogFile(path, **({"max_bytes": 10**6, "max_age_s": 168 * HOUR, "keep": 5} | changes))


def numbers(path: Path) -> list[int]:
    return [int(json.loads(row)["error"].split()[1]) for row in path.read_bytes().splitlines() if row]


def all_numbers(path: Path, keep: int = 5) -> list[int]:
    """Of the older files and the newest, in the order in which they were written."""
    names = [path.with_name(f"{path.name}.{n}") for n in range(keep, 0, -1)]
    return [n for name in [*names, path] if name.exists() for n in numbers(name)]


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal("00000000", ring_rows=100, buffer_rows=50, file=None)
    yield made
    made.stop()


def test_a_full_buffer_refuses_counts_and_says_so_once(journal: Journal) -> None:
    for n in range(70):
        journal.put(entry(n))
    assert journal.refused == 20
    journal.start()
    assert journal.flush()
    lines, last, missed = journal.rows(0, 1000)
    rows = [json.loads(one) for one in lines]
    assert [row["seq"] for row in rows] == list(range(1, 52))
    assert (last, missed) == (51, 0)
    assert "20 rows were dropped" in rows[-1]["error"]


def test_the_ring_keeps_the_newest_and_says_how_many_it_lost(journal: Journal) -> None:
    journal.start()
    for start in range(0, 250, 50):
        for n in range(start, start + 50):
            journal.put(entry(n))
        assert journal.flush()
    assert (len(journal.rows(0, 1000)[0]), *journal.rows(0, 1000)[1:]) == (100, 250, 150)
    assert journal.rows(200, 10)[1:] == (210, 0)
    assert journal.rows(120, 10)[1:] == (160, 30)
    assert journal.rows(250, 10) == ([], 250, 0)
    assert journal.rows(10**18, 10) == ([], 10**18, 0)


def test_many_threads_get_numbers_without_holes() -> None:
    journal = Journal("00000000", ring_rows=10_000, buffer_rows=10_000, file=None)
    journal.start()
    threads = [threading.Thread(target=lambda: [journal.put(entry(n)) for n in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.flush()
    rows = [json.loads(one) for one in journal.rows(0, 10_000)[0]]
    assert [row["seq"] for row in rows] == list(range(1, 4001))
    journal.stop()


def test_a_row_without_json_is_left_out_and_numbers_it_does_not_have_are_null(journal: Journal) -> None:
    journal.start()
    journal.put(Entry("probe.problem", 1.0, NOW, {"level": "warning", "error": object()}))
    journal.put(Entry("probe.problem", 1.0, NOW, {"level": "warning", "error": "x", "more": [float("nan"), (1, 2)]}))
    assert journal.flush()
    (only,) = [json.loads(one) for one in journal.rows(0, 10)[0]]
    assert (only["seq"], only["more"], journal.errors) == (1, [None, [1, 2]], 1)


def test_a_fold_that_raises_stops_nothing() -> None:
    def fold(row: dict[str, Any], unix_s: float) -> None:
        raise RuntimeError("broken")

    journal = Journal("00000000", ring_rows=10, buffer_rows=10, file=None, fold=fold)
    journal.start()
    journal.put(entry())
    assert journal.flush()
    assert (journal.last_seq, journal.errors) == (1, 1)
    journal.stop()


def test_putting_is_quick_while_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    class Slow(LogFile):
        def write(self, line: bytes, unix_s: float) -> bool:
            hangs.wait(20)
            return super().write(line, unix_s)

    file = Slow(tmp_path / "log", max_bytes=10**6, max_age_s=HOUR, keep=1)
    journal = Journal("00000000", ring_rows=10, buffer_rows=10, file=file)
    journal.start()
    for n in range(30):
        journal.put(entry(n))
        if n == 5:
            time.sleep(0.3)  # the thread has taken these and hangs with the first
    assert journal.refused > 0
    hangs.set()
    assert journal.flush(10)
    journal.stop()


def test_stopping_writes_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "log"
    journal = Journal("00000000", ring_rows=10, buffer_rows=10, file=log_file(path))
    journal.start()
    journal.put(entry(7))
    journal.stop()
    assert numbers(path) == [7]


def test_timestamps_are_utc_with_microseconds() -> None:
    assert timestamp(0.000001) == "1970-01-01T00:00:00.000001Z"
    assert timestamp(1_700_000_000.5) == "2023-11-14T22:13:20.500000Z"
    assert timestamp(float("inf")) == timestamp(-5.0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1e300).startswith("9999-12-31")


def test_a_row_is_one_write_and_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    real = os.write
    monkeypatch.setattr(logfile.os, "write", lambda fd, data: writes.append(bytes(data)) or real(fd, data))
    file = log_file(tmp_path / "log")
    for n in range(3):
        assert file.write(line(n), NOW)
    assert [json.loads(one)["seq"] for one in writes] == [1, 2, 3]
    for one in writes:
        assert_valid(json.loads(one))


def test_rotation_by_size_keeps_so_many(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(10))
    file = log_file(path, max_bytes=3 * size, keep=2)
    for n in range(10, 20):
        assert file.write(line(n), NOW)
    assert all_numbers(path) == [13, 14, 15, 16, 17, 18, 19]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.lock"]
    assert file.size == path.stat().st_size


@pytest.mark.parametrize("keep", [0, 1])
def test_rotation_that_keeps_none_or_one(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "log"
    file = log_file(path, max_bytes=len(line()), keep=keep)
    for n in range(4):
        file.write(line(n), NOW)
    assert all_numbers(path) == [2, 3][1 - keep :]


def test_rotation_by_the_age_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(1, NOW - 30 * HOUR) + line(2, NOW))
    file = log_file(path, max_age_s=24 * HOUR)
    file.write(line(3), NOW)
    assert (numbers(path.with_name("log.1")), numbers(path)) == ([1, 2], [3])
    file.write(line(4), NOW + 23 * HOUR)
    file.write(line(5), NOW + 25 * HOUR)
    assert (numbers(path.with_name("log.1")), numbers(path)) == ([3, 4], [5])


@pytest.mark.parametrize("first", [b"no json\n", b"{}\n", b'{"timestamp":5}\n', b'{"timestamp":"yesterday"}\n', b"\n"])
def test_a_first_row_that_does_not_say_when_is_not_too_old(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(first)
    log_file(path, max_age_s=1).write(line(), NOW)
    assert path.read_bytes() == first + line()


def test_a_clock_set_backwards_breaks_neither_rotation_nor_order(tmp_path: Path) -> None:
    path, size = tmp_path / "log", len(line(10))
    file = log_file(path, max_bytes=4 * size, max_age_s=HOUR, keep=9)
    for n in range(10, 30):
        file.write(line(n), NOW - 1e6 * (n % 3))
    assert all_numbers(path, 9) == list(range(10, 30))


def test_a_file_that_another_writer_rotated_is_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    ours, theirs = (log_file(path, max_bytes=3 * len(line(1))) for _ in range(2))
    for n in range(9):
        (ours, theirs)[n % 2].write(line(n), NOW)
    assert all_numbers(path) == list(range(9))
    assert [numbers(path.with_name(f"log.{n}")) for n in (2, 1)] == [[0, 1, 2], [3, 4, 5]]


def test_a_file_that_vanished_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    file = log_file(folder / "log")
    file.write(line(1), NOW)
    (folder / "log").unlink()
    folder.rmdir()
    assert file.write(line(2), NOW)
    assert numbers(folder / "log") == [2]


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(1) + b'{"half')
    log_file(path).write(line(2), NOW)
    assert path.read_bytes().splitlines() == [line(1).rstrip(), b'{"half', line(2).rstrip()]


def test_a_disk_that_fills_up_within_a_row_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = [0.0]
    file = LogFile(tmp_path / "log", max_bytes=10**6, max_age_s=HOUR, keep=1, clock=lambda: at[0])
    file.write(line(1), NOW)
    real = os.write
    monkeypatch.setattr(logfile.os, "write", lambda fd, data: real(fd, data[:10]))
    assert not file.write(line(2), NOW)
    assert file.news() == ("error", "the log log cannot be written: only a part of a row could be written; "
                           "rows go to memory alone, tried again")  # fmt: skip
    monkeypatch.setattr(logfile.os, "write", real)
    assert not file.write(line(3), NOW)  # not tried so soon
    at[0] = 1.5
    assert file.write(line(4), NOW)
    assert file.news() == ("warning", "the log log can be written again; 2 rows are not in it")
    assert file.news() is None
    assert [one for one in (tmp_path / "log").read_bytes().splitlines() if len(one) > 10] == [
        line(1).rstrip(),
        line(4).rstrip(),
    ]


def test_a_disk_that_stays_full_is_tried_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []
    at = [0.0]

    def full(*args: Any) -> int:
        tries.append(at[0])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(logfile.os, "write", full)
    file = LogFile(tmp_path / "log", max_bytes=10**6, max_age_s=HOUR, keep=1, clock=lambda: at[0])
    for second in range(400):
        at[0] = float(second)
        file.write(line(), NOW)
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert file.unwritten == 400
    assert file.news() is not None
    assert file.news() is None


def test_a_held_lock_postpones_rotation_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LOCK_PATIENCE_S", 0.05)
    path = tmp_path / "log"
    file = log_file(path, max_bytes=2 * len(line(1)))
    with logfile._locked(tmp_path / "log.lock"):
        for n in range(5):
            assert file.write(line(n), NOW)
    assert numbers(path) == [0, 1, 2, 3, 4]
    level, said = file.news() or ("", "")
    assert (level, "cannot be rotated: another writer holds its lock" in said) == ("warning", True)
    assert file.news() is None


def test_without_fcntl_the_lock_is_a_file_that_goes_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "_fcntl", None)
    monkeypatch.setattr(logfile, "LOCK_PATIENCE_S", 0.05)
    path, lock = tmp_path / "log", tmp_path / "log.lock"
    file = log_file(path, max_bytes=2 * len(line(1)))
    for n in range(5):
        file.write(line(n), NOW)
    assert not lock.exists()
    assert all_numbers(path) == [0, 1, 2, 3, 4]
    lock.touch()
    with pytest.raises(TimeoutError), logfile._locked(lock):
        pass
    os.utime(lock, (NOW - HOUR, time.time() - logfile.STALE_LOCK_S - 1))
    with logfile._locked(lock):
        pass


def test_writers_in_several_threads_lose_no_row_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def write(start: int) -> None:
        file = log_file(path, max_bytes=5000, keep=200)
        for n in range(start, start + 200):
            assert file.write(line(n), NOW)
        file.close()

    threads = [threading.Thread(target=write, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(all_numbers(path, 200)) == sorted(
        n for start in range(4) for n in range(1000 * start, 1000 * start + 200)
    )


def test_an_application_writes_into_the_same_file_while_both_rotate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv("COMFYUI_METRICS_LOG_MAX_MB", "0.005")
    monkeypatch.setenv("COMFYUI_METRICS_LOG_KEEP", "1000")
    now = time.time()

    def application() -> None:
        for n in range(200):
            comfyload.log_event("app", log=path, n=n)

    def probe() -> None:
        file = log_file(path, max_bytes=int(0.005 * 2**20), keep=1000)
        for n in range(200):
            assert file.write(line(n, now), now)

    threads = [threading.Thread(target=work) for work in (application, probe)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    rows = [json.loads(row) for row in written.splitlines()]
    assert sorted(row["context"]["n"] for row in rows if row["event"] == "app") == list(range(200))
    assert sorted(row["seq"] for row in rows if row["event"] != "app") == list(range(1, 201))
    assert len(list(tmp_path.iterdir())) > 3


def test_a_round_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal("00000000", ring_rows=10, buffer_rows=10, file=None)
    real, fails = journals.encoded, [True]

    def sometimes(*args: Any) -> Any:
        if fails.pop() if fails else False:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(journals, "encoded", sometimes)
    journal.start()
    journal.put(entry(1))
    assert journal.flush()
    journal.put(entry(2))
    assert journal.flush()
    assert (journal.last_seq, journal.errors) == (1, 1)
    journal.stop()
