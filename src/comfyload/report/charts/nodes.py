"""The pictures of a graph's nodes: what each costs in all jobs, and how one job went through them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import altair as alt

from comfyload.judge.columns.ledger import clean
from comfyload.judge.columns.nodes import NODE_CLOCK_S, NodeRow
from comfyload.judge.metrics import METRICS
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest, Record
from comfyload.record.outcomes import OUTCOMES
from comfyload.record.stamps import node_spans
from comfyload.report.charts.chart import WIDTH, Rows, data, palette, spec, upto, withheld
from comfyload.report.charts.chart_data import ChartData
from comfyload.report.charts.theme import BLUE, GREY, ORANGE, PURPLE
from comfyload.report.page import Chart, table
from comfyload.report.values import value_of
from comfyload.words import DASH, count, digits, duration, percent, scale

Labels = Callable[[str, str], str]
"""From a workflow's name and a node's id to the node's name in a picture."""

_SHOWN = 15
_COLUMNS = ("node", "mean", "95 % interval", "p95", "share", "runs")
_BARS = 5000
_LABEL = 36
_took = METRICS["latency"].of
_UNSEEN = 0.003
"""Of a job's time: waits that are shorter get no row."""

_ROUND = f"Node times are those of messages arriving, good to {1000 * NODE_CLOCK_S:.0f} ms."


def nodes_chart(measured: Measured) -> Chart:
    """Mean seconds of each node with its interval, the slowest first."""
    name, title = "nodes", "Time per node"
    ran = [row for row in measured.summary.nodes if row.avg_s.value is not None]
    if not ran:
        return withheld(name, title, "no node of a completed counted job has a time")
    label = _labels(measured.manifest)
    shown = ran[:_SHOWN]
    factor, unit = scale([row.avg_s.high or row.avg_s.value or 0.0 for row in shown], below=1.0)
    rows = [_node(row, label, factor) for row in shown]
    more = f" The {count(_SHOWN, 'slowest', 'slowest')} of {len(ran)} are drawn." if len(ran) > _SHOWN else ""
    parts = [f"{row['node']} {_of(row, unit)}" for row in rows[:3]]
    return Chart(
        name=name,
        title=title,
        description=f"Mean time of a run of each node. The slowest: {'; '.join(parts)}.{more} {_ROUND}",
        spec=_bars(rows, unit),
        numbers=table(name, _COLUMNS, [_cells(row, label) for row in ran[:100]]),
    )


def _node(row: NodeRow, label: Labels, factor: float) -> dict[str, Any]:
    mean, low, high = (
        None if one is None else factor * one for one in (row.avg_s.value, row.avg_s.low, row.avg_s.high)
    )
    return {
        "node": label(row.workflow, row.node),
        "mean": mean,
        "low": low,
        "high": high,
        "end": high or mean,
        "share": "" if row.share is None else percent(row.share),
        "n": row.n,
    }


def _of(row: dict[str, Any], unit: str) -> str:
    share = f", {row['share']} of execution" if row["share"] else ""
    return f"{digits(row['mean'])} {unit} (n = {row['n']}{share})"


def _bars(rows: Rows, unit: str) -> dict[str, Any]:
    y = alt.Y("node:N", title=None, sort=[row["node"] for row in rows], axis=alt.Axis(labelLimit=190))
    right = 1.22 * max(row["end"] for row in rows)
    x = alt.X("mean:Q", title=f"mean of a run, {unit} (and share of execution)", scale=upto(right))
    tips = [alt.Tooltip("node:N"), alt.Tooltip("mean:Q", title=f"mean, {unit}", format=".3~f")]
    tips += [alt.Tooltip("low:Q", format=".3~f"), alt.Tooltip("high:Q", format=".3~f")]
    tips += [alt.Tooltip("share:N"), alt.Tooltip("n:Q", title="runs")]
    base = alt.Chart(data("nodes")).encode(y=y)
    whole = "isValid(datum.low) && isValid(datum.high)"
    layers = (
        base.mark_bar(color=BLUE, opacity=0.85, height=13).encode(x=x, tooltip=tips),
        base.mark_rule(style="interval").transform_filter(whole).encode(x="low:Q", x2="high:Q"),
        base.mark_text(style="note", align="left", dx=5).encode(x="end:Q", text="share:N"),
    )
    return spec(alt.layer(*layers).properties(width=WIDTH, height=22 * len(rows)), nodes=rows)


def _cells(row: NodeRow, label: Labels) -> list[str]:
    mean, tail = value_of(row.avg_s), value_of(row.p95_s)
    share = DASH if row.share is None else percent(row.share)
    return [label(row.workflow, row.node), mean.words, mean.interval or DASH, tail.words, share, str(row.n)]


def waterfall_chart(measured: Measured, chart_data: ChartData) -> Chart:
    """The way of one job through the graph; which job is chosen from a list."""
    name, title = "waterfall", "One job, node by node"
    label = _labels(measured.manifest)
    known = [record for record in chart_data.chosen if _took(record) is not None]
    ranked = sorted(known, key=lambda record: (record.warmup, -(_took(record) or 0.0)))
    rows: Rows = []
    jobs: list[tuple[str, str]] = []
    factor, unit = scale([_took(record) or 0.0 for record in ranked], below=1.0)
    for record in ranked:
        spans = _spans(record, label, factor)
        if len(rows) + len(spans) > _BARS and jobs:
            break
        rows += spans
        took = factor * (_took(record) or 0.0)
        warm = ", warm-up" if record.warmup else ""
        end = "" if record.execution.outcome == "completed" else f", {OUTCOMES[record.execution.outcome].words}"
        jobs.append((str(record.index), f"job {record.index}: {digits(took)} {unit}{warm}{end}"))
    if not jobs:
        return withheld(name, title, "no job has an end")
    first = ranked[0]
    parts = [row for row in rows if row["job"] == jobs[0][0]]
    of = ""
    if len(jobs) < chart_data.of:
        of = f" {len(jobs)} of {count(chart_data.of, 'job')} can be chosen: the slowest, the fastest and others evenly "
        of += "between, as far as there is room."
    numbers = [(row["node"], *(f"{digits(v)} {unit}" for v in (row["a"], row["b"] - row["a"]))) for row in parts]
    slow = max(parts, key=lambda row: float(row["b"] - row["a"]))
    return Chart(
        name=name,
        title=title,
        description=f"Job {first.index}, the slowest counted, took {duration(_took(first) or 0.0)}; longest in it was "
        f"{slow['node']}. A bar begins when the node began.{of} {_ROUND}",
        spec=_waterfall(rows, jobs, unit),
        numbers=table(name, ("part of the slowest job", "began after", "took"), numbers[:100]),
    )


def _spans(record: Record, label: Labels, factor: float) -> Rows:
    run, out = record.execution, []
    begun = run.started or min((span.start for span in run.nodes), default=run.done)
    parts = [("waiting to be sent", "before", record.due, run.sent), ("sent, and queued", "queue", run.sent, begun)]
    parts += [
        (label(record.workflow, span.node), "node", span.start, span.end or run.done)
        for span in sorted(node_spans(run), key=lambda span: span.start)
    ]
    last = max((end for _, _, _, end in parts if end is not None), default=None)
    parts.append(("until its end arrived", "after", last, run.done))
    least = _UNSEEN * (_took(record) or 0.0)
    for number, (what, kind, start, end) in enumerate(parts):
        if start is not None and end is not None and (end - start > least or kind == "node"):
            a, b = factor * (start - record.due), factor * (end - record.due)
            out.append({"job": str(record.index), "node": what, "kind": kind, "a": a, "b": max(a, b), "i": number})
    return out


def _waterfall(rows: Rows, jobs: list[tuple[str, str]], unit: str) -> dict[str, Any]:
    choice = alt.binding_select(options=[job for job, _ in jobs], labels=[words for _, words in jobs], name="Job ")
    chosen = alt.param(name="job", value=jobs[0][0], bind=choice)
    kinds = {"before": PURPLE, "queue": ORANGE, "node": BLUE, "after": GREY}
    ends = {"a": "from", "b": "to"}
    tips = [alt.Tooltip(f"{end}:Q", title=f"{words}, {unit}", format=".3~f") for end, words in ends.items()]
    x = alt.X("a:Q", title=f"since the job was due, {unit}", scale=alt.Scale(zero=True))
    in_order = alt.EncodingSortField(field="i", op="min", order="ascending")
    y = alt.Y("node:N", title=None, sort=in_order, axis=alt.Axis(labelLimit=190, labelOverlap=False))
    colour = alt.Color("kind:N", scale=palette(kinds), legend=None)
    most = max(Counter(row["job"] for row in rows).values())
    bars = alt.Chart(data("spans")).add_params(chosen).transform_filter("datum.job === job")
    bars = bars.mark_bar(height=11, minBandSize=2).properties(width=WIDTH, height=max(60, 17 * most))
    tips.insert(0, alt.Tooltip("node:N", title="part"))
    return spec(bars.encode(x=x, x2="b:Q", y=y, color=colour, tooltip=tips), spans=rows)


def _labels(manifest: Manifest) -> Labels:
    """What a node is called: its id and title, or its class where the run keeps no graph. Strangers wrote these."""
    names: dict[tuple[str, str], str] = {}
    for facts in manifest.workflows:
        names |= {(facts.name, node): known.class_type for node, known in facts.nodes.items()}
        for node, inner in (facts.graph or {}).items():
            title = inner.get("_meta", {}).get("title") if isinstance(inner, dict) else None
            if isinstance(title, str) and title.strip():
                names[facts.name, node] = title

    def label(workflow: str, node: str) -> str:
        parent = names.get((workflow, node.partition(".")[0]))
        name = names.get((workflow, node)) or (f"in {parent}" if parent else "not in the graph")
        before = f"{workflow}: " if len(manifest.workflows) > 1 else ""
        return clean(f"{before}{node} {name}", _LABEL)

    return label
