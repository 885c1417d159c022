"""What the other process computes of one run: its Page, its pictures, and where a run that goes on stands."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from comfyload.app.check import check, gate_set
from comfyload.app.locate import Result, Target
from comfyload.app.locate import measured as fold
from comfyload.app.report import environment_of, limits, notes_of
from comfyload.app.summary import run_page
from comfyload.errors import RunFilesError
from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.gates.grammar import GateSet
from comfyload.judge.summary import Measured, Summary, jsonable, measure
from comfyload.record.model import Line, Record
from comfyload.record.run import RunReader
from comfyload.report.charts import charts
from comfyload.report.charts.chart import svg
from comfyload.report.overview import Shown, overview
from comfyload.report.page import Chart, Page, PageLine, Value
from comfyload.report.page import as_json as page_json
from comfyload.report.values import in_words, value_of
from comfyload.report.verdicts import value_words, verdict_row
from comfyload.web.file_state import FileState
from comfyload.web.follow import is_held
from comfyload.web.plans import Plans
from comfyload.web.worker import Answer, as_json, refusal
from comfyload.words import count

SVG = "image/svg+xml"

_NOT_YET = ("decided_early", "nothing_measured")
"""Findings that a run has only because it goes on."""
_MORE = ("environment", "origin")
"""Tables that the page of a report has more than that on a terminal."""
_NODES = 50


class RunView(Struct, frozen=True, kw_only=True):
    """A run as it is shown."""

    page: Page
    charts: list[Chart]
    running: bool
    salvaged: bool


class JudgedRun(Struct, frozen=True, kw_only=True):
    """A run and the verdicts on its gates. `running`: it goes on, and its numbers are of the jobs that have ended.
    `salvaged`: lines were left out. `own_gates`: the gates are those with which it was started from a page; else they
    are the default ones, as a run's files do not say which it was started with.
    """

    found: Target
    running: bool
    salvaged: bool
    gates: GateSet
    own_gates: bool
    verdicts: list[GateVerdict]

    @property
    def result(self) -> Result:
        return self.found.results[0]


class EndedJobs:
    """What is known of jobs' ends: the latest instant, and that of each job that did not complete."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.failed: dict[int, float] = {}

    def watch(self, lines: Iterable[Line]) -> Iterator[Record]:
        """The records among the lines. A job that is under way has none."""
        for line in lines:
            if isinstance(line, Record):
                done = line.execution.done or line.due
                self.last_s = max(self.last_s, done)
                if line.execution.outcome != "completed":
                    self.failed[line.index] = done
                yield line


def run_answer(path: str, state: FileState, run_id: str, label: str) -> Answer:
    """The Page of a run, and what pictures it has."""
    view = run_view(path, state)
    heads = [chart_head(chart) for chart in view.charts]
    of = {"id": run_id, "label": label, "running": view.running, "salvaged": view.salvaged}
    return as_json({**of, "page": page_json(view.page), "charts": heads})


def chart_answer(path: str, state: FileState, name: str, dark: bool) -> Answer:
    """One of its pictures."""
    return picture(run_view(path, state).charts, name, dark=dark)


@lru_cache(maxsize=4)
def run_view(path: str, _state: FileState) -> RunView:
    """The run; past lines that cannot be read, if there are any, as `show --salvage` has it."""
    judged = _judged(Path(path), EndedJobs())
    result, reader = judged.result, judged.result.reader
    page = run_page(judged.found, judged.verdicts, None)
    environment, notes = environment_of([result]), notes_of([result])
    shown = Shown(measured=result.measured, charts=[])
    whole = overview(page.title, [shown], environment=environment, notes=notes)
    more = [table for table in whole.tables if table.key in _MORE]
    drawn = limits(judged.gates.gates)
    return RunView(
        page=structs.replace(page, tables=[*page.tables, *more], remarks=whole.remarks),
        charts=charts(result.measured, reader.lines(), reader.samples(), limits=drawn),
        running=judged.running,
        salvaged=judged.salvaged,
    )


def chart_head(chart: Chart) -> dict[str, Any]:
    """What a picture is, without the picture."""
    return {
        "name": chart.name, "title": chart.title, "description": chart.description, "withheld": chart.withheld
    }  # fmt: skip


def picture(pictures: Sequence[Chart], name: str, *, dark: bool) -> Answer:
    """The picture of that name as SVG."""
    chart = next((one for one in pictures if one.name == name), None)
    if chart is None:
        names = ", ".join(one.name for one in pictures)
        return refusal(404, f"there is no picture {clean(name, 60)!r}", f"there are {names}" if names else "")
    if chart.spec is None:
        return refusal(404, f"no picture {chart.name!r}: {chart.withheld}")
    return Answer(kind=SVG, body=svg(chart, dark=dark))


def _judged(path: Path, ends: EndedJobs) -> JudgedRun:
    given = Plans(path.parent).gates_of(path.name)
    gates = gate_set([], None, []) if given is None else given
    try:
        found, running = read(path, ends=ends)
        verdicts, salvaged = check(found, gates).verdicts, False
    except RunFilesError:
        found, running = read(path, ends=ends, salvage=True)
        verdicts, salvaged = check(found, gates).verdicts, True
    own = given is not None
    return JudgedRun(found=found, running=running, salvaged=salvaged, gates=gates, own_gates=own, verdicts=verdicts)


def read(path: Path, *, salvage: bool = False, ends: EndedJobs | None = None) -> tuple[Target, bool]:
    """The run, measured, and whether it goes on: then the jobs that have ended are."""
    reader = RunReader(path, salvage=salvage)
    if salvage:
        deque(reader.log(), maxlen=0)  # so that its damage is known
    running = reader.manifest.end is None and is_held(path, reader.manifest)
    measured = _so_far(reader, ends or EndedJobs()) if running else fold(reader)
    return Target(name=path.name, results=[Result(reader=reader, measured=measured)]), running


def _so_far(reader: RunReader, ends: EndedJobs) -> Measured:
    """The jobs that have ended, judged as if the run had been stopped now."""
    manifest = reader.manifest
    if not as_it_came(manifest.plan):
        manifest.end = "decided"
    found = measure(str(reader.path), manifest, ends.watch(reader.lines()), reader.samples(), reader.damage)
    findings = [one for one in found.summary.findings if one.code not in _NOT_YET]
    return structs.replace(found, summary=structs.replace(found.summary, findings=findings))


# --- where a run stands


def live_answer(path: str, _state: FileState) -> Answer:
    """Tiles, gates, remarks, nodes and errors of what is there."""
    ends = EndedJobs()
    judged = _judged(Path(path), ends)
    if not judged.running:
        deque(ends.watch(judged.result.reader.lines()), maxlen=0)
    summary, page = judged.result.measured.summary, run_page(judged.found, judged.verdicts, None)
    found_so_far = {
        "as_of_s": ends.last_s,
        "states": page.states,
        "tiles": [_tile(line) for line in page.tiles],
        "bars": page.bars,
        "gates": [_gate(verdict, running=judged.running) for verdict in judged.verdicts],
        "own_gates": judged.own_gates,
        "remarks": [structs.asdict(remark) for remark in page.remarks],
        "nodes": _nodes(summary),
        "errors": _errors(summary, ends),
        "problem": "",
    }
    return as_json(jsonable(found_so_far))


def _tile(line: PageLine) -> dict[str, str]:
    value = line.value
    return {
        "label": line.label, "words": value.words, "interval": value.interval, "note": value.note, "key": line.key
    }  # fmt: skip


def _gate(verdict: GateVerdict, *, running: bool) -> dict[str, Any]:
    """`why`: in a few words; of a run that goes on, what is still missing for the proof."""
    _, _, _, word, rest = (cell if isinstance(cell, Value) else Value(cell) for cell in verdict_row(verdict))
    why = rest.words
    if running and verdict.verdict == "PASS*" and verdict.needs is not None and verdict.needs > verdict.n:
        why = f"{count(verdict.needs - verdict.n, 'more clean job')} would prove it"
    return {
        "words": clean(verdict.gate, 200),
        "value": value_words(verdict),
        "verdict": word.words,
        "look": word.look,
        "why": why,
        "reason": clean(verdict.why, 1000),
    }


def _nodes(summary: Summary) -> list[dict[str, Any]]:
    """The costliest nodes first."""
    return [
        {
            "node": row.node,
            "class": row.class_type or "",
            "workflow": row.workflow,
            "runs": row.n,
            "mean": value_of(row.avg_s).words,
            "p95": value_of(row.p95_s).words,
            "share": in_words(row.share, unit="share").words,
            "part": row.share,
        }
        for row in summary.nodes[:_NODES]
    ]


def _errors(summary: Summary, ends: EndedJobs) -> list[dict[str, Any]]:
    """A row for each cause, the newest first job first."""
    rows = [
        {
            "t_s": ends.failed.get(row.index),
            "index": row.index,
            "kind": row.kind if not row.type or row.type == row.kind else f"{row.kind} {row.type}",
            "node": row.node_class or "",
            "text": row.example,
            "count": row.count,
        }
        for row in summary.failures
    ]
    return sorted(rows, key=lambda row: -(row["t_s"] or 0.0))
