"""A process that may open few files: more where it may have more, refused where not, and no fault of the server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rig import SLEEPER
from tests.support.servers import simulator

resource = pytest.importorskip("resource")

LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
{before}
from comfyload.cli import main
main()
"""
UNCHECKED = "import comfyload.app.run.launch as run; run.check_descriptors = lambda *_: None"


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    with simulator() as url:
        yield url


def run(url: str, folder: Path, soft: int, hard: int, before: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "graph.json").write_text(json.dumps(SLEEPER), encoding="utf-8")
    words = ["run", "--server", url, "--workflow", "graph.json", "-n", "60", "-c", "40", "--output", "out.json"]
    code = LIMITED.format(soft=soft, hard=hard, before=before)
    return subprocess.run(
        [sys.executable, "-c", code, *words, "--no-telemetry", "--run-dir", "r"],
        cwd=folder,
        timeout=50,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_limit_is_raised_as_far_as_it_may_be(sim: str, tmp_path: Path) -> None:
    done = run(sim, tmp_path, 40, 400)
    assert done.returncode in (0, 5), done.stderr
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert document["summary"]["completed"] == 60
    assert "generator_fault" not in {finding["code"] for finding in document["findings"]}


def test_a_load_that_it_cannot_carry_is_refused_in_one_line(sim: str, tmp_path: Path) -> None:
    done = run(sim, tmp_path, 40, 40)
    assert done.returncode == 2 and not (tmp_path / "r").exists()
    (line,) = done.stderr.strip().splitlines()
    assert "may open 40 files at once, and the load needs up to" in line and "ulimit -n 1024" in line


def test_files_that_run_out_all_the_same_are_no_failures_of_the_server(sim: str, tmp_path: Path) -> None:
    """VALID, 40 % success, 36 failed, exit code 0."""
    done = run(sim, tmp_path, 40, 40, UNCHECKED)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    findings = {finding["code"]: finding for finding in document["findings"]}
    assert findings["generator_fault"]["level"] == "invalid"
    assert "too many open files" in findings["generator_fault"]["text"]
    assert document["summary"]["failed"] > 0 and document["summary"]["success_rate"] == 1.0
    assert {row["kind"] for row in document["statistics"]["failures"]} == {"generator"}
