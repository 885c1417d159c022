"""The tables of a run below its first numbers: nodes, failures, several workflows, switches between them."""

from collections.abc import Sequence

from msgspec import Struct

from comfyload.judge.columns.ledger import clean
from comfyload.judge.columns.nodes import NODE_CLOCK_S
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured, Summary
from comfyload.report.made import rate_label
from comfyload.report.page import Bar, Bars, Row, Table, Value, table
from comfyload.report.values import in_words, value_of
from comfyload.words import DASH, count

_NODES, _BARS, _FAILURES = 5, 3, 10
_IN_COUNTS = ("dropped", "censored")
"""Kinds that the counts of jobs name already."""


def workflows(summary: Summary) -> Table | None:
    """A row for each of several workflows; None for one."""
    if len(summary.workflows) < 2:
        return None
    rate = "prev/min" if rate_label(summary) == "Previews/min" else "img/min"
    titles = ("Workflows", ">jobs", ">success", ">mean", ">p95", ">execution", f">{rate}", ">cached")
    rows = list[Row]()
    for name, row in summary.workflows.items():
        known = (row.success_rate, row.avg_latency_s, row.p95_latency_s, row.avg_execution_s, row.images_per_minute)
        rows.append([name, str(row.jobs), *map(_alone, known), str(row.cached)])
    return table("workflows", titles, rows)


def servers(summary: Summary) -> Table | None:
    """A row for each of several servers; None for one."""
    if not summary.servers:
        return None
    titles = ("Servers", ">jobs", ">share", ">half wait", ">p95", ">execution", ">failed", ">jobs/min", ">busy",
              ">queue before")  # fmt: skip
    rows = list[Row]()
    for name, row in summary.servers.items():
        rows.append(
            [
                name,
                str(row.jobs),
                in_words(row.share, unit="share"),
                *map(_alone, (row.p50_latency_s, row.p95_latency_s)),
                value_of(row.p50_execution_s),
                str(row.failed),
                _alone(row.jobs_per_minute),
                in_words(row.busy, unit="share"),
                str(row.queue_at_start) if row.queue_at_start is not None else DASH,
            ]
        )
    note = "Execution is the median of each server, by its own clock. Jobs per minute add up to the run's."
    return table("servers", titles, rows, note=note)


def switches(summary: Summary) -> Table | None:
    """Mean execution by what the server ran before; None if it never switched.

    No row has all workflows together: it would compare those that are often repeated with those that seldom are.
    """
    if not summary.after.switched_s.n:
        return None
    rows: list[Row] = [
        [name, _mean_of(row.after.same_s), _mean_of(row.after.switched_s)] for name, row in summary.workflows.items()
    ]
    return table("switches", ("Mean execution", ">after the same workflow", ">after a switch"), rows, detail=True)


def nodes(summary: Summary) -> Table | None:
    """The costliest nodes; None if no node is known to have run."""
    if not summary.nodes:
        return None
    rows = list[Row]()
    shown = summary.nodes if len(summary.nodes) == _NODES + 1 else summary.nodes[:_NODES]  # a note takes a line, too
    for row in shown:
        times = [_alone(time, note=False) for time in (row.avg_s, row.p95_s)]
        where = f"{row.workflow}: " if len(summary.workflows) > 1 else ""
        node = f"{where}{row.node} {row.class_type or '(not in the graph)'}"
        rows.append([node, str(row.n), *times, in_words(row.share, unit="share")])
    more = len(summary.nodes) - len(shown)
    left = f"{count(more, 'more node')} not shown. " if more else ""
    note = f"{left}Times of nodes are good to ±{1000 * NODE_CLOCK_S:.0f} ms."
    return table("nodes", ("Nodes", ">runs", ">mean", ">p95", ">share"), rows, detail=True, note=note)


class ClassShare(Struct, frozen=True, kw_only=True):
    """A class of nodes in a workflow. `share`: of the execution, summed over its nodes, above 1 where they overlap."""

    workflow: str
    name: str
    nodes: int
    share: float


def class_shares(summary: Summary) -> list[ClassShare]:
    """The costliest class first, of those of which a share is known."""
    shares: dict[tuple[str, str], list[float]] = {}
    for row in summary.nodes:
        if row.share is not None:
            shares.setdefault((row.workflow, row.class_type or f"node {row.node}"), []).append(row.share)
    found = [
        ClassShare(workflow=of, name=name, nodes=len(all_), share=sum(all_)) for (of, name), all_ in shares.items()
    ]
    return sorted(found, key=lambda row: -row.share)


def node_bars(summary: Summary) -> Bars | None:
    """The few costliest classes of nodes by their share of the execution; None where no share is known."""
    bars = []
    for row in class_shares(summary)[:_BARS]:
        if row.share >= 0.01:
            of = f"{row.workflow}: " if len(summary.workflows) > 1 else ""
            nodes = f" ({row.nodes} nodes)" if row.nodes > 1 else ""
            words = f"{'up to ' if row.share > 1 else ''}{100 * min(row.share, 1.0):.0f} %"
            bars.append(Bar(f"{of}{row.name}{nodes}", min(row.share, 1.0), words))
    return Bars(key="nodes", title="slowest nodes", bars=bars) if bars else None


def failures(runs: Sequence[Measured]) -> Table | None:
    """Each cause of failure with its first message; None where nothing failed."""
    several, rows = len(runs) > 1, []
    for run in runs:
        for row in run.summary.failures:
            if several or row.kind not in _IN_COUNTS:
                kind = row.kind if not row.type or row.type == row.kind else f"{row.kind} {row.type}"
                cells = (kind, str(row.count), row.node_class or "", f"{row.example} (job {row.index})")
                rows.append([clean(run.manifest.name, 60), *cells] if several else cells)
    if not rows:
        return None
    columns = ("Failures", ">jobs", "node", "~first message")
    shown = _FAILURES * len(runs)
    note = f"{count(len(rows) - shown, 'more cause')} not shown." if len(rows) > shown else ""
    return table("failures", ("run", *columns) if several else columns, rows[:shown], note=note)


def _alone(statistic: Statistic, *, note: bool = True) -> Value:
    """The number without its interval."""
    value = value_of(statistic)
    return Value(value.words, note=value.note if note else "")


def _mean_of(statistic: Statistic) -> Value:
    value = _alone(statistic)
    return value if statistic.value is None else Value(f"{value.words} ({count(statistic.n, 'job')})")
