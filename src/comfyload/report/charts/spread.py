"""The pictures of how latencies are spread: over all jobs, by phase, and by what the server had ready."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from comfyload.judge.columns.jobs import CACHE_CLASSES
from comfyload.judge.statistics.stats import Statistic, quantile, value_needs
from comfyload.judge.summary import Measured
from comfyload.report.charts.chart import MOST, WIDTH, Chart, Rows, data, spec, withheld
from comfyload.report.charts.chart_data import JobColumns
from comfyload.report.charts.theme import BLUE, GREEN, GREY, ORANGE, SKY
from comfyload.report.text import DASH, count, decimals, duration, fixed, scale

__all__ = ["Limit", "classes_chart", "distribution_chart"]

Floats = NDArray[np.float64]
Limit = tuple[str, float]
"""Words and seconds of a line to draw, such as a gate's."""

_POINTS = 400
_BEYOND = 2.0
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SPREAD = ("p5", "p25", "p50", "p75", "p95")
_PHASES = (
    ("from due", "latency"),
    ("from sent", "latency_sent"),
    ("in the queue", "queue_wait"),
    ("execution", "execution"),
)


def distribution_chart(measured: Measured, limits: Sequence[Limit] = ()) -> Chart:
    """Which share of the completed counted jobs took no longer than that, and the quartiles of each phase."""
    name, title = "distribution", "Distribution of latency"
    seconds = np.sort(measured.jobs.known("latency"))
    if not len(seconds):
        return withheld(name, title, "no counted job completed")
    factor, unit = scale([float(seconds[-1])], below=1.0)
    middle, tail = (measured.summary.statistics[f"{p}_latency_s"] for p in ("p50", "p95"))
    spread = _spread([(label, measured.jobs.known(metric)) for label, metric in _PHASES], factor)
    return Chart(
        name=name,
        title=title,
        description=_distribution_words(measured, len(seconds), (("median", middle), ("p95", tail)), limits),
        spec=_distribution(seconds, (("p50", middle), ("p95", tail)), limits, spread, (factor, unit)),
        columns=("duration", *_SPREAD, "jobs"),
        rows=[[row["what"], *(_cell(row[p], unit) for p in _SPREAD), str(row["n"])] for row in spread],
    )


def _distribution(
    ordered: Floats,
    marks: Sequence[tuple[str, Statistic]],
    limits: Sequence[Limit],
    spread: Rows,
    scaled: tuple[float, str],
) -> dict[str, Any]:
    factor, unit = scaled
    longest = factor * float(ordered[-1])
    steps = _steps(factor * ordered)
    bands, lines = _intervals(marks, factor, longest)
    # A limit far beyond all jobs would press them into a line at the left; the description names it all the same.
    walls: Rows = [{"t": factor * at, "words": words} for words, at in limits if factor * at <= _BEYOND * longest]
    right = max([longest, *(row["t"] for row in walls), *(row["b"] for row in bands)])
    left = min([factor * float(ordered[0]), *(row["t"] for row in walls)])
    room = max(0.04 * (right - left), 0.01 * right)
    within = alt.Scale(domain=[max(0.0, left - room), right + room], nice=False, zero=False)
    lines = [{**row, "right": row["t"] > (left + right) / 2} for row in lines]
    upper = alt.layer(*_layers(within, unit)).properties(width=WIDTH, height=190)
    picture = alt.vconcat(upper, _ranges(spread, unit))
    return spec(picture, steps=steps, bands=bands, lines=lines, walls=walls, spread=spread)


def _steps(ordered: Floats) -> Rows:
    n = len(ordered)
    ranks: list[int] = np.unique(np.linspace(1, n, min(n, _POINTS)).round().astype(int)).tolist()
    start: Rows = [{"t": float(ordered[0]), "share": 0.0}]
    return start + [{"t": float(ordered[rank - 1]), "share": rank / n} for rank in ranks]


def _layers(within: alt.Scale, unit: str) -> list[alt.Chart]:
    title = f"latency from due, {unit}"
    x, band = alt.X("t:Q", title=title, scale=within), alt.X("a:Q", title=title, scale=within)
    colours = alt.Scale(domain=["p50", "p95"], range=[GREEN, ORANGE])
    colour = alt.Color("what:N", scale=colours, legend=None)
    share = alt.Y("share:Q", title="share of jobs", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1]))
    value = alt.Tooltip("t:Q", title=f"value, {unit}", format=".3~f")
    tips = [alt.Tooltip("what:N", title="percentile"), value, alt.Tooltip("interval:N", title="95 % interval")]
    steps, walls = alt.Chart(data("steps")), alt.Chart(data("walls"))
    return [
        alt.Chart(data("bands")).mark_rect(opacity=0.22).encode(x=band, x2="b:Q", color=colour, tooltip=tips),
        alt.Chart(data("lines")).mark_rule(strokeWidth=2).encode(x=x, color=colour, tooltip=tips),
        steps.mark_line(color=BLUE, interpolate="step-after", strokeWidth=2).encode(
            x=x, y=share, tooltip=[alt.Tooltip("share:Q", format=".1%"), value]
        ),
        *(_label(x, what, y) for what, y in (("p50", -15), ("p95", -3))),
        walls.mark_rule(style="limit").encode(x=x),
        walls.mark_text(style="limit-label", align="right", baseline="bottom", dx=-4, y=185).encode(
            x=x, text="words:N"
        ),
    ]


def _label(x: alt.X, what: str, y: int) -> alt.Chart:
    """Words above the plot, each percentile at its own height, turned to where there is room."""
    words = alt.Chart(data("lines")).transform_filter(f"datum.what === '{what}'")
    drawn: alt.Chart = words.mark_text(
        style="label", baseline="bottom", y=y, align=alt.expr("datum.right ? 'right' : 'left'")
    ).encode(x=x, text="words:N")
    return drawn


def _intervals(marks: Sequence[tuple[str, Statistic]], factor: float, longest: float) -> tuple[Rows, Rows]:
    bands: Rows = []
    lines: Rows = []
    for what, statistic in marks:
        value, low, high = statistic.value, statistic.low, statistic.high
        if value is None or not math.isfinite(value):
            continue
        closed = None if high is None or not math.isfinite(high) else factor * high
        ends = f"{_cell(None if low is None else factor * low)} {DASH} {'open' if closed is None else _cell(closed)}"
        row = {"what": what, "t": factor * value, "interval": ends, "words": f"{what} {duration(value)}"}
        lines.append(row)
        if low is not None:
            bands.append({**row, "a": factor * low, "b": max(longest, factor * value) if closed is None else closed})
    return bands, lines


def _ranges(spread: Rows, unit: str) -> alt.LayerChart | alt.FacetChart:
    """A row each: thin from p5 to p95, thick over the middle half, and a tick at the median."""
    names = [row["what"] for row in spread]
    y = alt.Y("what:N", title=None, sort=names, axis=alt.Axis(grid=False, labelLimit=150))
    title = f"p5 to p95, middle half, median, {unit}"
    x = alt.X("p5:Q", title=title, scale=alt.Scale(zero=True))
    tips = [alt.Tooltip("what:N", title="of"), alt.Tooltip("n:Q", title="jobs")]
    tips += [alt.Tooltip(f"{p}:Q", title=f"{p}, {unit}", format=".3~f") for p in _SPREAD]
    base = alt.Chart(data("spread"))
    return alt.layer(
        base.mark_rule(color=BLUE, strokeWidth=1.5).encode(x=x, x2="p95:Q", y=y, tooltip=tips),
        base.mark_bar(color=BLUE, opacity=0.55, height=11).encode(x=alt.X("p25:Q"), x2="p75:Q", y=y, tooltip=tips),
        base.mark_tick(style="middle", thickness=2, size=17, orient="vertical").encode(
            x=alt.X("p50:Q"), y=y, tooltip=tips
        ),
    ).properties(width=WIDTH, height=26 * len(names))


def _spread(groups: Sequence[tuple[str, Floats]], factor: float) -> Rows:
    rows = []
    for what, seconds in groups:
        if len(seconds):
            shares = {
                p: factor * quantile(seconds, share) if len(seconds) >= value_needs(max(share, 1 - share)) else None
                for p, share in zip(_SPREAD, _SHARES, strict=True)
            }
            rows.append({"what": what, "n": len(seconds), **shares})
    return rows


def classes_chart(columns: JobColumns) -> Chart:
    """Latency of warm-up, fresh and cached jobs side by side."""
    name, title = "classes", "Latency of warm-up, fresh and cached jobs"
    known = columns.completed & ~np.isnan(columns.latency)
    groups = [("warm-up", columns.latency[known & columns.warmup])]
    labels = ("fresh", "partly cached", "all cached")
    for code, label in enumerate(labels[: len(CACHE_CLASSES)]):
        groups.append((label, columns.latency[known & ~columns.warmup & (columns.cache == code)]))
    groups = [(f"{label} (n = {len(seconds)})", seconds) for label, seconds in groups if len(seconds)]
    if not groups:
        return withheld(name, title, "no job completed")
    factor, unit = scale([max(float(seconds.max()) for _, seconds in groups)], below=1.0)
    spread = _spread(groups, factor)
    few = sum(len(seconds) for _, seconds in groups) <= MOST
    middle = {row["what"]: duration(row["p50"] / factor) for row in spread}
    words = "; ".join(f"{what}: median {value}" for what, value in middle.items())
    return Chart(
        name=name,
        title=title,
        description=f"{words}." + ("" if few else f" More than {MOST} jobs: their spread is drawn, not each job."),
        spec=_classes(groups, spread, factor, unit, few),
        columns=("jobs", *_SPREAD),
        rows=[[row["what"], *(_cell(row[p], unit) for p in _SPREAD)] for row in spread],
    )


def _classes(groups: Sequence[tuple[str, Floats]], spread: Rows, factor: float, unit: str, few: bool) -> dict[str, Any]:
    names = [what for what, _ in groups]
    if not few:
        return spec(_ranges(spread, unit).properties(height=44 * len(names)), spread=spread)
    points: Rows = []
    for what, seconds in groups:
        # The golden ratio scatters neighbours evenly, and the same at each drawing.
        spots = (np.arange(len(seconds)) * 0.618034 + 0.5) % 1 - 0.5
        pairs = zip(seconds, spots, strict=True)
        points += [{"what": what, "t": factor * float(value), "at": float(spot)} for value, spot in pairs]
    y = alt.Y("what:N", title=None, sort=names, axis=alt.Axis(grid=False, labelLimit=150))
    colours = alt.Scale(domain=names, range=[_class_colour(what) for what in names])
    dots = (
        alt.Chart(data("points"))
        .mark_circle(size=26, opacity=0.6)
        .encode(
            x=alt.X("t:Q", title=f"latency from due, {unit}", scale=alt.Scale(zero=True)),
            y=y,
            yOffset=alt.YOffset("at:Q", scale=alt.Scale(domain=[-1, 1])),
            color=alt.Color("what:N", scale=colours, legend=None),
            tooltip=[alt.Tooltip("what:N", title="jobs"), alt.Tooltip("t:Q", title=unit, format=".3~f")],
        )
    )
    ticks = (
        alt.Chart(data("spread"))
        .mark_tick(style="middle", thickness=2, size=36, orient="vertical")
        .encode(x="p50:Q", y=y, tooltip=[alt.Tooltip("p50:Q", title=f"median, {unit}", format=".3~f")])
    )
    return spec(alt.layer(dots, ticks).properties(width=WIDTH, height=46 * len(names)), points=points, spread=spread)


def _class_colour(what: str) -> str:
    return {"warm-up": GREY, "fresh": BLUE, "partly cached": SKY, "all cached": GREEN}[what.partition(" (")[0]]


def _distribution_words(
    measured: Measured, n: int, marks: Sequence[tuple[str, Statistic]], limits: Sequence[Limit]
) -> str:
    words = [f"{count(n, 'completed counted job')}."]
    for what, statistic in marks:
        if statistic.value is None:
            words.append(f"The {what} is withheld: {statistic.reason}.")
        elif math.isfinite(statistic.value):
            low, high = statistic.low, statistic.high
            ends = "" if low is None else f" (95 % interval from {duration(low)}"
            if ends:
                ends += f" to {duration(high)})" if high is not None and math.isfinite(high) else ", upper end open)"
            words.append(f"The {what} is {duration(statistic.value)}{ends}.")
    cut = int(measured.jobs.counted.censored.sum())
    if cut:
        words.append(f"{count(cut, 'job')} cut off by the end of the run took longer than was seen: not in the curve.")
    words += [f"Limit {text}: {duration(at)}." for text, at in limits]
    return " ".join(words)


def _cell(value: float | None, unit: str = "") -> str:
    if value is None:
        return DASH
    return f"{fixed(value, decimals(value))} {unit}".strip()
