"""What the fold makes of any job's files, and what reading in blocks must not hide."""

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


@given(records=_records())
@settings(deadline=None)
def test_each_file_of_a_run_is_new_once_and_only_where_a_node_made_it(records: list[Record]) -> None:
    truth, seen = CacheJudge(FACTS_OF), set[str]()
    for record in records:
        files, outputs = truth.judge(record), [o for o in record.execution.outputs if o.node != "7"]
        names = list(dict.fromkeys(file for output in outputs for file in output.files))
        listed, new = set(names), {names[number] for number in files.new}
        fresh = not {"3", *(output.node for output in outputs)} & set(record.execution.cached)
        assert new <= listed - seen and (not fresh or new == listed - seen)
        assert len(new) == sum(files.made.values()) and {names[number] for number in files.repeated} <= seen
        seen |= listed


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
