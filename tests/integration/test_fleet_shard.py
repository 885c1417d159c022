"""`comfyload fleet shard`, as a Job of Kubernetes starts it: one process a shard, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from comfyload.record.model import Record
from comfyload.record.run import RunReader
from tests.support.commands import Forked, call
from tests.support.rig import SLEEPER
from tests.support.servers import simulator

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="it starts its processes as forks"), pytest.mark.long]
JOBS = 14


@pytest.fixture
def server() -> Iterator[str]:
    with simulator(speed=1.0) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, server: str) -> Path:
    graph = {**SLEEPER, "2": {**SLEEPER["2"], "inputs": {**SLEEPER["2"]["inputs"], "seconds": 0.15}}}
    (tmp_path / "book.json").write_text(json.dumps(graph))
    words = ["--server", server, "--workflow", "book.json", "--rate", "3/s", "--jobs", str(JOBS), "--seed", "4"]
    assert call("run", *words, "--save-plan", "plan.toml", cwd=tmp_path).returncode == 0
    return tmp_path


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def shard(folder: Path, index: int, start: str, shards: int = 2) -> Forked:
    words = ["fleet", "shard", "fleet", "--plan", "plan.toml", "--shards", str(shards), "--start-at", start]
    return Forked(words, folder, {**os.environ, "JOB_COMPLETION_INDEX": str(index)})


def executed(server: str) -> Counter[str]:
    """How often the server ran each prompt."""
    with urllib.request.urlopen(f"{server}/history", timeout=5) as reply:
        history: dict[str, Any] = json.load(reply)
    starts = (message for entry in history.values() for message in entry["status"]["messages"])
    return Counter(data["prompt_id"] for name, data in starts if name == "execution_start")


def test_a_killed_shard_is_taken_up_and_none_of_its_jobs_runs_twice(folder: Path, server: str) -> None:
    start = in_s(4)
    first, second = shard(folder, 0, start), shard(folder, 1, start)
    while len(executed(server)) < 4:
        assert first.poll() is None, first.communicate(1)
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    second.communicate(10)
    assert "Shard 1 of 2 was cut short" in " ".join(call("show", "fleet", cwd=folder).stdout.split())
    replaced = shard(folder, 1, start)
    said = [one.communicate(40) for one in (first, replaced)]
    assert (first.returncode, replaced.returncode) == (0, 0), said
    runs = executed(server)
    assert len(runs) == JOBS and set(runs.values()) == {1}
    reader = RunReader(folder / "fleet")
    assert len({line.index for line in reader.lines() if isinstance(line, Record)}) == JOBS
    assert len(reader.manifest.resumed) == 1


def test_a_shard_that_is_done_has_nothing_left_to_do(folder: Path, server: str) -> None:
    start = in_s(3)
    for _ in range(2):
        done = shard(folder, 0, start)
        done.communicate(40)
        assert done.returncode == 0
    assert len(executed(server)) == JOBS // 2


def test_a_drained_shard_is_not_done_and_its_next_process_does_the_rest(folder: Path, server: str) -> None:
    start = in_s(3)
    drained = shard(folder, 0, start)
    while not executed(server):
        assert drained.poll() is None, drained.communicate(1)
        time.sleep(0.05)
    drained.send_signal(signal.SIGTERM)
    drained.communicate(20)
    assert drained.returncode == 130
    rest = shard(folder, 0, start)
    rest.communicate(40)
    assert rest.returncode == 0
    runs = executed(server)
    assert len(runs) == JOBS // 2 and set(runs.values()) == {1}


def test_what_cannot_be_is_refused_in_one_line(folder: Path) -> None:
    def refused(*words: str) -> str:
        done = call("fleet", "shard", "fleet", "--plan", "plan.toml", *words, cwd=folder)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        return line

    start = in_s(60)
    assert "one instant" in refused("--shards", "2", "--index", "0")
    assert "numbered from 0 to 1" in refused("--shards", "2", "--index", "2", "--start-at", start)
    assert "past" in refused("--shards", "2", "--index", "0", "--start-at", in_s(-5))
    (folder / "fleet" / "fleet.json").unlink()
    late = shard(folder, 0, start)
    while not (folder / "fleet" / "fleet.json").exists():
        time.sleep(0.02)
    assert "2 shards that begins at" in refused("--shards", "3", "--index", "1", "--start-at", start)
    assert "2 shards that begins at" in refused("--shards", "2", "--index", "1", "--start-at", in_s(90))
    late.send_signal(signal.SIGKILL)
    late.communicate(10)
