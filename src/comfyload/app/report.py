"""`report`: runs or a baseline as one page that needs no network."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from msgspec import structs

from comfyload.app.locate import Result, Target
from comfyload.judge.comparison.compare import compare
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.gates.grammar import Gate
from comfyload.judge.observations import run_labels
from comfyload.judge.summary import jsonable
from comfyload.record.atomic import write_whole
from comfyload.record.model import Environment, Fact
from comfyload.report.charts import charts
from comfyload.report.comparison import comparison_page
from comfyload.report.document import jobs
from comfyload.report.html import render_html
from comfyload.report.overview import JOBS, Shown, overview, run_page
from comfyload.report.page import Page
from comfyload.visible import visible_lines

NOTE = "note."


def shown(result: Result, gates: Sequence[Gate] = ()) -> Shown:
    """A run with its charts and the jobs that a page lists; the limits of `gates` on latency are drawn."""
    reader, manifest = result.reader, result.reader.manifest
    pictures = charts(result.measured, reader.lines(), reader.samples(), limits=limits(gates))
    listed = [jsonable(job) for job in islice(jobs(manifest, reader.lines()), JOBS)]
    return Shown(measured=result.measured, charts=pictures, jobs=listed)


def limits(gates: Sequence[Gate]) -> list[tuple[str, float]]:
    """Words and seconds of the gates that limit a job's latency from above."""
    latency = [gate for gate in gates if gate.name.endswith("_latency_s") and gate.upper and not gate.of_baseline]
    return [(gate.text, gate.limit) for gate in latency if "book" not in gate.name]


def environment_of(results: Sequence[Result]) -> Environment:
    """What made the runs: the first's facts, and those that a later run knows better or otherwise.

    Notes are left out; `notes_of` has them.
    """
    merged: Environment = {}
    for result in results:
        for key, fact in result.reader.manifest.environment.items():
            known = merged.get(key)
            if known is None or known.value is None:
                merged[key] = fact
            elif fact.value is not None and fact.value != known.value:
                merged[key] = Fact(value=f"{known.value}, then {fact.value}", source=known.source)
    return {key: fact for key, fact in merged.items() if not key.startswith(NOTE)}


def notes_of(results: Sequence[Result]) -> dict[str, str]:
    """What people noted about the runs."""
    facts = {key: fact for result in results for key, fact in result.reader.manifest.environment.items()}
    return {key.removeprefix(NOTE): str(fact.value) for key, fact in facts.items() if key.startswith(NOTE)}


def page(
    found: Target,
    gates: Sequence[Gate],
    verdicts: Sequence[GateVerdict],
    against: Target | None = None,
    accept: Sequence[str] = (),
) -> str:
    """The page of what was found, and what the gates say of it; `against` is what it is compared with."""
    kept = None if found.kept is None else found.kept.manifest
    runs = [shown(result, gates) for result in found.results]
    view = overview(
        found.name,
        runs,
        verdicts=verdicts,
        environment=environment_of(found.results) if kept is None else kept.environment,
        notes=notes_of(found.results) if kept is None else kept.notes,
        limits=limits(gates),
    )
    if against is not None:
        view = compared(view, comparison_page(compare(against.runs, found.runs, accept=accept)))
    return whole_page(view, runs, [] if kept is None else kept.command)


def compared(view: Page, comparison: Page) -> Page:
    """The page, with the comparison that B (what it shows) is part of before all else."""
    return structs.replace(
        view,
        states=[*comparison.states, *view.states],
        facts=[*comparison.facts, *view.facts],
        tables=[*comparison.tables, *view.tables],
        remarks=[*comparison.remarks, *view.remarks],
    )


def whole_page(view: Page, runs: Sequence[Shown], command: Sequence[str]) -> str:
    """The HTML of `view` with its runs folded below, where there are several; `command`: how to repeat them."""
    labels = run_labels([one.measured for one in runs])
    parts = [run_page(one, label) for one, label in zip(runs, labels, strict=True)] if len(runs) > 1 else []
    tool = runs[0].measured.manifest.tool if runs else "comfyload"
    return render_html(view, parts, repeat=command, tool=tool)


def write_page(file: Path, text: str) -> None:
    """Put the page in place as a whole; signs that would turn a line or cannot be written are escapes in it.

    Raises:
        UsageError: it cannot be written there.
    """
    write_whole(file, visible_lines(text).encode())
