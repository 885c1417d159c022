"""A folder of the archive that somebody made by hand is told as that, and never stands for a baseline."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from comfyload.app.compare import trend
from comfyload.app.earlier import newest_run
from comfyload.app.locate import find
from comfyload.errors import RunFilesError
from comfyload.record import archive
from comfyload.record.by_hand import ByHand
from comfyload.record.metrics.files import DEFAULT_LOG, project_log
from comfyload.record.model import Server
from comfyload.record.run import RunWriter
from comfyload.report.kept import by_hand_words, stated_words
from tests.unit.judge_runs import job, manifest
from tests.unit.test_archive import NOW, a_run, filler

SUMMARY = {"valid": True, "total_jobs": 12, "success_rate": 1.0, "p95_latency_s": 31.25, "images_per_minute": 4.2}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "baselines"


def by_hand(base: Path, **files: Any) -> ByHand:
    folder = base / "2024-06-01"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name.replace("__", ".")).write_bytes(text.encode() if isinstance(text, str) else text)
    (found,) = archive.list_by_hand(base)
    return found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"summary": SUMMARY}, ": 12 jobs, 100 % success, p95 31.2 s, 4.20 images/min"),
        (json.dumps({"summary": SUMMARY}).encode("utf-16"), ": 12 jobs"),
        ({"summary": {**SUMMARY, "valid": False}}, ": not VALID, 12 jobs"),
        ({"summary": {"total_jobs": "many", "p95_latency_s": None}}, " has a summary of other keys"),
        ({"summary": [1]}, " has no summary"),
        ([1], " has no summary"),
        ("{", " has no summary"),
        ("", " has no summary"),
        (b"\xff\xfe\x00", " has no summary"),
        ('{"summary": {"total_jobs": NaN, "success_rate": Infinity}}', " has a summary of other keys"),
        ({"summary": {"total_jobs": 10**400, "success_rate": 98.5}}, ": success_rate 98.5"),
        pytest.param("[" * 100_000, " has no summary", id="deep"),
    ],
)
def test_it_is_told_with_what_its_file_states(base: Path, content: Any, says: str) -> None:
    found = by_hand(base, load_x__json=content, README__md="# mine")
    assert found.readme == base / "2024-06-01" / "README.md"
    assert stated_words("load_x.json", found.stated["load_x.json"]).startswith(f"load_x.json{says}")
    assert by_hand_words(found).startswith("by hand: 1 load*.json, no runs (")


def test_folders_and_other_files_are_passed_over(base: Path) -> None:
    (base / "2024-06-01" / "load_folder.json").mkdir(parents=True)
    (base / "2024-06-01" / "load_gone.json").symlink_to(base / "nowhere")
    found = by_hand(base, load_x__txt="", comfyui_metrics__ndjson="")
    assert (found.stated, found.readme) == ({}, None)
    assert by_hand_words(found).startswith("by hand: no load*.json, no runs (")


def test_nothing_that_rests_on_records_is_done_with_it(base: Path) -> None:
    found = by_hand(base, load_x__json={"summary": SUMMARY})
    for target in ("2024-06-01", str(found.path)):
        with pytest.raises(RunFilesError, match="was made by hand: it has no manifest"):
            archive.find(base, target)
        with pytest.raises(RunFilesError, match="was made by hand"):
            find(target, base)
        assert archive.find_by_hand(base, target) == found
    with pytest.raises(RunFilesError, match="was made by hand"):
        archive.promote(base, "2024-06-01")
    with pytest.raises(RunFilesError, match="folders made by hand have no records"):
        trend(base, [])
    assert archive.find_by_hand(base, "nightly") is None


def test_one_of_ours_that_lost_its_manifest_is_damaged(base: Path, tmp_path: Path) -> None:
    kept = archive.save(base, "x", filler(a_run(tmp_path / "small")), NOW)
    (kept.path / "report.html").write_text("")
    (kept.path / "manifest.json").unlink()
    assert archive.list_by_hand(base) == []
    (damaged,) = archive.list_damaged(base)
    assert damaged.path == kept.path and "manifest.json" in damaged.problem


def test_runs_that_were_put_into_it_can_be_judged(base: Path) -> None:
    by_hand(base, load_x__json={"summary": SUMMARY})
    a_run(base / "2024-06-01" / "small")
    found = find("2024-06-01", base)
    assert [result.reader.path.name for result in found.results] == ["small"] and found.kept is None


# --- earlier runs


def ran(path: Path, started: str, seconds: float = 2.0, url: str = "http://127.0.0.1:8188") -> Path:
    server = Server(url=url, comfyui_version="0.33.0")
    writer = RunWriter(path, manifest(2, started_utc=started, server=server))
    for index in range(2):
        writer.write_line(job(index, index, seconds))  # which executes for 8 ms less
    writer.close()
    return path


@pytest.mark.parametrize(
    "place",
    [
        "runs/one",
        "runs/20260101T000000Z-saturate/c2",
        "runs/20260101T000000Z-checklist/01-book-c1",
        "runs/20260101T000000Z-ab/a/01",
        "infra/comfyui/load_test/runs/one",
        "infra/observability/baselines/2026-01-01-x/runs/one",
    ],
)
@pytest.mark.parametrize("here", [".", "infra/comfyui/load_test"])
def test_the_newest_run_of_a_graph_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, here: str
) -> None:
    for folder in ("infra/observability", "infra/comfyui/load_test"):
        (tmp_path / folder).mkdir(parents=True)
    newest = ran(tmp_path / place, "2026-01-02T00:00:00+00:00")
    ran(tmp_path / "runs/zzz-older", "2026-01-01T00:00:00+00:00", seconds=9.0)
    ran(tmp_path / "runs/zzz-elsewhere", "2026-01-03T00:00:00+00:00", url="http://gpu2:8188")
    (tmp_path / "runs/zzz-damaged").mkdir()
    (tmp_path / "runs/zzz-damaged/manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path / here)
    graph = manifest(2).workflows[0].sha256
    found = newest_run(graph, "http://localhost:8188", Path("runs"))
    assert found is not None
    assert (found.path.resolve(), found.seconds) == (newest.resolve(), [1.992, 1.992])
    assert newest_run("another graph", "http://localhost:8188", Path("runs")) is None


@pytest.mark.skipif(not hasattr(os, "chown") or os.getuid() != 0, reason="only root gives a folder away")
def test_a_folder_above_that_is_somebody_elses_is_no_project_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "infra/observability").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert project_log() == tmp_path / DEFAULT_LOG
    os.chown(tmp_path / "infra/observability", 12345, 12345)
    assert project_log() is None
