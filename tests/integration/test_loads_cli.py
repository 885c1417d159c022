"""Loads, mixes and checks as a user asks for them, over sockets."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from comfyload.sim import Server
from comfyload.sim.drawing import png
from comfyload.sim.frames import Frame
from tests.integration.test_cli import graph_file, picture, summary_of
from tests.support.commands import call
from tests.support.rig import SLEEPER, sleeper
from tests.support.servers import in_thread
from tests.support.stalls import again_after_a_stall


def document_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out.json").read_text(encoding="utf-8")))


def codes(folder: Path) -> set[str]:
    return {finding["code"] for finding in document_of(folder)["findings"]}


OVERLOAD = ["--rate", "10/s", "--arrivals", "constant", "--duration", "6s", "-o", "out.json"]
"""Of a server that does 5/s; the full quarter of a minute is played on virtual time."""


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_server_offered_twice_what_it_can_drops_half_and_says_so(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1, race_s=0)) as (url, _):
        words = ["--workflow", graph_file(tmp_path, sleeper(0.2)), "--max-in-flight", "4", "--on-full", "drop"]
        done = call("run", "--server", url, *words, *OVERLOAD, cwd=tmp_path)
    summary = summary_of(tmp_path)
    assert done.returncode == 5
    assert summary["total_jobs"] == 60
    assert summary["dropped"] == pytest.approx(28, abs=4)
    assert summary["p95_latency_with_failures_s"] == "inf"
    assert not summary["valid"]
    assert {"overload", "dropped_arrivals"} <= codes(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_server_offered_twice_what_it_can_has_latencies_as_long_as_the_run(tmp_path: Path) -> None:
    words = ["--max-in-flight", "4", "--on-full", "wait"]
    with in_thread(lambda: Server(speed=1, race_s=0)) as (url, _):
        graph = graph_file(tmp_path, sleeper(0.2))
        done = call("run", "--server", url, "--workflow", graph, *words, *OVERLOAD, cwd=tmp_path)
    summary = summary_of(tmp_path)
    assert done.returncode == 5
    assert (summary["total_jobs"], summary["completed"], summary["dropped"]) == (60, 60, 0)
    assert summary["max_latency_s"] == pytest.approx(6.1, abs=0.4)
    assert summary["observed_p99_latency_s"] is None
    assert "overload" in codes(tmp_path)
    assert "rate_missed" in codes(tmp_path), done.stdout


def test_a_mix_is_reported_by_workflow(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(sleeper(0.02)), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(sleeper(0.06)), encoding="utf-8")
    with in_thread(lambda: Server(speed=1)) as (url, _):
        words = ["--workflow", "a.json", "--workflow", "b.json", "--order", "aabb", "-n", "16", "-o", "out.json"]
        done = call("run", "--server", url, *words, cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
    jobs = document_of(tmp_path)["jobs"]
    order = [job["workflow"] for job in sorted(jobs, key=lambda job: int(job["index"]))]
    assert order == ["a", "a", "b", "b"] * 4
    assert len(set(itertools.pairwise(order))) == 4


def test_each_job_takes_its_own_row_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text('2.text\n"a fox, reading"\nan owl\n', encoding="utf-8")
    with in_thread(lambda: Server(speed=100)) as (url, _):
        words = [
            "--workflow",
            graph_file(tmp_path, picture(steps=4)),
            "--data",
            "prompts.csv",
            "-n",
            "4",
            "-o",
            "out.json",
        ]
        done = call("run", "--server", url, *words, cwd=tmp_path)
        assert done.returncode in (0, 5), done.stderr
        refused = call(
            "run", "--server", url, "--workflow", graph_file(tmp_path), "--data", "prompts.csv", cwd=tmp_path
        )
    jobs = sorted(document_of(tmp_path)["jobs"], key=lambda job: int(job["index"]))
    assert [job["values"]["2.text"] for job in jobs] == ["a fox, reading", "an owl"] * 2
    assert refused.returncode == 2
    assert "no workflow has an input '2.text'" in refused.stderr


@again_after_a_stall
def test_the_pages_of_a_book_have_a_latency_together(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, _):
        words = ["--workflow", graph_file(tmp_path, sleeper(0.2)), "--pages", "4", "-n", "3", "-o", "out.json"]
        done = call("run", "--server", url, *words, cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
    summary = summary_of(tmp_path)
    assert (summary["total_jobs"], summary["books"], summary["books_completed"]) == (12, 3, 3)
    assert summary["avg_book_latency_s"] == pytest.approx(0.8, rel=0.3)


def test_what_is_cut_off_at_the_end_is_censored(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, _):
        words = ["--workflow", graph_file(tmp_path, sleeper(0.2)), "--rate", "10/s", "--arrivals", "constant"]
        call("run", "--server", url, *words, "--duration", "3s", "--no-drain", "-o", "out.json", cwd=tmp_path)
    summary = summary_of(tmp_path)
    assert summary["total_jobs"] == 30
    assert summary["censored"] == 30 - summary["completed"] > 10
    assert "censored_jobs" in codes(tmp_path)


def test_all_that_a_graph_lacks_is_named_at_once_and_nothing_is_submitted(tmp_path: Path) -> None:
    graph = picture()
    graph["1"]["inputs"]["ckpt_name"] = "sd_xl_bose_1.0.safetensors"
    for node, image in (("20", "pose_page_1.png"), ("21", "gone.png")):
        graph[node] = {"class_type": "LoadImage", "inputs": {"image": image}, "_meta": {"title": f"Image {node}"}}
        graph[str(int(node) + 10)] = {"class_type": "PreviewImage", "inputs": {"images": [node, 0]}}
    graph["40"] = {"class_type": "KSamplr", "inputs": {"model": ["1", 0]}, "_meta": {"title": "Odd"}}
    with in_thread(lambda: Server(speed=100)) as (url, server):
        done = call("run", "--server", url, "--workflow", graph_file(tmp_path, graph), "-o", "out.json", cwd=tmp_path)
        assert not server.posts
        forced = call(
            "run", "--server", url, "--workflow", graph_file(tmp_path, graph), "-n", "1", "--no-preflight", cwd=tmp_path
        )
    assert done.returncode == 2
    for word in (
        "sd_xl_bose_1.0.safetensors",
        "sd_xl_base_1.0.safetensors",
        "pose_page_1.png",
        "pose_page_01.png",
        "gone.png",
        "KSamplr",
        "KSampler",
        '"Image 20"',
    ):
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()
    assert forced.returncode == 5


def test_an_image_is_put_on_the_server_first(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(png(Frame(8, 8), b"", {}))
    graph = json.loads(json.dumps(SLEEPER))
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
    with in_thread(lambda: Server(speed=100)) as (url, _):
        without = call("run", "--server", url, "--workflow", graph_file(tmp_path, graph), "-n", "1", cwd=tmp_path)
        done = call(
            "run",
            "--server",
            url,
            "--workflow",
            graph_file(tmp_path, graph),
            "-n",
            "1",
            "--upload",
            "mine.png",
            "--json",
            cwd=tmp_path,
        )
    assert without.returncode == 2
    assert json.loads(done.stdout)["completed"] == 1, done.stderr


def test_a_busy_server_is_refused_unless_sharing_is_allowed(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        assert server._worker is not None
        loop = server._worker.get_loop()

        async def occupy() -> None:
            server.foreign(sleeper(20.0))

        asyncio.run_coroutine_threadsafe(occupy(), loop).result()
        words = ["run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "1", "--timeout", "0.5"]
        refused = call(*words, cwd=tmp_path)
        shared = call(*words, "--allow-shared", cwd=tmp_path)
    assert refused.returncode == 2
    assert "the server is busy: 1 prompt of others in its queue" in refused.stderr
    assert shared.returncode == 5


@pytest.mark.long
def test_a_dry_run_submits_nothing_and_a_plan_file_says_the_same_as_flags(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=100)) as (url, server):
        flags = ["--server", url, "--workflow", graph_file(tmp_path), "--rate", "20/s", "-n", "5", "--seed", "7"]
        dry = call("run", *flags, "--dry-run", cwd=tmp_path)
        assert dry.returncode == 0, dry.stderr
        assert not server.posts
        assert "5 arrivals" in dry.stdout
        written = call("run", *flags, "--save-plan", "plan.toml", cwd=tmp_path)
        assert written.returncode == 0, written.stderr
        assert written.stdout == "Plan  plan.toml\nNext  comfyload run --plan plan.toml\n"
        hashes = []
        for number, words in enumerate((["--plan", "plan.toml"], flags, ["--plan", "plan.toml", "-n", "4"])):
            call("run", *words, "--run-dir", f"run{number}", "-q", cwd=tmp_path)
            manifest = json.loads((tmp_path / f"run{number}" / "manifest.json").read_text(encoding="utf-8"))
            hashes.append(manifest["plan_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]
    (tmp_path / "plan.toml").write_text('server = "x"\nworkfows = []\n', encoding="utf-8")
    typo = call("run", "--plan", "plan.toml", cwd=tmp_path)
    assert typo.returncode == 2
    assert "did you mean workflows?" in typo.stderr


def test_a_dry_run_of_a_long_log_is_a_page_and_the_run_keeps_how_it_was_read(tmp_path: Path) -> None:
    line = '10.0.0.5 - m\xfcller [27/Nov/2026:{}:{:02}:{:02} +0000] "{} HTTP/1.1" 200 95\n'
    lines = [line.format(10 + n // 3600, n // 60 % 60, n % 60, "POST /api/prompt") for n in range(5000)]
    polls = [line.format(10, n % 60, 1, "GET /history/7f") for n in range(5000)]
    (tmp_path / "access.log.1.gz").write_bytes(gzip.compress("".join(lines + polls).encode("latin-1")))
    with in_thread(lambda: Server(speed=100)) as (url, server):
        flags = ["run", "--server", url, "--workflow", graph_file(tmp_path), "--replay", "access.log.1.gz"]
        dry = call(*flags, "--dry-run", cwd=tmp_path)
        as_json = call(*flags, "--dry-run", "--json", cwd=tmp_path)
        assert not server.posts
        none = call(*flags, "--replay-match", "POST /generate", cwd=tmp_path)
        polled = call(*flags, "--replay-match", "GET /history/*", "-n", "1", "--run-dir", "run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert len(dry.stdout.splitlines()) < 40
    assert "5 000 requests POST …/prompt; 5 000 other requests passed over (5 000 GET /history/…)" in dry.stdout
    assert "5 000 arrivals, the last after 4999.000 s, at most 60 in a minute" in dry.stdout
    assert "7.000, … 4988 more …, 4996.000" in dry.stdout
    assert json.loads(as_json.stdout)["due_s"] == [float(n) for n in range(5000)]
    assert none.returncode == 2
    assert "has 10 000 requests, and none is POST …/generate (5 000 POST /api/prompt, 5 000 GET" in none.stderr
    assert polled.returncode in (0, 5), polled.stderr  # 5: the generator was late, on a machine that is busy
    assert "as in access.log.1.gz (5 000 requests GET …/history/*; 5 000 other requests" in polled.stderr
    load = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["plan"]["load"]
    assert load["match"] == "GET /history/*"
    assert load["read_as"].startswith("5 000 requests GET …/history/*; 5 000 other requests passed over")


def test_a_run_and_its_jobs_can_be_shown_from_their_files(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=20)) as (url, _):
        call(
            "run",
            "--server",
            url,
            "--workflow",
            graph_file(tmp_path, picture()),
            "-n",
            "3",
            "--run-dir",
            "run",
            "-q",
            cwd=tmp_path,
        )
    whole = call("show", "run", cwd=tmp_path)
    assert "3 of 3 completed" in whole.stdout
    one = call("show", "run", "--job", "1", cwd=tmp_path)
    assert one.returncode == 0
    assert "KSampler" in one.stdout
    assert "━" in one.stdout
    missing = call("show", "run", "--job", "9", cwd=tmp_path)
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr
