"""`show --job`: one job from due to end, its nodes as a waterfall. `show FOLDER`: the runs in a folder, a row each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comfyload.app.locate import Result, find
from comfyload.errors import UsageError
from comfyload.record.model import Manifest, Record
from comfyload.record.run import RunReader
from comfyload.record.stamps import believed, node_spans
from comfyload.report.console import Screen, print_json
from comfyload.report.page import Page, PageLine, State, Table, Value, table
from comfyload.report.render.terminal import render
from comfyload.words import count, duration

BAR = 36
_STATES = {"complete": "", "crashed": "cut short"}
"""What a row of a folder says of a run's end, where that is another word."""


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


def show_folder(path: Path, *, as_json: bool) -> None:
    """Print each run in the folder as a row."""
    results = find(str(path), path).results
    rows = [_row(result) for result in results]
    if as_json:
        print_json(rows)
        return
    columns = ("run", ">jobs", ">completed", ">p50", ">p95", ">sent again", "")
    cells = [
        [row["run"], *(str(row[key]) for key in ("jobs", "completed")), _seconds(row["p50_latency_s"]),
         _seconds(row["p95_latency_s"]), str(row["sent_again"]), row["state"]]
        for row in rows
    ]  # fmt: skip
    render(
        Page(
            title=str(path),
            subtitle=[count(len(rows), "run"), count(sum(row["jobs"] for row in rows), "job")],
            tables=[table("runs", columns, cells)],
            next=[
                f"comfyload show {results[-1].reader.path}",
                f"comfyload policy {path} --deadline 90s --output retry.json",
            ],
        ),
        Screen(),
    )


def _row(result: Result) -> dict[str, Any]:
    found, end = result.measured.summary, result.reader.manifest.end
    return {
        "run": result.reader.path.name,
        "jobs": found.summary["total_jobs"],
        "completed": found.summary["completed"],
        "p50_latency_s": found.summary["p50_latency_s"],
        "p95_latency_s": found.summary["p95_latency_s"],
        "sent_again": 0 if found.retries is None else found.retries.retried,
        "state": "goes on" if end is None else _STATES.get(end, end),
    }


def _seconds(value: float | str | None) -> str:
    """A time of the summary, of which "inf" is infinite."""
    return "-" if value is None else value if isinstance(value, str) else duration(value)


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
