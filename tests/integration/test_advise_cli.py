"""Advice as a user asks for it: from a server to a knee, a forecast and a policy, each in a file that can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.json import schema

from comfyload.record.policy import Policy
from comfyload.retry.policy import decode
from tests.integration.test_baseline_cli import say
from tests.support.commands import call
from tests.support.servers import simulator

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]  # short jobs are sent for half a minute, twice

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SimSleep", "inputs": {"image": ["1", 0], "seconds": 2.0, "seed": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t/x"}},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What `saturate` wrote about a server of jobs of 0.1 s, and where its runs lie."""
    folder = tmp_path_factory.mktemp("saturate")
    (folder / "book.json").write_text(json.dumps(GRAPH))
    with simulator(speed=20) as url:
        words = ["saturate", "--server", url, "--workflow", "book.json", "--p95", "1s", "--jobs", "20"]
        words += ["--confirm-jobs", "10", "--run-dir", "runs/knee", "--output", "knee.json", "--chart", "knee.png"]
        done = call(*words, cwd=folder, timeout=170)
    assert done.returncode == 0, done.stderr
    assert "Knee" in done.stdout and "To deploy" in done.stdout
    yield folder, json.loads((folder / "knee.json").read_text())


def test_the_knee_is_a_file_with_rates_and_intervals(found: tuple[Path, dict[str, Any]]) -> None:
    folder, knee = found
    assert knee["knee"] in (1, 2)
    capacity = knee["capacity_per_minute"]
    assert capacity["low"] <= capacity["estimate"] <= capacity["high"]
    assert 400 < capacity["estimate"] < 600
    rate = knee["sla_rate_per_minute"]
    assert rate["confirmed"] in (True, False) and knee["confirmed"] == rate["confirmed"]
    assert knee["deploy_per_minute"] == (rate["low"] if rate["confirmed"] else None)
    if rate["estimate"] is not None:
        assert 0 < rate["low"] <= rate["estimate"] < capacity["estimate"]
    assert len(knee["paths"]) in (3, 4) and all((folder / path / "manifest.json").is_file() for path in knee["paths"])
    assert (folder / "knee.png").read_bytes().startswith(b"\x89PNG")
    assert any("GPU 0" in words for words in knee["findings"])


def test_capacity_from_its_runs(found: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = found
    done = say("capacity", "runs/knee/c1", "--rate", "1000/min", "--p95", "1s", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["sizing"]["enough"] in (2, 3)
    assert {row["dispatch"] for row in document["dispatches"]} == {"affinity", "shortest_queue", "round_robin"}
    shown = say("capacity", "runs/knee/c1", "--p95", "1s", "--validate", "runs/knee/confirm", cwd=folder)
    assert shown.returncode == 0 and "from its own times" in shown.stdout and "It rests on 20 jobs" in shown.stdout


def test_a_policy_is_a_file_that_its_schema_and_the_client_accept(found: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = found
    done = say("policy", "runs/knee/c1", "--deadline", "5s", "--output", "retry.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Wrote retry.json: 5 s in all, ") and "twice the capacity" in done.stdout
    assert "admission.depth" not in done.stdout
    assert "Next  comfyload faults --scenario all --policy retry.json" in done.stdout
    content = (folder / "retry.json").read_bytes()
    jsonschema.validate(json.loads(content), schema(Policy))
    made = decode(content)
    assert made.deadline_s == 5 and made.attempts >= 2 and len(made.scores) > 20
    assert made.explanations["deadline_s"]


def test_a_policy_is_followed_by_a_run(found: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = found
    (folder / "own.json").write_text(json.dumps({"deadline_s": 20, "attempts": 2}))
    with simulator(speed=20) as url:
        words = ["run", "--server", url, "--workflow", "book.json", "--jobs", "6", "--policy", "own.json"]
        done = call(*words, "--run-dir", "runs/retried", "--output", "retried.json", cwd=folder)
    assert done.returncode in (0, 5), done.stderr
    document = json.loads((folder / "retried.json").read_text())
    assert document["statistics"]["retries"]["attempts"] == 6
    assert document["manifest"]["retry"]["deadline_s"] == 20
    assert "First attempts" in call("show", "runs/retried", "--all", cwd=folder).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["capacity", "nowhere"], "nowhere"),
        (["capacity", "runs/knee/c1", "--rate", "fast"], "invalid rate 'fast'"),
        (["capacity", "runs/knee/c1", "--dispatch", "luck"], "unknown --dispatch 'luck'"),
        (["capacity", "runs/knee/c1", "--share", "x=1"], "unknown --share 'x=1'"),
        (["policy", "runs/knee/c1", "--deadline", "soon"], "invalid duration 'soon'"),
        (["policy", "runs/knee/c1", "--deadline", "5s", "--target", "101"], "invalid --target 101"),
        (["policy", "runs/knee/c1", "--deadline", "5s", "--export", "yaml"], "choose one of"),
    ],
)
def test_what_cannot_be_right_is_one_line(found: tuple[Path, dict[str, Any]], words: list[str], said: str) -> None:
    done = say(*words, cwd=found[0])
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") <= 2
