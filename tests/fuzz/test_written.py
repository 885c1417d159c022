"""What is written can be read, whatever a server put into it."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from comfyload.errors import RunFilesError
from comfyload.record.bounds import value
from comfyload.record.codec import encode
from comfyload.record.model import (
    Attempt,
    Execution,
    Failure,
    FailureKind,
    Fetch,
    LogLine,
    Observation,
    Outcome,
    Output,
    Record,
    Sample,
    Sent,
    ServerTimes,
    Span,
)
from comfyload.record.options import RunOptions
from comfyload.record.run import RECORDS, RunReader, RunWriter
from tests.unit.judge_runs import failed, job, manifest

text = st.text(st.characters(), max_size=6) | st.sampled_from(["caf\udce9.png", "\ud83d", "\0", "\x1b[2J", "\u202e"])
anything = st.floats() | st.integers(-(10**30), 10**30)
instant = st.floats(-1e10, 1e10)
seconds = st.floats(0, 1e12)
count = st.integers(0, 10**9)
stamp = st.none() | st.integers(-(2**53), 2**53)
json = st.recursive(
    st.none() | st.booleans() | anything | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
failures = st.builds(
    Failure, kind=st.sampled_from(get_args(FailureKind)), type=text, message=text, node=st.none() | text,
    node_class=st.none() | text, status=st.none() | count, retry_after_s=st.none() | seconds,
)  # fmt: skip
outcomes = st.sampled_from(get_args(Outcome))
executions = st.builds(
    Execution, outcome=outcomes, sent=st.none() | instant, done=st.none() | instant, started=st.none() | instant,
    done_uncertainty_s=seconds, server=st.builds(ServerTimes, create_ms=stamp, start_ms=stamp, end_ms=stamp),
    number=st.none() | st.floats(-1e300, 1e300),
    nodes=st.lists(st.builds(Span, text, instant, st.none() | instant), max_size=2),
    cached=st.lists(text, max_size=2), failure=st.none() | failures, previews=count, executions=count,
    outputs=st.lists(
        st.builds(Output, node=text, kind=text, count=count, files=st.lists(text, max_size=2)), max_size=2
    ),
    fetches=st.lists(st.builds(Fetch, file=text, bytes=count, seconds=seconds, problem=text), max_size=2),
    attempts=st.lists(st.builds(Attempt, server=text, prompt_id=text, outcome=outcomes, failure=st.none() | failures,
                                executed_ms=stamp, waited_s=seconds), max_size=2),
)  # fmt: skip
lines = st.builds(Sent, index=count, prompt_id=text, due=instant) | st.builds(
    Record, index=count, prompt_id=text, workflow=text, warmup=st.booleans(), due=instant,
    values=st.dictionaries(text, json, max_size=2), execution=executions, book=st.none() | count,
)  # fmt: skip
samples = st.builds(Sample, t=st.floats(), source=text, name=text, value=st.none() | st.floats())
rows = st.builds(
    LogLine, t=st.none() | st.floats(), source=st.just("probe"), row=st.dictionaries(text, json, max_size=3)
)


@given(
    lines=st.lists(lines, max_size=4), samples=st.lists(samples, max_size=4), rows=st.lists(rows, max_size=3), said=text
)
@settings(deadline=None)
def test_what_the_writer_took_the_reader_gives_back(
    lines: list[Any], samples: list[Sample], rows: list[LogLine], said: str
) -> None:
    """A number that JSON has not, or a reading beyond its bounds, is not known afterwards, and a reading of no instant
    is none; nothing else is lost."""
    facts = structs.replace(manifest(1), name=said, options=RunOptions(server=said, settings=[said]))
    facts.observations = [Observation(t=0.0, code=said, text=said)]
    facts.server = structs.replace(facts.server, system={said: math.inf}, argv=[said])
    with tempfile.TemporaryDirectory() as folder:
        with RunWriter(Path(folder) / "run", facts) as writer:
            for line in lines:
                writer.write_line(line)
            for sample in samples:
                writer.write_sample(sample)
            for row in rows:
                writer.write_log(row)
        reader = RunReader(Path(folder) / "run")
        reader.check()
        assert list(map(encode, reader.lines())) == list(map(encode, lines))
        kept = [structs.replace(one, value=value(one.value)) for one in samples if abs(one.t) <= 1e10]
        assert list(map(encode, reader.samples())) == list(map(encode, kept))
        assert [row.row.keys() for row in reader.log()] == [row.row.keys() for row in rows]
        assert reader.manifest.name == said and reader.manifest.observations == facts.observations


def _written(folder: Path) -> Path:
    with RunWriter(folder, manifest(4)) as writer:
        for index in range(3):
            writer.write_line(Sent(index=index, prompt_id=f"id-{index}", due=0.0))
            writer.write_line(job(index, float(index), 1.0))
        writer.write_line(failed(3, 3.0, 1.0))
        writer.write_sample(Sample(t=1.0, source="nvml", name="x", value=1.0))
    return folder


@pytest.mark.parametrize(
    "spoilt", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"line":"record"}', b"9" * 6000, b"x" * 200_000]
)
def test_damage_is_named_and_the_rest_is_saved(spoilt: bytes, tmp_path: Path) -> None:
    run = _written(tmp_path / "run")
    content = (run / RECORDS).read_bytes().split(b"\n")
    content[3] = spoilt
    (run / RECORDS).write_bytes(b"\n".join(content))
    with pytest.raises(RunFilesError, match="line 4 is damaged") as raised:
        RunReader(run).check()
    assert "show --salvage" in raised.value.hint
    saved = RunReader(run, salvage=True)
    assert len(list(saved.lines())) == 6
    assert (saved.damage[RECORDS].lines, saved.damage[RECORDS].first) == (1, 4)
    assert list(saved.samples()) and set(saved.damage) == {RECORDS}
