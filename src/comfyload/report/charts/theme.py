"""The look of all charts: colours that colour-blind readers can distinguish, units on axes, no ornament."""

from __future__ import annotations

from typing import Any

__all__ = ["BLUE", "CSS", "GREEN", "GREY", "LIGHT", "ORANGE", "PURPLE", "RED", "SKY", "config"]

# Okabe & Ito (2008), those that stand out from white and from near black alike.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0f7fc4", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
GREY = "#8a929b"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', Arial, sans-serif"
LIGHT = {"text": "#1f2328", "muted": "#57606a", "grid": "#e7eaee", "line": "#c3c9d0", "shade": "#eef1f4"}
CSS = {name: f"var(--chart-{name})" for name in LIGHT}
"""Names that a style sheet gives colours to: so a page drawn once follows the reader's choice of light or dark."""


def config(ink: dict[str, str] | None = None) -> dict[str, Any]:
    """A Vega-Lite config in the colours of `ink`, `LIGHT` unless given; the ground is what the chart stands on."""
    ink = LIGHT if ink is None else ink
    small = {"fontSize": 11, "font": _FONT}
    return {
        "background": "transparent",
        "aria": False,  # a chart has its description below it; a label on each bar would drown it
        "font": _FONT,
        "padding": 4,
        "view": {"stroke": None},
        "title": {
            "anchor": "start",
            "color": ink["text"],
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleColor": ink["muted"],
            "subtitleFontSize": 11,
            "offset": 10,
        },
        "axis": {
            "labelColor": ink["muted"],
            "titleColor": ink["muted"],
            "gridColor": ink["grid"],
            "domainColor": ink["line"],
            "tickColor": ink["line"],
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelOverlap": "greedy",
            "labelBound": True,
        },
        "axisX": {"grid": False},
        "axisY": {"labelBound": False, "domain": False, "ticks": False, "labelPadding": 6, "tickCount": 5},
        "legend": {
            "orient": "bottom",
            "direction": "horizontal",
            "columns": 4,
            "labelColor": ink["text"],
            "titleColor": ink["muted"],
            "labelFontSize": 11,
            "labelLimit": 220,
            "title": None,
            "symbolStrokeWidth": 2,
            "columnPadding": 14,
            "rowPadding": 4,
        },
        "text": {"color": ink["text"], **small},
        "concat": {"spacing": 18},
        "style": {
            "note": {"color": ink["muted"], **small},
            "label": {"color": ink["text"], **small},
            "shade": {"color": ink["shade"], "opacity": 1},
            "interval": {"color": ink["text"], "strokeWidth": 1.2},
            "middle": {"color": ink["text"], "opacity": 1},
            "limit": {"color": ink["text"], "strokeWidth": 1.5, "strokeDash": [6, 3]},
            "limit-label": {"color": ink["text"], **small},
        },
    }
