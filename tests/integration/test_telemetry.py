"""A run with everything that can be read beside it, over real sockets and as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.record.model import LogLine, Sample
from comfyload.record.run import RunReader
from comfyload.sim import Server
from tests.integration.test_cli import graph_file
from tests.support.commands import call
from tests.support.rig import sleeper
from tests.support.servers import answering, in_thread
from tests.unit.test_telemetry_log import rotate

pytestmark = pytest.mark.long

PAGE = """\
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 42
# TYPE node_load1 gauge
node_load1 0.5
"""


def run(url: str, folder: Path, *words: str, jobs: int = 4, seconds: float = 0.4) -> RunReader:
    graph = graph_file(folder, sleeper(seconds))
    done = call(
        "run", "--server", url, "--workflow", graph, "-n", str(jobs), "--run-dir", "run", "--quiet", *words, cwd=folder
    )
    assert done.returncode in (0, 5), done.stderr
    return RunReader(folder / "run")


def by_name(reader: RunReader) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in reader.samples():
        found.setdefault(f"{sample.source}.{sample.name}", []).append(sample)
    return found


def telemetry_notes(reader: RunReader) -> list[str]:
    return [one.text for one in reader.manifest.observations if one.code == "telemetry"]


@contextmanager
def written(path: Path) -> Iterator[None]:
    """A log that grows by a row every 50 ms and is rotated in between."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            if number % 10 == 0:
                rotate(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": "comfyui.queue", "number": number}) + "\n")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_everything_there_is_to_read_is_in_the_run_on_its_clock(tmp_path: Path) -> None:
    requests: list[dict[str, str]] = []

    async def page(request: web.Request) -> web.Response:
        requests.append(dict(request.headers))
        return web.Response(text=PAGE)

    log = tmp_path / "metrics.ndjson"
    log.write_text('{"event": "before the run"}\n', encoding="utf-8")
    with in_thread(lambda: Server(probe=True)) as (url, _), answering(page) as endpoint, written(log):
        reader = run(url, tmp_path, "--scrape", endpoint, "--metrics-log", str(log), "--header", "X-Own=secret")
    samples = by_name(reader)
    assert {sample.value for sample in samples["scrape.gpu.0.utilisation_percent"]} == {42.0}
    assert {sample.value for sample in samples["scrape.node_load1"]} == {0.5}
    assert all("X-Own" not in headers for headers in requests)
    assert samples["comfy.gpu.0.vram_total_bytes"] and samples["probe.gpu.0.power_w"]
    for source in ("comfy", "probe", "scrape", "log"):
        assert all((sample.value or 0) < 1.0 for sample in samples[f"{source}.read_s"])
    lines = list(reader.log())
    records = [line for line in reader.lines() if hasattr(line, "execution")]
    ends = {line.row["prompt_id"]: line.t for line in lines if line.row["event"] == "prompt.ended"}
    for record in records:
        assert ends[record.prompt_id] == pytest.approx(record.execution.done, abs=0.1)
    own = [line.row["number"] for line in lines if line.source == "log"]
    assert any(number % 10 == 0 for number in own), "it was not rotated"
    assert own == list(range(own[0], own[-1] + 1))
    assert telemetry_notes(reader) == []
    options = reader.manifest.options
    assert options.metrics_log == str(log)
    assert options.scrape == [f"{endpoint}/metrics"]


def test_without_telemetry_there_is_what_the_event_stream_tells_and_nothing_else(tmp_path: Path) -> None:
    with in_thread(lambda: Server(probe=True)) as (url, server):
        reader = run(url, tmp_path, "--no-telemetry", jobs=2, seconds=0.05)
        assert not any("comfyload" in path for path in server.calls)
    assert set(by_name(reader)) == {"comfy.queue_remaining"}
    assert not (reader.path / "log.ndjson").exists()
    assert list(reader.log()) == []


def test_the_queue_is_not_asked_for_while_the_stream_tells_it(tmp_path: Path) -> None:
    with in_thread(lambda: Server()) as (url, server):
        reader = run(url, tmp_path, jobs=3)
        assert server.calls["GET /prompt"] == 1  # before the run, to see whether it is busy
    queue = [sample.value for sample in by_name(reader)["comfy.queue_remaining"]]
    assert all(before != after for before, after in pairwise(queue))


def test_the_queue_is_asked_for_when_the_stream_is_mute(tmp_path: Path) -> None:
    def mute() -> Server:
        server = Server(speed=1)
        server.stall_events(True)
        return server

    with in_thread(mute) as (url, server):
        run(url, tmp_path, jobs=1, seconds=3.3)
        assert server.calls["GET /prompt"] > 1


def test_a_probe_that_asks_for_a_token_and_an_endpoint_that_is_none_are_said(tmp_path: Path) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(status=404)

    def guarded() -> Server:
        server = Server()
        answer = server.call

        async def guard(request: Request) -> Reply:
            if request.path.startswith("comfyload/"):
                return Reply(status=401, body=b'{"error": "a token is needed", "hint": ""}')
            return await answer(request)

        server.call = guard  # type: ignore[method-assign]
        return server

    with in_thread(guarded) as (url, _), answering(page) as endpoint:
        reader = run(url, tmp_path, "--scrape", f"{endpoint}/metrics", jobs=2, seconds=0.1)
    assert sorted(telemetry_notes(reader)) == [
        "probe: it requires a token: --header X-Comfyload-Token=env:NAME",
        f"scrape: {endpoint}/metrics answers HTTP 404",
    ]


def test_a_run_that_was_killed_goes_on_with_the_probes_rows_where_it_had_stopped(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1, probe=True)) as (url, _):
        graph = graph_file(tmp_path, sleeper(0.6))
        words = ["run", "--server", url, "--workflow", graph, "-n", "5", "--run-dir", "run", "--quiet"]
        with subprocess.Popen([sys.executable, "-m", "comfyload", *words], cwd=tmp_path) as process:
            log = tmp_path / "run" / "log.ndjson"
            while not (log.exists() and log.stat().st_size):
                assert process.poll() is None
            process.kill()
        with log.open("ab") as file:
            file.write(b'{"t":1.0,"source":"pro')
        assert call("resume", "run", "--quiet", cwd=tmp_path).returncode in (0, 5)
    lines = list(RunReader(tmp_path / "run").log())
    assert Counter(line.row["event"] for line in lines)["prompt.ended"] == 5
    numbers = [line.row["seq"] for line in lines]
    assert numbers == sorted(set(numbers))
    instants = [line.t for line in lines if line.row["event"] == "prompt.ended" and line.t is not None]
    assert instants == sorted(instants)


def test_what_cannot_be_followed_is_refused_before_the_run(tmp_path: Path) -> None:
    with in_thread(lambda: Server()) as (url, server):
        graph = graph_file(tmp_path, sleeper(0.1))
        for words, text in (
            (["--scrape", "ftp://x"], "--scrape"),
            (["--metrics-log", os.fspath(tmp_path)], "directory"),
        ):
            done = call("run", "--server", url, "--workflow", graph, *words, cwd=tmp_path)
            assert (done.returncode, text in done.stderr) == (2, True), done.stderr
        assert not server.posts


def test_a_plan_asks_for_the_same(tmp_path: Path) -> None:
    words = ["--server", ":1", "--workflow", "a.json", "--scrape", "gpu:9400", "--no-telemetry", "--metrics-log", "m"]
    plan = tomllib.loads(call("run", *words, "--save-plan", "-", cwd=tmp_path).stdout)
    assert (plan["telemetry"], plan["scrape"], plan["metrics_log"]) == (False, ["gpu:9400"], "m")


def test_a_line_of_the_log_keeps_its_row(tmp_path: Path) -> None:
    from comfyload.record.run import RunWriter
    from tests.unit.judge_runs import manifest

    writer = RunWriter(tmp_path / "run", manifest())
    row: dict[str, Any] = {"event": "x", "deep": [{"a": None}], "n": 1.5}
    writer.write_log(LogLine(t=None, source="log", row=row))
    writer.close()
    assert list(RunReader(tmp_path / "run").log()) == [LogLine(t=None, source="log", row=row)]
