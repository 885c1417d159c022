"""The pictures of advice: how latency grows with the rate, and how busy a server is with more in flight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from comfyload.advise.forecast import Forecast
from comfyload.advise.saturation import Saturated
from comfyload.report.charts.chart import WIDTH, Chart, Rows, data, spec, withheld
from comfyload.report.charts.theme import BLUE, GREEN, ORANGE
from comfyload.report.text import DASH, fixed

__all__ = ["forecast_chart", "saturation_chart"]

_P95 = "p95 latency, s"


def forecast_chart(rows: Sequence[Forecast], limit_s: float) -> Chart:
    """p95 over the rate, or over the number of servers where the rate is one, with its interval and the limit."""
    finite = [row for row in rows if row.stable and math.isfinite(row.p95_s.high)]
    if not finite:
        return withheld("forecast", "Expected p95", "at none of these loads is there a latency to expect")
    by_rate = len({row.rate_per_s for row in rows}) > 1
    points: Rows = [
        {
            "x": 60 * row.rate_per_s if by_rate else row.servers,
            "p95": row.p95_s.estimate,
            "low": row.p95_s.low,
            "high": row.p95_s.high,
            "servers": f"{row.servers} server{'' if row.servers == 1 else 's'}",
        }
        for row in finite
    ]
    title = "jobs per minute" if by_rate else "servers"
    drawn = _by_rate(title) if by_rate else _by_servers(title)
    limit = alt.Chart(data("limit")).encode(y="y:Q")
    line = limit.mark_rule(color=ORANGE, strokeDash=[6, 4])
    words = limit.mark_text(align="right", dy=-7, x=WIDTH, color=ORANGE).encode(text="what:N")
    layers = alt.layer(drawn, line, words)
    table = [[f"{p['x']:.3g}", fixed(p["p95"], 1), f"{p['low']:.1f} {DASH} {p['high']:.1f}"] for p in points]
    return Chart(
        name="forecast",
        title="Expected p95",
        description=f"The p95 latency to expect by {title}, with 90 % intervals; the dashed line is the limit.",
        spec=spec(
            layers.properties(width=WIDTH, height=240),
            points=points,
            limit=[{"y": limit_s, "what": f"limit {limit_s:g} s"}],
        ),
        columns=(title, "p95, s", "90 % interval"),
        rows=table,
    )


def _by_rate(title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data("points")).encode(x=alt.X("x:Q", title=title, scale=alt.Scale(zero=False, nice=True)))
    band = base.mark_area(opacity=0.22, color=BLUE).encode(y=alt.Y("low:Q", title=_P95), y2="high:Q")
    line = base.mark_line(point=alt.OverlayMarkDef(color=BLUE), color=BLUE).encode(y="p95:Q", tooltip=_tips(title))
    return alt.layer(band, line)


def _by_servers(title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data("points")).encode(x=alt.X("x:O", title=title, axis=alt.Axis(labelAngle=0)))
    bars = base.mark_rule(color=BLUE, strokeWidth=7, opacity=0.3).encode(
        y=alt.Y("low:Q", title=_P95, scale=alt.Scale(zero=True)), y2="high:Q"
    )
    return alt.layer(bars, base.mark_point(filled=True, size=70, color=BLUE).encode(y="p95:Q", tooltip=_tips(title)))


def _tips(title: str) -> list[alt.Tooltip]:
    return [alt.Tooltip("x:Q", title=title), alt.Tooltip("p95:Q", format=".3~f"), alt.Tooltip("servers:N")]


def saturation_chart(found: Saturated) -> Chart:
    """Busy share of server and GPU by jobs in flight, and the knee."""
    rows: Rows = []
    for one in found.steps:
        for what, percent in (
            ("server", None if one.server_busy is None else 100 * one.server_busy),
            ("GPU", one.gpu_busy_percent),
        ):
            if percent is not None:
                rows.append({"c": one.concurrency, "busy": percent, "what": what})
    if not rows:
        return withheld("saturation", "Saturation", "neither server nor GPU told how busy it was")
    colour = {"server": BLUE, "GPU": GREEN}
    told = [what for what in colour if any(row["what"] == what for row in rows)]
    colours = alt.Scale(domain=told, range=[colour[what] for what in told])
    lines = (
        alt.Chart(data("busy"))
        .mark_line(point=alt.OverlayMarkDef(size=60))
        .encode(
            x=alt.X("c:O", title="jobs in flight", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("busy:Q", title="busy, %", scale=alt.Scale(domain=[0, 100])),
            color=alt.Color("what:N", scale=colours),
            tooltip=["what:N", "c:O", alt.Tooltip("busy:Q", format=".1f")],
        )
    )
    marks: Rows = [{"c": found.knee}] if found.knee is not None else []
    at_knee = alt.Chart(data("knee")).encode(x=alt.X("c:O", axis=alt.Axis(labelAngle=0)))
    words = at_knee.mark_text(align="left", dx=6, y=214, baseline="bottom", color=ORANGE, text="knee")
    knee = alt.layer(at_knee.mark_rule(color=ORANGE, strokeDash=[6, 4]), words)
    return Chart(
        name="saturation",
        title="Saturation",
        description=f"How busy server and GPU are by jobs in flight; the knee is at {found.knee or 'no known place'}.",
        spec=spec(alt.layer(knee, lines).properties(width=WIDTH, height=220), busy=rows, knee=marks),
        columns=("in flight", "what", "busy, %"),
        rows=[[str(row["c"]), row["what"], fixed(row["busy"], 1)] for row in rows],
    )
