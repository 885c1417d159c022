"""Baselines, gates, comparisons, pages and exports as a user runs them: processes, files, exit codes."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from comfyload.cli import main
from tests.integration.test_cli import SAMPLES, graph_file
from tests.support.commands import call
from tests.support.rig import sleeper
from tests.support.servers import answering, simulator
from tests.support.stalls import again_after_a_stall

ARCHIVE = Path("infra/observability/baselines")
# The generator shares its cores with other tests: whether it was in time is not the question of these.
RAN = (0, 5)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A simulated server, and a folder with two runs of 24 jobs on it and one of a slower workflow."""
    folder = tmp_path_factory.mktemp("runs")
    with simulator(speed=1) as url:
        for name, seconds in (("one", 0.04), ("two", 0.04), ("slow", 0.08)):
            graph = folder / f"{name}.json"
            graph.write_text(json.dumps(sleeper(seconds)), encoding="utf-8")
            words = ["-n", "24", "--warmup", "1", "--run-dir", name, "--name", "sleeper", "-q", "--timeout", "30"]
            done = call("run", "--server", url, "--workflow", graph.name, *words, cwd=folder)
            assert done.returncode in RAN, done.stderr
        yield url, folder


@pytest.fixture(scope="module")
def saved(ground: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs beside a baseline of the first, with a note and a log of which one row is of its time."""
    folder = tmp_path_factory.mktemp("saved")
    copy(ground, folder)
    log = folder / "infra" / "observability" / "comfyui_metrics.ndjson"
    log.parent.mkdir(parents=True)
    began = load_json(folder / "one" / "manifest.json")["started_utc"]
    rows = [{"event": "now", "timestamp": began}, {"event": "then", "timestamp": "2020-01-01T00:00:00Z"}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = say("baseline", "save", "one", "--name", "first", "--note", "enclosure=A box | <b>", cwd=folder)
    assert done.returncode in RAN, done.stderr
    return folder


def say(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in this process, for what only reads files: what it needs is loaded once."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        patch.object(sys, "argv", ["comfyload", *words]),
        patch.dict(os.environ, env or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def copy(ground: tuple[str, Path], to: Path) -> str:
    shutil.copytree(ground[1], to, dirs_exist_ok=True)
    return ground[0]


def only(folder: Path) -> Path:
    (found,) = (path for path in (folder / ARCHIVE).iterdir() if path.is_dir())
    return found


def load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_screen_names_the_command_for_what_it_does_not_show(ground: tuple[str, Path]) -> None:
    short, whole, job = (say("show", "one", *words, cwd=ground[1]).stdout for words in ([], ["--all"], ["--job", "3"]))
    assert "comfyload show one --all" in short and "--all" not in whole and "Self-check" in whole
    assert re.search(r"^output +node \d+, images: 1$", job, re.MULTILINE), job


# --- the archive


def test_a_baseline_holds_what_a_stranger_needs(saved: Path) -> None:
    kept = only(saved)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-first", kept.name)
    assert load_json(kept / "load_sleeper.json")["summary"]["completed"] == 24
    events = [json.loads(line)["event"] for line in (kept / "comfyui_metrics.ndjson").read_text().splitlines()]
    assert events[0] == "now" and events.count("prompt.ended") == 25  # one to warm up
    readme = (kept / "README.md").read_text(encoding="utf-8")
    for part in ("success\\_rate &gt;= 98 %", "PASS", "A box", "comfyload run --server", "24 of 24", "ComfyUI"):
        assert part in readme
    pictures = re.findall(r"\]\(([^)]*\.png)\)", readme)
    assert len(pictures) == 2
    assert all((kept / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "<script" in (kept / "report.html").read_text(encoding="utf-8")
    files = load_json(kept / "manifest.json")["files"]
    assert {"README.md", "report.html", "load_sleeper.json", "runs/one/records.ndjson"} <= set(files)
    verified = say("baseline", "verify", "first", cwd=saved)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_a_name_that_is_taken_is_refused_and_nothing_is_lost(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in only(tmp_path).rglob("*") if path.is_file()}
    again = say("baseline", "save", "two", "--name", "first", cwd=tmp_path)
    assert again.returncode == 2
    assert "already there" in again.stderr
    assert {path: path.read_bytes() for path in only(tmp_path).rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / ARCHIVE).iterdir()] == [only(tmp_path).name]


@pytest.mark.parametrize("file", ["runs/one/records.ndjson", "load_sleeper.json", "README.md"])
def test_a_flipped_byte_is_found_and_its_file_named(saved: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = only(tmp_path) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = say("baseline", "verify", "first", cwd=tmp_path)
    assert done.returncode == 1
    assert file in done.stdout


def test_a_summary_that_its_records_do_not_give_is_found(saved: Path, tmp_path: Path) -> None:
    """Also where somebody has made the hashes right again."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    kept = only(tmp_path)
    output = load_json(kept / "load_sleeper.json")
    output["summary"]["p50_latency_s"] = 0.001
    (kept / "load_sleeper.json").write_text(json.dumps(output), encoding="utf-8")
    manifest = load_json(kept / "manifest.json")
    manifest["files"]["load_sleeper.json"] = hashlib.sha256((kept / "load_sleeper.json").read_bytes()).hexdigest()
    (kept / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = say("baseline", "verify", "first", cwd=tmp_path)
    assert done.returncode == 1
    assert "p50_latency_s is 0.001" in done.stdout


def test_a_kept_v1_archive_stays_readable(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "data" / "archive_v1"
    (kept,) = (path for path in fixture.iterdir() if path.is_dir())
    done = say("baseline", "verify", str(kept), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    judged = say("check", str(kept), "--json", cwd=tmp_path)
    assert json.loads(judged.stdout)["overall"] in ("PASS", "PASS*")


def test_baselines_are_listed_shown_and_promoted(saved: Path, tmp_path: Path) -> None:
    assert "No baselines yet" in say("baseline", "list", cwd=tmp_path).stdout
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    say("baseline", "promote", "first", cwd=tmp_path)
    listed = say("baseline", "list", "--json", cwd=tmp_path)
    assert [(row["folder"], row["promoted"]) for row in json.loads(listed.stdout)] == [(only(tmp_path).name, True)]
    shown = say("baseline", "show", "first", cwd=tmp_path).stdout
    assert "images/min" in shown and shown.count("README.md") == shown.count("report.html") == 1
    against_it = say("compare", "two", "--accept", "valid", "--json", cwd=tmp_path)
    assert json.loads(against_it.stdout)["runs_a"] != json.loads(against_it.stdout)["runs_b"]
    missing = say("baseline", "show", "frist", cwd=tmp_path)
    assert missing.returncode == 2
    assert "did you mean" in missing.stderr


# --- gates


def test_check_says_what_is_proven_and_how_much_more_would_be(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    done = say("check", "one", cwd=tmp_path)
    assert done.returncode in RAN
    assert "success_rate >= 98 %" in done.stdout and "jobs would prove it" in done.stdout


def test_the_exit_code_of_check_is_that_of_the_worst_gate(tmp_path: Path) -> None:
    (run,) = (Path(__file__).parents[1] / "data" / "archive_v1").glob("*/runs/*")
    rules = {"p95_latency_s <= 45": 0, "max_latency_s <= 0.001": 1, "completed >= 100": 1, "avg_latency_s <= 60": 0}
    for rule, code in rules.items():
        assert say("check", str(run), "--gate", rule, cwd=tmp_path).returncode == code, rule
    assert say("check", str(run), "--gate", "p95_latency_s <= 45", "--strict", cwd=tmp_path).returncode == 3
    assert say("check", str(run), "--gate", "p50_latency_s <= 60", "--strict", cwd=tmp_path).returncode == 0


def test_an_invalid_run_and_one_that_measured_nothing_never_pass(tmp_path: Path) -> None:
    async def down(_: web.Request) -> web.Response:
        return web.Response(status=500, text="Server got itself in trouble")

    graph = graph_file(tmp_path)
    with answering(down) as url:
        call("run", "--server", url, "--workflow", graph, "-n", "4", "--run-dir", "run", "-q", cwd=tmp_path)
    done = say("check", "run", "--json", cwd=tmp_path)
    assert done.returncode in (1, 5)
    verdicts = json.loads(done.stdout)["verdicts"]
    assert all(verdict["verdict"] in ("INCONCLUSIVE", "FAIL") for verdict in verdicts)


def test_errors_in_the_instrumentation_log_fail_a_run_unless_expected(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    began = load_json(tmp_path / "one" / "manifest.json")["started_utc"]
    rows = [
        {"event": "comfyui.queue", "status": "ok", "timestamp": began},
        {"event": "comfyui.queue", "status": "error", "error": "CUDA out of memory <b>", "timestamp": began},
        {"event": "comfyui.queue", "status": "error", "error": "long ago", "timestamp": "2020-01-01T00:00:00Z"},
    ]
    log = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.ndjson").write_text(log, encoding="utf-8")
    words = ["check", "one", "--gate", "unexpected_errors == 0", "--metrics-log", "metrics.ndjson"]
    done = say(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "CUDA out of memory" in done.stdout and "long ago" not in done.stdout
    assert say(*words, "--expect", "out of memory", cwd=tmp_path).returncode in RAN
    (tmp_path / "metrics.ndjson").write_text(f"{log}no json\n", encoding="utf-8")
    assert say(*words, cwd=tmp_path).returncode == 1  # what was read is not taken back
    doubtful = say(*words, "--expect", "out of memory", cwd=tmp_path)
    assert doubtful.returncode == 3
    assert "1 of 4 lines of metrics.ndjson could not be read, first: line 4: no json." in " ".join(
        doubtful.stdout.split()
    )


def test_reports_for_ci_are_written(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    (tmp_path / "gates.toml").write_text('gates = ["max_latency_s <= 0.001"]\n', encoding="utf-8")
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md")}
    words = ["--gates", "gates.toml", "--junit", "out/verdicts.xml", "--github-summary"]
    done = say("check", "one", *words, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    suites = ET.parse(tmp_path / "out" / "verdicts.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("1", "1")
    assert "FAIL" in (tmp_path / "step.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gate", "p95_latncy_s <= 3"], "p95_latency_s"),
        (["--gate", "p95_latency_s"], "gate"),
        (["--gates", "missing.toml"], "cannot read missing.toml"),
        (["--gate", "images_per_minute >= baseline"], "no baseline is promoted"),
        (["--expect", "("], "("),
        (["--github-summary"], "GITHUB_STEP_SUMMARY"),
    ],
)
def test_gates_that_cannot_be_right_are_one_line(
    ground: tuple[str, Path], tmp_path: Path, words: list[str], says: str
) -> None:
    copy(ground, tmp_path)
    done = say("check", "one", *words, cwd=tmp_path, env={"GITHUB_STEP_SUMMARY": ""})
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_run_until_proven_ends_when_its_gates_are_decided(tmp_path: Path) -> None:
    with simulator(speed=1) as url:
        words = ["--until-proven", "-n", "40", "--run-dir", "run", "-q", "--gate"]
        graph = graph_file(tmp_path, sleeper(0.02))
        failed = call("run", "--server", url, "--workflow", graph, *words, "max_latency_s <= 0.001", cwd=tmp_path)
    manifest = load_json(tmp_path / "run" / "manifest.json")
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout == "" and failed.stderr.splitlines()[-1].startswith("FAIL  max_latency_s <= 0.001  ")
    assert (manifest["end"], manifest["looks"]) == ("decided", [12])
    shown = json.loads(say("show", "run", "--json", cwd=tmp_path).stdout)
    assert 12 <= shown["completed"] <= 13


def test_a_reader_that_goes_away_is_no_failed_gate(ground: tuple[str, Path]) -> None:
    for command in ("show one", "check one --gate 'max_latency_s <= 60'"):
        line = f"{shlex.quote(sys.executable)} -m comfyload {command} | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=ground[1], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (141, "")


# --- comparisons


def test_a_comparison_is_refused_by_name_or_made(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    refused = say("compare", "one", "slow", cwd=tmp_path)
    assert refused.returncode == 2
    assert "workflow" in refused.stderr and "--accept" in refused.stderr
    accept = [word for key in ("workflow", "valid") for word in ("--accept", key)]
    made = say("compare", "one", "slow", *accept, "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    comparison = json.loads(made.stdout)
    assert comparison["design"] == "single"
    assert comparison["overall"]["verdict"] == "slower"
    itself = json.loads(say("compare", "one", "one", "--accept", "valid", "--json", cwd=tmp_path).stdout)
    assert itself["caveats"][0] == "A and B have 1 run in common: they are the same measurement, which proves nothing."
    alike = json.loads(say("compare", "one", "two", "--accept", "valid", "--json", cwd=tmp_path).stdout)
    assert not any("in common" in caveat for caveat in alike["caveats"])
    assert alike["overall"]["verdict"] != "slower" and alike["overall"]["verdict"] != "faster"


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.timeout(180)
@again_after_a_stall
def test_ab_makes_pairs_by_turns_and_finds_which_server_is_slower(tmp_path: Path) -> None:
    graph = graph_file(tmp_path, sleeper(2.0))
    with simulator(speed=10) as a, simulator(speed=6) as b:
        words = ["--a", a, "--b", b, "--workflow", graph, "--pairs", "3", "-n", "4", "--run-dir", "ab", "--json"]
        gate = ["--accept", "valid", "--fail-if", "slower", "--junit", "verdicts.xml"]
        done = call("ab", *words, *gate, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("FAIL  not slower  "), done.stderr
    (suite,) = ET.parse(tmp_path / "verdicts.xml").getroot()
    assert (suite.get("name"), suite.get("failures")) == ("B against A", "1")
    comparison = json.loads(done.stdout)
    assert (comparison["design"], comparison["overall"]["verdict"]) == ("paired", "slower")
    runs = sorted((tmp_path / "ab").glob("*/*/manifest.json"), key=lambda path: load_json(path)["started_utc"])
    assert [path.parent.parent.name for path in runs] == ["a", "b", "b", "a", "a", "b"]
    seeds = [load_json(tmp_path / "ab" / side / "01" / "manifest.json")["plan"]["seed"] for side in "ab"]
    assert seeds[0] == seeds[1]


def test_a_switch_that_fails_is_one_line(tmp_path: Path) -> None:
    words = ["--server", "http://127.0.0.1:9", "--switch", "false", "--workflow", graph_file(tmp_path)]
    done = call("ab", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "the switch to a failed with exit code 1" in done.stderr


def test_a_trend_goes_through_the_archive(saved: Path, tmp_path: Path) -> None:
    assert say("trend", cwd=tmp_path).returncode == 2
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    say("baseline", "save", "two", "--name", "two", cwd=tmp_path)
    done = say("trend", "--metric", "avg_latency_s", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


# --- pages and exports


def test_a_page_and_every_export_can_be_made_of_a_run(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    page = say("report", "one", "--against", "two", "--accept", "valid", "--html", "page.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text and "default-src &#39;none&#39;" in text
    words = ["--csv", "jobs.csv", "--parquet", "jobs.parquet", "--prometheus", "run.prom", "--otlp", "traces.json"]
    done = say("export", "one", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "jobs.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 25
    assert "comfyload_" in (tmp_path / "run.prom").read_text(encoding="utf-8")
    assert (tmp_path / "jobs.parquet").read_bytes()[:4] == b"PAR1"
    assert "resourceSpans" in (tmp_path / "traces.json").read_text(encoding="utf-8")
    nothing = say("export", "one", cwd=tmp_path)
    assert nothing.returncode == 2


def test_a_forecast_is_validated_only_by_a_run_of_its_workflows(ground: tuple[str, Path]) -> None:
    for target, says in (
        ("slow", "slow: slow: no service time was measured"),
        ("no/run", "no run or baseline at no/run"),
    ):
        done = say("capacity", "one", "--validate", target, cwd=ground[1])
        assert done.returncode == 2 and says in done.stderr, done.stderr


# --- the whole checklist


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(180)
def test_the_checklist_goes_from_nothing_to_verdicts_and_never_over_a_baseline(tmp_path: Path) -> None:
    with simulator(speed=100) as url:
        small = str(SAMPLES / "smoke_small.json")
        words = ["checklist", "--server", url, "--workflow", small, "--name", "whole", "-n", "4"]
        done = call(*words, cwd=tmp_path)
        assert done.returncode in RAN, done.stdout + done.stderr
        again = call(*words, cwd=tmp_path)
    kept = only(tmp_path)
    assert sorted(path.name for path in kept.glob("load_*.json")) == [f"load_smoke_small_c{c}.json" for c in (1, 2, 4)]
    assert "success_rate >= 98 %" in done.stdout and str(kept.relative_to(tmp_path)) in done.stdout
    assert list(kept.glob("*.png")) and (kept / "README.md").exists() and (kept / "report.html").exists()
    assert again.returncode == 2
    assert "already there" in again.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.long
def test_the_checklist_stops_where_the_server_would_refuse_a_workflow(tmp_path: Path) -> None:
    graph = sleeper(0.1)
    graph["9"] = {"class_type": "NoSuchNode", "inputs": {}}
    with simulator(speed=100) as url:
        done = call("checklist", "--server", url, "--workflow", graph_file(tmp_path, graph), cwd=tmp_path)
        (tmp_path / "samples").mkdir()
        for name in ("book_small", "book_medium", "book_large"):
            (tmp_path / "samples" / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")
        samples = call("checklist", "--server", url, cwd=tmp_path)
    assert (done.returncode, samples.returncode) == (2, 2)
    assert "name each with --workflow FILE" in samples.stderr and "samples" not in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / ARCHIVE).exists()


def test_a_comparison_is_a_gate_with_the_exit_codes_of_check(ground: tuple[str, Path], tmp_path: Path) -> None:
    copy(ground, tmp_path)
    accept = [word for key in ("workflow", "valid") for word in ("--accept", key)]
    slower = say("compare", "one", "slow", *accept, "--fail-if", "slower", cwd=tmp_path)
    assert slower.returncode == 1 and "FAIL" in slower.stdout and "not slower" in slower.stdout
    shown = say("compare", "one", "slow", *accept, cwd=tmp_path)
    assert shown.returncode == 0 and "not slower" not in shown.stdout
    refused = say("compare", "one", "slow", "--accept", "valid", "--fail-if", "slower", cwd=tmp_path)
    assert refused.returncode == 2 and "not comparable" in refused.stderr
    faster = say("compare", "slow", "one", *accept, "--fail-if", "slower", "--json", cwd=tmp_path)
    gates = json.loads(faster.stdout)["gates"]
    assert [one["verdict"] for one in gates["verdicts"]] == ["PASS"] and faster.stderr == ""
    # A generator that shares its cores may have been late, and what it measured then is not valid.
    assert faster.returncode in RAN
    rules = ["--gate", "max_latency_s <= 0.0001", "--gate", "total_jobs == 24"]
    judged = say("compare", "one", "two", *accept, *rules, "--json", cwd=tmp_path)
    assert judged.returncode == 1 and judged.stderr.startswith("FAIL  max_latency_s <= 0.0001  ")
    assert len(judged.stderr.splitlines()) == 1


def test_reports_of_a_comparison_are_written_and_refused_where_nothing_is_judged(
    ground: tuple[str, Path], tmp_path: Path
) -> None:
    copy(ground, tmp_path)
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md")}
    reports = ["--accept", "workflow", "--accept", "valid", "--junit", "v.xml", "--github-summary"]
    say(
        "compare",
        "one",
        "slow",
        *reports,
        "--fail-if",
        "slower",
        "--gate",
        "total_jobs >= 1",
        cwd=tmp_path,
        env=environment,
    )
    suites = ET.parse(tmp_path / "v.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["B against A", "slow"]
    assert all(float(suite.get("time", "")) > 0 for suite in suites)
    text = (tmp_path / "step.md").read_text(encoding="utf-8")
    assert text.startswith("## ") and text.index("## Gates: FAIL") > 0
    for words in (["--junit", "w.xml"], ["--strict"]):
        nothing = say("compare", "one", "two", *words, cwd=tmp_path)
        assert nothing.returncode == 2 and f"{words[0]} is about verdicts" in nothing.stderr
    assert not (tmp_path / "w.xml").exists()
    alone = say("compare", "one", "two", "--accept", "valid", "--github-summary", cwd=tmp_path, env=environment)
    assert alone.returncode == 0 and "## Gates" not in (tmp_path / "step.md").read_text(encoding="utf-8")[len(text) :]
