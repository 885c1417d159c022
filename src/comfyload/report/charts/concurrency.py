"""The picture of several runs: images a minute and latency by jobs in flight, a column for each workflow."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from comfyload.judge.columns.ledger import clean
from comfyload.judge.observations import run_labels
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.report.charts.chart import WIDTH, Rows, data, spec, upto, withheld
from comfyload.report.charts.distribution import BEYOND, Limit
from comfyload.report.charts.theme import BLUE, ORANGE
from comfyload.report.page import Chart, table
from comfyload.report.steps import by_workflow, knee, latency_key, rate_key
from comfyload.report.values import value_of
from comfyload.words import DASH, duration, scale

Panel = alt.LayerChart | alt.FacetChart
_COLUMNS = 4
_LABELS = 62
"""Pixels for the labels of an axis."""
_RATES = {"images/min": "images a minute", "previews/min": "previews a minute", "jobs/min": "jobs a minute"}
_LATENCIES = {"p95_latency_s": "p95 latency", "p50_latency_s": "median latency"}


def _steps(runs: Sequence[Measured]) -> list[list[Measured]] | None:
    """The runs of each workflow where each ran with other jobs in flight, and some with several; None: not so."""
    found = by_workflow(runs)
    for steps in found:
        users = [run.manifest.plan.concurrency for run in steps]
        if None in users or len(set(users)) < len(users):
            return None
    return found if any(len(steps) > 1 for steps in found) else None


def concurrency_chart(runs: Sequence[Measured], limits: Sequence[Limit] = ()) -> Chart:
    """Throughput and latency with their intervals; the knee is ringed, limits on latency are lines."""
    steps = _steps(runs)
    name, title = "concurrency", f"Throughput and latency {'of each run' if steps is None else 'by jobs in flight'}"
    keys = (rate_key(runs), latency_key(runs)) if runs else ("", "")
    rows = _rows(runs, steps, keys)
    if len(runs) < 2 or not rows:
        return withheld(name, title, "it takes several runs with a rate or a latency")
    factor, seconds = scale([row["value"] for row in rows if row["what"] == "latency"], below=1.0)
    points = [_scaled(row, factor) if row["what"] == "latency" else row for row in rows]
    rate = _RATES.get(runs[0].summary.statistics[keys[0]].unit, "jobs a minute")
    words = (rate, _LATENCIES[keys[1]])
    names = [""] if steps is None else [", ".join(f.name for f in part[0].manifest.workflows) for part in steps]
    columns = range(len(names[:_COLUMNS]))
    tops = [_top(points, column, "latency") for column in columns]
    lines = [
        {"column": column, "y": factor * at, "words": f"limit {duration(at)}"}
        for column, top in enumerate(tops)
        for _, at in limits
        if factor * at <= BEYOND * top
    ]
    axes = {"rate": rate, "latency": f"{words[1]}, {seconds}"}
    panels = [
        [_panel((column, what), axis, points, lines, by_users=steps is not None) for what, axis in axes.items()]
        for column in columns
    ]
    numbers = [[row["run"], words[row["what"] == "latency"], row["words"], row["interval"]] for row in rows]
    return Chart(
        name=name,
        title=title,
        description=_words(rows, words, len(names), limits),
        spec=spec(_columns(names, panels), points=points, limits=lines),
        numbers=table(name, ("run", "what", "value", "95 % interval"), numbers),
    )


def _rows(runs: Sequence[Measured], steps: list[list[Measured]] | None, keys: tuple[str, str]) -> Rows:
    """A row for each number that is drawn, of the first few workflows."""
    labels = dict(zip(map(id, runs), run_labels(runs), strict=True))
    rows: Rows = []
    for column, part in enumerate((steps or [list(runs)])[:_COLUMNS]):
        at = None if steps is None else knee(part)
        for run in part:
            x = labels[id(run)] if steps is None else str(run.manifest.plan.concurrency)
            place = {"column": column, "x": x, "run": labels[id(run)], "knee": run is at}
            rows += [place | numbers for numbers in _numbers(run, keys)]
    return rows


def _words(rows: Rows, words: tuple[str, str], workflows: int, limits: Sequence[Limit]) -> str:
    parts = [f"{words[0].capitalize()} and {words[1]} with 95 % intervals; a bar without an end is open there."]
    if any(row["knee"] for row in rows):
        parts.append("A ring marks the knee: the fewest jobs in flight that keep the server busy.")
    tops = [row["high"] or row["value"] for row in rows if row["what"] == "latency"]
    for text, at in limits:
        if at > BEYOND * max(tops, default=0.0):
            parts.append(f"The limit of {duration(at)} ({text}) lies far above.")
    if workflows > _COLUMNS:
        parts.append(f"The first {_COLUMNS} of {workflows} workflows are drawn.")
    return " ".join(parts)


def _numbers(run: Measured, keys: tuple[str, str]) -> Rows:
    """A row for its rate and one for its latency, as far as they are known."""
    found = []
    for what, key in zip(("rate", "latency"), keys, strict=True):
        statistic: Statistic = run.summary.statistics[key]
        if statistic.value is not None and math.isfinite(statistic.value):
            ends = {"low": statistic.low, "high": statistic.high}
            finite = {end: None if value is None or not math.isfinite(value) else value for end, value in ends.items()}
            value = value_of(statistic)
            words = {"words": value.words, "interval": value.interval or DASH}
            found.append({"what": what, "value": statistic.value, **finite, **words})
    return found


def _scaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    return row | {key: None if row[key] is None else factor * row[key] for key in ("value", "low", "high")}


def _top(points: Rows, column: int, what: str) -> float:
    """The highest value or end of an interval in a panel."""
    return max((p["high"] or p["value"] for p in points if p["column"] == column and p["what"] == what), default=1.0)


def _panel(place: tuple[int, str], axis: str, points: Rows, lines: Rows, *, by_users: bool) -> Panel:
    """Line, points, intervals, ring and limits of the rate or the latency in a workflow's column."""
    column, what = place
    colour, walls = (BLUE, []) if what == "rate" else (ORANGE, [row["y"] for row in lines if row["column"] == column])
    base = alt.Chart(data("points")).transform_filter(f"datum.column === {column} && datum.what === '{what}'")
    angle = alt.Axis(labelAngle=0) if by_users else alt.Axis(labelAngle=-35, labelLimit=160)
    x = alt.X("x:O", sort=None, title="jobs in flight" if by_users and what == "latency" else None, axis=angle)
    within = upto(1.12 * max([_top(points, column, what), *walls]))  # room for the ring and the words of a limit
    y = alt.Y("value:Q", title=axis, scale=within, axis=alt.Axis(tickCount=4))
    tips = [alt.Tooltip("run:N")]
    tips += [alt.Tooltip(f"{key}:Q", title=key, format=",.3~f") for key in ("value", "low", "high")]
    layers = [*_intervals(base, x, colour), *(_knee(base.encode(x=x, y=y), what, colour) if by_users else [])]
    layers.append(base.mark_point(color=colour, filled=True, size=55, opacity=1).encode(x=x, y=y, tooltip=tips))
    if walls:
        wall = alt.Chart(data("limits")).transform_filter(f"datum.column === {column}").encode(y="y:Q")
        text = wall.mark_text(style="limit-label", align="left", baseline="bottom", dx=3, dy=-2, x=0)
        layers += [wall.mark_rule(style="limit"), text.encode(text="words:N")]
    return alt.layer(*layers)


def _knee(base: alt.Chart, what: str, colour: str) -> list[alt.Chart]:
    ring = base.transform_filter("datum.knee")
    line = base.mark_line(color=colour, strokeWidth=2, opacity=0.7)
    layers = [line, ring.mark_point(size=230, filled=False, style="interval")]
    return [*layers, ring.mark_text(style="label", dy=20, text="knee")] if what == "rate" else layers


def _intervals(base: alt.Chart, x: alt.X, colour: str) -> list[alt.Chart]:
    """A line between the ends that are known, the value in place of one that is not, and a bar at each known end."""
    lines = base.transform_calculate(
        a="isValid(datum.low) ? datum.low : datum.value", b="isValid(datum.high) ? datum.high : datum.value"
    )
    layers = [lines.mark_rule(color=colour, strokeWidth=1.4).encode(x=x, y="a:Q", y2="b:Q")]
    for end in ("low", "high"):
        known = base.transform_filter(f"isValid(datum.{end})")
        bar = known.mark_tick(color=colour, thickness=1.4, size=11, orient="horizontal")
        layers.append(bar.encode(x=x, y=f"{end}:Q"))
    return layers


def _columns(names: Sequence[str], panels: Sequence[Sequence[Panel]]) -> alt.HConcatChart:
    """Each workflow's two panels, one above the other; those of a single column side by side."""
    width = WIDTH // max(len(panels), 2) - _LABELS
    if len(panels) == 1:
        return alt.hconcat(*(panel.properties(width=width, height=180) for panel in panels[0]), spacing=20)
    columns = []
    for name, pair in zip(names, panels, strict=False):
        heading = alt.TitleParams(clean(name, 40), fontSize=12, offset=4)
        sized = (panel.properties(width=width, height=120) for panel in pair)
        columns.append(alt.vconcat(*sized, spacing=26, bounds="flush").properties(title=heading))
    return alt.hconcat(*columns, spacing=14)
