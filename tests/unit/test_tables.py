"""A row added to a table shows everywhere: the tables and the types agree, and no renderer knows rows by hand."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
from msgspec import structs
from rich.console import Console

from comfyload.app.report import whole_page
from comfyload.judge.findings import stability, table
from comfyload.judge.findings.table import FindingRow
from comfyload.judge.gates.grammar import parse_gate
from comfyload.judge.metrics import METRICS, Metric
from comfyload.judge.number import Number
from comfyload.judge.numbers import ERRORS, NUMBERS, number_of_outcome, numbers_of_metric, workflow_numbers
from comfyload.judge.summary import Measured, measure, summarise
from comfyload.judge.workflows import WorkflowRow
from comfyload.record.archive import Contents, KeptRun
from comfyload.record.model import Record
from comfyload.record.outcomes import OUTCOMES, Outcome, OutcomeRow
from comfyload.report.baseline import render_readme
from comfyload.report.document import jobs, write_document
from comfyload.report.export.prometheus import metrics_text
from comfyload.report.export.table import columns
from comfyload.report.of_run import page_of
from comfyload.report.overview import overview
from comfyload.report.page import as_json
from comfyload.report.render.markdown import as_markdown
from comfyload.report.render.terminal import render
from tests.docs.pages import generator
from tests.unit.chart_runs import shown
from tests.unit.judge_runs import failed, job, manifest, one_by_one

NEW: Any = "expired"
"""An outcome that the type does not have."""


def _lines() -> list[Record]:
    gone = failed(3, 30.0, 5.0)
    gone = structs.replace(gone, execution=structs.replace(gone.execution, outcome=NEW))
    return [*one_by_one([5.0, 6.0, 7.0]), gone] if NEW in OUTCOMES else [*one_by_one([5.0, 6.0, 7.0, 6.0])]


def _measured() -> Measured:
    return measure("runs/x", manifest(4), _lines())


def _json() -> str:
    measured = _measured()
    file = io.BytesIO()
    write_document(file, measured.manifest, measured.summary, jobs(measured.manifest, _lines()))
    return file.getvalue().decode()


def _terminal() -> str:
    file = io.StringIO()
    render(page_of(_measured()), Console(file=file, width=200, color_system=None), all=True)
    return file.getvalue()


def _html() -> str:
    run = shown(manifest(4), _lines())
    return re.sub(r"\s+", " ", whole_page(overview("x", [run]), [run], ()))


def _readme() -> str:
    run = shown(manifest(4), _lines())
    kept = Contents(
        runs=[KeptRun(folder="runs/book", output="load_book.json", run_id="id", name="book", load="1 in flight")],
        environment={},
        notes={},
        command=[],
    )
    return render_readme(kept, overview("x", [run]), [run])


RENDERERS: dict[str, Callable[[], str]] = {
    "json": _json,
    "prometheus": lambda: metrics_text(_measured()).decode(),
    "csv": lambda: " ".join(column.name for column in columns(_lines)),
    "terminal": _terminal,
    "html": _html,
    "readme": _readme,
    "markdown": lambda: as_markdown(page_of(_measured()), all=True),
    "page": lambda: json.dumps(as_json(page_of(_measured()))),
    "reference": lambda: "\n".join(generator().pages().values()),
}
"""What writes a run for people or for tools."""


def _add_outcome(patch: pytest.MonkeyPatch) -> None:
    row = OutcomeRow(key="expiries", words="quite expired", meaning="too late for anybody", log_status="error")
    patch.setitem(OUTCOMES, NEW, row)
    patch.setitem(NUMBERS, "expiries", number_of_outcome(NEW))


def _add_number(patch: pytest.MonkeyPatch) -> None:
    row = Number(
        key="dummy_per_minute",
        words="dummies",
        unit="dummies/min",
        kind="fact",
        meaning="how many dummies there were",
        count=lambda counts: float(counts.outcomes["completed"]),
    )
    patch.setitem(NUMBERS, row.key, row)


def _add_metric(patch: pytest.MonkeyPatch) -> None:
    metric = Metric(
        name="dummy",
        words="dummy time",
        clock="client",
        begins="due",
        ends="acknowledged",
        shown=("p50", "max"),
        meaning="from due to acknowledged, on the client's clock",
    )
    patch.setitem(METRICS, "dummy", metric)
    for row in numbers_of_metric(metric):
        patch.setitem(NUMBERS, row.key, row)


def _add_finding(patch: pytest.MonkeyPatch) -> None:
    row = FindingRow(level="info", meaning="A dummy was found.", hint="Leave {what} alone.", fields={"what": "it"})
    patch.setitem(table.FINDINGS, "dummy_found", row)
    found = table.finding("dummy_found", "One dummy.", {}, fields={"what": "this dummy"})
    patch.setattr(stability, "_polled", lambda _evidence: iter([found]))


ADDED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], dict[str, str]]] = {
    "outcome": (
        _add_outcome,
        {
            "json": '"expiries": 1',
            "prometheus": 'outcome="expired"',
            "terminal": "3 of 4 completed · 1 quite expired",
            "html": "3 of 4 completed · 1 quite expired",
            "readme": "3 of 4 completed · 1 quite expired",
            "markdown": "3 of 4 completed · 1 quite expired",
            "page": '"1 quite expired"',
            "reference": "too late for anybody",
        },
    ),
    "number": (
        _add_number,
        {
            "json": '"dummy_per_minute": 4.0',
            "prometheus": "comfyload_dummy_per_second",
            "terminal": "Dummies",
            "html": "<dt>Dummies</dt>",
            "markdown": "- Dummies: 4",
            "page": '"label": "Dummies"',
            "reference": "how many dummies there were",
        },
    ),
    "metric": (
        _add_metric,
        {
            "json": '"max_dummy_s": 0.',
            "prometheus": "comfyload_max_dummy_seconds",
            "csv": "dummy_s",
            "terminal": "dummy time, ms",
            "html": "dummy time, ms</th>",
            "markdown": "| dummy time, ms |",
            "page": '"dummy time, ms"',
            "reference": "median of the time from due to acknowledged",
        },
    ),
    "finding": (
        _add_finding,
        {
            **dict.fromkeys(("json", "terminal", "html", "markdown", "page"), "Leave this dummy alone."),
            "reference": "Leave it alone.",
        },
    ),
}
"""How a row is added to each table, and what renderers then write of it. A README of one screen has few numbers."""


@pytest.mark.parametrize(("kind", "renderer"), [(kind, name) for kind, (_, texts) in ADDED.items() for name in texts])
def test_a_row_that_is_added_shows_without_another_line(
    kind: str, renderer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, texts = ADDED[kind]
    assert texts[renderer] not in RENDERERS[renderer]()
    add(monkeypatch)
    assert texts[renderer] in RENDERERS[renderer]()


def test_a_gate_can_be_on_any_number_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    _add_number(monkeypatch)
    _add_metric(monkeypatch)
    assert parse_gate("dummy_per_minute >= 2").number.measure == "/min"
    assert parse_gate("p50_dummy_s <= 250 ms").limit == 0.25


def test_an_outcome_has_a_row_and_a_row_an_outcome() -> None:
    assert set(get_args(Outcome)) == set(OUTCOMES)
    assert len({row.key for row in OUTCOMES.values()}) == len({row.words for row in OUTCOMES.values()}) == len(OUTCOMES)


def test_every_job_is_in_the_count_of_its_outcome() -> None:
    lines = [job(0, 0.0, 1.0), *(failed(1 + at, 1.0 + at, 1.0, name) for at, name in enumerate(get_args(Outcome)[1:]))]
    flat = summarise(manifest(len(lines)), lines).summary
    assert [flat[row.key] for row in OUTCOMES.values()] == [1] * len(lines)
    assert flat["total_jobs"] == len(lines)


def test_a_number_is_counted_or_has_a_statistic_and_a_summary_has_no_other() -> None:
    summary = _measured().summary
    assert list(summary.summary) == [key for key in NUMBERS if key != ERRORS]
    assert set(summary.statistics) == {row.key for row in NUMBERS.values() if row.count is None} - {ERRORS}
    assert set(workflow_numbers()) == set(WorkflowRow.__struct_fields__) - {"after"}


def test_a_statistic_has_the_unit_of_its_row() -> None:
    units = {"0..1": "1"}
    for key, statistic in _measured().summary.statistics.items():
        assert statistic.unit == units.get(NUMBERS[key].unit, NUMBERS[key].unit)


def test_a_finding_has_the_hint_of_its_row() -> None:
    assert table.finding("cold_head", "text", {}).hint == "Run again with --warmup N or more."
    assert table.finding("cold_head", "text", {}, fields={"warmup": "4"}).hint == "Run again with --warmup 4 or more."
    unknown = table.finding("of_a_newer_version", "text", {"a": 1})
    assert (unknown.level, unknown.hint, unknown.evidence) == ("info", "", {"a": 1})
