"""Several servers over real sockets: a run from the command line, its files, what is shown of it, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from comfyload.comfy.wire.calls import Request
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from comfyload.sim import Server
from tests.integration.test_cli import graph_file
from tests.support.commands import call, start
from tests.support.rig import sleeper
from tests.support.servers import in_thread

pytestmark = pytest.mark.long


def ran(folder: Path) -> dict[str, str]:
    """By prompt, the address of the server that ran it."""
    lines = RunReader(folder).lines()
    return {one.prompt_id: one.execution.attempts[-1].server for one in lines if isinstance(one, Record)}


def queued(server: Server) -> int:
    reply = asyncio.run(server.call(Request(method="GET", path="queue")))
    found = json.loads(reply.body)
    return len(found["queue_running"]) + len(found["queue_pending"])


def test_a_run_over_two_servers_is_measured_shown_and_exported(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (one, first), (two, second) = (
            stack.enter_context(in_thread(lambda speed=speed: Server(speed=speed, probe=True))) for speed in (4.0, 1.0)
        )
        graph = graph_file(tmp_path, sleeper(0.2))
        servers = ("--server", f"fast={one}", "--server", f"slow={two}")
        doctor = call("doctor", *servers, "--workflow", graph, "--all", cwd=tmp_path)
        assert doctor.returncode == 0 and "fast: " in doctor.stdout and "slow: " in doctor.stdout
        dry = call("run", *servers, "--workflow", graph, "--dry-run", cwd=tmp_path)
        assert dry.returncode == 0 and "servers = [" in dry.stdout
        done = call(
            "run", *servers, "--workflow", graph, "-n", "50", "-c", "4", "--dispatch", "round-robin",
            "--run-dir", "run", "-o", "out.json", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 servers (fast, slow), round-robin" in done.stdout and "slow takes" in done.stdout
        truth = {t.prompt_id: name for name, s in ((one, first), (two, second)) for t in s.truth}
    assert {prompt: server.rstrip("/") for prompt, server in ran(tmp_path / "run").items()} == truth
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    rows = found["statistics"]["servers"]
    assert list(rows) == ["fast", "slow"] and sum(row["jobs"] for row in rows.values()) == 50
    assert {job["server"] for job in found["jobs"]} == {"fast", "slow"}
    assert [server["name"] for server in found["manifest"]["servers"]] == ["fast", "slow"]
    assert found["manifest"]["server"] == found["manifest"]["servers"][0]
    telemetry = found["statistics"]["telemetry"]
    assert {"comfy@fast.queue_remaining", "comfy@slow.queue_remaining", "probe@slow.queue_remaining"} <= set(telemetry)
    assert {"fast 0", "slow 0"} == set(found["statistics"]["gpus"])
    codes = {finding["code"] for finding in found["findings"]}
    assert "servers_differ" in codes and not codes & {"overlap", "repeated_files", "foreign_load", "server_clock"}
    for words in (
        ("report", "run", "--html", "run.html"),
        ("export", "run", "--csv", "run.csv", "--prometheus", "m.prom"),
    ):
        shown = call(*words, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "queue before" in page and "slow takes" in page
    assert 'comfyload_server_jobs{bound="value",run="' in (tmp_path / "m.prom").read_text(encoding="utf-8")
    csv = (tmp_path / "run.csv").read_text(encoding="utf-8").splitlines()
    place = csv[0].split(",").index("server")
    assert {line.split(",")[place] for line in csv[1:]} == {"fast", "slow"}


def test_a_killed_run_over_two_servers_is_resumed_and_no_job_runs_twice(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (one, first), (two, second) = (stack.enter_context(in_thread(lambda: Server(speed=1))) for _ in range(2))
        process = start(
            tmp_path, "--server", one, "--server", two, "--workflow", graph_file(tmp_path, sleeper(0.4)), "-n", "16",
            "-c", "6", "--run-dir", "run",
        )  # fmt: skip
        until = time.monotonic() + 20
        while len(first.truth) + len(second.truth) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        done = call("resume", "run", "-o", "out.json", "--quiet", cwd=tmp_path)
        assert done.returncode in (0, 3), done.stderr
        executed = [truth.prompt_id for server in (first, second) for truth in server.truth]
        assert len(executed) == len(set(executed)) == 16
        assert all(max(server.posts.values()) == 1 for server in (first, second))
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["summary"]["completed"] == 16
    assert {job["server"] for job in found["jobs"]} == {"gpu1", "gpu2"}


def test_cleanup_removes_the_jobs_from_every_server(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (one, first), (two, second) = (stack.enter_context(in_thread(lambda: Server(speed=1))) for _ in range(2))
        process = start(
            tmp_path, "--server", one, "--server", two, "--workflow", graph_file(tmp_path, sleeper(3.0)), "-n", "16",
            "-c", "6", "--run-dir", "run",
        )  # fmt: skip
        until = time.monotonic() + 20
        while sum(first.posts.values()) + sum(second.posts.values()) < 6 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        assert queued(first) and queued(second)
        done = call("cleanup", "run", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (queued(first), queued(second)) == (0, 0)
        assert done.stdout.startswith("6 jobs without an end: ") and "0 still on the server" in done.stdout
    away = call("cleanup", "run", cwd=tmp_path)
    assert away.returncode == 4
