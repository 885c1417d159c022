"""The command as a user runs it: a process, its output, its files, its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfyload.app.demo import PICTURE
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from tests.support.commands import call, start
from tests.support.rig import SLEEPER, sleeper
from tests.support.servers import answering, in_thread, simulator
from tests.support.stalls import again_after_a_stall

# A test whose subject is not whether the numbers count accepts 5 as well as 0: jobs of some milliseconds beside other
# tests are at times sent late, which the run rightly says. Those that ask for 0 run alone.
SAMPLES = Path(__file__).parents[2] / "infra" / "comfyui" / "samples"


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    with simulator() as url:
        yield url


def picture(steps: int = 20) -> Any:
    """The graph of the demo."""
    graph = json.loads(PICTURE.read_text(encoding="utf-8"))
    graph["5"]["inputs"]["steps"] = steps
    return graph


def graph_file(folder: Path, graph: object = SLEEPER) -> str:
    path = folder / "graph.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph), encoding="utf-8")
    return str(path)


def summary_of(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return dict(document["summary"])


@pytest.mark.alone
@pytest.mark.timeout(180)
@again_after_a_stall
def test_a_run_leaves_its_directory_its_json_and_a_table(sim: str, tmp_path: Path) -> None:
    done = call(
        "run",
        "--server",
        sim,
        "--workflow",
        graph_file(tmp_path, picture()),
        "--jobs",
        "6",
        "--concurrency",
        "2",
        "--timeout",
        "60",
        "--warmup",
        "1",
        "--fetch",
        "--output",
        "out.json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path)
    assert (summary["total_jobs"], summary["completed"], summary["images"]) == (6, 6, 6)
    assert (summary["cached"], summary["warmup_jobs"], summary["valid"]) == (0, 1, True)
    assert summary["p95_latency_s"] is None
    assert summary["image_bytes"] > 0
    (run,) = (tmp_path / "runs").iterdir()
    files = ["log.ndjson", "manifest.json", "records.ndjson", "samples.ndjson"]
    assert sorted(path.name for path in run.iterdir()) == files
    assert "6 of 6 completed" in done.stdout
    assert "\x1b[" not in done.stdout + done.stderr
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["workflows"][0].get("graph") is None
    assert manifest["end"] == "complete"
    assert manifest["server"]["packs"] == ["comfyload_sim"]


@pytest.mark.parametrize("name", ["book_small", "book_medium", "book_large", "smoke_small"])
def test_every_sample_runs_on_the_simulator(name: str, tmp_path: Path) -> None:
    with simulator(speed=2000) as url:
        done = call(
            "run", "--server", url, "--workflow", str(SAMPLES / f"{name}.json"), "--jobs", "2", "--json", cwd=tmp_path
        )
    assert done.returncode in (0, 5), done.stdout + done.stderr
    graph = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    pages = sum(node["class_type"] == "SaveImage" for node in graph.values())
    assert json.loads(done.stdout)["images"] == 2 * pages


@pytest.mark.alone
@pytest.mark.timeout(180)
@again_after_a_stall
def test_the_checklists_command_works_literally(sim: str, tmp_path: Path) -> None:
    script = SAMPLES.parent / "load_test" / "run_load_test.py"
    words = ["--server", sim, "--workflow", "../samples/smoke_small.json", "--jobs", "12", "--concurrency", "4"]
    words += [
        "--timeout",
        "420",
        "--output",
        str(tmp_path / "load_2024-06-xx.json"),
        "--run-dir",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [sys.executable, script.name, *words],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "load_2024-06-xx.json").read_text(encoding="utf-8"))["summary"]
    assert summary["completed"] == 12


def test_the_same_graph_twelve_times_as_is_is_one_image(tmp_path: Path) -> None:
    for words, cached, images in ((["--as-is"], 11, 1), ([], 0, 12)):
        with simulator(speed=100, cache="lru") as url:
            done = call(
                "run",
                "--server",
                url,
                "--workflow",
                graph_file(tmp_path, picture()),
                "--jobs",
                "12",
                "-o",
                "out.json",
                "--run-dir",
                f"run{cached}",
                *words,
                cwd=tmp_path,
            )
        assert done.returncode in (0, 5), done.stdout
        summary = summary_of(tmp_path)
        assert (summary["total_jobs"], summary["cached"], summary["images"]) == (12, cached, images)


# --- bad input: one line, a hint, the exit code, nothing half-written


def check_refused(done: subprocess.CompletedProcess[str], code: int, says: str, folder: Path) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert " — " in line, "no hint"
    assert says in line
    assert not list(folder.glob("runs/*"))
    assert not list(folder.glob("out*.json")) + list(folder.glob(".*tmp"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ('{"nodes": [], "links": []}', "editor's own format"),
        ("{}", "empty graph"),
        ('{"1": {"class_type": "A", "inputs": {}},}', "a comma too many"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(sim: str, tmp_path: Path, content: str, says: str) -> None:
    done = call("run", "--server", sim, "--workflow", graph_file(tmp_path, content), "-o", "out.json", cwd=tmp_path)
    check_refused(done, 2, says, tmp_path)


BROKEN: dict[str, Any] = SLEEPER | {
    "7": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
    "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
}
"""A sleeper with a second output, for which there is no image."""


def test_a_run_without_a_broken_output_is_refused_or_asked_for(sim: str, tmp_path: Path) -> None:
    words = ["--server", sim, "--workflow", graph_file(tmp_path, BROKEN), "--jobs", "2"]
    for more in ([], ["--dry-run"]):
        done = call("run", *words, *more, cwd=tmp_path)
        assert done.returncode == 2
        assert "the server would drop output 8 (PreviewImage) and run output 3 (SaveImage)" in done.stderr
        assert "give --drop-broken-outputs" in done.stderr
    assert not list(tmp_path.glob("runs/*"))
    done = call("run", *words, "--drop-broken-outputs", "--run-dir", "here", "-o", "out.json", cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
    (facts,) = json.loads((tmp_path / "here" / "manifest.json").read_text(encoding="utf-8"))["workflows"]
    assert list(facts["dropped"]) == ["8"]
    assert {node for node, known in facts["nodes"].items() if known.get("output")} == {"3"}
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert document["summary"]["completed"] == 2
    (finding,) = [finding for finding in document["findings"] if finding["code"] == "dropped_outputs"]
    assert finding["level"] == "warning"
    assert "output 8 is left out: node 7 (LoadImage)" in finding["text"]


def test_without_preflight_a_dropped_output_fails_the_job(sim: str, tmp_path: Path) -> None:
    words = ["--server", sim, "--workflow", graph_file(tmp_path, BROKEN), "--jobs", "1", "--no-preflight"]
    done = call("run", *words, "-o", "out.json", cwd=tmp_path)
    assert done.returncode == 5
    assert "accepted, but output 8 was dropped" in (tmp_path / "out.json").read_text(encoding="utf-8")
    done = call("run", *words, "--drop-broken-outputs", cwd=tmp_path)
    assert (done.returncode, "--drop-broken-outputs needs the preflight" in done.stderr) == (2, True)


def test_what_would_kill_the_worker_is_not_sent_even_without_preflight(sim: str, tmp_path: Path) -> None:
    deadly = json.loads(json.dumps(SLEEPER))
    deadly["1"]["inputs"]["old"] = ["77", 0]
    done = call("run", "--server", sim, "--workflow", graph_file(tmp_path, deadly), "--no-preflight", cwd=tmp_path)
    assert done.returncode == 2
    assert "kill its worker" in done.stderr
    assert "--no-preflight" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workflow", "missing.json"], "cannot read missing.json"),
        (["--workflow", "graph.json", "--set", "2.secs=1"], "no such input"),
        (["--workflow", "graph.json", "--set", "nobody.x=1"], "no such node"),
        (["--workflow", "graph.json", "--server", "ftp://x"], "invalid --server"),
        (["--workflow", "graph.json", "--header", "Authorization"], "invalid --header"),
        (["--workflow", "graph.json", "--header", "X=env:NOT_SET_ANYWHERE"], "no NOT_SET_ANYWHERE"),
        (["--workflow", "graph.json", "--output", "."], "is a directory"),
        (["--workflow", "graph.json", "--name", "../x"], "a folder gets this name"),
        (["--workflow", "graph.json", "--order", "aabb"], "needs several workflows"),
        (["--workflow", "graph.json", "--note", "enclosure"], "is not KEY=TEXT"),
        (["--workflow", "graph.json", "--gate", "p95 <= 1", "--until-proven"], "p95"),
    ],
)
def test_flags_that_cannot_be_right_are_refused(sim: str, tmp_path: Path, words: list[str], says: str) -> None:
    graph_file(tmp_path)
    check_refused(call("run", "--server", sim, *words, cwd=tmp_path), 2, says, tmp_path)


def test_a_run_directory_is_never_overwritten(sim: str, tmp_path: Path) -> None:
    words = ["run", "--server", sim, "--workflow", graph_file(tmp_path), "--jobs", "1", "--run-dir", "here", "-q"]
    call(*words, cwd=tmp_path)
    before = (tmp_path / "here" / "records.ndjson").read_bytes()
    check_refused(call(*words, cwd=tmp_path), 2, "already holds a run", tmp_path)
    assert (tmp_path / "here" / "records.ndjson").read_bytes() == before


def test_a_server_that_is_down_is_exit_4(tmp_path: Path) -> None:
    done = call(
        "run", "--server", "http://127.0.0.1:9", "--workflow", graph_file(tmp_path), "-o", "out.json", cwd=tmp_path
    )
    check_refused(done, 4, "connection refused", tmp_path)


def page(_request: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><html>It works!</html>", content_type="text/html")


def json_of_something_else(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def truncated(_request: web.Request) -> web.Response:
    return web.Response(body=b'{"system": {"comfyui_version": "0.33', content_type="application/json")


def empty(_request: web.Request) -> web.Response:
    return web.Response(body=b"", content_type="application/json")


def huge(_request: web.Request) -> web.Response:
    return web.Response(body=b"[" + b"1," * 30_000_000 + b"1]", content_type="application/json")


def gateway(_request: web.Request) -> web.Response:
    return web.Response(status=502, text="bad gateway")


def guarded(_request: web.Request) -> web.Response:
    return web.Response(status=401)


async def breaking_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (page, "web page"),
        (json_of_something_else, "not what a ComfyUI answers"),
        (truncated, "not what a ComfyUI answers"),
        (empty, "not what a ComfyUI answers"),
        (huge, "not what a ComfyUI answers"),
        (gateway, "gateway"),
        (guarded, "refuses us with HTTP 401"),
        (breaking_off, "the connection broke"),
    ],
)
def test_what_is_no_comfyui_is_exit_4(tmp_path: Path, handler: Any, says: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        result = handler(request)
        return await result if asyncio.iscoroutine(result) else result

    with answering(answer) as url:
        done = call("run", "--server", url, "--workflow", graph_file(tmp_path), "-o", "out.json", cwd=tmp_path)
    check_refused(done, 4, says, tmp_path)


def test_a_server_that_answers_500_to_everything_gives_no_latency(tmp_path: Path) -> None:
    async def broken(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")

    with answering(broken) as url:
        done = call(
            "run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "4", "-o", "out.json", cwd=tmp_path
        )
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    summary = summary_of(tmp_path)
    assert (summary["total_jobs"], summary["failed"], summary["success_rate"]) == (4, 4, 0)
    assert all(value is None for key, value in summary.items() if "latency" in key and "failures" not in key)


CERTIFICATE = Path(__file__).parents[1] / "data" / "loopback.pem"


@contextmanager
def proxied(
    *, tls: bool = False, host: str = "127.0.0.1", seen: Callable[[web.Request], None] = lambda _: None
) -> Iterator[str]:
    """A simulated server behind a forwarding one: with TLS, on another address, its requests looked at."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    with in_thread(lambda: Server(speed=100)) as (behind, _):

        async def forward(request: web.Request) -> web.StreamResponse:
            seen(request)
            far_url = f"{behind}{request.path_qs}"
            async with aiohttp.ClientSession() as session:
                if request.path == "/ws":
                    near = web.WebSocketResponse()
                    await near.prepare(request)
                    async with session.ws_connect(far_url) as far:
                        async for message in far:
                            await near.send_str(message.data)
                    return near
                async with session.request(request.method, far_url, data=await request.read()) as reply:
                    content = await reply.read()
                    return web.Response(status=reply.status, body=content, content_type=reply.content_type)

        with answering(forward, ssl=context, host=host) as url:
            yield url


# --- what goes on the wire


def test_headers_go_on_http_and_websocket_and_no_secret_reaches_a_file(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    def look(request: web.Request) -> None:
        seen.setdefault("ws" if request.path == "/ws" else "http", set()).add(request.headers.get("X-Key", ""))

    with proxied(seen=look) as url:
        address = url.replace("http://", "http://me:hunter2@")
        words = ["--workflow", graph_file(tmp_path), "-n", "3", "--header", "X-Key=env:THE_KEY", "-o", "out.json"]
        environment = {**os.environ, "THE_KEY": "s3cret-value"}
        done = call("run", "--server", address, *words, cwd=tmp_path, env=environment)
    assert done.returncode in (0, 5), done.stderr + done.stdout
    assert seen == {"http": {"s3cret-value"}, "ws": {"s3cret-value"}}
    everything = done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        everything += path.read_text(encoding="utf-8") if path.is_file() else ""
    assert "s3cret-value" not in everything
    assert "hunter2" not in everything
    assert '"X-Key"' in everything


def test_a_base_path_is_kept(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=100), base_path="/gpu/comfy") as (url, _):
        for server in (url, url + "/"):
            done = call(
                "run", "--server", server, "--workflow", graph_file(tmp_path), "-n", "2", "--json", cwd=tmp_path
            )
            assert done.returncode in (0, 5), done.stderr


@pytest.mark.long
def test_a_websocket_message_of_60_megabytes_is_survived(tmp_path: Path) -> None:
    def server() -> Server:
        simulated = Server(speed=10)
        connect = simulated.connect

        def connecting(client_id: str | None) -> Any:
            socket = connect(client_id)
            socket.push(json.dumps({"type": "custom", "data": {"blob": "x" * 60_000_000}}))
            return socket

        simulated.connect = connecting  # type: ignore[method-assign]
        return simulated

    with in_thread(server) as (url, _):
        done = call(
            "run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "3", "-o", "out.json", cwd=tmp_path
        )
    assert done.returncode in (0, 5), done.stdout + done.stderr
    assert summary_of(tmp_path)["completed"] == 3


# --- signals


def wait_for_records(folder: Path, count: int) -> None:
    for _ in range(400):
        journals = list(folder.glob("runs/*/records.ndjson"))
        if journals and journals[0].read_bytes().count(b'"line":"record"') >= count:
            return
        time.sleep(0.025)
    raise AssertionError("the run did not get going")


def test_one_ctrl_c_ends_what_is_under_way_and_keeps_it(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        process = start(
            tmp_path,
            "--server",
            url,
            "--workflow",
            graph_file(tmp_path, sleeper(0.2)),
            "-n",
            "500",
            "-c",
            "3",
            "-o",
            "out.json",
        )
        wait_for_records(tmp_path, 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert not [truth for truth in server.truth if truth.outcome not in ("completed", "")]
    summary = summary_of(tmp_path)
    assert summary["cancelled"] == 0
    assert summary["completed"] == summary["total_jobs"] >= 5
    assert summary["unfinished"] == 0
    assert "waiting for running jobs" in err
    assert "stopped" in out.lower()


def test_two_ctrl_c_cancel_what_is_ours_and_leave_the_queue_empty(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        process = start(
            tmp_path,
            "--server",
            url,
            "--workflow",
            graph_file(tmp_path, sleeper(0.5)),
            "-n",
            "500",
            "-c",
            "6",
            "-o",
            "out.json",
        )
        wait_for_records(tmp_path, 1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert server.calls["POST /queue"] >= 1
        assert server.posts.total() == summary_of(tmp_path)["total_jobs"]
        remaining = asyncio.run(server.call(Request(method="GET", path="prompt")))
        assert json.loads(remaining.body)["exec_info"]["queue_remaining"] == 0
    summary = summary_of(tmp_path)
    assert summary["cancelled"] >= 4
    assert summary["total_jobs"] == summary["completed"] + summary["cancelled"]


def test_faults_over_sockets_end_every_job_once(tmp_path: Path) -> None:
    faults = Faults(
        drop_reply=Which(at=(2, 5)), drop_socket=Which(at=(4,)), oom=Which(at=(7,)), node_error=Which(at=(9,))
    )
    with in_thread(lambda: Server(speed=1, faults=faults)) as (url, server):
        done = call(
            "run",
            "--server",
            url,
            "--workflow",
            graph_file(tmp_path),
            "-n",
            "12",
            "-c",
            "2",
            "-o",
            "out.json",
            "--timeout",
            "20",
            cwd=tmp_path,
        )
        assert set(server.posts.values()) == {1}
    summary = summary_of(tmp_path)
    assert (summary["total_jobs"], summary["completed"], summary["failed"]) == (12, 10, 2), done.stdout


# --- promptness


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys\nfrom comfyload.cli import main\nsys.argv = ['comfyload', '--help']\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "sys.exit(', '.join(m for m in ('aiohttp', 'numpy', 'scipy', 'uvloop') if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_scipy_stats_is_never_loaded_and_nothing_slow_before_the_first_job(sim: str, tmp_path: Path) -> None:
    graph = graph_file(tmp_path)
    code = f"""
import sys
import comfyload.app.run.launch
from comfyload.cli import main

run = comfyload.app.run.launch.run

async def watched(options, viewer, proof=None):
    path = await run(options, viewer)
    slow = ("numpy", "scipy", "prometheus_client", "http.client", "comfyload.cli.ab")
    loaded = [name for name in slow if name in sys.modules]
    assert not loaded, f"{{loaded}} loaded before the load was over"
    return path

comfyload.app.run.launch.run = watched
sys.argv = ["comfyload", "run", "--server", {sim!r}, "--workflow", {graph!r}, "-n", "2", "-q"]
try:
    main()
except SystemExit as end:
    assert end.code in (0, 5), end.code
assert "scipy.special" in sys.modules
assert "scipy.stats" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


# --- addresses


def test_tls_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    graph = graph_file(tmp_path)
    with proxied(tls=True) as url:
        check_refused(call("run", "--server", url, "--workflow", graph, cwd=tmp_path), 4, "TLS failed", tmp_path)
        for trust in (["--ca-file", str(CERTIFICATE)], ["--insecure"]):
            done = call("run", "--server", url, "--workflow", graph, "-n", "2", "--json", *trust, cwd=tmp_path)
            assert done.returncode in (0, 5), done.stderr
            assert json.loads(done.stdout)["completed"] == 2


def test_ipv6_addresses_work(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with proxied(host="::1") as url:
        assert url.startswith("http://[::1]:")
        done = call("run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "2", "--json", cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
