"""The picture of the GPU over time: how busy it was, what memory it held, what power it drew."""

from itertools import cycle

import altair as alt
import numpy as np

from comfyload.judge.columns.gpu import gpu_reading
from comfyload.report.charts.chart import MOST, WIDTH, Rows, data, over_time, palette, spec, time_unit, withheld
from comfyload.report.charts.chart_data import JobColumns, ReadingSeries
from comfyload.report.charts.theme import BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from comfyload.report.page import Chart, table
from comfyload.words import digits

_NAME, _TITLE = "gpu", "GPU over time"
_PANELS = {  # kind of reading: words, title of the axis, factor
    "utilisation": ("utilisation", "busy, %", 1.0, "%"),
    "vram_used": ("VRAM used", "VRAM, GiB", 2.0**-30, "GiB"),
    "power": ("power", "power, W", 1.0, "W"),
    "temperature": ("temperature", "temperature, °C", 1.0, "°C"),
}
_COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, RED]


def gpu_chart(columns: JobColumns, readings: dict[tuple[str, str], ReadingSeries], *, simulated: bool = False) -> Chart:
    """A panel for each kind of reading that the run has. A reading without a value is a gap.

    `simulated`: the readings are the simulator's, and every label says so.
    """
    rows: Rows = []
    numbers = []
    thinned = False
    zero, (size, unit) = columns.zero, time_unit(columns.wall_s)
    for (source, name), series in readings.items():
        known = gpu_reading(name)
        if known is None or known.kind not in _PANELS or not len(series.known):
            continue
        words, _, factor, of = _PANELS[known.kind]
        factor *= known.factor
        by, _, server = source.partition("@")
        which = f"{server} {known.gpu}" if server else known.gpu
        label = f"{'simulated ' if simulated else ''}GPU {which} ({by})"
        points = series.thinned(polled=True)
        thinned = thinned or len(series.known) > MOST
        rows += [
            {"t": (t - zero) / size, "v": None if v is None else factor * v, "kind": known.kind, "gpu": label}
            for t, v in points
        ]
        low, mean, high = (factor * float(f(series.known)) for f in (np.min, np.mean, np.max))
        numbers.append([f"{label}: {words}", *(f"{digits(v)} {of}" for v in (low, mean, high))])
    if not rows:
        return withheld(_NAME, _TITLE, "this run recorded no GPU telemetry")
    words = "; ".join(f"{what}: {low} at least, {mean} on average, {high} at most" for what, low, mean, high in numbers)
    few = f" Each point is the mean of several of more than {MOST} readings." if thinned else ""
    return Chart(
        name=_NAME,
        title="Simulated GPU over time: no measurement" if simulated else _TITLE,
        description=f"{words}. Where a source had no reading there is a gap.{few}",
        spec=spec(_draw(rows, columns.wall_s / size, unit), readings=rows),
        numbers=table(_NAME, ("reading", "least", "mean", "most"), numbers),
    )


def _draw(rows: Rows, end: float, unit: str) -> alt.VConcatChart:
    gpus = sorted({row["gpu"] for row in rows})
    kinds = [kind for kind in _PANELS if any(row["kind"] == kind for row in rows)]
    colours = palette(dict(zip(gpus, cycle(_COLOURS))))
    panels = []
    for kind in kinds:
        top = alt.Scale(domain=[0, 100]) if kind == "utilisation" else alt.Scale(zero=kind != "temperature")
        panels.append(
            alt.Chart(data("readings"))
            .transform_filter(f"datum.kind === '{kind}'")
            .mark_line(strokeWidth=1.6, clip=True)
            .encode(
                x=over_time(end, unit if kind == kinds[-1] else ""),
                y=alt.Y("v:Q", title=_PANELS[kind][1], scale=top),
                color=alt.Color("gpu:N", scale=colours),
                tooltip=[alt.Tooltip("t:Q", title=f"at, {unit}", format=".4~f"), alt.Tooltip("v:Q", format=".4~f")],
            )
            .properties(width=WIDTH, height=100)
        )
    return alt.vconcat(*panels)
