"""`show --job`: one job from due to end, its nodes as a waterfall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from comfyload.errors import UsageError
from comfyload.record.model import Manifest, Record
from comfyload.record.run import RunReader
from comfyload.record.stamps import believed
from comfyload.report.console import Screen, draw, print_json
from comfyload.visible import visible

BAR = 36


def show_job(path: Path, index: int, *, as_json: bool, salvage: bool = False) -> None:
    """Print job `index` of the run at `path`; with `salvage` past lines that cannot be read.

    Raises:
        UsageError: the run has no such job.
    """
    reader = RunReader(path, salvage=salvage)
    record = next((line for line in reader.lines() if isinstance(line, Record) and line.index == index), None)
    if record is None:
        raise UsageError(f"{path} has no record of job {index}", "jobs are numbered from 0, warm-up jobs first")
    console = Screen(highlight=False)
    if as_json:
        print_json(record)
        return
    draw(_head(record), console)
    draw(_facts(record), console)
    if record.execution.nodes:
        console.print()
        draw(_waterfall(record, reader.manifest), console)


def _head(record: Record) -> Text:
    execution = record.execution
    text = Text(f"Job {record.index}", style="bold").append(f" of {visible(record.workflow)}, ", style="not bold")
    text.append(execution.outcome, style="green" if execution.outcome == "completed" else "red")
    if record.warmup:
        text.append(" (warm-up, not counted)", style="not bold")
    failure = execution.failure
    if failure is not None:
        where = f" in node {failure.node} ({failure.node_class})" if failure.node else ""
        cause = visible(f"{failure.kind} {failure.type}{where}: {failure.message}")
        text.append(f"\n{cause}", style="not bold")
    return text.append(f"\n{visible(record.prompt_id)}\n", style="not bold dim")


def _facts(record: Record) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in _rows(record):
        grid.add_row(Text(name, style="dim"), Text(visible(value)))
    return grid


def _rows(record: Record) -> Iterator[tuple[str, str]]:
    execution, server = record.execution, believed(record.execution, record.due)
    yield "due", f"{record.due:.3f} s after the run began"
    for name, instant in (
        ("sent", execution.sent),
        ("acknowledged", execution.acknowledged),
        ("started", execution.started),
        ("done", execution.done),
    ):
        if instant is not None:
            yield name, f"{instant - record.due:.3f} s after it was due"
    if execution.done_uncertainty_s:
        yield "", f"found by polling, up to {execution.done_uncertainty_s:.3f} s after it happened"
    if server.create_ms is not None and server.start_ms is not None:
        yield "queue wait", f"{(server.start_ms - server.create_ms) / 1000:.3f} s by the server's clock"
    if server.execution_ms is not None:
        yield "execution", f"{server.execution_ms / 1000:.3f} s by the server's clock"
    if server is not execution.server:
        yield "", "impossible times of the server are left out"
    if record.values:
        yield "values", ", ".join(f"{key} = {value}" for key, value in record.values.items())
    if execution.cached:
        yield "from cache", f"nodes {', '.join(execution.cached)}"
    for output in execution.outputs:
        yield "output", f"node {output.node}: {output.count} {output.kind}  {' '.join(output.files)}"
    if execution.server_state_after:
        yield "left", f"{execution.server_state_after} on the server when the job was given up"


def _waterfall(record: Record, manifest: Manifest) -> Table:
    """Each node on the job's own axis, from the first node's start to the end."""
    spans = sorted(record.execution.nodes, key=lambda span: span.start)
    start = spans[0].start
    ends = [span.end for span in spans if span.end is not None]
    end = max([*ends, record.execution.done or start, start + 1e-6])
    classes = {
        n: f.class_type for facts in manifest.workflows if facts.name == record.workflow for n, f in facts.nodes.items()
    }
    table = Table(
        "node", "class", Column("seconds", justify="right"), "", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for span in spans:
        until = end if span.end is None else span.end
        left = round((span.start - start) / (end - start) * BAR)
        width = max(1, round((until - start) / (end - start) * BAR) - left)
        seconds = "no end" if span.end is None else f"{until - span.start:.3f}"
        name = classes.get(span.node) or classes.get(span.node.partition(".")[0], "?")
        table.add_row(Text(visible(span.node)), Text(visible(name)), seconds, " " * left + "━" * width)
    return table
