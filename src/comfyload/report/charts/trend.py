"""The picture of a trend: each point with its interval, and where the level changed."""

import math
from datetime import datetime

import altair as alt

from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.history import TrendSeries
from comfyload.report.charts.chart import WIDTH, Rows, data, spec, withheld
from comfyload.report.charts.theme import BLUE, GREEN, GREY, ORANGE, RED
from comfyload.report.comparison import metric_words
from comfyload.report.history import step_marks
from comfyload.report.page import Chart, Look
from comfyload.report.values import in_words
from comfyload.words import count, scale

_COLOURS: dict[Look, str] = {"bad": RED, "good": GREEN, "doubt": ORANGE, "plain": GREY}
_NAME = 40


def trend_chart(series: TrendSeries, name: str = "trend") -> Chart:
    """One metric over time. A dashed line stands where the level changed, with the change in words."""
    metric = metric_words(series.metric, series.unit)
    title = clean(f"{series.load}: {metric}" if series.load else metric, 300)
    if len(series.points) < 2:
        return withheld(name, title, "a trend needs two points")
    factor, unit = _unit(series)
    points: Rows = []
    for point in series.points:
        ends = {end: _finite(getattr(point, end), factor) for end in ("low", "high")}
        moment = 1000 * datetime.fromisoformat(point.utc).timestamp()
        points.append({"t": moment, "value": factor * point.value, **ends, "name": clean(point.name, _NAME)})
    lines: Rows = [
        {"t": points[at]["t"], "what": text.removeprefix("step: "), "colour": _COLOURS[look]}
        for at, (text, look) in step_marks(series).items()
    ]
    layers = _layers(f"{metric}, {unit}" if unit else metric)
    return Chart(
        name=name,
        title=title,
        description=_words(series),
        spec=spec(layers.properties(width=WIDTH, height=200), points=points, steps=lines),
    )


def _layers(title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data("points")).encode(
        x=alt.X("t:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(tickCount=6))
    )
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    interval = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    rule = alt.Chart(data("steps")).encode(x="t:T", color=alt.Color("colour:N", scale=None))
    return alt.layer(
        interval.mark_rule(color=BLUE, strokeWidth=1.4, opacity=0.7).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line(color=BLUE, strokeWidth=1.4, opacity=0.6).encode(y=y),
        base.mark_point(color=BLUE, filled=True, size=45, opacity=1).encode(y=y),
        rule.mark_rule(strokeDash=[5, 4], strokeWidth=1.5),
        rule.mark_text(style="label", align="right", baseline="top", dx=-5, y=0).encode(text="what:N"),
    )


def _words(series: TrendSeries) -> str:
    first, last = (in_words(end.value, unit=series.unit).words for end in (series.points[0], series.points[-1]))
    parts = [f"{count(len(series.points), 'point')} with 95 % intervals, from {first} to {last}."]
    for at, (text, _) in step_marks(series).items():
        parts.append(f"At {clean(series.points[at].name, _NAME)}, {text}.")
    return " ".join(parts)


def _unit(series: TrendSeries) -> tuple[float, str]:
    """What to multiply by, and the unit of the axis."""
    if series.unit == "s":
        return scale(point.value for point in series.points)
    return (100.0, "%") if series.unit in ("share", "1") else (1.0, "")


def _finite(value: float | None, factor: float) -> float | None:
    return None if value is None or not math.isfinite(value) else factor * value
