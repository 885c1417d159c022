"""What people and programs read of a run, kept as files: its page in each renderer, and the keys of the JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rich.console import Console

from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.summary import measure, summarise
from comfyload.record.model import Fetch, Manifest, Observation, Record, Sample
from comfyload.report.document import jobs, write_document
from comfyload.report.of_run import page_of
from comfyload.report.page import Page, as_json
from comfyload.report.render.markdown import as_markdown
from comfyload.report.render.terminal import render
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


def _page(case: Any) -> Page:
    run, lines = case()
    measured = measure("", run, lines)
    return page_of(measured, judge(GateSet(gates=[parse_gate(text) for text in DEFAULT_GATES]), measured))


def _terminal(page: Page, *, all: bool) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n", write_through=True)
    render(page, Console(file=file, width=80, force_terminal=False, color_system=None), all=all)
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_page_of_a_run_on_a_terminal_of_80_columns(case: Any) -> None:
    page = _page(case)
    rule = f"\n{'=' * 80}\n\n"
    same_as_kept(f"{case.__name__}.txt", _terminal(page, all=False) + rule + _terminal(page, all=True))


RENDERERS = {
    "txt": lambda page: _terminal(page, all=True),
    "md": lambda page: as_markdown(page, all=True),
    "json": lambda page: json.dumps(as_json(page), indent=1, ensure_ascii=False) + "\n",
}


@pytest.mark.parametrize("kind", ["md", "json"])
def test_the_page_of_a_run_in_other_formats(kind: str) -> None:
    same_as_kept(f"hundred_with_failures.{kind}", RENDERERS[kind](_page(hundred_with_failures)))


def _words(value: object) -> Iterator[str]:
    """Every text of a page, as JSON has it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("key", "look", "level", "code"):
                yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


@pytest.mark.parametrize("kind", RENDERERS)
@pytest.mark.parametrize("case", [hundred_with_failures, a_restart_and_foreign_load, twelve])
def test_every_renderer_says_the_same_words(case: Any, kind: str) -> None:
    page = _page(case)
    shown = _letters(RENDERERS[kind](page))
    missing = [words for words in _words(as_json(page)) if _letters(words) not in shown]
    assert missing == []


def _letters(text: str) -> str:
    """Without blanks, line ends, and the escapes of a format."""
    return re.sub(r"[\s\\]|<br>|&[a-z]+;|[<>&\"]", "", text)


def test_the_keys_of_the_json() -> None:
    run, lines = hundred_with_failures()
    fetch = Fetch(file="output/a.png", bytes=9, seconds=0.1, problem="empty")
    record = job(100, 2000.0, 9.0, fetches=[fetch], outputs=lines[0].execution.outputs)
    seen = [Observation(t=1.0, code="restart", text="a restart")]
    run = msgspec.structs.replace(run, observations=seen)
    samples = [Sample(t=1.0, source="comfy", name="queue_remaining", value=1.0)]
    file = io.BytesIO()
    write_document(file, run, summarise(run, [*lines, record], samples), jobs(run, [*lines, record]))
    keys = dict.fromkeys(_keys(json.loads(file.getvalue()), ""))
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
