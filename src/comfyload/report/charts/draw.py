"""How a definition becomes a picture, here or in a browser."""

from __future__ import annotations

import copy
from functools import cache

import vl_convert

from comfyload.errors import UsageError
from comfyload.record.codec import words
from comfyload.report.charts.chart import Chart
from comfyload.report.charts.theme import LIGHT, config

VEGA_LITE = "6.4"


def png(chart: Chart, scale: float = 2.0) -> bytes:
    """The chart under its title, on white.

    Raises:
        UsageError: the chart is withheld.
    """
    if chart.spec is None:
        raise UsageError(f"no picture {chart.name!r}: {chart.withheld}")
    picture = copy.copy(chart.spec)
    picture["title"] = chart.title
    picture["padding"] = 14
    picture["config"] = {**config(LIGHT), "background": "white"}
    return bytes(vl_convert.vegalite_to_png(words(picture), vl_version=VEGA_LITE, scale=scale))


@cache
def script() -> str:
    """Vega, Vega-Lite and their embedding as one script without a network; it sets `window.vegaEmbed`."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
