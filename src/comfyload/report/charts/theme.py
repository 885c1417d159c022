"""The look of all charts: colours that colour-blind readers can distinguish, units on axes, no ornament."""

import json
from importlib.resources import files
from string import Template
from typing import Any

# Okabe & Ito (2008), those that stand out from white and from near black alike.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0f7fc4", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
GREY = "#8a929b"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', Arial, sans-serif"
LIGHT = {"text": "#1f2328", "muted": "#57606a", "grid": "#e7eaee", "line": "#c3c9d0", "shade": "#eef1f4"}
DARK = {"text": "#e6e9ec", "muted": "#a3adb7", "grid": "#2b3138", "line": "#4a525b", "shade": "#22282e"}
CSS = {name: f"var(--chart-{name})" for name in LIGHT}
"""Names that a style sheet gives colours to: so a page drawn once follows the reader's choice of light or dark."""


def config(ink: dict[str, str]) -> dict[str, Any]:
    """A Vega-Lite config in the colours of `ink`; the ground is what the chart stands on.

    It is without `aria`: a chart has its description below it, and a label on each bar would drown it.
    """
    text = (files("comfyload.report") / "templates" / "charts.json").read_text(encoding="utf-8")
    look: dict[str, Any] = json.loads(Template(text).substitute(ink, font=_FONT))
    return look
