"""A baseline exists whole or not at all, is never overwritten, and tells when a byte of it has changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfyload.errors import RunFilesError, UsageError
from comfyload.record import archive
from comfyload.record.archive import Contents, Kept, KeptRun
from comfyload.record.copies import copy_run
from comfyload.record.model import Fact, LogLine, Record
from comfyload.record.run import RunReader, RunWriter
from tests.unit.judge_runs import job, manifest

V1 = Path(__file__).parents[1] / "data" / "archive_v1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FACTS = {"gpu.0.model": Fact(value="RTX", source="nvml"), "comfyui.commit": Fact(source="not told")}


def a_run(path: Path) -> Path:
    writer = RunWriter(path, manifest(3))
    for index in range(3):
        writer.write_line(job(index, index, 0.5))
    writer.close()
    return path


def filler(run: Path) -> Callable[[Path], Contents]:
    def fill(folder: Path) -> Contents:
        kept = copy_run(run, folder)
        (folder / "load_book.json").write_text("{}")
        (folder / "README.md").write_text("# read\n")
        one = KeptRun(folder=kept, output="load_book.json", run_id="r", name="book", load="1 in flight")
        return Contents(runs=[one], environment=FACTS, notes={"enclosure": "Razer"}, command=["comfyload", "run"])

    return fill


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "baselines"


@pytest.fixture
def fill(tmp_path: Path) -> Callable[[Path], Contents]:
    return filler(a_run(tmp_path / "small"))


Fill = Callable[[Path], Contents]


def tree(folder: Path) -> dict[str, bytes | None]:
    found = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def test_what_was_saved_is_found_and_read(base: Path, fill: Fill) -> None:
    saved = archive.save(base, "nightly", fill, NOW)
    assert saved.path == base / "2026-03-01-nightly"
    found = archive.find(base, "nightly")
    assert found == saved
    assert found.manifest.environment == FACTS
    assert set(found.manifest.files) == {
        *("load_book.json", "README.md"),
        *(f"runs/small/{name}" for name in ("manifest.json", "records.ndjson", "samples.ndjson")),
    }
    ((run, reader),) = found.runs()
    assert run.folder == "runs/small"
    assert len([line for line in reader.lines() if isinstance(line, Record)]) == 3
    assert archive.verify_files(found) == []
    assert [path.name for path in base.iterdir()] == ["2026-03-01-nightly"]


def test_rows_of_the_servers_side_are_kept_and_verified_like_all_else(base: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "small")
    writer = RunWriter.reopen(run)
    line = LogLine(t=0.25, source="probe", row={"event": "prompt.ended", "seq": 4})
    writer.write_log(line)
    writer.close()
    kept = archive.save(base, None, filler(run), NOW)
    assert "runs/small/log.ndjson" in kept.manifest.files
    ((_, reader),) = kept.runs()
    assert list(reader.log()) == [line]
    (kept.path / "runs/small/log.ndjson").write_text("{}\n")
    (problem,) = archive.verify_files(kept)
    assert "runs/small/log.ndjson has changed" in problem


def test_a_flipped_byte_is_named(base: Path, fill: Fill) -> None:
    kept = archive.save(base, None, fill, NOW)
    assert kept.folder == "2026-03-01"
    records = kept.path / "runs/small/records.ndjson"
    content = bytearray(records.read_bytes())
    content[100] ^= 1
    records.write_bytes(content)
    (problem,) = archive.verify_files(kept)
    assert "runs/small/records.ndjson has changed" in problem


def test_files_that_are_missing_extra_or_links_are_named(base: Path, fill: Fill) -> None:
    kept = archive.save(base, None, fill, NOW)
    (kept.path / "README.md").unlink()
    (kept.path / "runs" / "late.txt").write_text("x")
    output = kept.path / "load_book.json"
    output.rename(base / "moved.json")
    output.symlink_to(base / "moved.json")
    assert archive.verify_files(kept) == [
        "README.md is missing",
        "load_book.json is a link or not a plain file",
        "load_book.json is missing",
        "runs/late.txt was not there when the baseline was saved",
    ]


def test_an_existing_baseline_is_refused_before_any_work(base: Path, fill: Fill) -> None:
    archive.save(base, "a", fill, NOW)
    before = tree(base)

    def must_not(folder: Path) -> Contents:
        raise AssertionError("filled in vain")

    with pytest.raises(RunFilesError, match="already there"):
        archive.save(base, "a", must_not, NOW)
    assert tree(base) == before


@pytest.mark.parametrize("kind", ["file", "empty folder", "dangling link"])
def test_nothing_that_is_there_is_replaced(base: Path, fill: Fill, kind: str) -> None:
    base.mkdir()
    target = base / "2026-03-01-a"
    if kind == "file":
        target.write_text("mine")
    elif kind == "empty folder":
        target.mkdir()
    else:
        target.symlink_to(base / "nowhere")
    with pytest.raises(RunFilesError, match="already there"):
        archive.save(base, "a", fill, NOW)


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), RunFilesError("x"), OSError(28, "full")])
def test_a_crash_while_filling_leaves_the_archive_as_it_was(base: Path, fill: Fill, error: BaseException) -> None:
    archive.save(base, "a", fill, NOW)
    before = tree(base)

    def crash(folder: Path) -> Contents:
        fill(folder)
        raise error

    with pytest.raises((type(error), RunFilesError)):
        archive.save(base, "b", crash, NOW)
    assert tree(base) == before


def test_of_two_who_save_the_same_name_one_wins_and_the_other_is_told(base: Path, fill: Fill) -> None:
    both = threading.Barrier(2)
    saved: list[Kept] = []
    refused: list[RunFilesError] = []

    def together(folder: Path) -> Contents:
        contents = fill(folder)
        (folder / "who.txt").write_text(folder.name)
        both.wait(10)
        return contents

    def one() -> None:
        try:
            saved.append(archive.save(base, "a", together, NOW))
        except RunFilesError as error:
            refused.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(saved), len(refused)) == (1, 1)
    assert "already there" in str(refused[0])
    assert archive.verify_files(archive.find(base, "a")) == []
    assert [path.name for path in base.iterdir()] == ["2026-03-01-a"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\\b", "ä", "a b", "-x", "promoted", "x" * 101, "a\n"])
def test_a_name_that_is_no_folder_name_is_refused(base: Path, fill: Fill, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a baseline"):
        archive.save(base, name, fill, NOW)
    assert not base.exists()


def test_a_name_means_its_newest_baseline_and_a_folder_means_itself(base: Path, fill: Fill) -> None:
    for day in (3, 1, 2):
        archive.save(base, "gpu", fill, datetime(2026, 3, day, tzinfo=UTC))
    archive.save(base, None, fill, NOW)
    assert archive.find(base, "gpu").folder == "2026-03-03-gpu"
    assert archive.find(base, "2026-03-02-gpu").folder == "2026-03-02-gpu"
    assert archive.find(base, "2026-03-01").folder == "2026-03-01"
    assert archive.find(Path("elsewhere"), str(base / "2026-03-02-gpu")).folder == "2026-03-02-gpu"
    assert [kept.folder for kept in archive.list_all(base)] == [
        "2026-03-01-gpu",
        "2026-03-01",
        "2026-03-02-gpu",
        "2026-03-03-gpu",
    ]


def test_what_is_not_found_names_what_is_near(base: Path, fill: Fill) -> None:
    with pytest.raises(RunFilesError, match="the archive is empty"):
        archive.find(base, "nightly")
    archive.save(base, "nightly", fill, NOW)
    with pytest.raises(RunFilesError, match="did you mean nightly"):
        archive.find(base, "nihgtly")
    with pytest.raises(RunFilesError, match="2026-03-01-nightly"):
        archive.find(base, "zzz")


def test_a_damaged_baseline_hides_no_other(base: Path, fill: Fill) -> None:
    archive.save(base, "good", fill, NOW)
    bad = archive.save(base, "bad", fill, NOW).path
    (bad / "manifest.json").write_text("{")
    (base / "2026-01-01-by-hand").mkdir()
    (base / ".tmp-2026-03-01-x-0123").mkdir()
    assert [kept.folder for kept in archive.list_all(base)] == ["2026-03-01-good"]
    damaged = archive.list_damaged(base)
    assert [one.path.name for one in damaged] == ["2026-03-01-bad"]
    assert [one.path.name for one in archive.list_by_hand(base)] == ["2026-01-01-by-hand"]
    assert "damaged" in damaged[0].problem
    with pytest.raises(RunFilesError, match="damaged"):
        archive.find(base, "bad")


def test_the_promoted_baseline_is_remembered(base: Path, fill: Fill) -> None:
    assert archive.promoted(base) is None
    with pytest.raises(RunFilesError, match="no baseline is promoted"):
        archive.find(base, "promoted")
    archive.save(base, "a", fill, NOW)
    other = archive.save(base.parent / "other", "a", fill, NOW)
    archive.promote(base, "a")
    assert archive.find(base, "promoted") == archive.promoted(base) == archive.find(base, "a")
    with pytest.raises(RunFilesError, match="does not lie in"):
        archive.promote(base, str(other.path))
    (base / "promoted").write_text("../other/2026-03-01-a\n")
    with pytest.raises(RunFilesError, match="is not in"):
        archive.promoted(base)


def _change(kept: Kept, **changes: Any) -> None:
    file = kept.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_newer_format_is_refused_with_what_to_do(base: Path, fill: Fill) -> None:
    _change(archive.save(base, "a", fill, NOW), format=2, runs="of a shape unknown today")
    with pytest.raises(RunFilesError, match="update comfyload"):
        archive.find(base, "a")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "runs/../../x", "..\\x", "C:\\x", "C:x", "\\x", "", ".", "a\0b"]
)
@pytest.mark.parametrize("place", ["files", "folder", "output", "log"])
def test_a_path_that_leaves_the_baseline_is_refused(base: Path, fill: Fill, path: str, place: str) -> None:
    kept = archive.save(base, "a", fill, NOW)
    raw = json.loads((kept.path / "manifest.json").read_text())
    if place == "files":
        _change(kept, files=raw["files"] | {path: "0" * 64})
    elif place == "log":
        _change(kept, log=path)
    else:
        _change(kept, runs=[raw["runs"][0] | {place: path}])
    with pytest.raises(RunFilesError, match="not inside the baseline"):
        archive.find(base, "a")


def test_a_run_is_no_baseline_and_a_baseline_is_no_run(base: Path, fill: Fill, tmp_path: Path) -> None:
    with pytest.raises(RunFilesError, match="is damaged"):
        RunReader(archive.save(base, "a", fill, NOW).path)
    with pytest.raises(RunFilesError, match="not that of a baseline"):
        archive.find(base, str(tmp_path / "small"))


def test_a_run_with_a_link_in_it_is_not_copied(base: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "linked")
    (run / "secret").symlink_to("/etc/passwd")
    with pytest.raises(RunFilesError, match="secret is not a plain file"):
        archive.save(base, "a", filler(run), NOW)
    assert list(base.iterdir()) == []


def test_runs_of_the_same_name_lie_beside_each_other(base: Path, tmp_path: Path) -> None:
    here, there = a_run(tmp_path / "a" / "small"), a_run(tmp_path / "b" / "small")

    def fill(folder: Path) -> Contents:
        kept = [copy_run(run, folder) for run in (here, there)]
        (folder / "o.json").write_text("{}")
        return Contents(runs=[KeptRun(folder=one, output="o.json", run_id="r", name="n", load="l") for one in kept])

    kept = archive.save(base, "a", fill, NOW)
    assert [run.folder for run, _ in kept.runs()] == ["runs/small", "runs/small-2"]


def test_a_baseline_of_format_1_stays_readable() -> None:
    """The folder was made once, by the first version that had baselines, and is never made again."""
    (kept,) = archive.list_all(V1)
    assert kept.manifest.format == 1
    assert archive.verify_files(kept) == []
    ((run, reader),) = kept.runs()
    records = [line for line in reader.lines() if isinstance(line, Record)]
    assert len([record for record in records if not record.warmup]) == 6
    assert {record.execution.outcome for record in records} == {"completed"}
    assert reader.manifest.run_id == run.run_id
    assert kept.manifest.environment["comfyui.commit"].value is None
    assert kept.manifest.notes == {"enclosure": "Razer Core X"}
    assert json.loads((kept.path / run.output).read_text())["summary"]["total_jobs"] == 6
