"""The gateway's files, damaged, foreign, full, read-only or in use, and clocks that jump: no job is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from comfyload import clock
from comfyload.errors import RunFilesError
from comfyload.gateway.intake import PromptRefused
from comfyload.gateway.store import Row, Store
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from tests.support.commands import call
from tests.support.gateway import desk, farm
from tests.support.gateway_port import port
from tests.support.rig import sleeper

pytestmark = pytest.mark.long  # processes, full disks and clocks that jump

NOBODY = ("gateway", "--server", "http://127.0.0.1:9", "--port", "0", "--ledger")


def row(**changed: object) -> Row:
    fields = {"id": str(uuid4()), "tenant": "default", "client_id": None, "created_ms": int(time.time() * 1000),
              "taken_ms": int(time.time() * 1000),
              "number": 0, "workflow": "w", "deadline_s": None, "key": None, "digest": b"",
              "graph": json.dumps(sleeper(0.1)).encode(), "extra": b"{}"} | changed  # fmt: skip
    return Row(**fields)  # type: ignore[arg-type]


def _text(path: Path) -> None:
    path.write_bytes(b"this is no database, " * 1000)


def _torn(path: Path) -> None:
    store = Store(path)
    for _ in range(100):
        store.add(row())
    store.close()
    path.write_bytes(path.read_bytes()[:8192])


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE jobs (name TEXT)")


def _older(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN again")


def _newer(path: Path) -> None:
    store = Store(path)
    store.set_fact("format", 99)
    store.close()


def _no_graph(path: Path) -> None:
    store = Store(path)
    store.add(row(graph=b'{"1": [], '))
    store.close()


def _odd_row(path: Path) -> None:
    store = Store(path)
    store.add(row())
    store._db.execute("UPDATE jobs SET created_ms = 'soon'")
    store.close()


def _odd_number(path: Path) -> None:
    store = Store(path)
    store.set_fact("number", "many")
    store.close()


def _folder(path: Path) -> None:
    path.mkdir()


DAMAGE: list[Callable[[Path], None]] = [
    _text,
    _torn,
    _foreign,
    _older,
    _newer,
    _no_graph,
    _odd_row,
    _odd_number,
    _folder,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_store_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "jobs.sqlite")
    done = call(*NOBODY, str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2, done
    assert "jobs.sqlite" in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) <= 3, done.stderr


@pytest.mark.parametrize(("damage", "lacks"), [(_older, "no again"), (_foreign, "no id, tenant")])
def test_a_store_of_another_version_is_refused(tmp_path: Path, damage: Callable[[Path], None], lacks: str) -> None:
    damage(tmp_path / "jobs.sqlite")
    with pytest.raises(RunFilesError, match=f"is of another version: its jobs have {lacks}"):
        Store(tmp_path / "jobs.sqlite")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = call(*NOBODY, str(tmp_path / "file" / "ledger"), cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done
    assert "cannot keep jobs" in done.stderr


def test_two_gateways_do_not_share_a_ledger(tmp_path: Path) -> None:
    async def main() -> subprocess.CompletedProcess[str]:
        async with port(tmp_path):
            return await asyncio.to_thread(call, *NOBODY, str(tmp_path), cwd=tmp_path)

    done = asyncio.run(main())
    assert done.returncode == 2 and "is in use" in done.stderr and "Traceback" not in done.stderr, done


def test_a_full_disk_refuses_jobs_in_words_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with farm(1) as servers:
            ids = []
            async with desk(tmp_path, servers) as front:
                ids += [(await front.post(sleeper(2.0 + number / 100)))["prompt_id"] for number in range(4)]
                await asyncio.sleep(0.5)
                database = front.gateway.store._db
                (pages,) = database.execute("PRAGMA page_count").fetchone()
                database.execute(f"PRAGMA max_page_count={pages}")
                refused = 0
                for _ in range(50):
                    try:
                        ids.append((await front.post(sleeper(2.0)))["prompt_id"])
                    except RunFilesError:
                        refused += 1
                assert refused, "the disk is full"
                await asyncio.sleep(60.0)
                assert front.gateway.fault is None
                database.execute("PRAGMA max_page_count=1000000")
                for each in ids:
                    assert (await front.end_of(each))["status"]["status_str"] == "success"
                assert not front.gateway.disk.fault
            assert sorted(truth.prompt_id for truth in servers[0].truth) == sorted(ids), "each ran once"

    clock.run_virtual(main())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a disk is mounted by root on Linux")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    async def main() -> None:
        async with port(small_disk) as gate:
            ids = [(await gate.post({"prompt": sleeper(0.3 + n / 100)})).value["prompt_id"] for n in range(3)]
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))
            answers = [await gate.post({"prompt": sleeper(0.1), "extra_data": {"x": "x" * 9000}}) for _ in range(20)]
            ids += [answer.value["prompt_id"] for answer in answers if answer.status == 200]
            refused = [answer for answer in answers if answer.status != 200]
            assert {answer.status for answer in refused} == {503}
            assert refused[0].value["error"]["type"] == "not_stored" and "retry-after" in refused[0].headers
            assert gate.gateway.fault is None
            filler.unlink()
            for each in ids:
                while not (await gate.ask(f"/history/{each}")).value:
                    await asyncio.sleep(0.1)
            assert (await gate.post({"prompt": sleeper(0.1)})).status == 200

    asyncio.run(asyncio.wait_for(main(), 60.0))


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = call(*NOBODY, str(small_disk), cwd=small_disk.parent)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "read-only" in done.stderr, done


@pytest.mark.parametrize(
    "created_ms", [-(10**17), 0, 10**17, int(time.time() * 1000) + 86_400_000], ids=["long ago", "0", "far", "tomorrow"]
)
def test_a_clock_that_jumps_loses_no_job(tmp_path: Path, created_ms: int) -> None:
    """One was taken while the clock stood elsewhere."""

    async def main() -> None:
        async with farm(1) as servers:
            store = Store(tmp_path / "jobs.sqlite")
            store.add(kept := row(created_ms=created_ms, taken_ms=created_ms))
            store.close()
            async with desk(tmp_path, servers) as front:
                assert (await front.end_of(kept.id))["status"]["status_str"] == "success"
                assert (await front.run(sleeper(0.2)))["status"]["status_str"] == "success"

    clock.run_virtual(main())
    runs = [RunReader(path.parent) for path in tmp_path.glob("*/manifest.json")]
    assert sum(isinstance(line, Record) for run in runs for line in run.lines()) == 2


def test_a_clock_that_is_set_back_amid_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            answer = await front.post(sleeper(2.0))
            await asyncio.sleep(1.0)
            real = time.time
            for jump in (-(10**7), 10**7):
                monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
                with pytest.raises(PromptRefused):
                    await front.post({"1": {"class_type": "NobodyHasThis", "inputs": {}}})
                assert (await front.run(sleeper(0.1 + abs(jump) / 1e9)))["status"]["status_str"] == "success"
            assert (await front.end_of(answer["prompt_id"]))["status"]["status_str"] == "success"

    clock.run_virtual(main())
