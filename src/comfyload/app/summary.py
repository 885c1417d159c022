"""From a run directory to what people and machines read of it: page, JSON, exit code. A pure function of files."""

import shlex
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from comfyload.app.check import check, gate_set
from comfyload.app.locate import Result, Target, measured
from comfyload.errors import INTERRUPTED
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.summary import Measured, Summary, jsonable
from comfyload.record.atomic import is_stdout, written_aside
from comfyload.record.run import RunReader
from comfyload.report.console import Screen, print_json
from comfyload.report.document import jobs, write_document
from comfyload.report.of_run import page_of
from comfyload.report.page import Page
from comfyload.report.page import as_json as page_json
from comfyload.report.render.terminal import render

OK, INVALID = 0, 5


def report_run(
    path: Path,
    *,
    output: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
    salvage: bool = False,
    all: bool = False,
    next_: list[str] | None = None,
) -> int:
    """Summarise the run at `path`, write `output` and print the page or JSON; returns the exit code.

    The page shows the default gates, which do not change the exit code. `salvage`: lines that cannot be read are left
    out and counted, those of the log too. `all`: with every number; as JSON the page in words. `next_`: commands to
    type now; None: those of every run.
    """
    found = read_run(path, salvage=salvage)
    if output is not None:
        write_output(output, found.results[0].reader, found.runs[0].summary)
    if as_json and not all:
        print_json(jsonable(found.runs[0].summary.summary))
    elif as_json or not quiet:
        page = run_page(found, check(found, gate_set([], None, [])).verdicts, output, next_, all=all)
        print_json(page_json(page)) if as_json else render(page, Screen(stderr=is_stdout(output)), all=all)
    return end_code(found)


def read_run(path: Path, *, salvage: bool = False) -> Target:
    """The run at `path`, measured, with what of its files could not be read."""
    reader = RunReader(path, salvage=salvage)
    if salvage:
        deque(reader.log(), maxlen=0)
    return Target(name=path.name, results=[Result(reader=reader, measured=measured(reader))])


def end_code(found: Target) -> int:
    """The exit code of a run that no gate was given for."""
    (result,) = found.results
    if result.reader.manifest.end in ("stopped", "cancelled"):
        return INTERRUPTED
    return OK if result.measured.summary.valid else INVALID


def write_output(output: Path, reader: RunReader, summary: Summary) -> None:
    """The run as one JSON object, streamed aside and put in place as a whole.

    Raises:
        UsageError: it cannot be written there; the run directory is complete all the same.
    """
    with written_aside(output, f"the run itself is kept in {reader.path}") as aside, aside.open("wb") as file:
        write_document(file, reader.manifest, summary, jobs(reader.manifest, reader.lines()))


def run_page(
    found: Target,
    verdicts: Sequence[GateVerdict],
    output: Path | None,
    next_: list[str] | None = None,
    *,
    all: bool = False,
) -> Page:
    """The page, with where the run lies and what one would type now. `all`: it has all numbers already."""
    (result,) = found.results
    run = shlex.quote(str(result.reader.path))
    places = [("Run", str(result.reader.path)), *([("JSON", str(output))] if output else [])]
    places += [] if all else [("All numbers", f"comfyload show {run} --all")]
    next_ = _next(run, result.measured) if next_ is None else next_
    return structs.replace(page_of(result.measured, verdicts), places=places, next=next_)


def _next(run: str, found: Measured) -> list[str]:
    """The first failure, if there is one; of a run that counts, its page, and how to keep it."""
    failures = found.summary.failures
    lines = [f"comfyload show {run} --job {failures[0].index}"] if failures else []
    if found.summary.valid:
        lines += [f"comfyload report {run}", f"comfyload baseline save {run} --name NAME"]
    return lines
