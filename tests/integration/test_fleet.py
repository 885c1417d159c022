"""A run by several real generators: as by one, whatever happens to a shard or to the command that began them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyload.record.fleet import read_fleet
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from comfyload.sim import Server
from tests.integration.test_cli import graph_file
from tests.support.commands import COMMAND, call
from tests.support.rig import sleeper
from tests.support.servers import in_thread

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="it ends processes by signals that Windows lacks"),
]
JOBS = 60


class Fleet:
    """`comfyload fleet run` with three shards in `folder/fleet`, under way."""

    def __init__(self, folder: Path, url: str, *more: str) -> None:
        self.path = folder / "fleet"
        self._folder = folder
        # The last is shard 2's and comes long after all others: until then the others have no job, and wait.
        offsets = [0.05 * number for number in range(JOBS - 1)] + [6.0]
        (folder / "arrivals.txt").write_text("\n".join(f"{offset:.3f}" for offset in offsets), encoding="utf-8")
        words = ["--server", url, "--workflow", graph_file(folder, sleeper(0.02)), "--replay", "arrivals.txt"]
        words += ["--run-dir", "fleet", "--allow-shared", "--no-telemetry", "--json", *more]
        self.process = subprocess.Popen(
            [*COMMAND, "fleet", "run", "--shards", "3", *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so."""
        limit = time.monotonic() + 60
        while not what():
            assert time.monotonic() < limit, "it never came to that"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def pid(self, number: int) -> int:
        """Of a shard's process."""
        self.until(lambda: self._process(number) != "")
        return int(self._process(number).partition(" ")[0])

    def _process(self, number: int) -> str:
        if not (self.path / "fleet.json").exists():
            return ""
        return read_fleet(self.path).shards[number].process

    def journal(self, number: int) -> list[dict[str, Any]]:
        file = self.path / f"shard-{number}" / "records.ndjson"
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def ended(self, number: int) -> int:
        return sum(line["line"] == "record" for line in self.journal(number))

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Its exit code, the summary that it prints, and what it says on standard error."""
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, json.loads(out), err


def shown(folder: Path) -> dict[str, Any]:
    done = call("show", "fleet", "--json", cwd=folder)
    return dict(json.loads(done.stdout))


def codes(folder: Path) -> set[str]:
    call("show", "fleet", "--output", "out.json", cwd=folder)
    document = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return {one["code"] for one in document["findings"]}


def each_once(server: Server) -> None:
    assert set(server.posts.values()) == {1}
    assert len(server.truth) == len({truth.prompt_id for truth in server.truth})


def test_three_shards_make_one_run_and_begin_together(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        fleet = Fleet(tmp_path, url)
        code, summary, err = fleet.end()
        each_once(server)
        assert len(server.truth) == JOBS
    assert code in (0, 5), err  # 5: this machine was busy, and jobs were sent late
    assert summary["completed"] == summary["total_jobs"] == JOBS
    assert summary == shown(tmp_path)
    assert not {"lost_shard", "shards_apart", "late_start", "foreign_load", "records_missing"} & codes(tmp_path)
    began = [RunReader(tmp_path / "fleet" / f"shard-{number}").manifest for number in range(3)]
    assert len({one.run_id for one in began}) == 3
    assert len({one.plan_sha256 for one in began}) == 1
    assert sorted(line.index for line in RunReader(fleet.path).lines() if isinstance(line, Record)) == list(range(JOBS))
    assert [place.state for place in read_fleet(tmp_path / "fleet").shards] == ["ended"] * 3


def before_start(_fleet: Fleet) -> None: ...


def while_it_waits(fleet: Fleet) -> None:
    fleet.until((fleet.path / "shard-1" / "manifest.json").exists)


def in_mid_run(fleet: Fleet) -> None:
    fleet.until(lambda: fleet.ended(1) >= 5)


def after_its_last_job(fleet: Fleet) -> None:
    fleet.until(lambda: fleet.ended(1) == JOBS // 3)


STAGES = [before_start, while_it_waits, in_mid_run, after_its_last_job]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_shard_that_is_killed_is_named_and_resume_makes_the_run_whole(
    stage: Callable[[Fleet], None], tmp_path: Path
) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        fleet = Fleet(tmp_path, url)
        pid = fleet.pid(1)
        stage(fleet)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        fleet.until(lambda: read_fleet(fleet.path).shards[1].state == "lost")
        assert time.monotonic() - killed < 5
        code, summary, err = fleet.end()
        assert code == 5 and not summary["valid"]
        assert "shard 1 of 3 is lost" in err
        each_once(server)
        theirs = {line["index"] % 3 for number in (0, 2) for line in fleet.journal(number)}
        assert theirs == {0, 2}, "a lost shard's jobs were given to others"
        assert fleet.ended(0) == fleet.ended(2) == JOBS // 3
        assert "lost_shard" in codes(tmp_path)

        if stage is before_start:
            shutil.rmtree(fleet.path / "shard-1", ignore_errors=True)
            again = call(
                "run", "--plan", "fleet/plan.toml", "--shard", "1/3", "--run-dir", "fleet/shard-1", "-q", cwd=tmp_path
            )
        else:
            again = call("resume", "fleet/shard-1", "-q", cwd=tmp_path)
        assert again.returncode in (0, 5), again.stderr
        each_once(server)
        assert len(server.truth) == JOBS
    assert shown(tmp_path)["completed"] == JOBS
    assert not {"lost_shard", "unfinished", "not_ended", "records_missing", "duplicate_record"} & codes(tmp_path)


def test_the_command_may_die_and_another_follows_the_run_to_its_end(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        fleet = Fleet(tmp_path, url)
        in_mid_run(fleet)
        fleet.process.kill()
        fleet.process.communicate()
        done = call("fleet", "attach", "fleet", "--json", cwd=tmp_path, timeout=60)
        each_once(server)
        assert len(server.truth) == JOBS
    assert json.loads(done.stdout) == shown(tmp_path)
    assert json.loads(done.stdout)["completed"] == JOBS
    assert [place.state for place in read_fleet(fleet.path).shards] == ["ended"] * 3


def test_ctrl_c_stops_all(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        fleet = Fleet(tmp_path, url)
        fleet.until(lambda: all(fleet.ended(number) >= 2 for number in range(3)))
        fleet.process.send_signal(signal.SIGINT)
        code, summary, _ = fleet.end()
        each_once(server)
    assert code == 130
    assert 6 <= summary["completed"] < JOBS
    ends = {RunReader(fleet.path / f"shard-{number}").manifest.end for number in range(3)}
    assert ends == {"stopped"}
