"""A harness killed at any stage of a job's life: every job ends once, and the server sees each prompt once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.record.journal import parts
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from comfyload.sim import Faults, Server, Which
from comfyload.words import count
from tests.integration.test_cli import graph_file, summary_of
from tests.support.commands import call, start
from tests.support.rig import sleeper
from tests.support.servers import in_thread

STAGES = [
    "before the post",
    "post arrived, not accepted",
    "accepted, no reply",
    "queued",
    "running",
    "finished unseen",
    "fetched",
]


class Killer:
    """Kills the harness when the server reaches the stage, once."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.process: subprocess.Popen[str] | None = None
        self.posts = 0
        self.done = False

    def kill(self) -> None:
        if not self.done:
            self.done = True
            assert self.process is not None
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def watch(self, server: Server) -> Server:
        call_server = server.call

        async def watched(request: Request) -> Reply:
            if self.done:
                server.stall_events(False)
                return await call_server(request)
            if request.path == "prompt" and request.method == "POST":
                self.posts += 1
                third = self.posts == 3
                if third and self.stage == "post arrived, not accepted":
                    self.kill()
                    raise TransportError("the client is gone", sent=True)
                reply = await call_server(request)
                if third:
                    self.after_third_post(server)
                return reply
            reply = await call_server(request)
            if request.path.startswith("view") and self.stage == "fetched" and self.posts >= 3:
                self.kill()
            return reply

        server.call = watched  # type: ignore[method-assign]
        return server

    def after_third_post(self, server: Server) -> None:
        if self.stage in ("accepted, no reply", "queued"):
            self.kill()
        elif self.stage == "running":
            asyncio.get_running_loop().call_later(0.1, self.kill)
        elif self.stage == "finished unseen":
            server.stall_events(True)
            asyncio.get_running_loop().call_later(0.5, self.kill)


def outcomes(run: Path) -> list[str]:
    records = [json.loads(line) for line in (run / "records.ndjson").read_text(encoding="utf-8").splitlines()]
    return [r["execution"]["outcome"] for r in records if r["line"] == "record"]


@pytest.mark.parametrize(
    ("stage", "concurrency"),
    [*(pytest.param(stage, 3, marks=pytest.mark.long) for stage in STAGES), ("queued", 1), ("running", 1)],
)
def test_after_a_kill_at_any_stage_every_job_ends_once_and_runs_once(
    stage: str, concurrency: int, tmp_path: Path
) -> None:
    killer = Killer(stage)
    with in_thread(lambda: killer.watch(Server(speed=1))) as (url, server):
        graph = graph_file(tmp_path, sleeper(0.3 if stage in ("running", "queued") else 0.1))
        killer.process = process = start(
            tmp_path, "--server", url, "--workflow", graph, "-n", "8", "-c", str(concurrency), "--run-dir", "run",
            "--fetch", "--timeout", "30",
        )  # fmt: skip
        if stage == "before the post":
            kill_before_the_post(process, tmp_path / "run" / "records.ndjson")
            killer.done = True
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        done = call("resume", "run", "--output", "out.json", "--quiet", cwd=tmp_path)
        assert done.returncode in (0, 5), done.stderr + done.stdout
        assert len(server.posts) == 8
        assert set(server.posts.values()) == {1}
        assert len(server.truth) == 8
    assert outcomes(tmp_path / "run") == ["completed"] * 8
    if stage == "finished unseen":
        # Nobody knows since when it was over: a latency made up from the time of the look would be wrong.
        document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        unseen = [job for job in document["jobs"] if job["done_s"] is None]
        assert unseen
        assert all(job["latency_s"] is None and job["execution_s"] is not None for job in unseen)
    assert summary_of(tmp_path)["completed"] == 8
    again = call("resume", "run", cwd=tmp_path)
    assert "complete already" in again.stderr


def kill_before_the_post(process: subprocess.Popen[str], journal: Path) -> None:
    """As soon as the journal says that a job is about to be sent."""
    while not journal.exists() or journal.read_bytes().count(b'"line":"sent"') < 3:
        assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)


def test_a_server_restarted_in_between_loses_jobs_and_none_is_sent_again(tmp_path: Path) -> None:
    killer = Killer("running")
    with in_thread(lambda: killer.watch(Server(speed=1))) as (url, server):
        killer.process = process = start(
            tmp_path, "--server", url, "--workflow", graph_file(tmp_path, sleeper(0.3)), "-n", "6", "-c", "2",
            "--run-dir", "run",
        )  # fmt: skip
        process.communicate(timeout=30)
        on_its_loop(server, lambda: server.restart())
        call("resume", "run", "--quiet", cwd=tmp_path)
        assert set(server.posts.values()) == {1}
    assert sorted(outcomes(tmp_path / "run")).count("lost") == 2


SMALL = """
import sys
from comfyload.record import run
run.PART_BYTES = 4000
from comfyload.__main__ import start
sys.argv[0] = "comfyload"
start()
"""


@pytest.mark.parametrize("load", [["--rate", "10/s"], ["-c", "2"]])
def test_a_run_of_a_duration_killed_twice_sends_for_that_long_in_all_and_its_files_go_on(
    load: list[str], tmp_path: Path
) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        command = [sys.executable, "-c", SMALL]
        begin = ["run", "--server", url, "--workflow", graph_file(tmp_path, sleeper(0.02)), *load, "--duration", "6s"]
        for after, verb in ((25, [*begin, "--run-dir", "run"]), (45, ["resume", "run"])):
            with subprocess.Popen([*command, *verb], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
                while len(server.truth) < after:
                    assert process.poll() is None, process.communicate()[1]
                    time.sleep(0.02)
                process.kill()
        files = parts(tmp_path / "run" / "records.ndjson")
        assert len(files) > 2
        time.sleep(1.5)
        done = subprocess.run(
            [*command, "resume", "run", "--output", "out.json"],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=50,
        )
        assert done.returncode in (0, 5), done.stderr + done.stdout
        assert set(server.posts.values()) == {1} and len(parts(tmp_path / "run" / "records.ndjson")) > len(files)
    reader = RunReader(tmp_path / "run")
    records = [line for line in reader.lines() if isinstance(line, Record)]
    indexes = sorted(record.index for record in records)
    assert indexes == list(range(len(records))) and len(reader.manifest.resumed) == 2
    assert all(record.execution.outcome == "completed" for record in records)
    if "--rate" in load:
        assert len(records) == reader.manifest.scheduled
    sending = sorted(record.due for record in records)
    gaps = sum(after - before for before, after in pairwise(sending) if after - before > 1.0)
    assert 4.5 < sending[-1] - gaps < 8.0
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (resumed,) = [one for one in document["findings"] if one["code"] == "resumed"]
    assert "twice" in resumed["text"] or "2 times" in resumed["text"]
    assert "whose jobs were not made up for" in resumed["text"] and resumed["evidence"]["away_s"] > 1.5


@pytest.mark.parametrize("verb", ["resume", "cleanup"])
def test_jobs_of_which_a_power_cut_took_the_lines_are_found_on_the_server(verb: str, tmp_path: Path) -> None:
    killer = Killer("running")
    with in_thread(lambda: killer.watch(Server(speed=1))) as (url, server):
        killer.process = process = start(
            tmp_path, "--server", url, "--workflow", graph_file(tmp_path, sleeper(0.5)), "-n", "8", "-c", "4",
            "--run-dir", "run",
        )  # fmt: skip
        process.communicate(timeout=30)
        sent = set(server.posts)
        assert len(sent) >= 4
        (tmp_path / "run" / "records.ndjson").write_bytes(b"")
        done = call(verb, "run", cwd=tmp_path)
        assert done.returncode in (0, 3, 5), done.stderr  # 5: what is ours without a line is taken for others' load
        if verb == "cleanup":
            assert done.stdout.startswith(f"{count(len(sent), 'job')} without an end: ")
            reply = asyncio.run(server.call(Request(method="GET", path="queue")))
            assert json.loads(reply.body)["queue_pending"] == []
        assert set(server.posts.values()) == {1}
    if verb == "resume":
        assert outcomes(tmp_path / "run") == ["completed"] * 8


def test_cleanup_takes_off_what_a_dead_harness_left(tmp_path: Path) -> None:
    killer = Killer("running")
    with in_thread(lambda: killer.watch(Server(speed=1))) as (url, server):
        killer.process = process = start(
            tmp_path, "--server", url, "--workflow", graph_file(tmp_path, sleeper(2.0)), "-n", "20", "-c", "6",
            "--run-dir", "run",
        )  # fmt: skip
        process.communicate(timeout=30)
        theirs = on_its_loop(server, lambda: server.foreign(sleeper(0.1)))
        done = call("cleanup", "run", cwd=tmp_path)
        assert done.returncode in (0, 3), done.stderr
        assert " without an end: " in done.stdout
        reply = asyncio.run(server.call(Request(method="GET", path="queue")))
        waiting = [item[1] for item in json.loads(reply.body)["queue_pending"]]
        assert waiting in ([theirs], [])


@pytest.mark.parametrize("verb", ["resume", "cleanup"])
def test_a_retried_job_is_found_under_the_id_that_it_had_come_to(verb: str, tmp_path: Path) -> None:
    """The first attempt runs out of memory, the second is running when the harness is killed."""
    (tmp_path / "retry.json").write_text('{"attempts": 3}', encoding="utf-8")
    killer = Killer("running")
    killer.posts = 1  # So that the second POST is its third.
    with in_thread(lambda: killer.watch(Server(speed=1, faults=Faults(oom=Which(at=(1,)))))) as (url, server):
        killer.process = process = start(
            tmp_path, "--server", url, "--workflow", graph_file(tmp_path, sleeper(1.5)), "-n", "1", "-c", "1",
            "--run-dir", "run", "--policy", "retry.json",
        )  # fmt: skip
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        done = call(verb, "run", "--quiet", cwd=tmp_path) if verb == "resume" else call(verb, "run", cwd=tmp_path)
        assert done.returncode in (0, 5), done.stderr + done.stdout
        assert list(server.posts.values()) == [1, 1]
        reply = asyncio.run(server.call(Request(method="GET", path="queue")))
        assert json.loads(reply.body) == {"queue_running": [], "queue_pending": []}
    assert outcomes(tmp_path / "run") == (["completed"] if verb == "resume" else [])


def on_its_loop(server: Server, action: Callable[[], Any]) -> Any:
    """Do something on the thread that the server lives on."""
    assert server._worker is not None
    done: asyncio.Future[Any] = asyncio.run_coroutine_threadsafe(_do(action), server._worker.get_loop())  # type: ignore[assignment]
    return done.result()  # type: ignore[call-arg]


async def _do(action: Callable[[], Any]) -> Any:
    return action()
