"""What people and programs read of a run, kept as files: the table at 80 columns, and the keys of the JSON."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rich.console import Console

from comfyload.judge.summary import summarise
from comfyload.record.model import Fetch, Manifest, Observation, Record, Sample
from comfyload.report.document import document, jobs
from comfyload.report.table import render
from tests.golden.golden import same_as_kept
from tests.unit.judge_runs import failed, job, manifest, one_by_one

Run = tuple[Manifest, list[Record]]


def _seconds(n: int) -> list[float]:
    """Durations of 9 to 12 s in an order without a pattern, the same on every machine."""
    return [9.0 + (index * 37 % 101) / 33 for index in range(n)]


def twelve() -> Run:
    return manifest(12), one_by_one(_seconds(12))


def hundred_with_failures() -> Run:
    records = one_by_one(_seconds(100))
    records[13] = failed(13, records[13].due, 4.0)
    records[40] = failed(40, records[40].due, 9.0, "lost", kind="lost", type="", message="unknown to the server")
    records[77] = failed(77, records[77].due, 9.0, "timed_out", kind="timeout", type="", message="not done 30 s after")
    return manifest(100), records


def three_hundred_after_warmup() -> Run:
    warm = [job(0, 0.0, 40.0, warmup=True), job(1, 40.0, 10.0, warmup=True)]
    return manifest(300, warmup=2), warm + [
        msgspec.structs.replace(record, due=record.due + 50, execution=job(0, record.due + 50, seconds).execution)
        for record, seconds in zip(one_by_one(_seconds(300), first=2), _seconds(300), strict=True)
    ]


def from_the_cache() -> Run:
    return manifest(12), [job(i, float(i), 0.9 if i else 10.0, cached=["3", "9"] if i else []) for i in range(12)]


def nothing_measured() -> Run:
    refusal = {"kind": "validation", "type": "prompt_outputs_failed_validation", "message": "Value not in list: ckpt"}
    return manifest(3), [failed(i, float(i), 0.01, **refusal) for i in range(3)]


def a_restart_and_foreign_load() -> Run:
    seen = [
        Observation(t=3.0, code="foreign_load", text="the server's queue held 3 prompts, of which 1 was ours", count=7),
        Observation(t=90.0, code="restart", text="the server's prompt counter began again"),
    ]
    return manifest(24, observations=seen), one_by_one(_seconds(24))


def nothing_at_all() -> Run:
    return manifest(5, end=None, ended_utc=None, self_check=None), []


CASES = [
    twelve,
    hundred_with_failures,
    three_hundred_after_warmup,
    from_the_cache,
    nothing_measured,
    a_restart_and_foreign_load,
    nothing_at_all,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_table_at_80_columns(case: Any) -> None:
    run, lines = case()
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n", write_through=True)
    render(run, summarise(run, lines), Console(file=file, width=80, force_terminal=False, color_system=None))
    file.seek(0)
    same_as_kept(f"{case.__name__}.txt", file.read())


def test_the_keys_of_the_json() -> None:
    run, lines = hundred_with_failures()
    fetch = Fetch(file="output/a.png", bytes=9, seconds=0.1, problem="empty")
    record = job(100, 2000.0, 9.0, fetches=[fetch], outputs=lines[0].execution.outputs)
    seen = [Observation(t=1.0, code="restart", text="a restart")]
    run = msgspec.structs.replace(run, observations=seen)
    samples = [Sample(t=1.0, source="comfy", name="queue_remaining", value=1.0)]
    whole = document(run, summarise(run, [*lines, record], samples), jobs(run, [*lines, record]))
    keys = dict.fromkeys(_keys(whole, ""))
    same_as_kept("json_keys.txt", "\n".join(keys) + "\n")


_BY_NAME = {".manifest.workflows[].nodes", ".manifest.client.libraries", ".jobs[].values", ".findings[].evidence"}
_BY_NAME |= {".statistics.fetched.problems"}


def _keys(value: object, place: str) -> Iterator[str]:
    """Where something stands in the JSON; of objects whose keys are data, only that they are there."""
    yield place or "."
    if isinstance(value, dict) and place not in _BY_NAME:
        for key, inner in value.items():
            yield from _keys(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, f"{place}[]")
