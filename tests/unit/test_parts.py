"""A journal in several files is read as one, by everything that reads it, and no line of it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfyload.app.run.given import _replay
from comfyload.errors import RunFilesError
from comfyload.judge.summary import measure
from comfyload.record import growing, run
from comfyload.record.journal import RECORDS, journal_of, parts
from comfyload.record.manifest_file import PARTED
from comfyload.record.model import FORMAT, Line, LogLine, Manifest, RetryLine, Sample, Sent
from comfyload.record.run import EVENTS, LOG, SAMPLES, RunReader, RunWriter, decode_versioned
from comfyload.web.file_state import run_state
from comfyload.web.folder import RunFolder
from comfyload.web.follow import RunFollower
from tests.unit.judge_runs import job, manifest

JOBS = 60
LIMIT = 2_500


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PART_BYTES", LIMIT)


def lines() -> list[Line]:
    found: list[Line] = []
    for index in range(JOBS):
        found += [Sent(index=index, prompt_id=f"id-{index}", due=float(index)), job(index, float(index), 0.5)]
    return found


def retry(index: int) -> RetryLine:
    return RetryLine(
        t=float(index), index=index, prompt_id=f"id-{index}", server="http://a", attempt=2, of=3, why="oom",
        message="m", rule="r", wait_s=1.0,
    )  # fmt: skip


def write(path: Path, **changes: Any) -> None:
    with RunWriter(path, manifest(JOBS, **changes)) as writer:
        fill(writer)


def fill(writer: RunWriter) -> None:
    for number, line in enumerate(lines()):
        writer.write_line(line)
        writer.write_sample(Sample(t=number / 2, source="host", name="host.cpu_percent", value=float(number)))
        writer.write_event(retry(number))
        writer.write_log(LogLine(t=number / 2, source="probe", row={"event": "sample", "seq": number}))


def test_a_large_journal_goes_on_in_further_files_and_is_read_as_one(tmp_path: Path) -> None:
    write(tmp_path / "run")
    reader = RunReader(tmp_path / "run")
    for name in (RECORDS, SAMPLES, EVENTS):
        files = parts(tmp_path / "run" / name)
        assert len(files) > 2 and [journal_of(file.name) for file in files] == [name] * len(files)
        assert all(LIMIT / 2 < file.stat().st_size <= LIMIT for file in files[:-1])
    assert len(parts(tmp_path / "run" / LOG)) == 1
    assert list(reader.lines()) == lines()
    assert [sample.value for sample in reader.samples()] == list(range(2 * JOBS))
    assert [line.index for line in reader.events()] == list(range(2 * JOBS))
    assert len(list(reader.log())) == 2 * JOBS
    reader.check()


def test_a_version_that_knows_one_file_alone_refuses_the_run(tmp_path: Path) -> None:
    write(tmp_path / "run")
    content = (tmp_path / "run" / "manifest.json").read_bytes()
    assert RunReader(tmp_path / "run").manifest.format == PARTED
    with pytest.raises(RunFilesError, match="has format 2; this comfyload reads up to 1"):
        decode_versioned(content, Manifest, FORMAT, tmp_path)
    with RunWriter(tmp_path / "small", manifest(1)) as writer:
        writer.write_line(lines()[0])
    assert RunReader(tmp_path / "small").manifest.format == FORMAT


def test_the_manifest_that_a_run_writes_later_keeps_the_newer_format(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", manifest(JOBS, end=None)) as writer:
        fill(writer)
    with RunWriter.reopen(tmp_path / "run") as writer:
        writer.write_manifest(manifest(JOBS))
    again = RunReader(tmp_path / "run").manifest
    assert (again.format, again.end) == (PARTED, "complete")


def test_a_run_goes_on_in_its_last_file_and_only_a_line_torn_there_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "run", end=None)
    before = parts(tmp_path / "run" / RECORDS)
    with before[-1].open("ab") as file:
        file.write(b'{"line":"sent","ind')
    sizes = [file.stat().st_size for file in before[:-1]]
    with RunWriter.reopen(tmp_path / "run") as writer:
        for index in range(JOBS, 2 * JOBS):
            writer.write_line(job(index, float(index), 0.5))
    after = parts(tmp_path / "run" / RECORDS)
    assert len(after) > len(before) and [file.stat().st_size for file in after[: len(sizes)]] == sizes
    found = list(RunReader(tmp_path / "run").lines())
    assert found[: 2 * JOBS] == lines() and [line.index for line in found[2 * JOBS :]] == list(range(JOBS, 2 * JOBS))


def test_a_line_without_its_end_before_another_file_is_damage(tmp_path: Path) -> None:
    write(tmp_path / "run")
    second = parts(tmp_path / "run" / RECORDS)[1]
    content = second.read_bytes()
    second.write_bytes(content[:-20])
    with pytest.raises(RunFilesError, match=r"records\.2\.ndjson, line \d+ is damaged: it has no end"):
        list(RunReader(tmp_path / "run").lines())
    reader = RunReader(tmp_path / "run", salvage=True)
    assert len(list(reader.lines())) == 2 * JOBS - 1
    lost = reader.lost(RECORDS)
    assert lost is not None and lost.lines == 1 and reader.lost(SAMPLES) is None
    found = measure("run", reader.manifest, reader.lines(), damage=reader.damage).summary
    (damaged,) = [one for one in found.findings if one.code == "damaged_lines"]
    assert damaged.level == "invalid" and "records.2.ndjson" in damaged.text


def test_a_file_that_is_missing_between_others_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "run")
    parts(tmp_path / "run" / RECORDS)[1].unlink()
    with pytest.raises(RunFilesError, match=r"cannot read .*records\.2\.ndjson"):
        list(RunReader(tmp_path / "run").lines())


def test_if_no_further_file_can_be_begun_the_lines_go_on_in_the_one_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, tries = growing._open_append, [0]

    def refuse(path: Path) -> int:
        if ".2." in path.name and tries[0] < 3:
            tries[0] += 1
            raise OSError(24, "Too many open files")
        return opened(path)

    monkeypatch.setattr(growing, "_open_append", refuse)
    with RunWriter(tmp_path / "run", manifest(JOBS)) as writer:
        for line in lines():
            writer.write_line(line)
    first, second, *_ = (file.stat().st_size for file in parts(tmp_path / "run" / RECORDS))
    assert tries[0] == 3 and LIMIT < first < 2 * LIMIT and second <= LIMIT
    assert list(RunReader(tmp_path / "run").lines()) == lines()


def test_a_run_in_several_files_is_followed_while_it_grows(tmp_path: Path) -> None:
    follower = None
    with RunWriter(tmp_path / "run", manifest(JOBS, end=None, ended_utc=None)) as writer:
        for line in lines():
            writer.write_line(line)
            follower = follower or RunFollower(tmp_path / "run")
            follower.refresh()
            assert follower.record(line.index) == line
    assert follower is not None
    at_once = RunFollower(tmp_path / "run")
    while at_once.refresh() and at_once.behind:
        pass
    for one in (follower, at_once):
        assert [one.record(index) for index in range(JOBS)] == lines()[1::2]
        assert one.damaged == 0 and not one.behind
    assert at_once.jobs.offset.tolist() == follower.jobs.offset.tolist()


def test_a_follower_passes_over_a_line_without_its_end_before_another_file(tmp_path: Path) -> None:
    write(tmp_path / "run")
    second = parts(tmp_path / "run" / RECORDS)[1]
    second.write_bytes(second.read_bytes()[:-20])
    follower = RunFollower(tmp_path / "run")
    while follower.refresh() and follower.behind:
        pass
    assert follower.damaged == 1 and sum(follower.record(index) is not None for index in range(JOBS)) >= JOBS - 1
    assert follower.record(JOBS - 1) == lines()[-1]


def test_what_lies_in_further_files_counts_for_lists_and_for_replay(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a")
    state = run_state(tmp_path / "runs" / "a")
    last = parts(tmp_path / "runs" / "a" / RECORDS)[-1]
    with last.open("ab") as file:
        file.write(b"\n")
    assert run_state(tmp_path / "runs" / "a") != state
    (entry,) = RunFolder(tmp_path / "runs").scan()
    assert entry.modified >= last.stat().st_mtime
    assert _replay(tmp_path / "runs" / "a", 1.0, None).offsets_s == [float(index) for index in range(JOBS)]


def test_names_of_later_files_are_known_and_others_are_not() -> None:
    names = ["records.2.ndjson", "records.10.ndjson", "records.1.ndjson", "records.02.ndjson", "x.2.json"]
    assert [journal_of(name) for name in names] == [RECORDS, RECORDS, *names[2:]]
