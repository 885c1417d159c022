"""From a run directory to what people and machines read of it: table, JSON, exit code. A pure function of files."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from comfyload.errors import INTERRUPTED
from comfyload.judge.summary import jsonable, summarise
from comfyload.record.atomic import is_stdout, written_aside
from comfyload.record.run import RunReader
from comfyload.report.console import Screen
from comfyload.report.document import jobs, write_document
from comfyload.report.table import render

if TYPE_CHECKING:
    from pathlib import Path

    from comfyload.judge.summary import Summary

__all__ = ["report_run", "write_output"]

OK, INVALID = 0, 5


def report_run(path: Path, *, output: Path | None, quiet: bool, as_json: bool, salvage: bool = False) -> int:
    """Summarise the run at `path`, write `output`, print what was asked for; returns the exit code.

    `salvage`: lines that cannot be read are left out and told of, those of the log too.
    """
    reader = RunReader(path, salvage=salvage)
    if salvage:
        deque(reader.log(), maxlen=0)
    summary = summarise(reader.manifest, reader.lines(), reader.samples(), reader.damage)
    if output is not None:
        write_output(output, reader, summary)
    if as_json:
        Screen(soft_wrap=True, highlight=False).print_json(json.dumps(jsonable(summary.summary)))
    elif not quiet:
        console = Screen(stderr=is_stdout(output))
        render(reader.manifest, summary, console)
        console.print(
            f"Run: {path}" + (f" · JSON: {output}" if output else ""), style="dim", soft_wrap=True, markup=False
        )
    if reader.manifest.end in ("stopped", "cancelled"):
        return INTERRUPTED
    return OK if summary.valid else INVALID


def write_output(output: Path, reader: RunReader, summary: Summary) -> None:
    """The run as one JSON object, streamed aside and put in place as a whole.

    Raises:
        UsageError: it cannot be written there; the run directory is complete all the same.
    """
    with written_aside(output, f"the run itself is kept in {reader.path}") as aside, aside.open("wb") as file:
        write_document(file, reader.manifest, summary, jobs(reader.manifest, reader.lines()))
