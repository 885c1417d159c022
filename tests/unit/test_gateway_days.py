"""The days of a ledger: each ends, also those that a gateway was killed in, and none asks to be resumed."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from comfyload import clock
from comfyload.app.locate import check_ended, find
from comfyload.app.run.options import RunOptions
from comfyload.app.run.resume import resume
from comfyload.app.show import show_folder
from comfyload.app.summary import report_run
from comfyload.errors import RunFilesError, UsageError
from comfyload.gateway.ledger import DAY_S, HINT
from comfyload.gateway.store import Row, Store
from comfyload.sim.settings import Clock
from tests.support.gateway import desk, farm
from tests.support.rig import sleeper

LEFT = "00000000-0000-4000-8000-000000000001"


async def recorded(folder: Path, jobs: int = 2) -> None:
    """A day of so many jobs."""
    async with farm(1) as servers, desk(folder, servers) as front:
        for number in range(jobs):
            await front.run(sleeper(1.0 + number))


def day_of(folder: Path) -> Path:
    (file,) = folder.glob("*/manifest.json")
    return file.parent


def killed(folder: Path, days_ago: int) -> Path:
    """Make the only day of the ledger one that a gateway was killed in, so many days ago."""
    day, date = day_of(folder), datetime.now(UTC) - timedelta(days=days_ago)
    manifest: dict[str, Any] = json.loads((day / "manifest.json").read_bytes())
    began = f"{date:%Y-%m-%d}T00:00:00+00:00"
    manifest |= {"end": None, "ended_utc": None, "counted_to": None, "scheduled": None, "started_utc": began}
    (day / "manifest.json").write_text(json.dumps(manifest))
    return day.rename(folder / f"{date:%Y-%m-%d}-gpu1")


def end_of(day: Path) -> tuple[str | None, float | None, int | None]:
    manifest = json.loads((day / "manifest.json").read_bytes())
    return manifest["end"], manifest.get("counted_to"), manifest.get("scheduled")


def codes(day: Path) -> list[str]:
    (result,) = find(str(day), day).results
    assert result.measured.summary.valid
    return [finding.code for finding in result.measured.summary.findings]


def test_a_day_that_a_gateway_was_killed_in_ends_at_its_midnight(tmp_path: Path) -> None:
    async def main() -> None:
        await recorded(tmp_path)
        day = killed(tmp_path, 3)
        (tmp_path / "2020-01-01-damaged").mkdir()
        (tmp_path / "2020-01-01-damaged" / "manifest.json").write_text("{")
        (tmp_path / "notes").mkdir()
        async with farm(1) as servers, desk(tmp_path, servers):
            assert end_of(day) == ("complete", DAY_S, 2), "as soon as a gateway is at work again"
        assert end_of(day) == ("complete", DAY_S, 2)
        assert codes(day) == []

    clock.run_virtual(main())


def test_today_ends_with_the_gateway_though_no_job_comes_any_more(tmp_path: Path) -> None:
    async def main() -> None:
        await recorded(tmp_path)
        day = killed(tmp_path, 0)
        assert codes(day) == ["traffic_cut"]
        async with farm(1) as servers, desk(tmp_path, servers):
            assert end_of(day)[0] is None
            assert codes(day) == ["still_recorded"]
        assert end_of(day)[::2] == ("complete", 2)
        assert codes(day) == []

    clock.run_virtual(main())


def test_a_day_with_a_job_that_has_not_ended_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        await recorded(tmp_path)
        day = killed(tmp_path, 1)
        store = Store(tmp_path / "jobs.sqlite")
        store.add(
            Row(
                id=LEFT, tenant="default", client_id=None, number=9, workflow="others",
                created_ms=int((time.time() - DAY_S) * 1000), taken_ms=int((time.time() - DAY_S) * 1000),
                deadline_s=None, key=None, digest=b"",
                graph=json.dumps(sleeper(1.0)).encode(), extra=b"{}",
            )
        )  # fmt: skip
        store.close()
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            assert end_of(day)[0] is None
            await front.end_of(LEFT)
        assert end_of(day) == ("complete", DAY_S, 3)

    clock.run_virtual(main())


def test_a_day_that_nobody_ended_is_traffic_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock.run_virtual(recorded(tmp_path))
    day = killed(tmp_path, 1)
    assert report_run(day) == 0
    said = capsys.readouterr().out
    assert "VALID" in said and "cut short" in said and "resume" not in said
    show_folder(tmp_path, as_json=True)
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["cut short"]
    with pytest.raises(RunFilesError) as unended:
        check_ended(find(str(day), tmp_path).results[0].reader)
    assert "resume" not in f"{unended.value} {unended.value.hint}"


def test_traffic_is_not_resumed(tmp_path: Path) -> None:
    async def main() -> None:
        await recorded(tmp_path)
        with pytest.raises(UsageError, match="is a gateway's traffic"):
            await resume(killed(tmp_path, 1), RunOptions(), None)  # type: ignore[arg-type]

    clock.run_virtual(main())


def test_a_ledger_whose_name_has_a_comma_is_one_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "Monday, Tuesday"
    clock.run_virtual(recorded(ledger))
    assert [result.reader.path for result in find(str(ledger), tmp_path).results] == [day_of(ledger)]


def test_a_ledger_that_cannot_be_written_says_what_to_do_about_a_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, it keeps the job until it can be written; a day that ends then ends later."""

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    async def main() -> None:
        async with farm(1) as servers:
            today = tmp_path / f"{datetime.now(UTC):%Y-%m-%d}-gpu1"
            async with desk(tmp_path, servers) as front:
                gateway = front.gateway
                today.write_text("a file in the place of the day")
                job_id = (await front.post(sleeper(1.0)))["prompt_id"]
                while not gateway.disk.fault:
                    await asyncio.sleep(0.1)
                assert str(today) in gateway.disk.fault and HINT in gateway.disk.fault
                today.unlink()
                assert (await front.end_of(job_id))["status"]["status_str"] == "success"
                assert not gateway.disk.fault
                with monkeypatch.context() as patched:
                    patched.setattr("comfyload.record.run.replace_file", refuse)
                    before, now = end_of(today), gateway.clock
                    gateway.clock = lambda: now() + DAY_S
                    await asyncio.sleep(5.0)
                    assert end_of(today) == before and gateway.fault is None and not gateway.over.is_set()
                await asyncio.sleep(5.0)
                assert end_of(today) == ("complete", DAY_S, 1)
                gateway.clock = now
                await front.run(sleeper(1.0))
                monkeypatch.setattr("comfyload.record.run.replace_file", refuse)

    with pytest.raises(RunFilesError, match="permission denied") as raised:
        clock.run_virtual(main())
    assert raised.value.hint == HINT and "resume" not in HINT


def test_the_clock_of_a_server_that_is_off_changes_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the first job, by which it is found out."""
    right = Clock.stamp
    monkeypatch.setattr(Clock, "stamp", lambda one: right(one) - 3_600_000)

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            for seconds in (1.0, 2.0):
                await front.run(sleeper(seconds))
            rows, _ = front.gateway.store.newest(None, ["completed"], limit=9, offset=0)
            items = [json.loads(row.item or b"") for row in rows]
            took = [item["execution_end_time"] - item["execution_start_time"] for item in items]
            assert took == pytest.approx([2_000, 1_000], abs=300)

    clock.run_virtual(main())
