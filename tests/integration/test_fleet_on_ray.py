"""`comfyload fleet run --on ray` on a real Ray of this machine: as shards of one machine, whatever is lost."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from comfyload.record.fleet import read_fleet
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from tests.docs.stand_ins import free_port
from tests.integration.test_fleet_shard import executed
from tests.support.rig import sleeper
from tests.support.servers import simulator

CORES = 4
JOBS = 24

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)"),
    pytest.mark.long,
    pytest.mark.timeout(300),
]


class Place(NamedTuple):
    """A folder with a workflow, a server, and a cluster: its address, and what a process needs to reach it."""

    folder: Path
    server: str
    address: str
    environment: dict[str, str]

    def begin(self, shards: int, *more: str, address: str = "") -> subprocess.Popen[str]:
        words = ["fleet", "run", "--on", "ray", "--ray-address", address or self.address, "--shards", str(shards)]
        words += ["--server", self.server, "--workflow", "book.json", "--rate", "4/s", "--jobs", str(JOBS)]
        return self.call(*words, "--run-dir", "fleet", "--start-in", "30s", *more)

    def call(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "comfyload", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def shard(self, number: int) -> psutil.Process:
        """The program of a shard, once it is there."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            for one in psutil.process_iter(["cmdline", "cwd"]):
                words = one.info["cmdline"] or []
                if one.info["cwd"] == str(self.folder) and any(word.startswith(f"{number}/") for word in words):
                    return one
            time.sleep(0.05)
        raise AssertionError(f"shard {number} was not started")

    def records(self) -> list[Record]:
        return [line for line in RunReader(self.folder / "fleet").lines() if isinstance(line, Record)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray of this machine with a token of its own."""
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(24),
    }  # fmt: skip
    words = ["start", "--head", "--block", f"--num-cpus={CORES}", f"--port={port}", "--node-ip-address=127.0.0.1"]
    words += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    log = (tmp_path_factory.mktemp("ray") / "log").open("wb")
    with log, subprocess.Popen([*ray, *words], env=environment, stdout=log, stderr=log) as head:
        try:
            ends = time.monotonic() + 90
            while b"runtime started" not in Path(log.name).read_bytes():
                assert head.poll() is None and time.monotonic() < ends, Path(log.name).read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}", environment
        finally:
            for one in psutil.Process(head.pid).children(recursive=True):
                one.kill()
            head.kill()


@pytest.fixture
def place(tmp_path: Path, cluster: tuple[str, dict[str, str]]) -> Iterator[Place]:
    (tmp_path / "book.json").write_text(json.dumps(sleeper(0.1)))
    with simulator(speed=1.0) as server:
        yield Place(tmp_path, server, *cluster)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_on_ray_make_one_run(place: Place, shards: int) -> None:
    run = place.begin(shards)
    out, err = run.communicate(timeout=150)
    assert "24 of 24 completed" in out, err
    assert "on 1 node, their clocks compared within" in err and "began within" in err
    runs = executed(place.server)
    assert len(runs) == JOBS and set(runs.values()) == {1}
    assert sorted(record.index for record in place.records()) == list(range(JOBS))
    fleet = read_fleet(place.folder / "fleet")
    assert {one.state for one in fleet.shards} == {"ended"}
    assert all(one.clock_ahead_s is not None and abs(one.clock_ahead_s) < 0.05 for one in fleet.shards)


def test_a_lost_shard_is_named_in_seconds_and_its_jobs_go_to_nobody(place: Place) -> None:
    run = place.begin(2)
    program = place.shard(1)
    while len(executed(place.server)) < 4:
        assert run.poll() is None, run.communicate(1)
        time.sleep(0.05)
    program.kill()
    killed = time.monotonic()
    assert run.stderr is not None
    said = ""
    while "shard 1 of 2 is lost" not in said:
        said += run.stderr.readline()
        assert run.poll() is None, said
    assert time.monotonic() - killed < 5
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 5 and "Shard 1 of 2 was cut short" in " ".join(out.split())
    assert {record.index % 2 for record in place.records()} == {0, 1}
    assert len({record.index for record in place.records() if record.index % 2 == 0}) == JOBS // 2
    assert len({record.index for record in place.records() if record.index % 2}) < JOBS // 2
    assert set(executed(place.server).values()) == {1}


def test_the_run_survives_the_command_that_began_it(place: Place) -> None:
    run = place.begin(2)
    place.shard(1)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(10)
    again = place.call("fleet", "attach", "fleet")
    out, err = again.communicate(timeout=120)
    assert "24 of 24 completed" in out, err
    assert set(executed(place.server).values()) == {1}


def test_what_ray_cannot_do_is_said_in_one_line(place: Place) -> None:
    _, err = place.begin(1, address=f"127.0.0.1:{free_port()}").communicate(timeout=120)
    assert err.splitlines()[-1].startswith("error: there is no Ray cluster at 127.0.0.1:"), err
    crowd = place.begin(CORES + 1)
    _, err = crowd.communicate(timeout=120)
    assert f"within 60 s Ray has started {CORES} of {CORES + 1} actors" in err
    assert crowd.returncode == 2 and not (place.folder / "fleet").exists()
