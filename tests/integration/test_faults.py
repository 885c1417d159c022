"""Trouble on purpose, over real sockets: with a policy nothing is lost, done twice or left, and more is in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import call

pytestmark = pytest.mark.long


def _played(folder: Path, scenario: str, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    command = ["faults", "--scenario", scenario, "--jobs", "18", "--job-time", "100ms", *words]
    done = call(*command, "--output", "out.json", "--quiet", cwd=folder)
    assert done.stderr == ""
    document = json.loads((folder / "out.json").read_text())
    return done.returncode, {row["client"]: row for row in document["outcomes"]}


@pytest.mark.parametrize("scenario", ["restart", "crash", "oom", "blip", "poison"])
def test_with_a_policy_nothing_is_lost_done_twice_or_left(tmp_path: Path, scenario: str) -> None:
    code, rows = _played(tmp_path, scenario)
    assert code == 0
    ours = rows["policy"]
    assert (ours["lost"], ours["twice"], ours["left"]) == (0, 0, 0)
    assert ours["in_time"] >= max(rows[name]["in_time"] for name in ("no retry", "3 retries at once"))
    assert ours["executed"] <= ours["of"] * 1.25


def test_a_real_server_gets_bad_prompts_and_what_cannot_be_done_from_outside_is_said(tmp_path: Path) -> None:
    from tests.support.servers import simulator

    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    heavy = {
        "1": {"class_type": "SimFail", "inputs": {"message": "CUDA out of memory", "seed": 1}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    (tmp_path / "job.json").write_text(json.dumps(graph))
    (tmp_path / "heavy.json").write_text(json.dumps(heavy))
    with simulator() as url:
        real = ["--server", url, "--workflow", "job.json"]
        code, rows = _played(tmp_path, "restart", *real)
        assert code == 0 and "from outside" in rows["policy"]["why"]
        code, rows = _played(tmp_path, "oom", *real)
        assert code == 0 and "EmptyHunyuanLatentVideo" in rows["policy"]["why"]
        for scenario, words, failed in (
            ("validation", [], {"no retry": 0, "3 retries at once": 0, "policy": 0}),
            ("poison", [], {"no retry": 3, "3 retries at once": 12, "policy": 4}),
            ("oom", ["--heavy", "heavy.json"], {"no retry": 3, "3 retries at once": 12, "policy": 6}),
        ):
            code, rows = _played(tmp_path, scenario, *real, *words)
            assert code == 0 and all(row["in_time"] == row["of"] == 15 for row in rows.values())
            assert {name: row["executions_failed"] for name, row in rows.items()} == failed


def test_what_cannot_be_right_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    for words, said in (
        (["--scenario", "flood"], "unknown --scenario 'flood'"),
        (["--server", ":1"], "needs a workflow"),
        (["--heavy", "x"], "for a real server"),
    ):
        done = call("faults", *words, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") <= 2
