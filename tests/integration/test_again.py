"""Jobs of a run sent once more: the same graphs, under new ids, in a run of its own, and who needs attention then."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from comfyload.app.run.again import needing_attention
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Faults, Server, Which
from tests.integration.test_cli import graph_file
from tests.support.commands import call
from tests.support.rig import sleeper
from tests.support.servers import in_thread

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def records(run: Path) -> dict[int, Any]:
    lines = map(json.loads, (run / "records.ndjson").read_text(encoding="utf-8").splitlines())
    return {line["index"]: line for line in lines if line["line"] == "record"}


def graph_of(server: Server, prompt_id: str) -> Any:
    """As it was sent, apart from the folder of its run."""
    reply = asyncio.run(server.call(Request(method="GET", path=f"history/{prompt_id}")))
    graph = json.loads(reply.body)[prompt_id]["prompt"][2]
    return json.loads(json.dumps(graph).replace(graph["3"]["inputs"]["filename_prefix"], "PREFIX"))


def test_the_jobs_that_failed_are_sent_once_more_as_they_were(tmp_path: Path) -> None:
    """Pages 3 and 4 of six fail, and one of them again: books are whole graphs of one draw."""
    faults = Faults(node_error=Which(at=(3, 4, 7)))
    with in_thread(lambda: Server(speed=50, faults=faults)) as (url, server):
        two = tmp_path / "other.json"
        two.write_text(json.dumps(sleeper(0.3)), encoding="utf-8")
        done = call("run", "--server", url, "--workflow", graph_file(tmp_path), "--workflow", str(two), "-n", "3",
                    "--pages", "2", "-c", "1", "--run-dir", "run", "--quiet", cwd=tmp_path)  # fmt: skip
        assert done.returncode in (0, 1, 3, 5), done.stderr
        run, first = tmp_path / "run", records(tmp_path / "run")
        bad = [index for index, line in first.items() if line["execution"]["outcome"] == "failed"]
        assert len(bad) == 2 and needing_attention(run) == sorted(bad)

        call("again", "run", "--quiet", cwd=tmp_path)
        again = records(tmp_path / "run-again-1")
        manifest = json.loads((tmp_path / "run-again-1" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["again_of"]["indexes"] == sorted(bad) and sorted(again) == [0, 1]
        assert manifest["plan"]["pages"] == 1 and manifest["plan"]["jobs"] == 2
        for index, line in again.items():
            then = first[sorted(bad)[index]]
            assert line["workflow"] == then["workflow"] and line["values"] == then["values"]
            assert line["prompt_id"] != then["prompt_id"]
            assert graph_of(server, line["prompt_id"]) == graph_of(server, then["prompt_id"])
        assert sorted(line["execution"]["outcome"] for line in again.values()) == ["completed", "failed"]
        still = [sorted(bad)[index] for index, line in again.items() if line["execution"]["outcome"] == "failed"]
        assert needing_attention(run) == still

        call("again", "run", "--quiet", cwd=tmp_path)
        assert needing_attention(run) == []
        nothing = call("again", "run", cwd=tmp_path)
        assert nothing.returncode == 2 and "no job of the run needs attention" in nothing.stderr
        unknown = call("again", "run", "--job", "99", cwd=tmp_path)
        assert unknown.returncode == 2 and "no job 99" in unknown.stderr
        assert sorted(path.name for path in tmp_path.glob("run*")) == ["run", "run-again-1", "run-again-2"]
        assert records(run) == first


def test_a_run_of_jobs_once_more_can_be_resumed(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=50)) as (url, server):
        call("run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "3", "--run-dir", "run", "--quiet",
             cwd=tmp_path)  # fmt: skip
        call("again", "run", "--job", "1", "--job", "2", "--quiet", cwd=tmp_path)
        later = tmp_path / "run-again-1"
        whole = records(later)
        assert [line["values"] for line in whole.values()] == [records(tmp_path / "run")[n]["values"] for n in (1, 2)]
        manifest = json.loads((later / "manifest.json").read_text(encoding="utf-8"))
        (later / "manifest.json").write_text(json.dumps(manifest | {"end": None, "ended_utc": None}), encoding="utf-8")
        lines = (later / "records.ndjson").read_text(encoding="utf-8").splitlines(keepends=True)
        (later / "records.ndjson").write_text(lines[0] + lines[1], encoding="utf-8")
        assert needing_attention(tmp_path / "run") == [2], "its process died before the job had ended"
        done = call("resume", "run-again-1", "--quiet", cwd=tmp_path)
        assert done.returncode in (0, 5), done.stderr
        assert {index: line["values"] for index, line in records(later).items()} == {
            index: line["values"] for index, line in whole.items()
        }
        assert set(server.posts.values()) == {1}


def test_a_workflow_that_has_changed_is_not_sent(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=50)) as (url, _):
        graph = graph_file(tmp_path)
        call("run", "--server", url, "--workflow", graph, "-n", "1", "--run-dir", "run", "--quiet", cwd=tmp_path)
        graph_file(tmp_path, sleeper(0.2))
        done = call("again", "run", "--job", "0", cwd=tmp_path)
        assert done.returncode == 2 and "has changed since the run began" in done.stderr
        assert not (tmp_path / "run-again-1").exists()
