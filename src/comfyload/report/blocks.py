"""The tables of a run below its first numbers: nodes, failures, several workflows, switches between them."""

from __future__ import annotations

from collections.abc import Sequence

from comfyload.judge.columns.nodes import NODE_CLOCK_S, NodeRow
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Summary
from comfyload.report.headline import value_of
from comfyload.report.made import rate_label
from comfyload.report.page import Bar, Bars, Column, Table, Value
from comfyload.words import DASH, count, percent

__all__ = ["failures", "node_bars", "nodes", "switches", "workflows"]

_NODES, _BARS, _FAILURES = 5, 3, 10
_IN_COUNTS = ("dropped", "censored")
"""Kinds that the counts of jobs name already."""


def workflows(summary: Summary) -> Table | None:
    """A row for each of several workflows; None for one."""
    if len(summary.workflows) < 2:
        return None
    rate = "prev/min" if rate_label(summary) == "Previews/min" else "img/min"
    rows = [
        [
            Value(words=name),
            Value(words=str(row.jobs)),
            *map(_alone, (row.success_rate, row.avg_latency_s, row.p95_latency_s, row.avg_execution_s)),
            _alone(row.images_per_minute),
            Value(words=str(row.cached)),
        ]
        for name, row in summary.workflows.items()
    ]
    titles = ("Workflows", "jobs", "success", "mean", "p95", "execution", rate, "cached")
    return Table(key="workflows", title="", columns=_columns(titles), rows=rows)


def switches(summary: Summary) -> Table | None:
    """Mean execution by what the server ran before; None if it never switched.

    No row has all workflows together: it would compare those that are often repeated with those that seldom are.
    """
    if not summary.after.switched_s.n:
        return None
    rows = [
        [Value(words=name), _mean_of(row.after.same_s), _mean_of(row.after.switched_s)]
        for name, row in summary.workflows.items()
    ]
    columns = _columns(("Mean execution", "after the same workflow", "after a switch"))
    return Table(key="switches", title="", columns=columns, rows=rows, detail=True)


def nodes(summary: Summary) -> Table | None:
    """The costliest nodes; None if no node is known to have run."""
    if not summary.nodes:
        return None
    rows = [
        [
            Value(words=_node(row, summary)),
            Value(words=str(row.n)),
            _alone(row.avg_s, note=False),
            _alone(row.p95_s, note=False),
            Value(words=DASH if row.share is None else percent(row.share)),
        ]
        for row in summary.nodes[:_NODES]
    ]
    more = len(summary.nodes) - _NODES
    left = f"{count(more, 'more node')} not shown. " if more > 0 else ""
    return Table(
        key="nodes",
        title="",
        columns=_columns(("Nodes", "runs", "mean", "p95", "share")),
        rows=rows,
        detail=True,
        note=f"{left}Times of nodes are good to ±{1000 * NODE_CLOCK_S:.0f} ms.",
    )


def node_bars(summary: Summary) -> Bars | None:
    """The few costliest nodes by their share of the execution; None where no share is known."""
    known = [(row, row.share) for row in summary.nodes if row.share is not None and row.share >= 0.01][:_BARS]
    classes = [row.class_type for row, _ in known]
    bars = [
        Bar(label=_short(row, classes), share=min(share, 1.0), words=f"{100 * share:.0f} %") for row, share in known
    ]
    return Bars(key="nodes", title="slowest nodes", bars=bars) if bars else None


def failures(summary: Summary) -> Table | None:
    """Each cause of failure with its first message; None where nothing failed."""
    found = [row for row in summary.failures if row.kind not in _IN_COUNTS]
    if not found:
        return None
    rows = []
    for row in found[:_FAILURES]:
        kind = row.kind if not row.type or row.type == row.kind else f"{row.kind} {row.type}"
        cells = (kind, str(row.count), row.node_class or "", f"{row.example} (job {row.index})")
        rows.append([Value(words=cell) for cell in cells])
    columns = [*_columns(("Failures", "jobs")), Column(title="node"), Column(title="first message", prose=True)]
    more = len(found) - _FAILURES
    note = f"{count(more, 'more cause')} not shown." if more > 0 else ""
    return Table(key="failures", title="", columns=columns, rows=rows, note=note)


def _columns(titles: Sequence[str]) -> list[Column]:
    return [Column(title=title, right=bool(at)) for at, title in enumerate(titles)]


def _node(row: NodeRow, summary: Summary) -> str:
    where = f"{row.workflow}: " if len(summary.workflows) > 1 else ""
    return f"{where}{row.node} {row.class_type or '(not in the graph)'}"


def _short(row: NodeRow, classes: Sequence[str | None]) -> str:
    """The class alone, or with the node's number where another bar has the same."""
    return row.class_type if row.class_type and classes.count(row.class_type) == 1 else f"{row.node} {row.class_type}"


def _alone(statistic: Statistic, *, note: bool = True) -> Value:
    """The number without its interval."""
    value = value_of(statistic)
    return Value(words=value.words, note=value.note if note else "")


def _mean_of(statistic: Statistic) -> Value:
    value = _alone(statistic)
    return value if statistic.value is None else Value(words=f"{value.words} ({count(statistic.n, 'job')})")
