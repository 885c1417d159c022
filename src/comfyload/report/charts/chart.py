"""How a chart is defined and becomes a picture: its data, its axes and colours."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from comfyload.errors import UsageError
from comfyload.record.codec import words
from comfyload.report.charts.theme import DARK, LIGHT, config
from comfyload.report.page import Chart

VEGA_LITE = "6.4"

Rows = list[dict[str, Any]]
Drawing = alt.Chart | alt.LayerChart | alt.FacetChart | alt.VConcatChart | alt.HConcatChart

WIDTH = 680
"""Pixels of a picture; a page fits its charts to the room that there is."""

MOST = 1000
"""Jobs, or readings of a series, that are drawn one by one. Of more, groups are, as the description says."""


def withheld(name: str, title: str, why: str) -> Chart:
    """A chart that cannot be drawn."""
    return Chart(name=name, title=title, description=f"Not drawn: {why}.", spec=None, withheld=why)


def data(name: str) -> alt.NamedData:
    """A reference to one of the datasets that `spec` adds to the definition."""
    return alt.NamedData(name=name)


def spec(chart: Drawing, **datasets: Rows) -> dict[str, Any]:
    """The definition as plain JSON types. Its data are added afterwards, as altair would check each row of them."""
    out: dict[str, Any] = chart.to_dict()
    out.pop("config", None)
    return {**out, "datasets": {name: [_short(row) for row in rows] for name, rows in datasets.items()}}


def upto(end: float) -> alt.Scale:
    """An axis from 0 to exactly `end`."""
    return alt.Scale(domain=[0, end], nice=False)


def over_time(end: float, unit: str, title: str = "time since the first job was due") -> alt.X:
    """The axis of a run's time, which ends with it. `unit`: "" where a panel below has its title."""
    return alt.X("t:Q", title=f"{title}, {unit}" if unit else None, scale=upto(end))


def palette(colours: Mapping[str, str]) -> alt.Scale:
    """Each name in its colour."""
    return alt.Scale(domain=list(colours), range=list(colours.values()))


def ranks(n: int, most: int) -> list[int]:
    """1 to n, or as many of them as `most`, evenly spaced and with both ends."""
    return np.unique(np.linspace(1, n, min(n, most)).round().astype(int)).tolist() if n else []


def time_unit(seconds: float) -> tuple[float, str]:
    """What to divide by, and the unit in which an axis of so many seconds is read."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 10 * size or (unit == "h" and seconds >= 3 * size):
            return size, unit
    return 1.0, "s"


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """Six digits draw as well as sixteen, in a third of the bytes."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}


def svg(chart: Chart, *, dark: bool = False) -> bytes:
    """The chart without its title, on no ground.

    Raises:
        UsageError: the chart is withheld.
    """
    if chart.spec is None:
        raise UsageError(f"no picture {chart.name!r}: {chart.withheld}")
    picture = {**chart.spec, "config": config(DARK if dark else LIGHT)}
    return str(vl_convert.vegalite_to_svg(words(picture), vl_version=VEGA_LITE)).encode()


def png(chart: Chart, scale: float = 2.0) -> bytes:
    """The chart under its title, on white.

    Raises:
        UsageError: the chart is withheld.
    """
    if chart.spec is None:
        raise UsageError(f"no picture {chart.name!r}: {chart.withheld}")
    look = {**config(LIGHT), "background": "white"}
    picture = {**chart.spec, "title": chart.title, "padding": 14, "config": look}
    return bytes(vl_convert.vegalite_to_png(words(picture), vl_version=VEGA_LITE, scale=scale))


@cache
def script() -> str:
    """Vega, Vega-Lite and their embedding as one script without a network; it sets `window.vegaEmbed`."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
