"""`show --job`: one job from due to end, its nodes as a waterfall."""

from collections.abc import Iterator
from pathlib import Path

from comfyload.errors import UsageError
from comfyload.record.model import Manifest, Record
from comfyload.record.run import RunReader
from comfyload.record.stamps import believed, node_spans
from comfyload.report.console import Screen, print_json
from comfyload.report.page import Page, PageLine, State, Table, Value, table
from comfyload.report.render.terminal import render

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
    if as_json:
        print_json(record)
    else:
        render(_page(record, reader.manifest), Screen())


def _page(record: Record, manifest: Manifest) -> Page:
    outcome, failure, cause = record.execution.outcome, record.execution.failure, ""
    if failure is not None:
        where = f" in node {failure.node} ({failure.node_class})" if failure.node else ""
        cause = f"{failure.kind} {failure.type}{where}: {failure.message}"
    return Page(
        title=f"Job {record.index} of {record.workflow}",
        subtitle=[*(["warm-up, not counted"] if record.warmup else []), record.prompt_id],
        states=[State(outcome, "good" if outcome == "completed" else "bad", cause)],
        facts=[PageLine(label, Value(words)) for label, words in _facts(record)],
        tables=[_waterfall(record, manifest)] if record.execution.nodes else [],
    )


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    execution, server = record.execution, believed(record.execution, record.due)
    yield "due", f"{record.due:.3f} s after the run began"
    for name in ("sent", "acknowledged", "started", "done"):
        instant: float | None = getattr(execution, name)
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
        yield "output", f"node {output.node}, {output.kind}: {output.count}  {' '.join(output.files)}"
    if execution.server_state_after:
        yield "left", f"{execution.server_state_after} on the server when the job was given up"


def _waterfall(record: Record, manifest: Manifest) -> Table:
    """Each node on the job's own axis, from the first node's start to the end."""
    spans = sorted(node_spans(record.execution), key=lambda span: span.start)
    start = spans[0].start
    ends = [span.end for span in spans if span.end is not None]
    end = max([*ends, record.execution.done or start, start + 1e-6])
    of_workflow = [facts for facts in manifest.workflows if facts.name == record.workflow]
    classes = {node: facts.class_type for one in of_workflow for node, facts in one.nodes.items()}
    rows = []
    for span in spans:
        until = end if span.end is None else span.end
        left = round((span.start - start) / (end - start) * BAR)
        width = max(1, round((until - start) / (end - start) * BAR) - left)
        seconds = "no end" if span.end is None else f"{until - span.start:.3f}"
        name = classes.get(span.node) or classes.get(span.node.partition(".")[0], "?")
        rows.append([span.node, name, seconds, " " * left + "━" * width])
    return table("nodes", ("node", "class", ">seconds", ""), rows)
