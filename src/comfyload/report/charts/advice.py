"""The pictures of advice: how latency grows with the rate or the number of servers. They are files, in no page."""

import math
from collections.abc import Sequence

import altair as alt

from comfyload.advise.forecast import Forecast
from comfyload.advise.saturation import Saturated
from comfyload.report.charts.chart import WIDTH, Rows, data, spec, upto, withheld
from comfyload.report.charts.theme import BLUE, GREEN, GREY, ORANGE, RED
from comfyload.report.page import Chart
from comfyload.words import digits, duration, seconds_words

_P95, _RATE = "p95 latency, s", "jobs a minute"


def forecast_chart(rows: Sequence[Forecast], limit_s: float) -> Chart:
    """p95 over the rate, or over the number of servers where the rate is one, with its interval and the limit."""
    finite = [row for row in rows if row.stable and math.isfinite(row.p95_s.high)]
    if not finite:
        return withheld("forecast", "Expected p95", "at none of these loads is there a latency to expect")
    by_rate = len({row.rate_per_s for row in rows}) > 1
    points = [_point(row, 60 * row.rate_per_s if by_rate else row.servers) for row in finite]
    plot = _by_rate() if by_rate else _by_servers()
    limit = alt.Chart(data("limit")).encode(y="y:Q")
    line = limit.mark_rule(color=ORANGE, strokeDash=[6, 4])
    words = limit.mark_text(align="right", dy=-7, x=WIDTH, color=ORANGE).encode(text="what:N")
    layers = alt.layer(plot, line, words)
    return Chart(
        name="forecast",
        title="Expected p95",
        spec=spec(
            layers.properties(width=WIDTH, height=240),
            points=points,
            limit=[{"y": limit_s, "what": f"limit {limit_s:g} s"}],
        ),
    )


def _point(row: Forecast, x: float) -> dict[str, float]:
    return {"x": x, "p95": row.p95_s.estimate, "low": row.p95_s.low, "high": row.p95_s.high}


def _by_rate() -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data("points")).encode(x=alt.X("x:Q", title=_RATE, scale=alt.Scale(zero=False, nice=True)))
    band = base.mark_area(opacity=0.22, color=BLUE).encode(y=alt.Y("low:Q", title=_P95), y2="high:Q")
    line = base.mark_line(point=alt.OverlayMarkDef(color=BLUE), color=BLUE).encode(y="p95:Q")
    return alt.layer(band, line)


def _by_servers() -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data("points")).encode(x=alt.X("x:O", title="servers", axis=alt.Axis(labelAngle=0)))
    bars = base.mark_rule(color=BLUE, strokeWidth=7, opacity=0.3).encode(
        y=alt.Y("low:Q", title=_P95, scale=alt.Scale(zero=True)), y2="high:Q"
    )
    return alt.layer(bars, base.mark_point(filled=True, size=70, color=BLUE).encode(y="p95:Q"))


def saturation_chart(found: Saturated) -> Chart:
    """The p95 to expect over the rate, the limit, the rate to deploy, and what the confirming run measured."""
    name, title = "saturation", "p95 latency by rate"
    finite = [row for row in found.curve if row.stable and math.isfinite(row.p95_s.high)]
    if not finite:
        return withheld(name, title, "the p95 at a rate is not known")
    points = [_point(row, 60 * row.rate_per_s) for row in finite]
    marks, measured = _rates(found), _confirming(found)
    top = 1.6 * max([found.limit_s, *(row["y"] for row in measured)])
    right = 1.04 * max([row["x"] for row in [*points, *marks, *measured]])
    x = alt.X("x:Q", title=_RATE, scale=upto(right))
    y = alt.Y("low:Q", title=_P95, scale=upto(top))
    base = alt.Chart(data("points")).encode(x=x)
    layers = [
        base.mark_area(opacity=0.22, color=BLUE, clip=True).encode(y=y, y2="high:Q"),
        base.mark_line(color=BLUE, clip=True, point=alt.OverlayMarkDef(color=BLUE, size=20)).encode(y="p95:Q"),
        *_limit_and_rates(x),
        *_measured(x),
    ]
    return Chart(
        name=name,
        title=title,
        spec=spec(
            alt.layer(*layers).properties(width=WIDTH, height=240),
            points=points,
            limit=[{"y": found.limit_s, "what": f"limit {seconds_words(found.limit_s)}"}],
            rates=marks,
            measured=measured,
        ),
    )


def _rates(found: Saturated) -> Rows:
    """The capacity, and the rate to deploy unless the confirming run spoke against it."""
    rate, most = found.sla_rate_per_minute, found.capacity_per_minute
    rows: Rows = []
    if rate is not None and rate.estimate and rate.low and rate.confirmed is not False:
        rows.append({"x": rate.low, "what": f"deploy {digits(rate.low)}", "deploy": True})
    if most is not None and most.estimate:
        words = f"capacity {digits(most.estimate)}"
        rows.append({"x": most.estimate, "what": words, "deploy": False})
    return rows


def _confirming(found: Saturated) -> Rows:
    """What the confirming run measured, at its rate."""
    checks = [] if found.confirmation is None else found.confirmation.checks
    p95 = next((check.measured_s for check in checks if check.of == "p95"), None)
    if p95 is None or found.confirmation is None or found.tried_per_minute is None:
        return []
    good = found.confirmation.confirmed
    words = f"measured {duration(p95)}{'' if good else ': not confirmed'}"
    return [{"x": found.tried_per_minute, "y": p95, "what": words, "good": good}]


def _limit_and_rates(x: alt.X) -> list[alt.Chart]:
    limit, rates = alt.Chart(data("limit")).encode(y="y:Q"), alt.Chart(data("rates")).encode(x=x)
    colour = alt.condition("datum.deploy", alt.value(GREEN), alt.value(GREY))
    return [
        limit.mark_rule(style="limit"),
        limit.mark_text(style="limit-label", align="left", baseline="bottom", dx=4, dy=-3, x=0).encode(text="what:N"),
        rates.mark_rule(strokeWidth=1.6, strokeDash=[6, 4]).encode(color=colour),
        rates.mark_text(style="label", align="right", dx=-5, y=alt.expr("datum.deploy ? 8 : 22")).encode(text="what:N"),
    ]


def _measured(x: alt.X) -> list[alt.Chart]:
    """A point where the run agreed, a cross where it did not."""
    base = alt.Chart(data("measured")).encode(x=x, y="y:Q")
    good, bad = base.transform_filter("datum.good"), base.transform_filter("!datum.good")
    return [
        good.mark_point(filled=True, size=110, color=GREEN, opacity=1),
        bad.mark_point(shape="M-1,-1L1,1M1,-1L-1,1", size=110, strokeWidth=2.5, color=RED, opacity=1),
        base.mark_text(style="label", align="right", dx=-9, dy=-11).encode(text="what:N"),
    ]
