"""The fold's short cuts, for the commonest job and for blocks of lines, change no number and hide no damage."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from comfyload.errors import RunFilesError
from comfyload.judge.columns.cache import CacheJudge
from comfyload.judge.columns.fold import Fold
from comfyload.judge.summary import jsonable, summarise
from comfyload.record.model import Line, Output, Record, Sent, ServerTimes, Span
from comfyload.record.run import RECORDS, RunReader, RunWriter
from tests.unit.judge_runs import FACTS, failed, job, manifest

FILES = [f"output/run/{name}" for name in ("a.png", "b.PNG", "c.png", "d.webp")] + ["temp//e.png", "output//f.txt"]
FILES += ["input/g.png", "output//h.glb"]
FACTS_OF = [structs.replace(FACTS, constant=["7"])]


@st.composite
def _outputs(draw: st.DrawFn) -> list[Output]:
    files = draw(st.lists(st.sampled_from(FILES), max_size=2))
    kind, animated = draw(st.sampled_from(["images", "images", "gifs", "result"])), draw(st.integers(0, 4)) == 0
    node = draw(st.sampled_from(["9", "7", "8"]))
    one = Output(node=node, kind=kind, count=len(files), files=files, animated=animated)
    return draw(st.sampled_from([[one], [one], [one], [one, structs.replace(one, node="9", kind="gifs")], []]))


@st.composite
def _records(draw: st.DrawFn) -> list[Record]:
    """A journal of plain jobs and others, with names of files that come again."""
    records: list[Record] = []
    for index in range(draw(st.integers(0, 12))):
        due, seconds = float(index), draw(st.sampled_from([0.5, 1.0, 2.25]))
        changes: dict[str, Any] = {"outputs": draw(_outputs()), "warmup": draw(st.booleans())}
        changes["cached"] = draw(st.sampled_from([[], [], [], ["9"], ["3"], ["4"]]))
        if draw(st.booleans()):
            changes["nodes"] = draw(st.sampled_from([[], [Span("9", due, due + 0.1)], [Span("9", due, None)]]))
        if draw(st.integers(0, 4)) == 0:
            changes |= {"acknowledged": None, "server": ServerTimes()}
        records.append(job(index, due, seconds, **changes))
        if draw(st.integers(0, 9)) == 0:
            records[-1] = failed(index, due, seconds)
    return records


@given(records=_records(), room=st.integers(1, 5))
@settings(deadline=None)
def test_a_plain_job_is_judged_as_every_other_is(records: list[Record], room: int) -> None:
    short, whole = CacheJudge(FACTS_OF), CacheJudge(FACTS_OF)
    for at in range(0, len(records), room):
        block = records[at : at + room]
        expected = [whole.judge(record) for record in block]
        for record, is_plain, other in zip(block, short.plain(block), expected, strict=True):
            if is_plain:
                assert record.execution.outcome == "completed"
                assert (other.cache, other.new, other.repeated) == ("fresh", record.execution.outputs[0].files, [])
            else:
                assert short.judge(record) == other


def test_most_jobs_are_plain_and_those_that_return_an_earlier_file_are_not() -> None:
    truth, records = CacheJudge([FACTS]), [job(index, float(index), 0.5) for index in range(4)]
    assert truth.plain(records) == [True] * 4
    assert truth.plain([records[0], job(4, 4.0, 0.5), failed(5, 5.0, 0.5)]) == [False, True, False]


@given(records=_records(), room=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_numbers_do_not_depend_on_how_many_lines_are_folded_at_a_time(records: list[Record], room: int) -> None:
    run = manifest(len(records), workflows=FACTS_OF)
    whole = jsonable(summarise(run, records))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comfyload.judge.summary._AT_ONCE", room)
        assert jsonable(summarise(run, records)) == whole


@given(books=st.lists(st.none() | st.integers(0, 3), max_size=12), room=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_job_keeps_its_book_wherever_the_first_one_with_a_book_comes(books: list[int | None], room: int) -> None:
    fold = Fold([FACTS])
    records = [structs.replace(job(index, float(index), 0.5), book=book) for index, book in enumerate(books)]
    for at in range(0, len(records), room):
        fold.add(records[at : at + room])
    assert fold.finish().every.book.tolist() == [-1 if book is None else book for book in books]


def _written(path: Path, count: int) -> list[Line]:
    lines: list[Line] = []
    for index in range(count):
        lines += [Sent(index=index, prompt_id=f"id-{index}", due=float(index)), job(index, float(index), 0.5)]
    writer = RunWriter(path, manifest(count))
    for line in lines:
        writer.write_line(line)
    writer.close()
    return lines


@given(block=st.integers(1, 2000))
@settings(max_examples=30, deadline=None)
def test_lines_are_the_same_whatever_is_read_at_once(block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("comfyload.record.journal._BLOCK", block)
        lines = _written(Path(folder), 5)
        assert list(RunReader(Path(folder)).lines()) == lines


DAMAGE = {
    "cut": lambda line: line[: len(line) // 2],
    "empty": lambda line: b"",
    "two on a line": lambda line: line + line,
    "parted": lambda line: line.replace(b",", b",\n", 1),
    "of another type": lambda line: line.replace(b'"due":', b'"due":"x","was":', 1),
    "no record": lambda line: b'{"line":"other"}',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("at", [0, 7, 1000, 1999])
def test_a_damaged_line_is_named_and_those_before_it_are_read(damage: str, at: int, tmp_path: Path) -> None:
    lines = _written(tmp_path, 1000)
    journal = (tmp_path / RECORDS).read_bytes().split(b"\n")
    journal[at] = DAMAGE[damage](journal[at])
    (tmp_path / RECORDS).write_bytes(b"\n".join(journal))
    read: list[Line] = []
    with pytest.raises(RunFilesError, match=rf"line {at + 1} is damaged"):
        read.extend(RunReader(tmp_path).lines())  # keeps what came before the error
    assert read == lines[:at]


def test_a_torn_last_line_is_left_out_and_an_empty_journal_is_no_line(tmp_path: Path) -> None:
    lines = _written(tmp_path, 3)
    journal = tmp_path / RECORDS
    journal.write_bytes(journal.read_bytes() + msgspec.json.encode(lines[0]))
    assert list(RunReader(tmp_path).lines()) == lines
    journal.write_bytes(b"")
    assert list(RunReader(tmp_path).lines()) == []
