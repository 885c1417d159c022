"""The picture of how latencies are spread: which share of jobs took no longer than that."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.report.charts.chart import WIDTH, Rows, data, palette, ranks, spec, upto, withheld
from comfyload.report.charts.theme import BLUE, GREEN, ORANGE
from comfyload.report.page import Chart, Value, table
from comfyload.report.values import value_of
from comfyload.words import DASH, count, duration, scale

Limit = tuple[str, float]
"""Words and seconds of a line to draw, such as a gate's."""

BEYOND = 2.0
"""A limit so many times the longest latency is not drawn: it would press all jobs into a line."""
_POINTS = 400
_COLOURS = {"p50": GREEN, "p95": ORANGE}
_HEIGHT = 190


def distribution_chart(measured: Measured, limits: Sequence[Limit] = ()) -> Chart:
    """The empirical distribution of the completed counted jobs' latency, with p50 and p95 and their intervals."""
    name, title = "distribution", "Distribution of latency"
    seconds = np.sort(measured.jobs.known("latency"))
    if not len(seconds):
        return withheld(name, title, "no counted job completed")
    factor, unit = scale([float(seconds[-1])], below=1.0)
    marks = {what: measured.summary.statistics[f"{what}_latency_s"] for what in _COLOURS}
    shown = {what: value_of(statistic) for what, statistic in marks.items()}
    numbers = [(what, value.words, value.interval or DASH) for what, value in shown.items()]
    return Chart(
        name=name,
        title=title,
        description=_words(measured, len(seconds), shown, limits),
        spec=_draw(factor * seconds, marks, limits, (factor, unit)),
        numbers=table(name, ("percentile", "latency", "95 % interval"), numbers),
    )


def _draw(
    ordered: Floats, marks: dict[str, Statistic], limits: Sequence[Limit], scaled: tuple[float, str]
) -> dict[str, Any]:
    factor, unit = scaled
    longest = float(ordered[-1])
    lines = _lines(marks, factor, longest)
    # A limit far beyond all jobs would press them into a line at the left; the description names it all the same.
    walls: Rows = [{"t": factor * at, "words": words} for words, at in limits if factor * at <= BEYOND * longest]
    right = 1.04 * max([longest, *(row["t"] for row in walls), *(row["b"] for row in lines)])
    lines = [{**row, "right": row["t"] > right / 2} for row in lines]
    steps = [*_steps(ordered), {"t": right, "share": 1.0}]
    picture = alt.layer(*_layers(upto(right), unit)).properties(width=WIDTH, height=_HEIGHT)
    return spec(picture, steps=steps, lines=lines, walls=walls)


def _steps(ordered: Floats) -> Rows:
    """From 0 at the time 0 to the share of each job, or of some of very many."""
    n = len(ordered)
    steps = [{"t": float(ordered[rank - 1]), "share": rank / n} for rank in ranks(n, _POINTS)]
    return [{"t": 0.0, "share": 0.0}, *steps]


def _layers(within: alt.Scale, unit: str) -> list[alt.Chart]:
    """Intervals are bands as wide as they are, at the height of their percentile and named there."""
    title = f"latency, {unit}"
    x, band = alt.X("t:Q", title=title, scale=within), alt.X("a:Q", title=title, scale=within)
    colour = alt.Color("what:N", scale=palette(_COLOURS), legend=None)
    share = alt.Y("share:Q", title="share of jobs", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1]))
    value = alt.Tooltip("t:Q", title=f"value, {unit}", format=".3~f")
    tips = [alt.Tooltip("what:N", title="percentile"), value, alt.Tooltip("interval:N", title="95 % interval")]
    lines, steps, walls = (alt.Chart(data(name)) for name in ("lines", "steps", "walls"))
    return [
        steps.mark_line(color=BLUE, interpolate="step-after", strokeWidth=2).encode(
            x=x, y=share, tooltip=[alt.Tooltip("share:Q", format=".1%"), value]
        ),
        lines.mark_rule(strokeWidth=7, opacity=0.3).encode(x=band, x2="b:Q", y=share, color=colour, tooltip=tips),
        lines.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=share, color=colour, tooltip=tips),
        lines.mark_text(
            style="label",
            baseline="middle",
            align=alt.expr("datum.right ? 'right' : 'left'"),
            dx=alt.expr("datum.right ? -9 : 9"),
            dy=14,
        ).encode(x=x, y=share, text="words:N"),
        walls.mark_rule(style="limit").encode(x=x),
        walls.mark_text(style="limit-label", align="right", baseline="bottom", dx=-4, y=_HEIGHT - 5).encode(
            x=x, text="words:N"
        ),
    ]


def _lines(marks: dict[str, Statistic], factor: float, longest: float) -> Rows:
    """The known percentiles; the band of an interval without an upper end reaches the longest latency."""
    rows: Rows = []
    for what, statistic in marks.items():
        value, low = statistic.value, statistic.low
        if value is None or not math.isfinite(value):
            continue
        high = None if statistic.high is None or not math.isfinite(statistic.high) else factor * statistic.high
        at = factor * value
        rows.append(
            {
                "what": what,
                "t": at,
                "share": 0.5 if what == "p50" else 0.95,
                "a": at if low is None else factor * low,
                "b": at if low is None else max(longest, at) if high is None else high,
                "interval": value_of(statistic).interval or DASH,
                "words": f"{what} {duration(value)}" + ("" if low is None else " and its 95 % interval"),
            }
        )
    return rows


def _words(measured: Measured, n: int, shown: dict[str, Value], limits: Sequence[Limit]) -> str:
    words = [f"{count(n, 'completed counted job')}."]
    for what, value in shown.items():
        interval = f" (95 % interval: {value.interval})" if value.interval else ""
        words.append(f"The {what} is {value.note or value.words}{interval}.")
    cut = int(measured.jobs.counted.censored.sum())
    if cut:
        words.append(f"{count(cut, 'job')} cut off by the end of the run took longer than observed: not in the curve.")
    words += [f"Limit {text}: {duration(at)}." for text, at in limits]
    return " ".join(words)
