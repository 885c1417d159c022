"""A baseline and its run directories, made by the version before: shown, judged, verified and compared as they are.

It was made once, against the simulator, and is never made again: two runs of 20 jobs, and one of six books of two
pages by rate, with a retry policy, downloads and a generator that was late. Its pictures and its page are dummies.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from comfyload.record.model import Record, Sent
from comfyload.record.run import RunReader
from tests.integration.test_baseline_cli import say

ARCHIVE = Path(__file__).parents[1] / "data" / "archive_0_1" / "baselines"
(KEPT,) = ARCHIVE.iterdir()
RUNS = {"small": "load_small_c2.json", "again": "load_small_c2_2.json", "books": "load_books.json"}


def as_json(*words: str, cwd: Path, codes: tuple[int, ...] = (0,)) -> Any:
    done = say(*words, "--json", cwd=cwd)
    assert done.returncode in codes, done.stderr
    return json.loads(done.stdout)


def number(value: object) -> object:
    return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value


@pytest.mark.parametrize(("run", "output"), RUNS.items())
def test_a_run_shows_the_numbers_that_the_version_before_wrote(run: str, output: str, tmp_path: Path) -> None:
    path = str(KEPT / "runs" / run)
    shown = as_json("show", path, "--output", "output.json", cwd=tmp_path, codes=(0, 5))
    written = json.loads((KEPT / output).read_text(encoding="utf-8"))
    assert len(written["summary"]) > 50
    assert {key: shown.get(key, "is gone") for key in written["summary"]} == {
        key: number(value) for key, value in written["summary"].items()
    }
    now = json.loads((tmp_path / "output.json").read_text(encoding="utf-8"))
    assert {one["code"] for one in now["findings"]} == {one["code"] for one in written["findings"]}
    assert len(now["jobs"]) == len(written["jobs"])


def test_every_line_of_a_run_is_read(tmp_path: Path) -> None:
    shutil.copytree(KEPT / "runs" / "books", tmp_path / "books")
    lines = list(RunReader(tmp_path / "books").lines())
    records = [line for line in lines if isinstance(line, Record)]
    assert len(records) == sum(isinstance(line, Sent) for line in lines) == 14
    assert {record.book for record in records if not record.warmup} == set(range(1, 7))
    assert all(record.execution.fetches and record.execution.end_source == "events" for record in records)
    assert all(record.execution.server_state_after is None for record in records)


def test_the_baseline_is_listed_shown_and_verified(tmp_path: Path) -> None:
    archive = ("--archive", str(ARCHIVE))
    assert [row["folder"] for row in as_json("baseline", "list", *archive, cwd=tmp_path)] == [KEPT.name]
    assert KEPT.name in say("baseline", "show", "before", *archive, cwd=tmp_path).stdout
    verified = say("baseline", "verify", "before", *archive, cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert "30 files" in verified.stdout and "3 summaries" in verified.stdout


def test_a_byte_that_has_changed_is_found(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "base" / KEPT.name)
    path = tmp_path / "base" / KEPT.name / "runs" / "small" / "records.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"index":3', b'"index":4', 1))
    assert say("baseline", "verify", "before", "--archive", "base", cwd=tmp_path).returncode != 0


def test_two_of_its_runs_are_compared_and_the_baseline_is_judged(tmp_path: Path) -> None:
    small, again = (str(KEPT / "runs" / name) for name in ("small", "again"))
    compared = as_json("compare", small, again, cwd=tmp_path)
    assert (compared["design"], compared["overall"]["verdict"]) == ("single", "inconclusive")
    judged = as_json("check", small, "--gate", "p95_latency_s <= 45", cwd=tmp_path)
    assert (judged["overall"], judged["verdicts"][0]["needs"]) == ("PASS*", 114)


def test_a_page_is_made_of_its_runs(tmp_path: Path) -> None:
    done = say("report", str(KEPT / "runs" / "small"), "--html", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").stat().st_size > 10_000
