"""Section 4 of the checklist, as it stands there: tail the log, archive it with the results, read the summaries."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import jsonschema
import pytest

from comfyload.app.run.live_log import OFF
from comfyload.sim import Server
from tests.integration.test_cli import SAMPLES
from tests.support.commands import COMMAND, call
from tests.support.servers import in_thread, simulator

SCHEMA = Path(__file__).parents[2] / "pack/comfyload_probe/schema.json"
LIVE = {name: value for name, value in os.environ.items() if name != OFF}
JQ = which("jq") is not None
LOG = "infra/observability/comfyui_metrics.ndjson"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "infra/comfyui/load_test").mkdir(parents=True)
    (tmp_path / "infra/observability").mkdir()
    return tmp_path


def load(url: str, checkout: Path, *words: str, jobs: int = 3) -> None:
    done = call(
        *("run", "--server", url, "--workflow", str(SAMPLES / "smoke_small.json"), "-n", str(jobs), "--quiet"),
        *("--timeout", "420", "--output", "../../observability/load_2024-06-xx.json", *words),
        cwd=checkout / "infra/comfyui/load_test",
        env=LIVE,
    )
    assert done.returncode in (0, 5), done.stderr


def rows(checkout: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (checkout / LOG).read_bytes().splitlines()]


def test_the_probes_rows_come_to_the_projects_log_once_each(checkout: Path) -> None:
    with simulator(speed=100) as url:
        load(url, checkout)
    (run,) = (checkout / "infra/comfyui/load_test/runs").glob("*/log.ndjson")
    kept = [json.loads(line)["row"] for line in run.read_bytes().splitlines()]
    first, *probes, last = rows(checkout)
    assert probes == kept and len(kept) > 12
    assert [first["event"], last["event"]] == ["comfyload.run.began", "comfyload.run.ended"]
    for row in probes:
        jsonschema.validate(row, json.loads(SCHEMA.read_bytes()))


def no_probe() -> Server:
    return Server(speed=100)


@pytest.mark.parametrize("words", [[], ["itself"], pytest.param(["--no-telemetry"], marks=pytest.mark.long)])
def test_jobs_are_told_where_there_is_neither_probe_nor_log(checkout: Path, words: list[str]) -> None:
    words = ["--metrics-log", str(checkout / LOG)] if words == ["itself"] else words
    with in_thread(no_probe) as (url, _):
        load(url, checkout, *words)
    events = [row["event"] for row in rows(checkout)]
    assert events == ["comfyload.run.began", *["comfyload.job"] * 3, "comfyload.run.ended"]
    (run,) = (checkout / "infra/comfyui/load_test/runs").iterdir()
    assert not (run / "log.ndjson").exists()  # our own rows are not taken for the server's


def test_tail_shows_the_rows_while_the_run_goes_on(checkout: Path) -> None:
    with simulator(speed=5) as url:
        process = subprocess.Popen(
            [*COMMAND, "run", "--server", url, "--workflow", str(SAMPLES / "smoke_small.json"), "-n", "400", "-q"],
            cwd=checkout,
            env=LIVE,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            follow = "for _ in $(seq 200); do [ -e $1 ] && break; sleep 0.05; done; exec tail -f -n +1 $1"
            words = ["sh", "-c", follow, "sh", LOG]
            with subprocess.Popen(words, cwd=checkout, stdout=subprocess.PIPE, text=True) as tail:
                assert tail.stdout is not None
                seen = [json.loads(tail.stdout.readline())["event"] for _ in range(8)]
                tail.kill()
            assert process.poll() is None, "the rows came only after the run"
            assert seen[0] == "comfyload.run.began" and "prompt.ended" in seen
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.long
def test_it_cannot_be_written_and_the_run_is_sound(checkout: Path) -> None:
    (checkout / LOG).mkdir()
    with simulator(speed=100) as url:
        done = call(
            *("run", "--server", url, "--workflow", str(SAMPLES / "smoke_small.json"), "-n", "3", "-o", "out.json"),
            cwd=checkout,
            env=LIVE,
        )
    assert done.returncode in (0, 5)
    assert done.stderr.count("the run's rows are not in") == 1
    assert json.loads((checkout / "out.json").read_bytes())["summary"]["completed"] == 3


def test_the_rows_of_section_4_are_archived_and_read_by_jq(checkout: Path) -> None:
    with simulator(speed=100) as url:
        load(url, checkout)
    day = "infra/observability/baselines/2024-06-01"
    script = f"""
        set -e
        mkdir -p {day}
        mv {LOG} infra/observability/load_*.json {day}/
        echo '# Baseline' > {day}/README.md
        {"jq '.summary' " + day + "/load*.json" if JQ else "true"}
    """
    done = subprocess.run(["bash", "-c", script], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not JQ or json.loads(done.stdout)["completed"] == 3
    listed = call("baseline", "list", cwd=checkout)
    words = " ".join(listed.stdout.split())
    assert "by hand: 1 load*.json, no runs (comfyload baseline save makes one that can be verified)" in words
    assert "damaged" not in words
    assert call("baseline", "show", "2024-06-01", cwd=checkout).stdout.startswith("# Baseline\n")
    refused = call("check", "2024-06-01", cwd=checkout)
    assert refused.returncode == 2 and "made by hand" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.timeout(240)  # ten commands, ten seconds on a quiet machine
@pytest.mark.long
def test_a_baseline_has_the_log_whether_there_was_one_or_not(tmp_path: Path) -> None:
    """Outside of a project nothing is written as the run goes on."""
    kept = []
    for name, server in (("probe", lambda: Server(speed=100, probe=True)), ("none", no_probe)):
        folder = tmp_path / name
        folder.mkdir()
        with in_thread(server) as (url, _):
            words = ["--workflow", str(SAMPLES / "smoke_small.json"), "-n", "3", "-q", "--save", name]
            call("run", "--server", url, *words, cwd=folder, env=LIVE)
        (log,) = folder.glob("infra/observability/baselines/*/comfyui_metrics.ndjson")
        kept.append({json.loads(line)["event"] for line in log.read_bytes().splitlines()})
        assert call("baseline", "verify", name, cwd=folder).returncode == 0
        judged = call("check", name, "--gate", "unexpected_errors == 0", cwd=folder)
        assert ("no log was read." in judged.stdout) == (name == "none"), judged.stdout
    assert "prompt.ended" in kept[0] and kept[1] == {"comfyload.job"}


@pytest.mark.timeout(240)  # ten commands, ten seconds on a quiet machine
@pytest.mark.long
def test_doctor_finds_the_runs_of_saturate_and_of_a_baseline(tmp_path: Path) -> None:
    graph = str(SAMPLES / "smoke_small.json")
    with simulator(speed=100) as url:
        for words in (["saturate", "--jobs", "10", "--confirm-jobs", "0"], ["run", "-n", "2", "--save", "kept"]):
            call(*words, "--server", url, "--workflow", graph, "-q", cwd=tmp_path)
            examined = call("doctor", "--server", url, "--workflow", graph, "--json", cwd=tmp_path)
            (cost,) = [check for check in json.loads(examined.stdout) if check["name"] == "cost"]
            assert cost["status"] == "ok"
            newest = "-saturate/c" if words[0] == "saturate" else "-smoke_small"
            assert newest in cost["facts"]["run"]
        for run in (tmp_path / "runs").iterdir():
            run.rename(tmp_path / f"away-{run.name}")
        examined = call("doctor", "--server", url.replace("127.0.0.1", "localhost"), "--workflow", graph, cwd=tmp_path)
        assert "baselines/" in "".join(examined.stdout.split())
